"""The step cache in a local folder: the default, safe under several processes of one machine."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from reflexion._grouping import Batcher
from reflexion.cache.counters import step_stats
from reflexion.cache.folder import Folder
from reflexion.cache.step_cache import CachedStep, CacheFilter, CacheStats
from reflexion.types import StepName

__all__ = ["DEFAULT_MAX_ENTRY_BYTES", "LocalStepCache"]

DEFAULT_MAX_ENTRY_BYTES = 8 * 2**20
"""Bytes of one entry's content, before compression, above which it is not kept."""

FLUSH_SECONDS = 2.0
"""Pause between two writes of the counters."""

READ_BATCH = 32
"""Entries read in one hop at most: few enough that the first are worked on while the next are read."""

T = TypeVar("T")


class LocalStepCache:
    """Keeps each entry in a file of its own below `path`.

    File calls run in two threads, one for reading and one for writing, and everything asked for in the
    meantime shares the next hop. Entries are renamed into place: they survive the end of the process,
    though not always a power failure, after which an entry may be missing or unreadable (a miss).

    Args:
        path: the folder; made when it is missing.
        max_entry_bytes: content size above which an entry is not kept, with a warning.

    Raises:
        StorageError: the folder cannot be used, or a newer version wrote it.
    """

    backend = "local"

    def __init__(self, path: str | Path, *, max_entry_bytes: int = DEFAULT_MAX_ENTRY_BYTES) -> None:
        self._folder = Folder(Path(path).expanduser().absolute(), max_entry_bytes)
        self.locks = self._folder.locks
        self._executors: dict[str, ThreadPoolExecutor] = {}
        self._executors_mutex = threading.Lock()
        self._pid = os.getpid()
        self._flushed = time.monotonic()
        self._reads: Batcher[str, CachedStep | None] = Batcher(self._read, limit=READ_BATCH)
        self._writes: Batcher[CachedStep, None] = Batcher(self._write, limit=512)

    @property
    def location(self) -> str:
        """The folder."""
        return str(self._folder.root)

    async def get(self, key: str) -> CachedStep | None:
        """The entry, or None when it is missing, expired or unreadable."""
        return await self._reads.submit(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, CachedStep]:
        """The entries that are there, read in one hop."""
        if not keys:
            return {}
        found = await self._hop("read", self._folder.read_many, list(dict.fromkeys(keys)))
        return {entry.key: entry for entry in found if isinstance(entry, CachedStep)}

    async def put(self, entry: CachedStep) -> None:
        """Write one entry; returns when its file is in place."""
        await self._writes.submit(entry)

    async def acquire(self, key: str, holder: str, wait: float | None = None) -> bool:
        """Take the lock of a key; see `StepCache.acquire`. A dead process's lock is free at once."""
        return await self.locks.acquire(key, holder, wait)

    async def release(self, key: str, holder: str) -> None:
        """Give the lock back; harmless when it is not held by `holder`."""
        await self.locks.release(key, holder)

    async def record(self, hits: Iterable[CachedStep], misses: Iterable[tuple[StepName, str | None]]) -> None:
        """Count look-ups; written every few seconds and when the cache is closed."""
        self._folder.counts.record(hits, misses)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flushed = time.monotonic()
            await self._hop("write", self._folder.flush_counts)

    async def stats(self) -> CacheStats:
        """Entries, bytes, hits and savings; reads the first line of every entry."""
        await self._hop("write", self._folder.flush_counts)
        held = await self._hop("read", self._folder.holdings)
        counted, corrupt = await self._hop("read", self._folder.counters)
        return CacheStats(
            backend=self.backend,
            location=self.location,
            entries=sum(h.entries for h in held.values()),
            bytes=sum(h.bytes for h in held.values()),
            expired=sum(h.expired for h in held.values()),
            corrupt=corrupt,
            steps=step_stats(held, counted),
        )

    async def clear(self, which: CacheFilter) -> int:
        """Remove the entries a filter names; returns how many."""
        return await self._hop("write", self._folder.clear, which)

    async def prune(self) -> int:
        """Remove expired entries; returns how many."""
        return await self._hop("write", self._folder.prune)

    async def aclose(self) -> None:
        """Write the counters and end the threads; harmless when called twice."""
        if self._executors:
            await self._hop("write", self._folder.flush_counts)
        else:
            self._folder.flush_counts()
        with self._executors_mutex:
            executors, self._executors = self._executors, {}
        for executor in executors.values():
            executor.shutdown(wait=False)

    async def _read(self, keys: Sequence[str]) -> list[CachedStep | BaseException | None]:
        return await self._hop("read", self._folder.read_many, keys)

    async def _write(self, entries: Sequence[CachedStep]) -> list[BaseException | None]:
        return await self._hop("write", self._folder.write_many, entries)

    async def _hop(self, which: str, function: Callable[..., T], *args: object) -> T:
        with self._executors_mutex:
            if self._pid != os.getpid():
                # After a fork the parent's threads are not here.
                self._executors, self._pid = {}, os.getpid()
            executor = self._executors.get(which)
            if executor is None:
                executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"reflexion-cache-{which}")
                self._executors[which] = executor
            # Handed in under the mutex: another event loop may be closing the cache right now.
            job = executor.submit(function, *args)
        return await asyncio.wrap_future(job)
