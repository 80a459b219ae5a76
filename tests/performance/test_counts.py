"""What a batch costs in things that can be counted: they do not depend on the machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.context import FlowRunContext

from reflexion.flows.batch import OBSERVERS, batch_evaluation
from reflexion.run.parameters import BatchParameters
from reflexion.tasks.draining import wait_until_recorded
from reflexion.testing import ScriptedEndpoint
from reflexion.types import StepName, StepOutput
from tests.redis_server import RedisServer
from tests.support.evals import CALLS, write_problems
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

PROBLEMS = 24
STEPS = 6
"""Steps of a two-trial episode: twice trial and evaluate, once reflect and memorize."""

EVENTS = 2
"""Events of a task run: running, ended."""


async def run(dataset: str, **more: Any) -> tuple[Path, str, int]:
    """Run a batch; its folder, the flow run's id and the task runs it made, all of them recorded."""
    parameters = BatchParameters(dataset=dataset, llm="mock", concurrency=PROBLEMS, **more)
    state: Any = await batch_evaluation.arun(parameters, return_state=True)  # type: ignore[call-arg]
    result = await state.result()
    made = json.loads(state.message)["reflexion"]["task_runs"]
    assert result.summary.solved == PROBLEMS
    assert await wait_until_recorded(state.state_details.flow_run_id, made) == 0, "records were lost"
    return result.folder, str(state.state_details.flow_run_id), made


def events_of(flow_run: str) -> int:
    """Events of the task runs of a flow run that the server has kept."""
    wanted = {
        "event": {"prefix": ["prefect.task-run."]},
        "related": {"id": [f"prefect.flow-run.{flow_run}"], "role": ["flow-run"]},
    }
    answer = httpx.post(f"{os.environ['PREFECT_API_URL']}/events/filter", json={"filter": wanted}, timeout=30)
    answer.raise_for_status()
    return int(answer.json()["total"])


@pytest.mark.parametrize("size", [1, 8])
async def test_calls_task_runs_and_events(size: int, openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    problems = write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    _, flow_run, made = await run(problems, steps_per_task_run=size)
    assert openai_endpoint.stats.calls == PROBLEMS * CALLS
    if size == 1:
        assert made == PROBLEMS * STEPS
    else:
        # Full waves would be a ninth as many; a wave leaves half empty at worst, when its time is up.
        assert PROBLEMS * STEPS / size <= made <= PROBLEMS * STEPS / 2
    await wait_until(lambda: events_of(flow_run) >= made * EVENTS, 60)
    assert events_of(flow_run) == made * EVENTS


class Kept:
    """Sees how many task runs the flow run's context remembers at the end of each step."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def record_error(self, step: StepName, error: BaseException) -> None:
        raise AssertionError("no step fails here") from error

    def record_step(self, step: StepName, output: StepOutput | None, wall_seconds: float) -> None:
        context = FlowRunContext.get()
        assert context is not None
        self.seen.append(len(context.run_results) + len(context.task_run_assets))


@pytest.mark.parametrize("size", [1, 8])
async def test_nothing_of_finished_task_runs_is_kept(
    size: int, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    kept = Kept()
    token = OBSERVERS.set((kept,))
    try:
        problems = write_problems(tmp_path / "problems.jsonl", PROBLEMS)
        await batch_evaluation.arun(
            BatchParameters(dataset=problems, llm="mock", concurrency=2, steps_per_task_run=size)
        )
    finally:
        OBSERVERS.reset(token)
    assert len(kept.seen) == PROBLEMS * STEPS
    # Two episodes at a time have two steps under way; shared task runs of four kinds may be open.
    assert max(kept.seen) <= 2 * 4


async def test_a_cached_batch_makes_no_call_and_few_task_runs(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    problems = write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    await run(problems, steps_per_task_run=8, name="first")
    calls = openai_endpoint.stats.calls
    _, _, made = await run(problems, steps_per_task_run=8, name="again")
    assert openai_endpoint.stats.calls == calls
    # Steps from the cache share records by hundreds: two kinds of them; two verdicts and a lesson are kept again.
    assert made == 2 + PROBLEMS * 2 / 8 + PROBLEMS / 8


async def test_look_ups_of_a_cached_batch_share_round_trips(
    openai_endpoint: ScriptedEndpoint, redis_server: RedisServer, tmp_path: Path
) -> None:
    problems = write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    cache = redis_server.url
    await run(problems, steps_per_task_run=8, name="first", cache=cache)
    before = reads(redis_server)
    await run(problems, steps_per_task_run=8, name="again", cache=cache)
    # Three look-ups an episode, each of which is also counted, all episodes together; the connection takes
    # a few of its own.
    assert reads(redis_server) - before < PROBLEMS


def reads(server: RedisServer) -> int:
    """How often the server was sent something, whatever the number of commands in it."""
    import redis

    with redis.Redis.from_url(server.url) as client:
        return int(client.info("stats")["total_reads_processed"])  # type: ignore[index]


async def test_bytes_of_an_episode(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    problems = write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    steps = tmp_path / "steps"
    folder, flow_run, _ = await run(problems, steps_per_task_run=8, cache=str(steps))
    record = (folder / "episodes.jsonl").stat().st_size / PROBLEMS
    cached = sum(path.stat().st_size for path in steps.rglob("*") if path.is_file()) / PROBLEMS
    body = {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200}
    rows = httpx.post(f"{os.environ['PREFECT_API_URL']}/task_runs/filter", json=body, timeout=30).json()
    messages = sum(len(row["state"]["message"]) for row in rows) / PROBLEMS
    assert record < 3000, "of the run's record"
    assert cached < 6000, "of the step cache"
    assert messages < STEPS * 150, "of Prefect's state messages"
