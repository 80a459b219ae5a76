"""Waiting for something to become true, never for a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

__all__ = ["wait_until"]


async def wait_until(condition: Callable[[], Awaitable[bool] | bool], seconds: float = 15.0) -> None:
    """Look again and again until `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if await answer if isinstance(answer, Awaitable) else answer:
            return
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        await asyncio.sleep(0.01)
