"""An event loop whose clock jumps to the next timer: minutes of waiting pass at once, the same every time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Passes the time a loop would wait for instead of waiting."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and no timer is set")
        self.passed += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return 1000.0 + self._virtual.passed


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, with a clock of its own: `asyncio.get_running_loop().time`."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(coroutine)
