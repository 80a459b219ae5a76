"""One suite for every store: in memory, a local folder, and a real Redis."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from reflexion.cache import CachedStep, CacheFilter, StepCache, open_cache
from reflexion.keys import digest
from reflexion.types import Usage
from tests.waiting import wait_until

MakeEntry = Callable[..., CachedStep]


async def test_an_entry_comes_back_as_it_was_put(cache: StepCache, make_entry: MakeEntry) -> None:
    entry = make_entry("ä\n" + "\u0000", expires=time.time() + 60)
    await cache.put(entry)
    assert await cache.get(entry.key) == entry


async def test_a_missing_key_is_a_miss(cache: StepCache) -> None:
    assert await cache.get(digest("nobody")) is None
    assert await cache.get_many([]) == {}


async def test_the_last_writer_wins(cache: StepCache, make_entry: MakeEntry) -> None:
    await cache.put(make_entry("a", value={"answer": "old"}))
    await cache.put(make_entry("a", value={"answer": "new"}))
    found = await cache.get(digest("a"))
    assert found is not None and found.value == {"answer": "new"}
    assert (await cache.stats()).entries == 1


async def test_large_values_survive_compression(cache: StepCache, make_entry: MakeEntry) -> None:
    entry = make_entry("big", value={"answer": "long " * 100_000})
    await cache.put(entry)
    assert await cache.get(entry.key) == entry


async def test_many_are_found_at_once(cache: StepCache, make_entry: MakeEntry) -> None:
    entries = [make_entry(str(n)) for n in range(450)]
    await asyncio.gather(*(cache.put(entry) for entry in entries))
    wanted = [entry.key for entry in entries] + [digest("missing")]
    assert await cache.get_many(wanted) == {entry.key: entry for entry in entries}
    singly = await asyncio.gather(*(cache.get(key) for key in wanted))
    assert singly == [*entries, None]


async def test_entries_outlive_the_object_that_wrote_them(
    cache_url: str, cache_options: dict[str, Any], make_entry: MakeEntry
) -> None:
    if cache_url == "memory:":
        return
    first = open_cache(cache_url, **cache_options)
    await first.put(make_entry("a"))
    await first.aclose()
    await first.aclose()
    second = open_cache(cache_url, **cache_options)
    assert await second.get(digest("a")) is not None
    await second.aclose()


async def test_expired_entries_are_misses_and_are_pruned(cache: StepCache, make_entry: MakeEntry) -> None:
    await cache.put(make_entry("short", expires=time.time() + 0.15))
    await cache.put(make_entry("long", expires=time.time() + 60))
    await cache.put(make_entry("eternal"))

    async def gone() -> bool:
        return await cache.get(digest("short")) is None

    await wait_until(gone)
    assert set(await cache.get_many([digest(n) for n in ("short", "long", "eternal")])) == {
        digest("long"),
        digest("eternal"),
    }
    stats = await cache.stats()
    assert (stats.entries, stats.expired) == (2, 1)
    assert await cache.prune() == 1
    stats = await cache.stats()
    assert (stats.entries, stats.expired) == (2, 0)
    assert await cache.prune() == 0


@pytest.mark.parametrize(
    ("which", "left"),
    [
        (CacheFilter(), ""),
        (CacheFilter(step="reflect"), "acd"),
        (CacheFilter(dataset="other"), "abd"),
        (CacheFilter(model="large"), "abc"),
        (CacheFilter(run="night"), "bcd"),
        (CacheFilter(older_than=100), "acd"),
        (CacheFilter(step="reflect", older_than=100), "acd"),
        (CacheFilter(step="trial", dataset="other", run="r"), "abd"),
        (CacheFilter(step="trial", dataset="nowhere"), "abcd"),
    ],
)
async def test_clear_removes_what_all_conditions_name(
    cache: StepCache, make_entry: MakeEntry, which: CacheFilter, left: str
) -> None:
    await cache.put(make_entry("a", run="night"))
    await cache.put(make_entry("b", step="reflect", created=time.time() - 1000))
    await cache.put(make_entry("c", dataset="other"))
    await cache.put(make_entry("d", model="large"))
    assert await cache.clear(which) == 4 - len(left)
    found = await cache.get_many([digest(name) for name in "abcd"])
    assert {str(entry.value["answer"]) for entry in found.values()} == set(left)
    assert (await cache.stats()).entries == len(left)


async def test_stats_add_up_by_step_and_model(cache: StepCache, make_entry: MakeEntry) -> None:
    a, b = make_entry("a"), make_entry("b", step="reflect", model=None)
    await cache.put(a)
    await cache.put(b)
    await cache.record([a, a], [("trial", "m")])
    await cache.record([b], [("evaluate", "judge")])
    stats = await cache.stats()
    by = {(s.step, s.model): s for s in stats.steps}
    assert stats.entries == 2 and stats.bytes == sum(s.bytes for s in stats.steps) > 0
    assert (by["trial", "m"].hits, by["trial", "m"].misses, by["trial", "m"].entries) == (2, 1, 1)
    assert by["trial", "m"].saved == Usage(prompt=20, completion=10, calls=2, cost_usd=0.5)
    assert by["reflect", None].hits == 1
    assert (by["evaluate", "judge"].misses, by["evaluate", "judge"].entries) == (1, 0)


async def test_a_saving_with_an_unknown_price_is_unknown(cache: StepCache, make_entry: MakeEntry) -> None:
    priced, unpriced = make_entry("a"), make_entry("b", usage=Usage(prompt=1, calls=1))
    await cache.record([priced, unpriced], [])
    (step,) = (await cache.stats()).steps
    assert step.saved == Usage(prompt=11, completion=5, calls=2, cost_usd=None)


async def test_counters_survive_clearing(cache: StepCache, make_entry: MakeEntry) -> None:
    await cache.put(make_entry("a"))
    await cache.record([make_entry("a")], [])
    await cache.clear(CacheFilter())
    assert (await cache.stats()).steps[0].hits == 1


async def test_a_too_large_entry_is_not_kept_and_its_field_is_named(
    cache_url: str, cache_options: dict[str, Any], make_entry: MakeEntry, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_cache(cache_url, max_entry_bytes=10_000, **cache_options)
    with caplog.at_level(logging.WARNING, "reflexion.cache"):
        await cache.put(make_entry("big", value={"answer": "a", "trajectory": ["x" * 20_000]}))
    assert await cache.get(digest("big")) is None
    (message,) = [record.getMessage() for record in caplog.records]
    assert "value.trajectory" in message and "10,000" in message and "max_entry_bytes" in message
    await cache.aclose()


# Locks


async def test_a_lock_is_held_by_one(cache: StepCache) -> None:
    assert await cache.acquire("key", "a")
    assert not await cache.acquire("key", "b", wait=0)
    assert not await cache.acquire("key", "b", wait=0.05)
    assert await cache.acquire("other", "b", wait=0)
    await cache.release("key", "b")
    assert not await cache.acquire("key", "b", wait=0), "whoever does not hold it cannot give it back"
    await cache.release("key", "a")
    assert await cache.acquire("key", "b", wait=0)
    await cache.release("key", "b")
    await cache.release("other", "b")


async def test_its_holder_may_ask_again(cache: StepCache) -> None:
    assert await cache.acquire("key", "a")
    assert await cache.acquire("key", "a", wait=0)
    await cache.release("key", "a")
    assert await cache.acquire("key", "b", wait=0)
    await cache.release("key", "b")


async def test_waiters_take_turns_in_the_order_they_came(cache: StepCache) -> None:
    order: list[int] = []
    inside = 0

    async def work(number: int) -> None:
        nonlocal inside
        assert await cache.acquire("key", f"h{number}")
        inside += 1
        assert inside == 1
        order.append(number)
        await asyncio.sleep(0)
        inside -= 1
        await cache.release("key", f"h{number}")

    await asyncio.gather(*(work(number) for number in range(20)))
    assert order == list(range(20))


async def test_a_waiter_that_gives_up_does_not_block_the_next(cache: StepCache) -> None:
    assert await cache.acquire("key", "a")
    impatient = asyncio.create_task(cache.acquire("key", "b"))
    patient = asyncio.create_task(cache.acquire("key", "c"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait((impatient,))
    await cache.release("key", "a")
    assert await asyncio.wait_for(patient, 5)
    await cache.release("key", "c")


async def test_two_caches_on_one_store_share_its_locks(cache_url: str, cache_options: dict[str, Any]) -> None:
    if cache_url == "memory:":
        return
    one, two = open_cache(cache_url, **cache_options), open_cache(cache_url, **cache_options)
    assert await one.acquire("key", "a")
    assert not await two.acquire("key", "b", wait=0.05)
    await one.release("key", "a")
    assert await two.acquire("key", "b", wait=5)
    await two.release("key", "b")
    await one.aclose()
    await two.aclose()


def test_one_cache_serves_several_event_loops(
    cache_url: str, cache_options: dict[str, Any], make_entry: MakeEntry
) -> None:
    """Threads with event loops of their own share entries and locks."""
    import threading

    cache = open_cache(cache_url, **cache_options)
    inside, most, failures = 0, 0, list[BaseException]()

    async def work(name: str) -> None:
        nonlocal inside, most
        for turn in range(5):
            holder = f"{name}-{turn}"
            assert await cache.acquire("key", holder, wait=20)
            inside += 1
            most = max(most, inside)
            await cache.put(make_entry(holder))
            inside -= 1
            await cache.release("key", holder)
        await cache.aclose()

    def run(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures and most == 1

    async def look() -> None:
        names = [f"{name}-{turn}" for name in "abc" for turn in range(5)]
        assert len(await cache.get_many([digest(name) for name in names])) == 15
        await cache.aclose()

    if cache_url != "memory:":
        asyncio.run(look())


def test_a_holder_whose_event_loop_was_closed_is_succeeded(cache_url: str, cache_options: dict[str, Any]) -> None:
    cache = open_cache(cache_url, **cache_options)

    async def take_and_forget() -> None:
        assert await cache.acquire("key", "dead")
        await cache.aclose()

    async def take() -> bool:
        taken = await cache.acquire("key", "next", wait=5)
        await cache.release("key", "next")
        await cache.aclose()
        return taken

    asyncio.run(take_and_forget())
    assert asyncio.run(take())
