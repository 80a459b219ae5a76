"""A bounded list of lines that several processes append to and read: beside a store's entries."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Protocol, cast

from reflexion.cache.locks import FileLocks
from reflexion.cache.step_cache import StepCache
from reflexion.redis.redis_client import Command, RedisLink, RedisUnavailableError

__all__ = ["FileJournal", "Journal", "RedisJournal", "journal_of"]


class Journal(Protocol):
    """Lines in the order in which they were appended; beyond a limit the oldest go."""

    async def append(self, line: bytes) -> None:
        """Add a line (without a line end). Best effort."""
        ...

    async def read_new(self) -> list[bytes]:
        """The lines that came since the last call, the first time all. A line may come twice."""
        ...


def journal_of(cache: StepCache, name: str, limit: int) -> Journal | None:
    """A journal in the same folder or Redis as a cache; None when the cache keeps nothing.

    Args:
        cache: the store.
        name: of the journal.
        limit: lines kept at least; up to three times as many may be there.
    """
    from reflexion.cache.local_store import LocalStepCache

    if isinstance(cache, LocalStepCache):
        return FileJournal(Path(cache.location) / f"{name}.jsonl", cache.locks.files, limit)
    link = getattr(cache, "link", None)
    if isinstance(link, RedisLink):
        return RedisJournal(link, f"{getattr(cache, 'namespace', 'reflexion')}:{name}", limit)
    return None


class FileJournal:
    """Lines of a file.

    Args:
        path: the file.
        locks: of the folder.
        limit: lines kept at least.
    """

    def __init__(self, path: Path, locks: FileLocks, limit: int) -> None:
        self._path = path
        self._locks = locks
        self._limit = limit
        self._mutex = threading.Lock()
        self._place = (0, 0)
        self._since_look = limit

    async def append(self, line: bytes) -> None:
        """Add a line."""
        await asyncio.to_thread(self._append, line)

    async def read_new(self) -> list[bytes]:
        """The lines that came since the last call."""
        return await asyncio.to_thread(self._read_new)

    def _append(self, line: bytes) -> None:
        with self._mutex, self._locks.exclusive(self._path.name):
            try:
                with self._path.open("ab") as file:
                    file.write(line + b"\n")
                self._since_look += 1
                if self._since_look >= self._limit:
                    self._since_look = 0
                    self._shorten()
            except OSError:
                return  # the cache itself warns of a folder that cannot be written

    def _shorten(self) -> None:
        lines = self._path.read_bytes().splitlines(keepends=True)
        if len(lines) <= 2 * self._limit:
            return
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(b"".join(lines[-self._limit :]))
        temporary.replace(self._path)

    def _read_new(self) -> list[bytes]:
        with self._mutex:
            try:
                with self._path.open("rb") as file:
                    status = os.fstat(file.fileno())
                    file_id, offset = self._place
                    if file_id != status.st_ino or offset > status.st_size:
                        offset = 0  # it was shortened, that is, replaced
                    file.seek(offset)
                    data = file.read()
            except OSError:
                return []
            complete = data.rfind(b"\n") + 1
            self._place = (status.st_ino, offset + complete)
            return data[:complete].splitlines()


class RedisJournal:
    """Entries of a Redis stream.

    Args:
        link: the server.
        name: of the stream.
        limit: lines kept at least.
    """

    def __init__(self, link: RedisLink, name: str, limit: int) -> None:
        self._link = link
        self._name = name
        self._limit = limit
        self._last = "-"

    async def append(self, line: bytes) -> None:
        """Add a line."""
        command: Command = ("XADD", self._name, "MAXLEN", "~", self._limit, "*", "line", line)
        try:
            await self._link.send(command)
        except RedisUnavailableError:
            return

    async def read_new(self) -> list[bytes]:
        """The lines that came since the last call."""
        lines: list[bytes] = []
        while True:
            try:
                (answer,) = await self._link.send(("XRANGE", self._name, self._last, "+", "COUNT", 500))
            except RedisUnavailableError:
                return lines
            found = cast("list[tuple[bytes, dict[bytes, bytes]]]", answer)
            if not found:
                return lines
            self._last = f"({found[-1][0].decode()}"
            lines += [fields[b"line"] for _, fields in found if b"line" in fields]
