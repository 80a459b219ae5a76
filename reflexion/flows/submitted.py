"""Batches handed to a deployment, and what is done with them afterwards: wait, take the result, cancel."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Coroutine, Generator
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.deployments import arun_deployment
from prefect.states import Cancelling
from prefect.utilities.urls import url_for

from reflexion import errors
from reflexion.errors import RunFailedError
from reflexion.flows.deployed import find_deployment, unserved
from reflexion.flows.runnable import RunnableFlow, stoppable
from reflexion.flows.shards.following import PATIENCE_SECONDS, transient
from reflexion.flows.shards.launching import insist
from reflexion.run.batch_run import BatchResult
from reflexion.run.parameters import BatchParameters
from reflexion.run.run_folder import default_run_name
from reflexion.sharding.shard_parameters import absolute, results_url
from reflexion.sharding.shard_results import get_result, put_result
from reflexion.tasks.prefect_settings import aload_settings

__all__ = ["BatchFlow", "SubmittedRun", "batch_flow", "leave_result"]

P = ParamSpec("P")
A = TypeVar("A", bound=BatchParameters)
R = TypeVar("R")

POLL_SECONDS = 1.0

_ERROR = re.compile(r"\b(\w+Error): (.*)", re.DOTALL)


def _either(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run it where no event loop is running; where one is, give it to be awaited."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    return cast(R, coroutine)


class SubmittedRun:
    """A batch that a deployment carries out.

    `wait`, `result` and `cancel` block; where an event loop is running they are awaited. A handle can be
    made again from the flow run's id, in another process too.

    Attributes:
        id: the flow run's id.
        name: the run's name.
        folder: where the run's folder is, as the worker sees it.
    """

    def __init__(self, id: UUID, name: str, folder: Path, results: str | None) -> None:
        self.id, self.name, self.folder = id, name, folder
        self._results = results

    def __await__(self) -> Generator[Any, None, Self]:
        """A handle can be awaited, which gives itself: see `reflexion.flows.runnable`."""
        yield from ()
        return self

    def __repr__(self) -> str:
        return f"SubmittedRun({self.name!r}, {self.id})"

    @property
    def url(self) -> str:
        """Its page in Prefect's UI."""
        return url_for("flow-run", obj_id=self.id) or str(self.id)

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the flow run has ended, however it ended.

        Args:
            timeout: seconds at most.

        Raises:
            TimeoutError: it has not ended by then; it goes on.
            RunFailedError: nobody takes it up: no worker is running, or its pool is paused.
        """
        return _either(self._wait(timeout))

    def result(self, timeout: float | None = None) -> BatchResult:
        """Wait for the result.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds; it goes on.
            InputError, RunFailedError: as the batch raised it, or the batch was cancelled.
            StorageError: the result cannot be read from here.
        """
        return _either(self._result(timeout))

    def cancel(self) -> Self:
        """Cancel the flow run: no further call is made, what is finished is kept, the rest is marked."""
        return _either(self._cancel())

    async def _state(self) -> State[Any] | None:
        async def ask() -> State[Any] | None:
            async with get_client() as client:
                return (await client.read_flow_run(self.id)).state

        return await insist(ask, transient, PATIENCE_SECONDS)

    async def _wait(self, seconds: float | None) -> Self:
        begun, told = time.monotonic(), 0.0
        while True:
            state = await self._state()
            if state is not None and state.is_final():
                return self
            waited = time.monotonic() - begun
            if seconds is not None and waited > seconds:
                raise TimeoutError(f"{self.name} has not ended after {seconds:g} s (it is {state and state.name})")
            if state is not None and state.type is StateType.SCHEDULED and waited - told > WORKER_SECONDS:
                told = waited
                await self._check_served()
            await asyncio.sleep(POLL_SECONDS)

    async def _check_served(self) -> None:
        async with get_client() as client:
            run = await client.read_flow_run(self.id)
            if run.deployment_id is None or run.next_scheduled_start_time is None:
                return
            reason = await unserved(client, await client.read_deployment(run.deployment_id))
        if reason is not None:
            raise RunFailedError(f"{self.name} waits in vain: {reason}")

    async def _result(self, seconds: float | None) -> BatchResult:
        await self._wait(seconds)
        state = await self._state()
        assert state is not None
        if state.type is StateType.COMPLETED:
            return await get_result(self._results, str(self.id), self.folder)
        if state.type is StateType.CANCELLED:
            raise RunFailedError(f"{self.name} was cancelled; {self.folder} keeps what is finished")
        found = _ERROR.search(state.message or "")
        kind = getattr(errors, found[1], RunFailedError) if found is not None else RunFailedError
        raise kind(found[2] if found is not None else f"{self.name} ended as {state.name}: {state.message}")

    async def _cancel(self) -> Self:
        async def cancel() -> None:
            async with get_client() as client:
                await client.set_flow_run_state(self.id, Cancelling())

        await insist(cancel, transient, PATIENCE_SECONDS)
        return self


WORKER_SECONDS = 20.0
"""After so long in the queue it is asked whether anybody serves the deployment."""


class BatchFlow(RunnableFlow[[A], BatchResult], Generic[A]):
    """A flow that evaluates a dataset; it is also handed to a deployment by `submit`."""

    def submit(self, parameters: A, deployment: str | None = None) -> SubmittedRun:
        """Hand a batch to a deployment of this flow; returns at once, and is awaited in async code.

        Called in another flow, the batch is linked to it as a subflow.

        Args:
            deployment: `NAME` or `FLOW/NAME`; None: the flow's only one, or the one called `default`.

        Raises:
            ConfigurationError: there is no such deployment, it was made by another version, or its pool
                is paused.
        """
        return _either(self.asubmit(parameters, deployment))

    async def asubmit(self, parameters: A, deployment: str | None = None) -> SubmittedRun:
        """As `submit`, for async code."""
        settings = await aload_settings()
        async with get_client() as client:
            found = await find_deployment(client, self, deployment)
            await unserved(client, found)  # raises what waiting would not mend
            usual = default_run_name(
                parameters.dataset, parameters.llm or "default", parameters.strategy, datetime.now()
            )
            name = parameters.name or f"{usual}-{secrets.token_hex(2)}"
            root = (Path(parameters.runs) if parameters.runs else settings.runs).resolve()
            results = results_url(parameters, settings)
            changes: dict[str, Any] = {"name": name, "dataset": absolute(parameters.dataset)}
            if results is None:
                changes["runs"] = str(root)
            run = await arun_deployment(
                found.id,
                client=client,
                parameters={
                    "parameters": parameters.model_copy(update=changes).model_dump(mode="json", exclude_defaults=True)
                },
                timeout=0,
            )
        return SubmittedRun(run.id, name, root / name, results)


def batch_flow(**options: Any) -> Callable[[Callable[[A], Coroutine[Any, Any, BatchResult]]], BatchFlow[A]]:
    """As `runnable_flow`, for flows that evaluate a dataset."""

    def decorate(fn: Callable[[A], Coroutine[Any, Any, BatchResult]]) -> BatchFlow[A]:
        return BatchFlow(fn=stoppable(fn), **options)

    return decorate


async def leave_result(result: BatchResult, parameters: BatchParameters) -> None:
    """Leave the result of this flow run for who submitted it, if it was submitted to a deployment."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None:
        await put_result(result, results_url(parameters, await aload_settings()), str(context.flow_run.id))
