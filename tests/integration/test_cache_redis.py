"""What only Redis does: expiry by the server, going away and coming back, Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from reflexion.cache import CachedStep, CacheFilter, compute_once, open_cache
from reflexion.keys import digest
from tests.redis_server import RedisServer, free_port
from tests.waiting import wait_until

QUICK = (0.05, 0.2)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer.start(password="sesame") as server:
        yield server


def entry(name: str, **more: object) -> CachedStep:
    given = {"key": digest(name), "step": "trial", "value": {"answer": name}, "created": time.time()}
    return CachedStep.model_validate(given | more)


async def test_expired_entries_vanish_from_redis_itself(server: RedisServer) -> None:
    cache = open_cache(server.url)
    expires = time.time() + 0.2
    await cache.put(entry("short", expires=expires))
    await cache.put(entry("long", expires=time.time() + 100))
    await cache.put(entry("eternal"))
    await cache.put(entry("late", expires=time.time() - 1))
    with redis.Redis.from_url(server.url) as client:
        names = {name: f"reflexion:steps:e:{digest(name)}" for name in ("short", "long", "eternal", "late")}
        assert client.execute_command("PTTL", names["long"]) in range(90_000, 100_001)
        assert client.ttl(names["eternal"]) == -1
        assert not client.exists(names["late"])
        await wait_until(lambda: not client.exists(names["short"]))
        assert time.time() >= expires
        assert await cache.prune() == 1
        assert set(client.hkeys("reflexion:steps:index")) == {digest("long").encode(), digest("eternal").encode()}
    await cache.aclose()


async def test_no_command_looks_at_the_whole_key_space(server: RedisServer) -> None:
    cache = open_cache(server.url)
    await asyncio.gather(*(cache.put(entry(str(n), run=f"r{n % 3}")) for n in range(500)))
    with redis.Redis.from_url(server.url) as client:
        client.config_resetstat()
        assert await cache.clear(CacheFilter(run="r1")) == 167
        assert (await cache.stats()).entries == 333
        await cache.prune()
        used = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
        assert "hscan" in used and not used & {"keys", "scan", "hgetall_index", "flushdb"}
        calls = client.info("commandstats")["cmdstat_hscan"]["calls"]
        assert calls >= 3 * 500 / 200 / 2, "the index is read in steps"
    await cache.aclose()


async def test_one_client_serves_many_calls(server: RedisServer) -> None:
    one, two = open_cache(server.url), open_cache(server.url)
    with redis.Redis.from_url(server.url) as client:
        before = client.info("stats")["total_connections_received"]
        await asyncio.gather(*(one.put(entry(str(n))) for n in range(300)))
        await asyncio.gather(*(two.get(digest(str(n))) for n in range(300)))
        assert client.info("stats")["total_connections_received"] - before <= 2
        await one.aclose()
        assert await two.get(digest("1")) is not None
        await two.aclose()
        await wait_until(lambda: client.info("clients")["connected_clients"] == 1)


async def test_redis_gone_in_the_middle_of_a_run_and_back(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reflexion.cache")
    cache = open_cache(server.url, retry_seconds=QUICK)
    computed: list[str] = []

    async def step(name: str) -> CachedStep:
        async def compute() -> CachedStep:
            computed.append(name)
            if name == "last straw":
                server.kill()
            await asyncio.sleep(0.01)
            return entry(name)

        return (await compute_once(cache, digest(name), name, compute))[0]

    await step("before")
    await step("last straw")
    # Without the server every step is computed, and identical ones at once still only once.
    await asyncio.gather(*(step("during") for _ in range(10)))
    await step("during")
    assert computed == ["before", "last straw", "during", "during"]
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "not reachable" in caplog.text and "sesame" not in caplog.text

    server.launch()

    async def used_again() -> bool:
        await cache.put(entry("after"))
        return await cache.get(digest("after")) is not None

    await wait_until(used_again)
    await step("after")
    assert "after" not in computed
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    with redis.Redis.from_url(server.url) as client:
        assert client.get("reflexion:steps:format") == b"1", "the marker is set in the new, empty server"
    await cache.aclose()


async def test_a_server_that_comes_back_at_once_costs_nothing(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_cache(server.url)
    await cache.put(entry("a"))
    server.restart()
    assert await cache.get(digest("a")) is None
    await cache.put(entry("a"))
    assert await cache.get(digest("a")) is not None
    assert not caplog.records
    await cache.aclose()


async def test_a_server_that_hangs_is_given_up(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    cache = open_cache(server.url, timeout=0.3, retry_seconds=QUICK)
    await cache.put(entry("a"))
    server.pause()
    began = time.monotonic()
    found = await asyncio.gather(*(cache.get(digest("a")) for _ in range(500)))
    assert found == [None] * 500
    assert await cache.acquire("key", "holder", wait=0)
    assert time.monotonic() - began < 5, "a timeout for each batch at most, not for each call"
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    server.resume()

    async def used_again() -> bool:
        return await cache.get(digest("a")) is not None

    await wait_until(used_again)
    await cache.release("key", "holder")
    await cache.aclose()


async def test_counts_are_kept_while_redis_is_away(server: RedisServer) -> None:
    cache = open_cache(server.url, retry_seconds=QUICK)
    await cache.get(digest("a"))
    server.kill()
    await cache.record([], [("trial", "m")])
    assert (await cache.stats()).steps == ()
    server.launch()

    async def counted() -> bool:
        return [s.misses for s in (await cache.stats()).steps] == [1]

    await wait_until(counted)
    await cache.aclose()


async def test_a_lock_is_taken_anew_when_the_server_lost_it(server: RedisServer) -> None:
    cache = open_cache(server.url, lock_lease=0.6, retry_seconds=QUICK)
    assert await cache.acquire("key", "holder")
    server.restart()
    with redis.Redis.from_url(server.url) as client:
        await wait_until(lambda: client.exists("reflexion:steps:lock:key") == 1)
    other = open_cache(server.url, lock_lease=0.6)
    assert not await other.acquire("key", "other", wait=0.05)
    await cache.release("key", "holder")
    assert await other.acquire("key", "other", wait=5)
    await cache.aclose()
    await other.aclose()


async def test_a_full_redis_costs_one_warning(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    cache = open_cache(server.url)
    await cache.put(entry("kept"))
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
    for name in "abc":
        await cache.put(entry(name))
    assert await cache.get(digest("kept")) is not None
    assert sum("refused SET" in record.getMessage() for record in caplog.records) == 1
    await cache.aclose()


@contextlib.contextmanager
def sentinel(master: RedisServer, folder: Path) -> Iterator[int]:
    """A real Sentinel that watches `master`; its port."""
    config = folder / "sentinel.conf"
    config.write_text(
        f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\nsentinel auth-pass mymaster {master.password}\n"
    )
    port = free_port()
    watcher = RedisServer(port=port, args=())
    with watcher:
        watcher.launch_sentinel(config)
        yield port


async def test_sentinel_names_the_server(server: RedisServer, tmp_path: Path) -> None:
    with sentinel(server, tmp_path) as port:
        cache = open_cache(f"redis+sentinel://:sesame@127.0.0.1:{port}/mymaster/0")
        await cache.put(entry("a"))
        assert await cache.get(digest("a")) == await open_and_get(server.url, "a")
        assert (await cache.stats()).backend == "sentinel"
        assert cache.location == f"redis+sentinel://:***@127.0.0.1:{port}/mymaster/0"
        await cache.aclose()


async def open_and_get(url: str, name: str) -> CachedStep | None:
    cache = open_cache(url)
    try:
        return await cache.get(digest(name))
    finally:
        await cache.aclose()


def test_a_wrong_password_behind_a_sentinel_is_told(server: RedisServer, tmp_path: Path) -> None:
    from reflexion.errors import ConfigurationError

    with sentinel(server, tmp_path) as port, pytest.raises(ConfigurationError, match="refuses the user or password"):
        open_cache(f"redis+sentinel://:mistake@127.0.0.1:{port}/mymaster/0")
