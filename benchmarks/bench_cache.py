"""The step cache's price: one look-up, many at once, a whole list, a lock. Per store.

    pytest benchmarks/bench_cache.py

Each figure is of one round; `operations` in the extra info says how many operations a round has.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reflexion.cache import CachedStep, StepCache, compute_once, open_cache
from reflexion.keys import digest
from reflexion.types import Usage
from tests.redis_server import RedisServer

MANY = 1000

Run = Callable[[Callable[[StepCache], Awaitable[Any]], int], None]


def entry(number: int) -> CachedStep:
    """An entry of the size a trial's usually is, about 2 kB."""
    return CachedStep(
        key=digest(number),
        step="trial",
        value={"answer": f"def solution_{number}():\n" + "    return 42\n" * 60, "index": 1, "attempts": 1},
        fields={"prompt": digest("prompt"), "problem": {"prompt": "Write a function. " * 40}, "temperature": 0.0},
        model="model",
        dataset="bench",
        run="bench",
        problem=str(number),
        usage=Usage(prompt=400, completion=200, calls=1),
        created=time.time(),
        expires=time.time() + 3600,
    )


ENTRIES = [entry(number) for number in range(MANY)]
KEYS = [one.key for one in ENTRIES]


class Fresh:
    """Entries under keys that were never written: replacing a file costs some file systems twice as much."""

    def __init__(self) -> None:
        self.turn = 0

    def __call__(self, number: int) -> CachedStep:
        key = f"{self.turn:04x}{number:04x}{KEYS[number][8:]}"
        return ENTRIES[number].model_copy(update={"key": key[::-1]})


@pytest.fixture(params=["memory", "local", "redis"])
def run(request: pytest.FixtureRequest, benchmark: Any, tmp_path: Path) -> Iterator[Run]:
    """Measures a coroutine function over a cache that holds a thousand entries."""
    server = RedisServer.start() if request.param == "redis" else None
    urls = {"memory": "memory:", "local": str(tmp_path), "redis": server.url if server else ""}
    with asyncio.Runner() as runner:
        cache = open_cache(urls[request.param])

        async def fill() -> None:
            await asyncio.gather(*(cache.put(one) for one in ENTRIES))

        runner.run(fill())

        def measure(work: Callable[[StepCache], Awaitable[Any]], operations: int) -> None:
            async def once() -> None:
                await work(cache)

            rounds = 10 if operations > 1 else 200
            benchmark.extra_info["operations"] = operations
            benchmark.pedantic(lambda: runner.run(once()), rounds=rounds, warmup_rounds=2)
            benchmark.extra_info["microseconds_per_operation"] = round(
                benchmark.stats.stats.median / operations * 1e6, 1
            )

        yield measure
        runner.run(cache.aclose())
    if server is not None:
        server.close()


@pytest.mark.benchmark(group="one at a time")
def test_get(run: Run) -> None:
    run(lambda cache: cache.get(KEYS[0]), 1)


@pytest.mark.benchmark(group="one at a time")
def test_put(run: Run) -> None:
    fresh = Fresh()
    numbers = itertools.count()
    run(lambda cache: cache.put(fresh(next(numbers))), 1)


@pytest.mark.benchmark(group="one at a time")
def test_lock_round_trip(run: Run) -> None:
    async def work(cache: StepCache) -> None:
        await cache.acquire("key", "holder")
        await cache.release("key", "holder")

    run(work, 1)


@pytest.mark.benchmark(group="a thousand at once")
def test_get_at_once(run: Run) -> None:
    async def work(cache: StepCache) -> None:
        found = await asyncio.gather(*(cache.get(key) for key in KEYS))
        assert all(found)

    run(work, MANY)


@pytest.mark.benchmark(group="a thousand at once")
def test_put_at_once(run: Run) -> None:
    async def work(cache: StepCache) -> None:
        fresh.turn += 1
        await asyncio.gather(*(cache.put(fresh(number)) for number in range(MANY)))

    fresh = Fresh()
    run(work, MANY)


@pytest.mark.benchmark(group="a thousand at once")
def test_get_many(run: Run) -> None:
    async def work(cache: StepCache) -> None:
        assert len(await cache.get_many(KEYS)) == MANY

    run(work, MANY)


@pytest.mark.benchmark(group="a thousand at once")
def test_locks_at_once(run: Run) -> None:
    async def one(cache: StepCache, key: str) -> None:
        await cache.acquire(key, "holder")
        await cache.release(key, "holder")

    async def work(cache: StepCache) -> None:
        await asyncio.gather(*(one(cache, key) for key in KEYS))

    run(work, MANY)


@pytest.mark.benchmark(group="a thousand at once")
def test_compute_once_hits(run: Run) -> None:
    async def never() -> CachedStep:
        raise AssertionError("all of them are there")

    async def work(cache: StepCache) -> None:
        await asyncio.gather(*(compute_once(cache, key, "holder", never) for key in KEYS))

    run(work, MANY)


@pytest.mark.benchmark(group="a thousand at once")
def test_compute_once_misses(run: Run) -> None:
    fresh = Fresh()

    async def work(cache: StepCache) -> None:
        fresh.turn += 1

        async def one(number: int) -> None:
            entry = fresh(number)

            async def compute() -> CachedStep:
                return entry

            await compute_once(cache, entry.key, "holder", compute)

        await asyncio.gather(*(one(number) for number in range(MANY)))

    run(work, MANY)
