"""Flows that are called the same way with and without a running event loop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast

from prefect import Flow

__all__ = ["RunnableFlow", "runnable_flow", "sigterm_cancels"]

P = ParamSpec("P")
R = TypeVar("R")


class RunnableFlow(Flow[P, Any], Generic[P, R]):  # pyright: ignore[reportInvalidTypeArguments]
    """An async Prefect flow with `run` and `arun`, also callable from code that is not async.

    `flow(...)` and `flow.run(...)` block and give the result where no event loop is running. Where one
    is (a notebook, another flow), they give something to await, like any async function; the results
    can be awaited too, so both uses have one type.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run the flow; see the class."""
        return self.run(*args, **kwargs)

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the flow and give its result; to be awaited where an event loop is running."""
        coroutine = self.arun(*args, **kwargs)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(coroutine)
        return cast(R, coroutine)

    def arun(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run the flow from async code."""
        return cast("Coroutine[Any, Any, R]", super().__call__(*args, **kwargs))

    def with_options(self, **options: Any) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A copy with other options, see `prefect.Flow.with_options`; it is called in the same ways."""
        copy = super().with_options(**options)
        # Prefect makes every copy a plain flow; it has the same attributes and lacks our methods.
        copy.__class__ = type(self)
        return cast(Self, copy)


def runnable_flow(**options: Any) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], RunnableFlow[P, R]]:
    """As Prefect's `@flow(...)`, for async functions, giving a `RunnableFlow`."""

    def decorate(fn: Callable[P, Coroutine[Any, Any, R]]) -> RunnableFlow[P, R]:
        return RunnableFlow(fn=fn, **options)

    return decorate


@contextmanager
def sigterm_cancels() -> Generator[None]:
    """Let SIGTERM cancel the running task, as Ctrl-C does, in a process that runs one flow for a person.

    Prefect's own handler raises in the midst of whatever is running; when that is a step's task, asyncio
    keeps the exception there, and the process goes on for ever. Runners of deployments need that handler:
    they ask whether it is installed.
    """
    task = asyncio.current_task()
    if task is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
