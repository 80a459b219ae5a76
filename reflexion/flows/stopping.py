"""Flow runs that stop when they are told to: by SIGTERM, by a terminal that closes, or by a cancellation in the UI.

Prefect's own handler of SIGTERM raises in the midst of whatever is running. When that is a step's task,
asyncio keeps the exception there, and the process goes on calling models. Here SIGTERM cancels the
flow's task, which every step hears; and a flow run asks the server now and then whether it was
cancelled, since not every flow run has a runner that would tell it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar, cast
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException, TerminationSignal
from prefect.states import Cancelled

__all__ = ["FOREGROUND", "until_stopped"]

R = TypeVar("R")

logger = logging.getLogger("reflexion.prefect")

FOREGROUND: ContextVar[bool] = ContextVar("reflexion_foreground", default=False)
"""Whether a person waits for the flow in this process: SIGTERM is then what Ctrl-C is."""

WATCH_SECONDS = 2.0
"""Seconds between two questions to the server whether the flow run was cancelled."""

_CANCELLED = (StateType.CANCELLING, StateType.CANCELLED)


class _Stop:
    """Cancels a task once, whoever asks for it and how often."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.cause: Literal["signal", "cancelled"] | None = None

    def __call__(self, cause: Literal["signal", "cancelled"]) -> None:
        if self.cause is None:
            self.cause = cause
            self._task.cancel()


async def until_stopped(work: Coroutine[Any, Any, R]) -> R:
    """Carry out what a flow does, until it is done or stopped.

    Returns:
        What the work gives; when the flow run was cancelled, the state `Cancelled`, which Prefect takes
        for the flow run's own.

    Raises:
        TerminationSignal: SIGTERM ended it, and nobody had cancelled the flow run.
    """
    task, context = asyncio.current_task(), FlowRunContext.get()
    run = context.flow_run.id if context is not None and context.flow_run is not None else None
    if task is None or run is None:
        return await work
    stop = _Stop(task)
    watcher = asyncio.create_task(_watch(run, stop))
    with _signals_stop(stop):
        try:
            return await work
        except asyncio.CancelledError:
            if stop.cause is None or (stop.cause == "signal" and FOREGROUND.get()):
                raise
            task.uncancel()
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
        if stop.cause == "cancelled" or await _is_cancelled(run):
            return cast(R, Cancelled(message="Cancelled: what was finished is kept, the rest is marked as not run."))
    raise TerminationSignal(signal.SIGTERM)


async def _watch(run: UUID, stop: _Stop) -> None:
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if await _is_cancelled(run):
            stop("cancelled")
            return


async def _is_cancelled(run: UUID) -> bool:
    """Whether the server says so; one that does not answer says nothing."""
    try:
        async with get_client() as client:
            found = await client.read_flow_run(run)
    except (httpx.HTTPError, PrefectException, OSError):
        return False
    return found.state is not None and found.state.type in _CANCELLED


@contextmanager
def _signals_stop(stop: _Stop) -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # under nohup it is ignored, and stays so
        before[signal.SIGHUP] = signal.SIG_DFL
    for number in before:
        loop.add_signal_handler(number, stop, "signal")
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
