"""This project: a batch flow, timed like plain Prefect until the server has recorded everything."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path

# Every peer's driver has what it works with loaded when its clock starts; Prefect loads this one late.
import fastapi.encoders  # noqa: F401
import openai  # noqa: F401
from common import ANSWER, Clock, prompt, work

from reflexion.flows.batch import batch_evaluation
from reflexion.flows.monitoring import Scope, report_from_records
from reflexion.run.batch_run import execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.tasks.draining import wait_until_recorded


async def main() -> None:
    todo = work()
    parser = argparse.ArgumentParser()
    parser.add_argument("--granularity", type=int, default=1, help="0: without Prefect")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--name", required=True)
    more = parser.parse_args(todo.options)
    os.environ["OPENAI_BASE_URL"] = todo.url
    dataset = more.folder / f"{todo.salt or 'problems'}-{todo.problems}.jsonl"
    if not dataset.exists():
        with dataset.open("w") as file:
            for number in range(todo.problems):
                line = {"id": str(number), "prompt": prompt(f"{todo.salt}{number}"), "answer": ANSWER}
                file.write(json.dumps(line) + "\n")
    parameters = BatchParameters(
        dataset=str(dataset),
        llm="mock",
        name=more.name,
        runs=str(more.folder / "runs"),
        cache=str(more.folder / "steps"),
        concurrency=todo.concurrency,
        steps_per_task_run=max(more.granularity, 1),
    )
    clock = Clock()
    if more.granularity == 0:
        result = await execute_batch(parameters)
        clock.tell(solved=result.summary.solved, made=0, recorded=0, calls=result.summary.llm_calls)
        return
    state = await batch_evaluation.arun(parameters, return_state=True)  # type: ignore[call-arg]
    result = await state.result()
    made = json.loads(state.message)["reflexion"]["task_runs"]
    flow_run = state.state_details.flow_run_id
    missing = await wait_until_recorded(flow_run, made, stalled=60)
    timed = clock.stop()
    report = await report_from_records(Scope(flow_run=flow_run))
    figures = {
        "solved": result.summary.solved,
        "calls": result.summary.llm_calls,
        "made": made,
        "recorded": made - missing,
        "targets": [target.model_dump(mode="json") for target in report.targets],
        "steps_recorded": sum(s.cached + s.executed + s.errors for s in report.steps.values()),
    }
    clock.tell(**figures, **timed)


asyncio.run(main())
