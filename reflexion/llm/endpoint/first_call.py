"""Lets the first call of a model go ahead: what its endpoint wants otherwise is then learnt once, not by each.

Whoever comes meanwhile waits until that call has ended, but for a moment only: a slow answer holds nobody up, and
neither does a call that waits to be made again.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

__all__ = ["PATIENCE", "Scout"]

PATIENCE = 2.0
"""Seconds the others wait at the most."""


class Scout:
    """The first call of one model, in each event loop."""

    def __init__(self) -> None:
        self._first: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[None]] = (
            weakref.WeakKeyDictionary()
        )

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Held during a call: the first one begins at once, the others when it is back."""
        loop = asyncio.get_running_loop()
        first = self._first.get(loop)
        if first is None:
            first = self._first[loop] = loop.create_future()
            try:
                yield
            finally:
                self.let_go()
            return
        if not first.done():
            await asyncio.wait({first}, timeout=PATIENCE)
        yield

    def let_go(self) -> None:
        """The first call has ended, or waits to be made again: the others need wait no longer."""
        first = self._first.get(asyncio.get_running_loop())
        if first is not None and not first.done():
            first.set_result(None)
