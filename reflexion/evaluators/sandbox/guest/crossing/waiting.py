"""Awaiting across: what one side awaits of the other runs there as a task of its own, beside all others.

While it runs, who awaits it looks after it again and again, and lets its own loop go on in between. So both sides'
loops move: what tests gather, limit, time out and cancel is gathered, limited, timed out and cancelled.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from ..failures import Refused

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Tasks", "carried_out"]

_TURNS = 3
"""Rounds that an idle loop makes each time the other side looks."""
_PAUSE = 0.005
"""Seconds between two looks at most."""

_pause = time.sleep


class Tasks:
    """What runs here and is awaited there."""

    def __init__(self) -> None:
        self._loop: Any = None
        self._running: dict[int, Any] = {}
        self._next = 0

    def start(self, awaitable: Any) -> tuple[int, bool, Any]:
        """Begin to carry out what can be awaited: its number, and what `look` says of it."""
        loop, idle = self._current()

        async def wait() -> Any:
            return await awaitable

        number, self._next = self._next, self._next + 1
        self._running[number] = loop.create_task(wait())
        if idle:
            _turn(loop)
        return (number, *self._state(number, cancelled=False))

    def look(self, number: int, cancel: bool) -> tuple[bool, Any]:
        """Whether it has ended, and what it returned; raises what it raised. `...`: it was cancelled as asked."""
        task = self._running.get(number)
        if task is None:
            raise Refused(f"no task {number}")
        if cancel and not task.done():
            task.cancel()
        loop, idle = self._current()
        if idle:
            _turn(loop)
        return self._state(number, cancelled=cancel)

    def _state(self, number: int, *, cancelled: bool) -> tuple[bool, Any]:
        task = self._running[number]
        if not task.done():
            return False, None
        del self._running[number]
        return True, ... if cancelled and task.cancelled() else task.result()

    def _current(self) -> tuple[Any, bool]:
        """The loop that runs here, or else one of our own that does not."""
        from asyncio import events

        running: Any = events._get_running_loop()  # pyright: ignore[reportAttributeAccessIssue]
        if running is not None:
            return running, False
        if self._loop is None:
            self._loop = events.new_event_loop()
        return self._loop, True


def _turn(loop: Any) -> None:
    """Carry a loop on as far as it comes without waiting."""
    for _ in range(_TURNS):
        loop.call_soon(loop.stop)
        loop.run_forever()


async def carried_out(link: Link, awaitable: Any) -> Any:
    """Await what lives on the other side."""
    from asyncio import CancelledError, events

    loop: Any = events._get_running_loop()  # pyright: ignore[reportAttributeAccessIssue]
    number, done, value = cast("tuple[int, bool, Any]", link.ask("start", awaitable))
    cancel, seconds = False, 0.0
    while not done:
        asked = False
        try:
            if loop is None:
                _pause(seconds)
            else:
                await _sleep(loop, seconds)
        except CancelledError:
            asked = cancel = True
        seconds = min(seconds + _PAUSE / 10, _PAUSE)
        done, value = cast("tuple[bool, Any]", link.ask("look", number, asked))
    if cancel and value is ...:
        raise CancelledError
    return value


async def _sleep(loop: Any, seconds: float) -> None:
    """As `asyncio.sleep`, which tests may have replaced."""
    future = loop.create_future()
    handle = loop.call_later(seconds, lambda: future.done() or future.set_result(None))
    try:
        await future
    finally:
        handle.cancel()
