"""Many small operations of one event loop in few hops: whatever was asked for meanwhile goes together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["Batcher"]

T = TypeVar("T")
R = TypeVar("R")


class _Lane(Generic[T, R]):
    """The state of one event loop."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self.workers: set[asyncio.Task[None]] = set()


class Batcher(Generic[T, R]):
    """Carries items out in batches, in order, one batch at a time in each event loop.

    The first item starts at once (in the next turn of the loop); what arrives while a batch is under
    way forms the next one. A lone caller waits no longer than without it, a thousand share a hop.

    Args:
        run: carries out a list of items; gives one result, or exception, for each in order.
        limit: items of a batch at most.
    """

    def __init__(self, run: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]], limit: int) -> None:
        self._run = run
        self._limit = limit
        self._lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane[T, R]] = WeakKeyDictionary()

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue an item; the future gets its result. To be called in the event loop that awaits it."""
        return self.submit_many((item,))[0]

    def submit_many(self, items: Sequence[T]) -> list[asyncio.Future[R]]:
        """Queue items that belong together; they are carried out in order."""
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            lane = self._lanes[loop] = _Lane()
        futures: list[asyncio.Future[R]] = []
        for item in items:
            future: asyncio.Future[R] = loop.create_future()
            lane.waiting.append((item, future))
            futures.append(future)
        if not lane.workers:
            worker = loop.create_task(self._work(lane))
            lane.workers.add(worker)
        return futures

    async def drain(self) -> None:
        """Wait until everything the running event loop queued is carried out."""
        lane = self._lanes.get(asyncio.get_running_loop())
        if lane is not None and lane.workers:
            await asyncio.wait(set(lane.workers))

    async def _work(self, lane: _Lane[T, R]) -> None:
        try:
            while lane.waiting:
                batch = [lane.waiting.popleft() for _ in range(min(self._limit, len(lane.waiting)))]
                await self._carry_out(batch)
        finally:
            lane.workers.clear()
            # Reached only when the loop is being shut down: nobody may be left waiting.
            while lane.waiting:
                lane.waiting.popleft()[1].cancel()

    async def _carry_out(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        wanted = [(item, future) for item, future in batch if not future.cancelled()]
        if not wanted:
            return
        try:
            results = await self._run([item for item, _ in wanted])
        except asyncio.CancelledError:
            for _, future in wanted:
                future.cancel()
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is belongs to those who asked, not to this task
            results = [exc] * len(wanted)
        for (_, future), result in zip(wanted, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
