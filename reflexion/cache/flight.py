"""One computation for identical steps: within the process, and across all that share the cache."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

from reflexion.cache.process_cache import NullCache
from reflexion.cache.step_cache import CachedStep, StepCache

__all__ = ["compute_once"]

_Flights = dict[tuple[int, str, bool], asyncio.Future[CachedStep | None]]

# Keyed by event loop: a future can only be awaited in its own.
_flights: WeakKeyDictionary[asyncio.AbstractEventLoop, _Flights] = WeakKeyDictionary()
_serial = itertools.count()


async def compute_once(
    cache: StepCache,
    key: str,
    holder: str,
    compute: Callable[[], Awaitable[CachedStep]],
    *,
    refresh: bool = False,
    looked_up: bool = False,
) -> tuple[CachedStep, bool]:
    """The entry of a key: looked up, taken over from whoever computes it right now, or computed.

    Of identical calls under way at once, in this process or another that shares the cache, one
    computes. When it fails its error is its own; those that waited try one after another.

    Args:
        cache: where to look and to put. With a `NullCache` every call computes.
        key: the step's key.
        holder: names the caller in the lock.
        compute: makes the entry; called at most once.
        refresh: do not use an entry from before this call.
        looked_up: whether the caller just found the entry missing, so that the first look can be left out.

    Returns:
        The entry, and whether it was there (or another call computed it).
    """
    if isinstance(cache, NullCache):
        return await compute(), False
    flights = _flights.setdefault(asyncio.get_running_loop(), {})
    # Refreshing calls are apart: they must not be given what another only looked up.
    flight = (id(cache), key, refresh)
    while (leader := flights.get(flight)) is not None:
        # Shielded: whoever stops waiting must not stop the others.
        entry = await asyncio.shield(leader)
        if entry is not None:
            return entry, True
    mine: asyncio.Future[CachedStep | None] = asyncio.get_running_loop().create_future()
    flights[flight] = mine
    entry = None
    try:
        entry, found = await _across_processes(
            cache, key, f"{holder}#{next(_serial)}", compute, refresh=refresh, looked_up=looked_up
        )
        return entry, found
    finally:
        del flights[flight]
        mine.set_result(entry)


async def _across_processes(
    cache: StepCache,
    key: str,
    holder: str,
    compute: Callable[[], Awaitable[CachedStep]],
    *,
    refresh: bool,
    looked_up: bool,
) -> tuple[CachedStep, bool]:
    began = time.time()
    if not refresh and not looked_up and (found := await cache.get(key)) is not None:
        return found, True
    await cache.acquire(key, holder)
    try:
        found = await cache.get(key)
        if found is not None and (not refresh or found.created >= began):
            return found, True
        entry = await compute()
        await cache.put(entry)
        return entry, False
    finally:
        await cache.release(key, holder)
