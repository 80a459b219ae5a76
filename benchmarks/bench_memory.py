"""Adds and retrievals per second while a memory grows from 1,000 to 100,000 lessons, in one table.

    pytest benchmarks/bench_memory.py

Each lesson is of a problem of its own: the index of similar problems grows as fast as it can. A
retrieval asks for two lessons of the problem itself and three of similar ones.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path

import pytest

from reflexion.memory import Memory, MemoryLimits, Query, open_memory
from reflexion.types import Lesson
from tests.redis_server import RedisServer

SIZES = (1_000, 10_000, 100_000)
RETRIEVALS = 300
TOGETHER = 32
"""Lessons added at once, as by the episodes of a run."""

SLOWDOWN = 5.0
"""How much slower the largest memory may answer than the smallest."""

# Words as languages have them: few are everywhere, most are rare.
_VOCABULARY = [f"word{i}" for i in range(5_000)]
_WEIGHTS = [1 / (rank + 2) for rank in range(len(_VOCABULARY))]


def lessons(count: int) -> list[Lesson]:
    chance = random.Random(7)
    made: list[Lesson] = []
    for i in range(count):
        topic = " ".join(chance.choices(_VOCABULARY, _WEIGHTS, k=20))
        made.append(
            Lesson(
                key=f"lesson-{i}",
                problem=f"{i:064x}",
                episode=f"run/{i}",
                run="run",
                trial=1,
                text=f"The tests of case {i} failed on an empty list; return early when there is nothing to do.",
                prompt=f"Write a Python function that returns the result for {topic}.",
                feedback="AssertionError: f([]) gave None, expected []",
                created=1_700_000_000.0 + i,
            )
        )
    return made


async def grow(memory: Memory, stock: list[Lesson]) -> list[tuple[int, float, float, float]]:
    """Rows of `(size, adds/s, retrievals/s, p95 of a retrieval in ms)`; the rate is that of the median one."""
    rows: list[tuple[int, float, float, float]] = []
    filled = 0
    for size in SIZES:
        begun = time.perf_counter()
        for start in range(filled, size, TOGETHER):
            assert all(
                await asyncio.gather(*(memory.add(lesson) for lesson in stock[start : min(start + TOGETHER, size)]))
            )
        adds = (size - filled) / (time.perf_counter() - begun)
        filled = size
        times: list[float] = []
        similar = 0
        for lesson in random.Random(1).sample(stock[:size], RETRIEVALS):
            query = Query(problem=lesson.problem, prompt=lesson.prompt, episode="new", run="new", own=2, similar=3)
            begun = time.perf_counter()
            found = await memory.recall(query)
            times.append(time.perf_counter() - begun)
            assert found[0].key == lesson.key
            similar += len(found) - 1
        assert similar > RETRIEVALS
        times.sort()
        rows.append((size, adds, 1 / times[RETRIEVALS // 2], times[int(RETRIEVALS * 0.95)] * 1000))
    assert (await memory.stats()).entries == SIZES[-1]
    await memory.aclose()
    return rows


@pytest.mark.timeout(1200)
def test_memory_table(capsys: pytest.CaptureFixture[str]) -> None:
    stock = lessons(SIZES[-1])
    limits, slowest = MemoryLimits(entries=2 * SIZES[-1], bytes=2**30), dict[str, float]()
    with capsys.disabled():
        print(f"\n\n{'backend':8} {'lessons':>8} {'adds/s':>8} {'retrievals/s':>13} {'p95 ms':>7}  against {SIZES[0]}")
    with RedisServer.start() as server, tempfile.TemporaryDirectory() as folder:
        urls = {"memory": "memory://", "sqlite": f"sqlite:{Path(folder) / 'm.sqlite'}", "redis": server.url}
        for name, url in urls.items():
            rows = asyncio.run(grow(open_memory(url, limits), stock))
            with capsys.disabled():
                for size, adds, retrievals, p95 in rows:
                    slowdown = rows[0][2] / retrievals
                    print(f"{name:8} {size:8} {adds:8.0f} {retrievals:13.0f} {p95:7.2f}  {slowdown:.2f}x")
            slowest[name] = rows[0][2] / rows[-1][2]
    assert max(slowest.values()) <= SLOWDOWN, slowest
