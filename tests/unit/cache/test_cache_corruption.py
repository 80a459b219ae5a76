"""Entries that cannot be read are reported misses, and nothing planted in a store is ever run."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from reflexion.cache import CachedStep, CacheFilter, StepCache, compute_once, open_cache
from reflexion.cache.codec import CorruptEntryError, decode, encode
from reflexion.keys import digest
from tests.redis_server import RedisServer

MakeEntry = Callable[..., CachedStep]
KEY = digest("a")


class Planted:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def good(make_entry: MakeEntry, **more: Any) -> bytes:
    return encode(make_entry("a", **more), 10**9)


def changed(make_entry: MakeEntry, **header: Any) -> bytes:
    line, _, content = good(make_entry).partition(b"\n")
    return orjson.dumps(orjson.loads(line) | header) + b"\n" + content


DAMAGES: dict[str, Callable[[MakeEntry], bytes]] = {
    "empty": lambda make: b"",
    "cut header": lambda make: good(make)[:50],
    "cut content": lambda make: good(make)[:-3],
    "cut compressed content": lambda make: good(make, value={"answer": "x" * 50_000})[:-3],
    "flipped compressed content": lambda make: good(make, value={"answer": "x" * 50_000})[:-9] + b"123456789",
    "longer content": lambda make: good(make) + b" ",
    "not JSON": lambda make: b"\x00\x01\x02\n\x03",
    "not an object": lambda make: b"[1]\n[]",
    "another key": lambda make: changed(make, key=digest("b")),
    "newer format": lambda make: changed(make, format=99),
    "unknown encoding": lambda make: changed(make, encoding="pickle"),
    "unknown step": lambda make: changed(make, step="think"),
    "unknown field": lambda make: changed(make, extra=1),
    "content of another shape": lambda make: changed(make, size=2).partition(b"\n")[0] + b"\n[]",
    "a bomb": lambda make: changed(make, encoding="zlib", size=2**40).partition(b"\n")[0] + b"\n" + zlib.compress(b"0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed(damage: str, make_entry: MakeEntry) -> None:
    with pytest.raises(CorruptEntryError):
        decode(DAMAGES[damage](make_entry), KEY)


@pytest.fixture(params=["local", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Plant = Callable[[bytes], None]


@pytest.fixture
async def planted(
    kind: str, tmp_path: Path, redis_server: RedisServer, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[StepCache, Plant]]:
    """A cache, and a way to put any bytes under the key."""
    if kind == "local":
        cache = open_cache(str(tmp_path / "steps"))
        path = tmp_path / "steps" / "entries" / KEY[0] / KEY[1:3] / KEY

        def plant(data: bytes) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    else:
        namespace = f"corrupt:{digest(request.node.nodeid)[:12]}"
        cache = open_cache(redis_server.url, namespace=namespace)

        def plant(data: bytes) -> None:
            with redis.Redis.from_url(redis_server.url) as client:
                client.set(f"{namespace}:e:{KEY}", data)

    yield cache, plant
    await cache.aclose()


@pytest.mark.parametrize("damage", ["cut content", "not JSON", "newer format"])
async def test_a_corrupt_entry_is_a_miss_reported_once(
    planted: tuple[StepCache, Plant], damage: str, make_entry: MakeEntry, caplog: pytest.LogCaptureFixture
) -> None:
    cache, plant = planted
    plant(DAMAGES[damage](make_entry))
    with caplog.at_level(logging.WARNING, "reflexion.cache"):
        assert await cache.get(KEY) is None
        assert await cache.get(KEY) is None
        assert await cache.get_many([KEY]) == {}
    (record,) = caplog.records
    assert KEY[:12] in record.getMessage() and "counts as a miss" in record.getMessage()
    assert (await cache.stats()).corrupt == 1
    await cache.put(make_entry("a"))
    assert await cache.get(KEY) is not None


async def test_a_planted_pickle_is_never_loaded(
    planted: tuple[StepCache, Plant], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, plant = planted
    touched = tmp_path / "touched"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        plant(pickle.dumps(Planted(touched), protocol))
        assert await cache.get(KEY) is None
        plant(pickle.dumps(Planted(touched), protocol))
        assert await cache.get_many([KEY]) == {}
        await cache.stats()
        await cache.prune()
    assert not touched.exists()
    assert "counts as a miss" in caplog.text


async def test_a_corrupt_entry_does_not_spoil_the_others(
    planted: tuple[StepCache, Plant], make_entry: MakeEntry, caplog: pytest.LogCaptureFixture
) -> None:
    cache, plant = planted
    await cache.put(make_entry("b"))
    plant(b"garbage")
    assert set(await cache.get_many([KEY, digest("b")])) == {digest("b")}
    assert "counts as a miss" in caplog.text


async def test_another_type_under_a_redis_key_is_a_miss(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_cache(redis_server.url, namespace="wrongtype")
    with redis.Redis.from_url(redis_server.url) as client:
        client.rpush(f"wrongtype:e:{KEY}", "x")
    assert await cache.get(KEY) is None
    assert await cache.get(KEY) is None
    assert caplog.text.count("counts as a miss") == 1
    await cache.aclose()


async def test_prune_sets_unreadable_files_aside_and_clear_removes_them(
    tmp_path: Path, make_entry: MakeEntry, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_cache(str(tmp_path))
    folder = tmp_path / "entries" / KEY[0] / KEY[1:3]
    folder.mkdir(parents=True)
    (folder / KEY).write_bytes(b"garbage")
    assert (await cache.stats()).entries == 0
    assert await cache.prune() == 0
    assert (tmp_path / "corrupt" / KEY).read_bytes() == b"garbage"
    assert "moved to" in caplog.text
    (folder / KEY).write_bytes(b"garbage")
    assert await cache.clear(CacheFilter()) == 1
    assert not list(folder.iterdir())
    await cache.aclose()


async def test_prune_removes_what_a_dead_process_left(tmp_path: Path) -> None:
    cache = open_cache(str(tmp_path))
    old, new = tmp_path / "tmp" / "old", tmp_path / "tmp" / "new"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (1, 1))
    await cache.prune()
    assert not old.exists() and new.exists()
    await cache.aclose()


async def test_damaged_counters_start_anew(tmp_path: Path, make_entry: MakeEntry, caplog: Any) -> None:
    (tmp_path / "counters.json").write_text("{")
    cache = open_cache(str(tmp_path))
    await cache.record([make_entry("a")], [])
    assert (await cache.stats()).steps[0].hits == 1
    assert "counting starts anew" in caplog.text
    await cache.aclose()


async def test_a_folder_that_was_removed_is_made_again(tmp_path: Path, make_entry: MakeEntry) -> None:
    cache = open_cache(str(tmp_path / "steps"))
    await cache.put(make_entry("a"))
    shutil.rmtree(tmp_path / "steps")
    assert await cache.get(KEY) is None
    await cache.put(make_entry("a"))
    assert await cache.get(KEY) is not None
    assert (await open_cache(str(tmp_path / "steps")).stats()).entries == 1
    await cache.aclose()


async def test_a_folder_whose_locks_cannot_be_used_costs_one_warning(
    tmp_path: Path, make_entry: MakeEntry, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "locks").mkdir()
    cache = open_cache(str(tmp_path))

    async def compute() -> CachedStep:
        return make_entry("a")

    assert await compute_once(cache, KEY, "a", compute) == (await cache.get(KEY), False)
    await cache.record([make_entry("a")], [])
    assert (await cache.stats()).steps[0].hits == 1
    (record,) = caplog.records
    assert "cannot be locked" in record.getMessage()
    await cache.aclose()


async def test_a_folder_that_cannot_be_written_costs_one_warning(
    tmp_path: Path, make_entry: MakeEntry, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_cache(str(tmp_path / "steps"))
    for name in ("tmp", "entries"):
        (tmp_path / "steps" / name).rmdir()
        (tmp_path / "steps" / name).write_text("in the way")
    for name in "abc":
        await cache.put(make_entry(name))
        assert await cache.get(digest(name)) is None
    warnings = [record.getMessage() for record in caplog.records]
    assert sum("cannot be written" in text for text in warnings) == 1
    assert len(warnings) <= 2
    await cache.aclose()
