"""The episodic memory of one process, gone with it."""

from __future__ import annotations

import heapq
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from reflexion.memory.episodic_memory import MemoryLimits, MemoryStats
from reflexion.memory.similarity import CANDIDATES, NEWEST, words_of
from reflexion.memory.threaded_memory import CLEANUP_BUDGET, CLEANUP_EVERY, Page, body_of, usefulness
from reflexion.types import Lesson

__all__ = ["ProcessStore"]

Rank = tuple[float, float, int]


@dataclass(slots=True)
class _Entry:
    lesson: Lesson
    number: int
    size: int
    credited: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class _Problem:
    words: tuple[str, ...] = ()
    keys: list[str] = field(default_factory=list[str])


class _Queue:
    """Keys by rank, lowest first. A key whose rank changed is entered anew; stale entries are skipped."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, str]] = []
        self._current: dict[str, Rank] = {}

    def put(self, key: str, rank: Rank) -> None:
        self._current[key] = rank
        heapq.heappush(self._heap, (rank, key))
        if len(self._heap) > 64 + 2 * len(self._current):
            self._heap = [(r, k) for k, r in self._current.items()]
            heapq.heapify(self._heap)

    def discard(self, key: str) -> None:
        self._current.pop(key, None)

    def rank(self, key: str) -> Rank:
        return self._current[key]

    def first(self, but: str | None = None) -> str | None:
        """The key with the lowest rank, `but` excepted."""
        spared: tuple[Rank, str] | None = None
        found: str | None = None
        while self._heap and found is None:
            rank, key = self._heap[0]
            if self._current.get(key) != rank:
                heapq.heappop(self._heap)
            elif key == but:
                spared = heapq.heappop(self._heap)
            else:
                found = key
        if spared is not None:
            heapq.heappush(self._heap, spared)
        return found


class ProcessStore:
    """Lessons in dictionaries, with queues for eviction and expiry and an index of words."""

    backend = "memory"
    failures: tuple[type[Exception], ...] = ()

    def __init__(self, limits: MemoryLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._reset()
        self._number = self._evicted = self._expired = 0

    def _reset(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._problems: dict[str, _Problem] = {}
        self._postings: dict[str, deque[str]] = {}
        self._frequency: Counter[str] = Counter()
        self._bytes = 0
        self._by_age = _Queue()
        self._by_policy = _Queue()

    def _rank(self, entry: _Entry) -> Rank:
        lesson = entry.lesson
        match self._limits.eviction:
            case "oldest":
                worth = 0.0
            case "least_used":
                worth = float(lesson.uses)
            case "least_useful":
                worth = usefulness(lesson.uses, lesson.wins)
        return worth, lesson.created, entry.number

    def together(self) -> AbstractContextManager[object]:
        """Nothing is gained by it here."""
        return nullcontext()

    def add(self, lesson: Lesson, now: float) -> bool:
        size = len(body_of(lesson))
        with self._lock:
            if lesson.key in self._entries or size > self._limits.bytes:
                return False
            self._number += 1
            entry = _Entry(lesson, self._number, size)
            self._entries[lesson.key] = entry
            self._bytes += size
            self._by_age.put(lesson.key, (0.0, lesson.created, entry.number))
            self._by_policy.put(lesson.key, self._rank(entry))
            problem = self._problems.setdefault(lesson.problem, _Problem())
            problem.keys.append(lesson.key)
            if not problem.words:
                problem.words = words_of(lesson.prompt)
                for word in problem.words:
                    self._frequency[word] += 1
                    self._postings.setdefault(word, deque(maxlen=NEWEST)).append(lesson.problem)
            if self._number % CLEANUP_EVERY == 0:
                self._clean(CLEANUP_BUDGET, now, lesson.key)
            self._trim_problem(lesson.problem, lesson.key)
            self._trim_total(CLEANUP_BUDGET, lesson.key)
            return True

    def _trim_problem(self, problem: str, spare: str | None) -> None:
        entry = self._problems[problem]
        while len(entry.keys) > self._limits.per_problem:
            self._evict(min((k for k in entry.keys if k != spare), key=self._by_policy.rank))

    def _trim_total(self, budget: int, spare: str | None) -> int:
        gone = 0
        while gone < budget and (len(self._entries) > self._limits.entries or self._bytes > self._limits.bytes):
            victim = self._by_policy.first(but=spare)
            if victim is None:
                break
            self._evict(victim)
            gone += 1
        return gone

    def _evict(self, key: str) -> None:
        self._remove(key)
        self._evicted += 1

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key)
        self._bytes -= entry.size
        self._by_age.discard(key)
        self._by_policy.discard(key)
        problem = self._problems[entry.lesson.problem]
        problem.keys.remove(key)
        if not problem.keys:
            del self._problems[entry.lesson.problem]
            for word in problem.words:
                self._frequency[word] -= 1
                posting = self._postings[word]
                if entry.lesson.problem in posting:
                    posting.remove(entry.lesson.problem)
                if not self._frequency[word]:
                    del self._frequency[word], self._postings[word]

    def _clean(self, budget: int, now: float, spare: str | None = None) -> int:
        gone = 0
        if self._limits.max_age is not None:
            oldest = self._by_age.first(but=spare)
            while oldest is not None and gone < budget:
                if self._entries[oldest].lesson.created > now - self._limits.max_age:
                    break
                self._remove(oldest)
                self._expired += 1
                gone += 1
                oldest = self._by_age.first(but=spare)
        return gone + self._trim_total(budget - gone, spare)

    def of_problems(self, problems: Sequence[str]) -> list[list[Lesson]]:
        with self._lock:
            groups = [self._problems.get(problem, _Problem()).keys for problem in problems]
            entries = [sorted((self._entries[k] for k in keys), key=_age) for keys in groups]
            return [[entry.lesson for entry in group] for group in entries]

    def with_prefix(self, prefix: str) -> list[str]:
        with self._lock:
            return [problem for problem in self._problems if problem.startswith(prefix)]

    def frequencies(self, words: Sequence[str]) -> tuple[int, dict[str, int]]:
        with self._lock:
            return len(self._problems), {w: self._frequency[w] for w in words if w in self._frequency}

    def candidates(self, words: Sequence[str], frequencies: Mapping[str, int]) -> dict[str, Sequence[str]]:
        with self._lock:
            hits: Counter[str] = Counter()
            for word in words:
                hits.update(reversed(self._postings.get(word, ())))
            return {p: self._problems[p].words for p, _ in hits.most_common(CANDIDATES)}

    def credit(self, keys: Sequence[str], passed: bool, by: str) -> None:
        with self._lock:
            for key in keys:
                entry = self._entries.get(key)
                if entry is None or by in entry.credited:
                    continue
                entry.credited.add(by)
                lesson = entry.lesson
                entry.lesson = lesson.model_copy(update={"uses": lesson.uses + 1, "wins": lesson.wins + passed})
                self._by_policy.put(key, self._rank(entry))

    def page(self, start: Any, count: int) -> Page:
        with self._lock:
            # The order is taken once; lessons that went meanwhile are passed over.
            keys: list[str]
            keys, done = start or ([e.lesson.key for e in sorted(self._entries.values(), key=_age)], 0)
            lessons = [self._entries[k].lesson for k in keys[done : done + count] if k in self._entries]
        return Page(lessons, (keys, done + count) if done + count < len(keys) else None)

    def cleanup(self, budget: int, now: float) -> int:
        with self._lock:
            return self._clean(budget, now)

    def clear(self) -> int:
        with self._lock:
            gone = len(self._entries)
            self._reset()
            return gone

    def stats(self) -> MemoryStats:
        with self._lock:
            return MemoryStats(
                backend=self.backend,
                entries=len(self._entries),
                problems=len(self._problems),
                bytes=self._bytes,
                evicted=self._evicted,
                expired=self._expired,
            )

    def close(self) -> None:
        """Nothing to release."""


def _age(entry: _Entry) -> tuple[float, int]:
    return entry.lesson.created, entry.number
