"""The step cache's protocol: JSON entries under content keys, and locks that let one caller compute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from pydantic import Field

from reflexion.types import Frozen, StepName, Usage

__all__ = ["FORMAT", "CacheFilter", "CacheStats", "CachedStep", "StepCache", "StepCacheStats"]

FORMAT = 1
"""Version of the entry format. A store written by a newer one is refused with a clear error."""


class CachedStep(Frozen):
    """One entry: the JSON value of a step's output and what is needed to account for it.

    `value` is the output as `model_dump(mode="json")` gives it. Nothing is ever pickled: whoever can
    write to the store can at worst make an entry that does not parse, which is a reported miss.
    """

    format: int = FORMAT
    key: str
    step: StepName
    # JSON, as the codec reads and writes nothing else; checking each value again took half of a look-up.
    value: dict[str, Any]
    fields: dict[str, Any] = Field(default_factory=dict, description="What the key was made of.")
    model: str | None = None
    dataset: str = ""
    run: str = ""
    problem: str = Field(default="", description="Id of the problem it was computed for.")
    usage: Usage = Usage()
    created: float = Field(description="Unix time in seconds.")
    expires: float | None = Field(default=None, description="Unix time in seconds; None: never.")


class CacheFilter(Frozen):
    """Which entries to clear; all given conditions must hold. Empty: every entry."""

    step: StepName | None = None
    dataset: str | None = None
    model: str | None = None
    run: str | None = None
    older_than: float | None = Field(default=None, gt=0, description="Age in seconds.")


class StepCacheStats(Frozen):
    """Figures of one step and model."""

    step: StepName
    model: str | None
    entries: int = 0
    bytes: int = 0
    expired: int = 0
    hits: int = Field(default=0, description="Look-ups answered, over the life of the store.")
    misses: int = 0
    saved: Usage = Usage()


class CacheStats(Frozen):
    """Figures of a whole store."""

    backend: str
    location: str = Field(description="Where it is, without passwords.")
    entries: int
    bytes: int
    expired: int
    corrupt: int = Field(default=0, description="Entries that could not be read; they count as misses.")
    steps: tuple[StepCacheStats, ...] = ()


@runtime_checkable
class StepCache(Protocol):
    """Keeps step outputs under their content keys. All backends pass one test suite.

    A store that cannot be reached makes `get` a miss and `put` a no-op, with one warning; a run never
    fails for its cache. Only opening it with a wrong password or a newer format raises.
    """

    @property
    def location(self) -> str:
        """Its URL without passwords."""
        ...

    async def get(self, key: str) -> CachedStep | None:
        """The entry, or None when it is missing, expired or unreadable."""
        ...

    async def get_many(self, keys: Sequence[str]) -> dict[str, CachedStep]:
        """The entries that are there, in as few round trips as possible."""
        ...

    async def put(self, entry: CachedStep) -> None:
        """Write one entry atomically; the last writer wins."""
        ...

    async def acquire(self, key: str, holder: str, wait: float | None = None) -> bool:
        """Take the lock of a key; waits up to `wait` seconds (None: until the holder lets go or dies).

        Waiters get it one after another. A holder that dies is succeeded after a lease of seconds;
        one that lives renews its lease by itself for as long as it computes.
        """
        ...

    async def release(self, key: str, holder: str) -> None:
        """Give the lock back; harmless when it is not held by `holder`."""
        ...

    async def record(self, hits: Iterable[CachedStep], misses: Iterable[tuple[StepName, str | None]]) -> None:
        """Count look-ups by step and model. Called in batches; best effort."""
        ...

    async def stats(self) -> CacheStats:
        """Entries, bytes, hits and savings."""
        ...

    async def clear(self, which: CacheFilter) -> int:
        """Remove entries; returns how many. Locks and counters stay."""
        ...

    async def prune(self) -> int:
        """Remove expired entries; returns how many."""
        ...

    async def aclose(self) -> None:
        """Release connections; harmless when called twice."""
        ...
