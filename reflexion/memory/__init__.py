"""The episodic memory: lessons kept between trials and runs, chosen by one URL.

In process, in a SQLite file, or in Redis; all of them bounded, and all behind one protocol.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reflexion.errors import ConfigurationError
from reflexion.memory.episodic_memory import EvictionPolicy, Memory, MemoryLimits, MemoryStats, Query
from reflexion.memory.threaded_memory import Store, StoredMemory

__all__ = [
    "EvictionPolicy",
    "Memory",
    "MemoryLimits",
    "MemoryStats",
    "Query",
    "make_limits",
    "open_memory",
    "sqlite_path",
]

_SUFFIXES = {".sqlite", ".sqlite3", ".db"}


def open_memory(
    url: str,
    limits: MemoryLimits | None = None,
    *,
    wait: float = 5.0,
    clock: Callable[[], float] = time.time,
) -> Memory:
    """Open an episodic memory.

    Args:
        url: `memory://` (this process), `sqlite:PATH`, `sqlite:///PATH` or a path that ends in
            `.sqlite`, `.sqlite3` or `.db` (one machine), `redis://…` or `rediss://…` (shared by workers; `?prefix=NAME`
            keeps several memories in one database).
        limits: capacity, age and eviction; the defaults of `MemoryLimits` when None.
        wait: seconds to wait for a file another process holds, or for Redis to answer.
        clock: Unix time in seconds.

    Raises:
        ConfigurationError: the URL is of no known form.
        StorageError: the memory cannot be opened.
    """
    limits = limits or MemoryLimits()
    store, threads = _open_store(url, limits, wait)
    return StoredMemory(store, limits, threads, clock)


def make_limits(**values: Any) -> MemoryLimits:
    """`MemoryLimits` out of options a user gave.

    Raises:
        ConfigurationError: naming the option, when a capacity is below 1 or an eviction policy unknown.
    """
    try:
        return MemoryLimits(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"memory {name} = {first['input']!r}: {first['msg']}") from error


def _open_store(url: str, limits: MemoryLimits, wait: float) -> tuple[Store, int]:
    scheme = url.partition(":")[0].lower()
    if url.lower() in ("memory://", "memory:"):
        from reflexion.memory.process_memory import ProcessStore

        return ProcessStore(limits), 0
    if scheme in ("redis", "rediss"):
        from reflexion.memory.redis_memory import RedisStore

        return RedisStore(url, limits, wait), 4
    path = sqlite_path(url)
    if path is not None:
        from reflexion.memory.sqlite_memory import SqliteStore

        return SqliteStore(path, limits, wait), 1
    raise ConfigurationError(
        f"memory {url!r}: unknown form; use memory://, sqlite:PATH, a path that ends in .sqlite, or redis://HOST:PORT/DB"
    )


def sqlite_path(url: str) -> Path | None:
    """The file of a memory's URL, or None when it is not one of SQLite."""
    if url[:7].lower() == "sqlite:":
        rest = url[7:]
        # As SQLAlchemy writes it: three slashes before a relative path, four before an absolute one.
        path = rest.removeprefix("///")
        return Path(path).expanduser() if path and not path.startswith("//") else None
    if "://" not in url and Path(url).suffix.lower() in _SUFFIXES:
        return Path(url).expanduser()
    return None
