"""Flows that are called the same way with and without a running event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, get_type_hints

from prefect import Flow

from reflexion.flows.stopping import until_stopped

__all__ = ["RunnableFlow", "runnable_flow", "stoppable"]

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
        return RunnableFlow(fn=stoppable(fn), **options)

    return decorate


def stoppable(fn: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The function of a flow that ends in seconds when its flow run is cancelled: see `reflexion.flows.stopping`."""

    @wraps(fn)
    async def until_done(*args: P.args, **kwargs: P.kwargs) -> R:
        return await until_stopped(fn(*args, **kwargs))

    # Prefect looks annotations up where the function lies; this one lies elsewhere, so it has the types.
    until_done.__annotations__ = get_type_hints(fn)
    until_done.__signature__ = inspect.signature(fn, eval_str=True)  # type: ignore[attr-defined]
    return until_done
