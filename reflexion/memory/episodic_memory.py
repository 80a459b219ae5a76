"""The episodic memory's protocol: where lessons are kept between trials and runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Literal, Protocol, runtime_checkable

from pydantic import Field

from reflexion.types import Frozen, Lesson

__all__ = ["EvictionPolicy", "Memory", "MemoryLimits", "MemoryStats", "Query"]

EvictionPolicy = Literal["oldest", "least_used", "least_useful"]


class MemoryLimits(Frozen):
    """Capacity and age of a memory.

    The paper bounds the long-term memory to 1 to 3 experiences, Ω (Shinn et al. 2023, section 3).
    """

    per_problem: int = Field(default=3, ge=1, description="Lessons kept of one problem, the paper's Ω.")
    entries: int = Field(default=100_000, ge=1, description="Lessons kept in total.")
    bytes: int = Field(default=256 * 2**20, ge=1, description="Bytes of text kept in total.")
    max_age: float | None = Field(default=None, gt=0, description="Seconds a lesson is kept; None: for ever.")
    eviction: EvictionPolicy = "oldest"


class Query(Frozen):
    """What a trial asks of the memory.

    Lessons of the trial's own episode are given by the loop itself and never come from here:
    `run` and `episode` exclude what this run learned of the same problem, so that a resumed or
    repeated run asks the same question and gets the same cache keys.
    """

    problem: str = Field(description="Digest of the problem's content.")
    prompt: str = Field(default="", description="The problem's text, for similarity.")
    episode: str
    run: str = ""
    own: int = Field(default=3, ge=0, description="At most so many lessons of the same problem, newest first.")
    similar: int = Field(default=0, ge=0, description="At most so many lessons of similar problems, best first.")


class MemoryStats(Frozen):
    """What a memory holds and did."""

    backend: str
    entries: int
    problems: int
    bytes: int
    evicted: int = 0
    expired: int = 0


@runtime_checkable
class Memory(Protocol):
    """Keeps lessons. All backends pass one test suite."""

    async def add(self, lesson: Lesson) -> bool:
        """Keep a lesson; False when its key is already there. Evicts beyond the limits."""
        ...

    async def recall(self, query: Query) -> list[Lesson]:
        """Lessons for a trial: of the same problem first, then of similar ones, without duplicates."""
        ...

    async def credit(self, keys: Iterable[str], passed: bool, by: str) -> None:
        """Note that the trial `by` saw these lessons, and whether it passed.

        A trial counts once for each lesson, however often the step is repeated; unknown keys are
        ignored.
        """
        ...

    async def lessons(self, problem: str | None = None) -> list[Lesson]:
        """The lessons of one problem (digest or prefix of one), oldest first."""
        ...

    def export(self) -> AsyncIterator[Lesson]:
        """All lessons, oldest first, without loading them at once."""
        ...

    async def cleanup(self, budget: int = 256) -> int:
        """Drop expired and surplus lessons, at most `budget` of them; returns how many went."""
        ...

    async def clear(self) -> int:
        """Drop everything; returns how many lessons went."""
        ...

    async def stats(self) -> MemoryStats:
        """Counts and sizes."""
        ...

    async def aclose(self) -> None:
        """Release files and connections; harmless when called twice."""
        ...
