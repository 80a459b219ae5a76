"""Retries: exponential backoff with full jitter, `Retry-After` respected, bounded in number and time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeVar

from reflexion.errors import EndpointError, RetryableError
from reflexion.run.workers import CREW

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["LASTING_ATTEMPTS", "backoff_seconds", "retry_after_failure"]

T = TypeVar("T")

LASTING_ATTEMPTS = 3
"""A server that is not there, or a page that is not JSON, is seldom cured by waiting longer."""

_FIRST, _MOST = 0.5, 30.0


def backoff_seconds(failures: int, error: BaseException | None) -> float:
    """Seconds to wait: never less than the endpoint asks for.

    Args:
        failures: how often the call failed without being told when to come back, this time included.
        error: this failure.
    """
    wait = random.uniform(0.0, min(_MOST, _FIRST * 2.0 ** max(0, failures - 1)))
    if isinstance(error, RetryableError) and error.retry_after is not None:
        # A little apart, for those who were all told the same time.
        return error.retry_after + min(wait, 0.25 * error.retry_after + 0.05)
    return wait


async def retry_after_failure(
    first: RetryableError,
    attempt: Callable[[], Awaitable[T]],
    *,
    max_attempts: int,
    seconds_left: Callable[[], float],
    on_retry: Callable[[RetryableError], None],
) -> T:
    """Try again after a first attempt failed, as long as attempts and time allow.

    Args:
        first: the error of the first attempt.
        attempt: makes one more attempt.
        max_attempts: attempts in all, the first one included.
        seconds_left: time that is left; no wait is begun that would not fit.
        on_retry: is told of each error that leads to another attempt.

    Raises:
        RetryableError: of the last attempt.
        PermanentError: as soon as one occurs.
    """
    # The first attempt of a call goes without this machinery, which most calls never need.
    from tenacity import AsyncRetrying, retry_if_exception_type

    pending: list[RetryableError] = [first]
    untold = 0

    def error_of(state: RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome else None

    def wait(state: RetryCallState) -> float:
        nonlocal untold
        error = error_of(state)
        # Being told when to come back is no reason to stay away longer the next time.
        untold += not (isinstance(error, RetryableError) and error.retry_after is not None)
        return backoff_seconds(untold, error)

    def stop(state: RetryCallState) -> bool:
        error = error_of(state)
        if isinstance(error, RetryableError) and error.final:
            return True
        lasting = isinstance(error, EndpointError) and error.lasting
        bound = min(max_attempts, LASTING_ATTEMPTS) if lasting else max_attempts
        if state.attempt_number >= bound or state.upcoming_sleep >= seconds_left():
            return True
        if isinstance(error, RetryableError):
            on_retry(error)
        return False

    async def step() -> T:
        if pending:
            raise pending.pop()
        return await attempt()

    return await AsyncRetrying(
        retry=retry_if_exception_type(RetryableError), wait=wait, stop=stop, sleep=_sleep, reraise=True
    )(step)


async def _sleep(seconds: float) -> None:
    crew = CREW.get()
    with nullcontext() if crew is None else crew.away():
        await asyncio.sleep(seconds)
