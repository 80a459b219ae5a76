"""The step cache in Redis: shared by all workers, expired by the server itself.

    NS:format          version of the entry format
    NS:e:KEY           an entry, expiring when the entry does
    NS:index           hash: KEY → size and first line of the entry, for statistics and for clearing
    NS:counts          hash: ["step", "model", "hits"] → number
    NS:lock:KEY        who computes this key, for seconds
    NS:corrupt:KEY     an entry that could not be read, set aside for a week

Nothing looks at the whole key space: statistics, `clear` and `prune` go through the index in steps of
bounded size.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import fields as dataclass_fields
from typing import cast

import orjson

from reflexion._grouping import Batcher
from reflexion.cache.codec import (
    CorruptEntryError,
    EntryTooLargeError,
    Header,
    decode,
    decode_header,
    encode,
    expired,
    matches,
)
from reflexion.cache.counters import Counts, Group, Holdings, Tally, combine, step_stats
from reflexion.cache.local_store import DEFAULT_MAX_ENTRY_BYTES, FLUSH_SECONDS
from reflexion.cache.locks import KeyLocks
from reflexion.cache.step_cache import FORMAT, CachedStep, CacheFilter, CacheStats
from reflexion.errors import ConfigurationError, StorageError
from reflexion.redis.redis_client import (
    REPLY_SECONDS,
    RETRY_SECONDS,
    Command,
    RedisAddress,
    RedisLink,
    RedisUnavailableError,
)
from reflexion.redis.redis_locks import LEASE_SECONDS, RedisLocks
from reflexion.types import StepName

__all__ = ["RedisStepCache"]

logger = logging.getLogger("reflexion.cache")

CHUNK = 200
"""Keys of one MGET, and entries of one step through the index."""

CORRUPT_SECONDS = 7 * 86_400

_FORGET = "if redis.call('exists', KEYS[1]) == 0 then return redis.call('hdel', KEYS[2], ARGV[1]) end return 0"
"""Drops an index entry whose entry is gone, unless it was written again in the meantime."""


class RedisStepCache:
    """Keeps entries in Redis 6.2 or later, under names that begin with `namespace`.

    A server that is away costs one warning: look-ups miss, nothing is written, locks are granted to
    the tasks of this process in turn, and after growing pauses it is tried again.

    Args:
        url: `redis://`, `rediss://` or `redis+sentinel://host:port[,host:port]/service[/db]`.
        namespace: beginning of every name.
        max_entry_bytes: content size above which an entry is not kept, with a warning.
        lock_lease: seconds after which a lock's holder that died is succeeded.
        retry_seconds: first and longest pause before a lost server is tried again.
        timeout: seconds a reply may take.

    Raises:
        ConfigurationError: the URL is wrong, or the server refuses the password.
        StorageError: a newer version wrote the store.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "reflexion:steps",
        max_entry_bytes: int = DEFAULT_MAX_ENTRY_BYTES,
        lock_lease: float = LEASE_SECONDS,
        retry_seconds: tuple[float, float] = RETRY_SECONDS,
        timeout: float = REPLY_SECONDS,
    ) -> None:
        for name, seconds in (("lock_lease", lock_lease), ("timeout", timeout)):
            if not seconds > 0:
                raise ConfigurationError(f"cache: {name} is {seconds}; it must be more than 0 seconds")
        address = RedisAddress.parse(url)
        self.backend = "sentinel" if url.startswith("redis+sentinel:") else "redis"
        self._namespace = namespace
        self._limit = max_entry_bytes
        self._mark: Command = ("SET", f"{namespace}:format", FORMAT, "NX")
        # A server that comes back may be empty, so the marker is set again.
        self._link = RedisLink(address, lambda: [self._mark], retry_seconds, timeout)
        self._outer = RedisLocks(self._link, f"{namespace}:lock:", lock_lease)
        self.locks = KeyLocks(self._outer)
        self._counts = Counts()
        self._flushed = time.monotonic()
        self._reads: Batcher[str, CachedStep | None] = Batcher(self._read, limit=CHUNK)
        self._check_format()

    def _check_format(self) -> None:
        answers = self._link.check([self._mark, ("GET", f"{self._namespace}:format")])
        if answers is None:
            return
        version = answers[1]
        if not (isinstance(version, bytes) and version.isdigit()) or int(version) > FORMAT:
            shown = version.decode(errors="replace")[:20] if isinstance(version, bytes) else version
            raise StorageError(
                f"cache: {self._link.address.shown} has format {shown}, and this version reads up to {FORMAT}. "
                "Use a newer reflexion-on-prefect, or another database or namespace"
            )

    @property
    def location(self) -> str:
        """Its URL without passwords."""
        return self._link.address.shown

    @property
    def link(self) -> RedisLink:
        """The connection, for what else is kept beside the entries."""
        return self._link

    @property
    def namespace(self) -> str:
        """Beginning of every name."""
        return self._namespace

    def _entry(self, key: str) -> str:
        return f"{self._namespace}:e:{key}"

    @property
    def _index(self) -> str:
        return f"{self._namespace}:index"

    async def get(self, key: str) -> CachedStep | None:
        """The entry, or None when it is missing, expired, unreadable, or Redis is away."""
        return await self._reads.submit(key)

    async def _read(self, keys: Sequence[str]) -> list[CachedStep | BaseException | None]:
        # One MGET for whoever asks at the same time: a reply for each of them costs the client more than decoding it.
        found = await self.get_many(keys)
        return [found.get(key) for key in keys]

    async def get_many(self, keys: Sequence[str]) -> dict[str, CachedStep]:
        """The entries that are there, in one round trip for every 200 keys."""
        found: dict[str, CachedStep] = {}
        for chunk in _chunks(list(dict.fromkeys(keys))):
            try:
                (answers,) = await self._link.send(("MGET", *(self._entry(key) for key in chunk)))
                missing = [key for key, data in zip(chunk, answers, strict=True) if data is None]
                if missing:
                    await self._set_strangers_aside(missing)
            except RedisUnavailableError:
                return found
            for key, data in zip(chunk, answers, strict=True):
                entry = self._decoded(key, data)
                if entry is not None:
                    found[key] = entry
        return found

    async def _set_strangers_aside(self, missing: Sequence[str]) -> None:
        """Report what is stored under an entry's name and is none: MGET takes it for missing."""
        (count,) = await self._link.send(("EXISTS", *(self._entry(key) for key in missing)))
        if count:
            kinds = await self._link.send(*(("TYPE", self._entry(key)) for key in missing))
            for key, kind in zip(missing, kinds, strict=True):
                if kind not in (b"none", b"string"):
                    self._set_aside(key, "something else is stored under its name")

    def _decoded(self, key: str, data: bytes | None) -> CachedStep | None:
        if data is None:
            return None
        try:
            entry = decode(data, key)
        except CorruptEntryError as exc:
            self._set_aside(key, str(exc))
            return None
        return None if expired(entry) else entry

    def _set_aside(self, key: str, reason: str) -> None:
        self._counts.corrupt()
        aside = f"{self._namespace}:corrupt:{key}"
        self._link.post(
            ("RENAME", self._entry(key), aside), ("EXPIRE", aside, CORRUPT_SECONDS), ("HDEL", self._index, key)
        )
        logger.warning(
            "cache: entry %s… in %s cannot be read (%s); it counts as a miss and was set aside",
            key[:12],
            self.location,
            reason,
        )

    async def put(self, entry: CachedStep) -> None:
        """Write one entry and its line in the index in one round trip; Redis drops it when it expires."""
        if expired(entry):
            return
        try:
            data = encode(entry, self._limit)
        except EntryTooLargeError as exc:
            logger.warning("cache: %s", exc)
            return
        lifetime = () if entry.expires is None else ("PXAT", math.ceil(entry.expires * 1000))
        line = b"%d " % len(data) + data.partition(b"\n")[0]
        try:
            await self._link.send(
                ("SET", self._entry(entry.key), data, *lifetime), ("HSET", self._index, entry.key, line)
            )
        except RedisUnavailableError:
            return

    async def acquire(self, key: str, holder: str, wait: float | None = None) -> bool:
        """Take the lock of a key; see `StepCache.acquire`."""
        return await self.locks.acquire(key, holder, wait)

    async def release(self, key: str, holder: str) -> None:
        """Give the lock back; harmless when it is not held by `holder`."""
        await self.locks.release(key, holder)

    async def record(self, hits: Iterable[CachedStep], misses: Iterable[tuple[StepName, str | None]]) -> None:
        """Count look-ups; written every few seconds and when the cache is closed."""
        self._counts.record(hits, misses)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flushed = time.monotonic()
            await self._flush()

    async def _flush(self) -> None:
        tallies, corrupt = self._counts.take()
        name = f"{self._namespace}:counts"
        commands: list[Command] = []
        for (step, model), tally in tallies.items():
            for field in dataclass_fields(tally):
                if value := getattr(tally, field.name):
                    how = "HINCRBYFLOAT" if field.name == "cost" else "HINCRBY"
                    commands.append((how, name, orjson.dumps([step, model, field.name]), value))
        if corrupt:
            commands.append(("HINCRBY", name, b"corrupt", corrupt))
        if commands:
            try:
                await self._link.send(*commands)
            except RedisUnavailableError:
                self._counts.give_back(tallies, corrupt)

    async def stats(self) -> CacheStats:
        """Entries, bytes, hits and savings.

        Expired entries are gone from Redis already; those counted here are their lines in the index,
        which `prune` drops.
        """
        await self._flush()
        now, held = time.time(), dict[Group, Holdings]()
        async for chunk in self._lines():
            for _, size, header in chunk:
                if header is not None:
                    combine(held, (header.step, header.model), size, expired(header, now))
        counted, corrupt = await self._counters()
        return CacheStats(
            backend=self.backend,
            location=self.location,
            entries=sum(h.entries for h in held.values()),
            bytes=sum(h.bytes for h in held.values()),
            expired=sum(h.expired for h in held.values()),
            corrupt=corrupt,
            steps=step_stats(held, counted),
        )

    async def _counters(self) -> tuple[dict[Group, Tally], int]:
        tallies: dict[Group, Tally] = {}
        try:
            (stored,) = await self._link.send(("HGETALL", f"{self._namespace}:counts"))
        except RedisUnavailableError:
            return tallies, 0
        numbers = cast("dict[bytes, bytes]", stored)
        corrupt = int(numbers.pop(b"corrupt", b"0"))
        for name, number in numbers.items():
            step, model, field = cast("tuple[StepName, str | None, str]", orjson.loads(name))
            setattr(
                tallies.setdefault((step, model), Tally()), field, float(number) if field == "cost" else int(number)
            )
        return tallies, corrupt

    async def clear(self, which: CacheFilter) -> int:
        """Remove the entries a filter names; returns how many."""
        now, everything = time.time(), which == CacheFilter()
        return await self._remove(lambda header: everything if header is None else matches(header, which, now))

    async def _remove(self, unwanted: Callable[[Header | None], bool]) -> int:
        removed = 0
        async for chunk in self._lines():
            keys = [key for key, _, header in chunk if unwanted(header)]
            if not keys:
                continue
            try:
                gone, _ = await self._link.send(
                    ("UNLINK", *(self._entry(key) for key in keys)), ("HDEL", self._index, *keys)
                )
            except RedisUnavailableError:
                break
            removed += int(gone)
        return removed

    async def prune(self) -> int:
        """Drop the index lines of entries that expired or were evicted; returns how many."""
        dropped = 0
        async for chunk in self._lines():
            commands: list[Command] = [("EVAL", _FORGET, 2, self._entry(key), self._index, key) for key, _, _ in chunk]
            try:
                dropped += sum(int(answer) for answer in await self._link.send(*commands))
            except RedisUnavailableError:
                break
        return dropped

    async def _lines(self) -> AsyncIterator[list[tuple[str, int, Header | None]]]:
        """The index in chunks: key, size and first line (None when it cannot be read) of each entry."""
        cursor, seen = 0, set[bytes]()
        while True:
            try:
                (answer,) = await self._link.send(("HSCAN", self._index, cursor, "COUNT", CHUNK))
            except RedisUnavailableError:
                return
            cursor, found = cast("tuple[int, dict[bytes, bytes]]", answer)
            # While the hash is resized a scan may give an element twice.
            fresh = {key: line for key, line in found.items() if key not in seen}
            seen.update(fresh)
            if fresh:
                yield [_line(key, line) for key, line in fresh.items()]
            if int(cursor) == 0:
                return

    async def aclose(self) -> None:
        """Write the counters and give the connection back; harmless when called twice."""
        await self._flush()
        await self._outer.aclose()
        await self._link.aclose()


def _line(key: bytes, line: bytes) -> tuple[str, int, Header | None]:
    size, _, header = line.partition(b" ")
    name = key.decode(errors="replace")
    try:
        return name, int(size), decode_header(header, name)
    except (CorruptEntryError, ValueError):
        return name, 0, None


def _chunks(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK))
