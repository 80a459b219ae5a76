"""A memory over a blocking store: recall and its ranking, background threads, and failures that degrade."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from reflexion._grouping import Batcher
from reflexion.errors import StorageError
from reflexion.memory.episodic_memory import MemoryLimits, MemoryStats, Query
from reflexion.memory.similarity import rank_problems, rarest, words_of
from reflexion.types import Lesson

__all__ = ["CLEANUP_BUDGET", "CLEANUP_EVERY", "Page", "Store", "StoredMemory", "body_of", "usefulness"]

T = TypeVar("T")
_log = logging.getLogger("reflexion.memory")

CLEANUP_EVERY = 64
"""Adds after which one of them cleans up on the side."""
CLEANUP_BUDGET = 64
"""Lessons such a clean-up may drop, so that no add takes long."""
BATCH = 32
"""Calls that share a hop to the store's thread, and one transaction, at most: more would keep all waiting."""
_PAGE = 256
_QUIET_SECONDS = 5.0
"""How long a store that failed is left alone."""


class Page(NamedTuple):
    """Some lessons, oldest first, and where the next ones start; None: that was all."""

    lessons: list[Lesson]
    following: Any


class Store(Protocol):
    """What a backend does, in plain blocking calls. Expired lessons may still be returned."""

    @property
    def backend(self) -> str:
        """Name for the figures."""
        ...

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What its calls raise when the store cannot be used."""
        ...

    def together(self) -> AbstractContextManager[object]:
        """Calls made within are carried out as one where that is cheaper; an error of one undoes all."""
        ...

    def add(self, lesson: Lesson, now: float) -> bool:
        """Keep a lesson and evict beyond the limits; False when its key is there or it is too large."""
        ...

    def of_problems(self, problems: Sequence[str]) -> list[list[Lesson]]:
        """The lessons of each problem, oldest first."""
        ...

    def with_prefix(self, prefix: str) -> list[str]:
        """Digests of the problems that start so."""
        ...

    def frequencies(self, words: Sequence[str]) -> tuple[int, dict[str, int]]:
        """The number of problems, and of those that have each word."""
        ...

    def candidates(self, words: Sequence[str], frequencies: Mapping[str, int]) -> dict[str, Sequence[str]]:
        """A bounded number of problems that have any of these words, each with all its words."""
        ...

    def credit(self, keys: Sequence[str], passed: bool, by: str) -> None:
        """Count a trial once for each lesson."""
        ...

    def page(self, start: Any, count: int) -> Page:
        """Lessons by age; `start` is None or the last page's `following`."""
        ...

    def cleanup(self, budget: int, now: float) -> int:
        """Drop expired, then surplus lessons."""
        ...

    def clear(self) -> int:
        """Drop everything."""
        ...

    def stats(self) -> MemoryStats:
        """Counts and sizes."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def body_of(lesson: Lesson) -> bytes:
    """What is stored of a lesson, and what counts as its size: everything but the counters."""
    return lesson.model_dump_json(exclude={"uses", "wins"}, exclude_defaults=True).encode()


def usefulness(uses: int, wins: int) -> float:
    """Solve rate of the trials that saw a lesson, smoothed: a lesson nobody saw stands at one half."""
    return (wins + 1) / (uses + 2)


class StoredMemory:
    """A `Memory` over a `Store`.

    The calls of a store that blocks run in its own threads, so the event loop never waits, and it may be
    used from several event loops. A store that fails later than at opening never fails a run: lessons
    are then not kept and not found, and one warning says so.
    """

    def __init__(
        self, store: Store, limits: MemoryLimits, threads: int, clock: Callable[[], float] = time.time
    ) -> None:
        """
        Args:
            store: the backend.
            limits: the limits the store was made with.
            threads: worker threads for the store's calls; 0 for one that never blocks.
            clock: Unix time in seconds.
        """
        self.limits = limits
        self._store = store
        self._clock = clock
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reflexion-memory") if threads else None
        # One thread takes calls one after another: those that wait for it share the next hop.
        self._batches = Batcher[Callable[[], Any], Any](self._carry_out, BATCH) if threads == 1 else None
        self._closed = False
        self._warned = False
        self._quiet_until = 0.0

    async def _run(self, call: Callable[[], T]) -> T:
        """Run a call of the store, off the event loop where it may block."""
        if self._closed:
            raise StorageError(f"the {self._store.backend} memory is closed")
        if self._pool is None:
            return call()
        if self._batches is not None:
            return cast(T, await self._batches.submit(call))
        return await asyncio.wrap_future(self._pool.submit(call))

    async def _carry_out(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        assert self._pool is not None
        return await asyncio.wrap_future(self._pool.submit(self._all, calls))

    def _all(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        if len(calls) > 1:
            began = False
            try:
                with self._store.together():
                    began = True
                    return [call() for call in calls]
            except self._store.failures:
                if not began:
                    raise
                # One of them failed and all are undone. Each has its turn alone, so that the others succeed.
        return [self._one(call) for call in calls]

    def _one(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._store.failures as error:
            return error  # belongs to whoever asked for this call, not to the others

    async def _best_effort(self, call: Callable[[], T], otherwise: T) -> T:
        if time.monotonic() < self._quiet_until:
            return otherwise
        try:
            return await self._run(call)
        except self._store.failures as error:
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            if not self._warned:
                self._warned = True
                _log.warning(
                    "the %s memory failed (%s); the run goes on, lessons of other episodes may be missing",
                    self._store.backend,
                    error,
                )
            return otherwise

    async def _strict(self, call: Callable[[], T]) -> T:
        try:
            return await self._run(call)
        except self._store.failures as error:
            raise StorageError(f"the {self._store.backend} memory failed: {error}") from error

    async def add(self, lesson: Lesson) -> bool:
        """Keep a lesson; False when its key is already there, or it alone exceeds the capacity in bytes."""
        now = self._clock()
        if not lesson.created:
            lesson = lesson.model_copy(update={"created": now})
        return await self._best_effort(lambda: self._store.add(lesson, now), False)

    async def recall(self, query: Query) -> list[Lesson]:
        """Lessons for a trial: of the same problem newest first, then of similar ones best first.

        Of the similar problems each gives its most useful lesson before any gives a second one. No
        text comes twice.
        """
        return await self._best_effort(lambda: self._recall(query), [])

    def _recall(self, query: Query) -> list[Lesson]:
        found: dict[str, Lesson] = {}
        if query.own:
            (own,) = self._store.of_problems([query.problem])
            for lesson in reversed(own):
                seen_by_run = bool(query.run) and lesson.run == query.run
                if not seen_by_run and lesson.episode != query.episode and self._fresh(lesson):
                    found.setdefault(_normal(lesson.text), lesson)
                if len(found) == query.own:
                    break
        wanted = len(found) + query.similar
        for lesson in self._similar(query) if query.similar else ():
            if len(found) == wanted:
                break
            found.setdefault(_normal(lesson.text), lesson)
        return list(found.values())

    def _similar(self, query: Query) -> list[Lesson]:
        words = words_of(query.prompt)
        total, frequencies = self._store.frequencies(words)
        chosen = rarest(words, frequencies)
        if not chosen:
            return []
        candidates = self._store.candidates(chosen, frequencies)
        candidates.pop(query.problem, None)
        # A few more problems than asked for: their lessons may be expired or repeat one another.
        problems = rank_problems(words, candidates, total, frequencies)[: 2 * query.similar + 4]
        ordered: list[tuple[int, int, Lesson]] = []
        for place, lessons in enumerate(self._store.of_problems(problems)):
            fresh = [lesson for lesson in reversed(lessons) if self._fresh(lesson)]
            fresh.sort(key=lambda lesson: -usefulness(lesson.uses, lesson.wins))
            ordered += [(turn, place, lesson) for turn, lesson in enumerate(fresh)]
        ordered.sort(key=lambda item: item[:2])
        return [lesson for _, _, lesson in ordered]

    def _fresh(self, lesson: Lesson) -> bool:
        return self.limits.max_age is None or lesson.created > self._clock() - self.limits.max_age

    async def credit(self, keys: Iterable[str], passed: bool, by: str) -> None:
        """Note that the trial `by` saw these lessons, and whether it passed; once for each lesson."""
        listed = list(dict.fromkeys(keys))
        if listed:
            await self._best_effort(lambda: self._store.credit(listed, passed, by), None)

    async def lessons(self, problem: str | None = None) -> list[Lesson]:
        """The lessons of a problem (digest or prefix of one), or all of them, oldest first.

        Raises:
            StorageError: the store cannot be read.
        """
        if problem is None:
            return [lesson async for lesson in self.export()]
        prefix = problem
        groups = await self._strict(lambda: self._store.of_problems(self._store.with_prefix(prefix)))
        return sorted((x for group in groups for x in group if self._fresh(x)), key=lambda x: x.created)

    async def export(self) -> AsyncIterator[Lesson]:
        """All lessons, oldest first, a page at a time.

        Raises:
            StorageError: the store cannot be read.
        """
        start: Any = None
        while True:
            page = await self._strict(lambda at=start: self._store.page(at, _PAGE))
            for lesson in page.lessons:
                if self._fresh(lesson):
                    yield lesson
            if page.following is None:
                return
            start = page.following

    async def cleanup(self, budget: int = 256) -> int:
        """Drop expired and surplus lessons, at most `budget` of them; returns how many went."""
        return await self._best_effort(lambda: self._store.cleanup(budget, self._clock()), 0)

    async def clear(self) -> int:
        """Drop everything; returns how many lessons went.

        Raises:
            StorageError: the store cannot be written.
        """
        return await self._strict(self._store.clear)

    async def stats(self) -> MemoryStats:
        """Counts and sizes.

        Raises:
            StorageError: the store cannot be read.
        """
        return await self._strict(self._store.stats)

    async def aclose(self) -> None:
        """Release files, connections and threads; harmless when called twice."""
        if self._closed:
            return
        self._closed = True
        if self._pool is None:
            self._store.close()
            return
        if self._batches is not None:
            await self._batches.drain()
        await asyncio.wrap_future(self._pool.submit(self._store.close))
        self._pool.shutdown(wait=False)


def _normal(text: str) -> str:
    """A text as it counts for telling duplicates: white space and case do not matter."""
    return " ".join(text.casefold().split())
