"""Step caches without a store: one in the process's memory, and one that keeps nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from reflexion.cache.codec import EntryTooLargeError, encode, expired, matches
from reflexion.cache.counters import Group, Holdings, Tally, combine, step_stats
from reflexion.cache.locks import KeyLocks
from reflexion.cache.step_cache import CachedStep, CacheFilter, CacheStats
from reflexion.types import StepName

__all__ = ["MemoryStepCache", "NullCache"]


class MemoryStepCache:
    """Keeps entries in this process for as long as it lives.

    Args:
        max_entries: entries kept; beyond, the oldest goes.
        max_entry_bytes: content size above which an entry is not kept, with a warning.
    """

    backend = "memory"

    def __init__(self, *, max_entries: int = 10_000, max_entry_bytes: int = 8 * 2**20) -> None:
        self._max_entries = max_entries
        self._limit = max_entry_bytes
        self._mutex = threading.Lock()
        self._entries: dict[str, tuple[CachedStep, int]] = {}
        self._tallies: dict[Group, Tally] = {}
        self.locks = KeyLocks()

    @property
    def location(self) -> str:
        """`memory:`."""
        return "memory:"

    async def get(self, key: str) -> CachedStep | None:
        """The entry, or None when it is missing or expired."""
        found = self._entries.get(key)
        return None if found is None or expired(found[0]) else found[0]

    async def get_many(self, keys: Sequence[str]) -> dict[str, CachedStep]:
        """The entries that are there."""
        found = {key: await self.get(key) for key in keys}
        return {key: entry for key, entry in found.items() if entry is not None}

    async def put(self, entry: CachedStep) -> None:
        """Keep one entry; the last writer wins."""
        try:
            size = len(encode(entry, self._limit))
        except EntryTooLargeError as exc:
            import logging

            logging.getLogger("reflexion.cache").warning("cache: %s", exc)
            return
        with self._mutex:
            self._entries.pop(entry.key, None)
            self._entries[entry.key] = (entry, size)
            while len(self._entries) > self._max_entries:
                del self._entries[next(iter(self._entries))]

    async def acquire(self, key: str, holder: str, wait: float | None = None) -> bool:
        """Take the lock of a key among the tasks of this process; see `StepCache.acquire`."""
        return await self.locks.acquire(key, holder, wait)

    async def release(self, key: str, holder: str) -> None:
        """Give the lock back; harmless when it is not held by `holder`."""
        await self.locks.release(key, holder)

    async def record(self, hits: Iterable[CachedStep], misses: Iterable[tuple[StepName, str | None]]) -> None:
        """Count look-ups by step and model."""
        with self._mutex:
            for entry in hits:
                self._tallies.setdefault((entry.step, entry.model), Tally()).hit(entry.usage)
            for group in misses:
                self._tallies.setdefault(group, Tally()).misses += 1

    async def stats(self) -> CacheStats:
        """Entries, bytes, hits and savings."""
        now, held = time.time(), dict[Group, Holdings]()
        with self._mutex:
            for entry, size in self._entries.values():
                combine(held, (entry.step, entry.model), size, expired(entry, now))
            return CacheStats(
                backend=self.backend,
                location=self.location,
                entries=sum(h.entries for h in held.values()),
                bytes=sum(h.bytes for h in held.values()),
                expired=sum(h.expired for h in held.values()),
                steps=step_stats(held, self._tallies),
            )

    async def clear(self, which: CacheFilter) -> int:
        """Remove the entries a filter names; returns how many."""
        now = time.time()
        return self._remove({k for k, (entry, _) in list(self._entries.items()) if matches(entry, which, now)})

    async def prune(self) -> int:
        """Remove expired entries; returns how many."""
        now = time.time()
        return self._remove({k for k, (entry, _) in list(self._entries.items()) if expired(entry, now)})

    def _remove(self, keys: set[str]) -> int:
        with self._mutex:
            return sum(self._entries.pop(key, None) is not None for key in keys)

    async def aclose(self) -> None:
        """Nothing to release."""


class NullCache:
    """Keeps nothing and finds nothing: every step is computed.

    Its locks are granted at once. Waiting for another's result makes sense only where the result can
    be looked up afterwards; here it would put identical steps one behind the other for nothing.
    """

    backend = "none"

    @property
    def location(self) -> str:
        """`none:`."""
        return "none:"

    async def get(self, key: str) -> CachedStep | None:
        """None."""
        return None

    async def get_many(self, keys: Sequence[str]) -> dict[str, CachedStep]:
        """Nothing."""
        return {}

    async def put(self, entry: CachedStep) -> None:
        """Forget it."""

    async def acquire(self, key: str, holder: str, wait: float | None = None) -> bool:
        """True, at once."""
        return True

    async def release(self, key: str, holder: str) -> None:
        """Nothing to give back."""

    async def record(self, hits: Iterable[CachedStep], misses: Iterable[tuple[StepName, str | None]]) -> None:
        """Count nothing."""

    async def stats(self) -> CacheStats:
        """All zero."""
        return CacheStats(backend=self.backend, location=self.location, entries=0, bytes=0, expired=0)

    async def clear(self, which: CacheFilter) -> int:
        """0."""
        return 0

    async def prune(self) -> int:
        """0."""
        return 0

    async def aclose(self) -> None:
        """Nothing to release."""
