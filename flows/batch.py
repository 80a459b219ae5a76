"""`batch_evaluation`: a dataset as one flow run, each step a task run."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import cast

import prefect.runtime.flow_run
from prefect.states import Completed

from flows.artifacts import BatchWatch, watched
from flows.submitted import batch_flow, leave_result
from reflexion.batch import BatchResult, Progress, execute_batch
from reflexion.config import BatchParameters
from reflexion.session import Session
from reflexion.steps import Runner, StepObserver
from tasks.bulk import bulk_runs
from tasks.limits import llm_gate
from tasks.recorded import MadeRuns
from tasks.steps import task_runs

__all__ = ["OBSERVERS", "PROGRESS", "batch_evaluation"]

PROGRESS: ContextVar[Progress | None] = ContextVar("reflexion_progress", default=None)
"""Who is told how a batch goes on, when it is run from this process."""

OBSERVERS: ContextVar[tuple[StepObserver, ...]] = ContextVar("reflexion_observers", default=())
"""Who is told of every step, when a batch is run from this process."""


def run_name() -> str:
    """Dataset, model and strategy: what tells runs apart in the UI."""
    given = prefect.runtime.flow_run.parameters.get("parameters")
    p = given if isinstance(given, BatchParameters) else BatchParameters.model_validate(given)
    return p.name or f"{p.dataset} · {p.llm or 'default model'} · {p.strategy}"


@batch_flow(
    name="batch-evaluation",
    description="Run a dataset through the Reflexion loop: trial → evaluate → reflect → memorize.",
    flow_run_name=run_name,
    persist_result=False,
    validate_parameters=True,
)
async def batch_evaluation(parameters: BatchParameters) -> BatchResult:
    """Run a dataset, with bounded concurrency; a problem that fails never fails the others.

    Returns:
        The run's folder and its figures.

    Raises:
        InputError: the dataset or a parameter is wrong.
        RunFailedError: the endpoint refuses, or was never reached.
    """
    size, made, watch = parameters.steps_per_task_run, MadeRuns(), BatchWatch(PROGRESS.get())

    def runner(session: Session) -> AbstractAsyncContextManager[Runner]:
        return task_runs(session, made) if size == 1 else bulk_runs(session, size, made)

    async with watched(watch):
        result = await execute_batch(
            parameters,
            runner=runner,
            gate=await llm_gate(),
            observers=(*OBSERVERS.get(), watch),
            progress=watch,
        )
    await watch.publish(result)
    await leave_result(result, parameters)
    # The state carries the result to the caller, and to the record what a reader of it needs.
    note = watch.note(made.task_runs, size, result.summary)
    return cast(BatchResult, Completed(data=result, message=note.to_message()))
