"""Identical steps under way at once are computed once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from reflexion.cache import CachedStep, NullCache, StepCache, compute_once
from reflexion.keys import digest

MakeEntry = Callable[..., CachedStep]


async def test_n_identical_calls_make_one_computation(cache: StepCache, make_entry: MakeEntry) -> None:
    computed = 0

    async def compute() -> CachedStep:
        nonlocal computed
        computed += 1
        await asyncio.sleep(0.01)
        return make_entry("a")

    results = await asyncio.gather(*(compute_once(cache, digest("a"), f"h{n}", compute) for n in range(50)))
    assert computed == 1
    assert [there for _, there in results].count(False) == 1
    assert len({entry.created for entry, _ in results}) == 1
    assert await compute_once(cache, digest("a"), "later", compute) == (results[0][0], True)


async def test_different_keys_are_computed_side_by_side(cache: StepCache, make_entry: MakeEntry) -> None:
    started = asyncio.Barrier(10)

    async def one(name: str) -> bool:
        async def compute() -> CachedStep:
            async with asyncio.timeout(10):
                await started.wait()
            return make_entry(name)

        return (await compute_once(cache, digest(name), name, compute))[1]

    assert await asyncio.gather(*(one(str(n)) for n in range(10))) == [False] * 10


async def test_after_a_failure_the_waiters_try_one_after_another(cache: StepCache, make_entry: MakeEntry) -> None:
    running = most = calls = 0

    async def compute() -> CachedStep:
        nonlocal running, most, calls
        calls += 1
        mine, running = calls, running + 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        if mine < 4:
            raise RuntimeError(f"try {mine}")
        return make_entry("a")

    results = await asyncio.gather(
        *(compute_once(cache, digest("a"), f"h{n}", compute) for n in range(10)), return_exceptions=True
    )
    assert [str(r) for r in results if isinstance(r, BaseException)] == ["try 1", "try 2", "try 3"]
    assert calls == 4 and most == 1


async def test_a_cancelled_leader_is_succeeded(cache: StepCache, make_entry: MakeEntry) -> None:
    begun = asyncio.Event()

    async def never() -> CachedStep:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def compute() -> CachedStep:
        return make_entry("a")

    leader = asyncio.create_task(compute_once(cache, digest("a"), "first", never))
    await begun.wait()
    follower = asyncio.create_task(compute_once(cache, digest("a"), "second", compute))
    await asyncio.sleep(0)
    leader.cancel()
    entry, there = await asyncio.wait_for(follower, 10)
    assert entry.key == digest("a") and not there
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_a_cancelled_follower_leaves_the_leader_alone(cache: StepCache, make_entry: MakeEntry) -> None:
    go = asyncio.Event()

    async def compute() -> CachedStep:
        await go.wait()
        return make_entry("a")

    leader = asyncio.create_task(compute_once(cache, digest("a"), "first", compute))
    follower = asyncio.create_task(compute_once(cache, digest("a"), "second", compute))
    await asyncio.sleep(0)
    follower.cancel()
    await asyncio.wait((follower,))
    go.set()
    assert (await asyncio.wait_for(leader, 10))[1] is False


async def test_refresh_computes_again_and_replaces(cache: StepCache, make_entry: MakeEntry) -> None:
    await cache.put(make_entry("a", value={"answer": "old"}, created=time.time() - 5))

    async def compute() -> CachedStep:
        await asyncio.sleep(0.005)
        return make_entry("a", value={"answer": "new"})

    results = await asyncio.gather(
        *(compute_once(cache, digest("a"), f"h{n}", compute, refresh=True) for n in range(5))
    )
    assert [there for _, there in results].count(False) == 1
    assert all(entry.value == {"answer": "new"} for entry, _ in results)
    found = await cache.get(digest("a"))
    assert found is not None and found.value == {"answer": "new"}


async def test_without_a_cache_every_call_computes(make_entry: MakeEntry) -> None:
    calls = 0

    async def compute() -> CachedStep:
        nonlocal calls
        calls += 1
        return make_entry("a")

    cache = NullCache()
    results = await asyncio.gather(*(compute_once(cache, digest("a"), f"h{n}", compute) for n in range(3)))
    assert calls == 3 and not any(there for _, there in results)
    assert await cache.get(digest("a")) is None
