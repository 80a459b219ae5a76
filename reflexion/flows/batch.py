"""`batch_evaluation`: a dataset as one flow run, each step a task run."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import cast

import prefect.runtime.flow_run
from prefect.context import FlowRunContext
from prefect.states import Completed

from reflexion.flows.artifacts import BatchWatch, watched
from reflexion.flows.submitted import batch_flow, leave_result
from reflexion.loop.steps import Runner, StepObserver
from reflexion.run.batch_run import BatchResult, Progress, execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.run.run_names import default_run_name
from reflexion.run.wiring import Session, spec_of
from reflexion.settings import Settings
from reflexion.tasks.draining import MadeRuns
from reflexion.tasks.global_limit import llm_gate
from reflexion.tasks.prefect_settings import aload_settings
from reflexion.tasks.shared_runs import bulk_runs
from reflexion.tasks.step_tasks import task_runs

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


def folder_name(parameters: BatchParameters, settings: Settings) -> str | None:
    """Name of the folder of a deployment's run, so that one that is started again goes on in its folder.

    None for other runs: their folders are named by the time at which they begin.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or run.deployment_id is None or run.created is None:
        return None
    begun = run.created.astimezone().replace(tzinfo=None)
    usual = default_run_name(parameters.dataset, spec_of(parameters, settings), parameters.strategy, begun)
    return f"{usual}-{run.id.hex[-6:]}"


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
    settings = await aload_settings()
    size, made, watch = parameters.steps_per_task_run, MadeRuns(), BatchWatch(PROGRESS.get())

    def runner(session: Session) -> AbstractAsyncContextManager[Runner]:
        return task_runs(session, made) if size == 1 else bulk_runs(session, size, made)

    async with watched(watch):
        result = await execute_batch(
            parameters,
            runner=runner,
            settings=settings,
            run_name=folder_name(parameters, settings),
            gate=await llm_gate(),
            observers=(*OBSERVERS.get(), watch),
            progress=watch,
        )
    await watch.publish(result)
    await leave_result(result, parameters)
    # The state carries the result to the caller, and to the record what a reader of it needs.
    note = watch.note(made.task_runs, size, result.summary)
    return cast(BatchResult, Completed(data=result, message=note.to_message()))
