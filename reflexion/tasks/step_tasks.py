"""The four steps as Prefect tasks, and the runner that carries each step out as one task run."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import prefect.runtime.task_run
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.states import Completed

from reflexion.errors import RetryableError
from reflexion.loop.steps import Runner, StepCall, perform
from reflexion.run.wiring import Session
from reflexion.tasks.draining import MadeRuns, Pace, begin_at_once, flush_local_server, forget_results, wait_for_room
from reflexion.tasks.result_storage import SERIALIZER, StepKeyPolicy, StepLocks, StepStorage, adopt
from reflexion.tasks.step_records import COMPLETED, JUDGED_BY_MODEL, StepRecord, write_message
from reflexion.types import StepName, StepOutput

__all__ = ["STEP_TASKS", "evaluate", "memorize", "reflect", "task_runs", "trial"]

RETRIES = 2
"""Times a step is run again. The client has retried its calls by then: these are for what lasts longer."""

BLOCK_NAME = "reflexion-steps"


async def retry_if_retryable(step: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed step may succeed when run again."""
    error = await state.result(raise_on_failure=False)  # pyright: ignore[reportGeneralTypeIssues]
    return isinstance(error, RetryableError)


def run_name() -> str:
    """Name of a task run: step, problem and trial."""
    call = prefect.runtime.task_run.parameters["call"]
    assert isinstance(call, StepCall)
    return call.name


def _step(name: StepName, description: str) -> Task[[StepCall], Any]:
    @task(
        name=name,
        description=description,
        task_run_name=run_name,
        retries=RETRIES,
        retry_delay_seconds=[1, 5],
        retry_jitter_factor=1,
        retry_condition_fn=retry_if_retryable,
        cache_policy=NO_CACHE,
        result_serializer=SERIALIZER,
        persist_result=False,
        cache_result_in_memory=False,
        log_prints=False,
    )
    async def step(call: StepCall) -> State[Any]:
        started = time.time()
        output = await perform(call)
        record = StepRecord(call.name, COMPLETED, started, time.time() - started, output=output)
        return Completed(data=adopt(call, output), message=write_message([record], started))

    return step


trial = _step("trial", "One attempt at a problem.")
evaluate = _step("evaluate", "The verdict on a trial.")
reflect = _step("reflect", "The lesson drawn from a failed trial.")
memorize = _step("memorize", "Keep a lesson in the episodic memory; idempotent, never cached.")

STEP_TASKS: dict[StepName, Task[[StepCall], Any]] = {
    "trial": trial,
    "evaluate": evaluate,
    "reflect": reflect,
    "memorize": memorize,
}


@asynccontextmanager
async def task_runs(session: Session, made: MadeRuns | None = None) -> AsyncGenerator[Runner]:
    """A runner that makes each step a task run of the current flow run.

    Expensive steps are cached by Prefect under the step's own key, for their time to live; identical
    ones under way at once are computed once.

    Args:
        made: counts the task runs made.
    """
    made = made or MadeRuns()
    cache, locks = session.cache, None
    steps = dict(STEP_TASKS)
    if cache is not None:
        locks = StepLocks(cache)
        storage = StepStorage(location=cache.location)
        # Prefect takes a storage block only once its server knows it.
        await storage.save(BLOCK_NAME, overwrite=True)  # pyright: ignore[reportGeneralTypeIssues]
        storage.bind(cache)
        policy = StepKeyPolicy(isolation_level="SERIALIZABLE", lock_manager=locks)
        for name in ("trial", "evaluate", "reflect"):
            seconds = session.ttl.get(name)
            steps[name] = steps[name].with_options(
                cache_policy=policy,
                cache_expiration=timedelta(seconds=seconds) if seconds is not None else None,
                result_storage=storage,
                persist_result=True,
            )

    # A cached verdict's record does not tell that a model stands behind it; a tag does.
    judge = steps["evaluate"].with_options(tags=[JUDGED_BY_MODEL])

    pace = Pace()

    async def run(call: StepCall) -> StepOutput | None:
        await wait_for_room()
        await pace.wait()
        made.task_runs += 1
        by_model = call.step == "evaluate" and call.evaluator.config.get("model") is not None
        try:
            await begin_at_once(judge if by_model else steps[call.step], call=call)
        finally:
            pace.ended()
        forget_results()
        return call.output if call.executed else call.restored

    try:
        yield run
    finally:
        if locks is not None:
            await locks.drain()
        context = FlowRunContext.get()
        if context is not None and context.flow_run is not None:
            await flush_local_server(context.flow_run.id, made.task_runs)
