"""A step cache that forgets what is older than a run: what `--refresh` means."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from reflexion.cache.step_cache import CachedStep, CacheFilter, CacheStats, StepCache
from reflexion.types import StepName

__all__ = ["FreshCache"]


class FreshCache:
    """Entries from before `since` count as missing; everything else is the cache's own business.

    What the run itself computes is found again, so identical steps are still computed once, one after
    another as well as at the same time.

    Args:
        cache: where entries are kept; whoever opened it closes it.
        since: Unix time in seconds; None: now.
    """

    def __init__(self, cache: StepCache, since: float | None = None) -> None:
        self._cache = cache
        self._since = time.time() if since is None else since

    @property
    def location(self) -> str:
        """The cache's."""
        return self._cache.location

    async def get(self, key: str) -> CachedStep | None:
        """The entry, or None when it is missing or too old."""
        entry = await self._cache.get(key)
        return entry if entry is not None and entry.created >= self._since else None

    async def get_many(self, keys: Sequence[str]) -> dict[str, CachedStep]:
        """The entries that are there and new enough."""
        found = await self._cache.get_many(keys)
        return {key: entry for key, entry in found.items() if entry.created >= self._since}

    async def put(self, entry: CachedStep) -> None:
        """Write one entry in place of an older one."""
        await self._cache.put(entry)

    async def acquire(self, key: str, holder: str, wait: float | None = None) -> bool:
        """Take the lock of a key."""
        return await self._cache.acquire(key, holder, wait)

    async def release(self, key: str, holder: str) -> None:
        """Give the lock back."""
        await self._cache.release(key, holder)

    async def record(self, hits: Iterable[CachedStep], misses: Iterable[tuple[StepName, str | None]]) -> None:
        """Count look-ups."""
        await self._cache.record(hits, misses)

    async def stats(self) -> CacheStats:
        """Figures of the whole store, older entries included."""
        return await self._cache.stats()

    async def clear(self, which: CacheFilter) -> int:
        """Remove entries, older ones included."""
        return await self._cache.clear(which)

    async def prune(self) -> int:
        """Remove expired entries."""
        return await self._cache.prune()

    async def aclose(self) -> None:
        """Release the cache's connections."""
        await self._cache.aclose()
