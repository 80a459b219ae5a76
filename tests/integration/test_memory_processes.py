"""The memory when processes die, servers go away, and several workers share it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from reflexion.memory import MemoryLimits, Query, open_memory, threaded_memory
from reflexion.types import Lesson
from tests.redis_server import RedisServer

QUERY = Query(problem="p", prompt="sort names", episode="new", run="new", similar=1)

_WORKER = """
import asyncio, sys
from reflexion.memory import MemoryLimits, open_memory
from reflexion.types import Lesson

async def main(url, first, count, entries):
    memory = open_memory(url, MemoryLimits(entries=entries))
    for i in range(first, first + count):
        await memory.add(Lesson(
            key=f"k{i}", problem=f"p{i}", episode="e", trial=1, text=f"lesson {i}", prompt=f"sort names {i}"
        ))
        await memory.credit([f"k{i}"], passed=True, by="shared")
        print(f"k{i}", flush=True)
    await memory.aclose()

asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
"""


def worker(url: str, first: int, count: int, entries: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", _WORKER, url, str(first), str(count), str(entries)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def a_lesson(number: int) -> Lesson:
    return Lesson(key=f"k{number}", problem="p", episode="e", trial=1, text=f"lesson {number}", prompt="sort names")


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with worker(f"sqlite:{path}", 0, 1_000_000, 10**9) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(100)]
        process.kill()
        acknowledged += process.stdout.read().split("\n")[:-1]
    memory = open_memory(str(path))
    kept = {x.key: x for x in await memory.lessons()}
    assert len(acknowledged) >= 100
    assert set(acknowledged) <= set(kept)
    assert all(kept[key].uses == 1 for key in acknowledged)
    stats = await memory.stats()
    assert stats.entries == stats.problems == len(kept)
    await memory.aclose()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.execute("INSERT INTO problem_words (problem_words) VALUES ('integrity-check')")
    db.close()


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
async def test_workers_share_a_memory_and_its_limits(backend: str, tmp_path: Path) -> None:
    with RedisServer.start() as server:
        url = f"sqlite:{tmp_path / 'm.sqlite'}" if backend == "sqlite" else server.url
        processes = [worker(url, first, 100, 120) for first in (0, 50, 50)]
        for process in processes:
            assert len(process.communicate(timeout=60)[0].splitlines()) == 100
            assert process.returncode == 0
        memory = open_memory(url)
        lessons = await memory.lessons()
        stats = await memory.stats()
        assert len(lessons) == stats.entries == stats.problems == 120
        assert stats.evicted >= 30
        # Two of them credited the same trial, and it counts once.
        assert {x.uses for x in lessons} == {1}
        await memory.aclose()


async def test_redis_gone_and_back_is_one_warning_and_no_failure(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threaded_memory, "_QUIET_SECONDS", 0.0)
    with RedisServer.start() as server:
        memory = open_memory(server.url, wait=1.0)
        assert await memory.add(a_lesson(1))
        server.kill()
        with caplog.at_level(logging.WARNING, "reflexion.memory"):
            assert not await memory.add(a_lesson(2))
            assert await memory.recall(QUERY) == []
            await memory.credit(["k1"], passed=True, by="t")
            assert await memory.cleanup() == 0
        assert len(caplog.records) == 1
        assert "the redis memory failed" in caplog.text
        server.launch()
        assert await memory.add(a_lesson(3))
        assert [x.key for x in await memory.recall(QUERY)] == ["k3"]
        await memory.aclose()


async def test_redis_that_hangs_is_left_alone_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer.start() as server:
        memory = open_memory(server.url, wait=0.2)
        server.pause()
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert not await memory.add(a_lesson(0))
        once = loop.time() - before
        for number in range(1, 50):
            assert not await memory.add(a_lesson(number))
        assert loop.time() - before < 2 * once + 1.0
        server.resume()
        await memory.aclose()


async def test_a_locked_file_does_not_stop_a_run_or_the_event_loop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threaded_memory, "_QUIET_SECONDS", 0.0)
    path = tmp_path / "m.sqlite"
    memory = open_memory(str(path), wait=0.3)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    adding = asyncio.create_task(memory.add(a_lesson(1)))
    turns = 0
    while not adding.done():
        turns += 1
        await asyncio.sleep(0.005)
    assert adding.result() is False
    assert turns > 10
    assert "the sqlite memory failed (database is locked)" in caplog.text
    holder.execute("COMMIT")
    holder.close()
    assert await memory.add(a_lesson(1))
    await memory.aclose()


def test_one_memory_serves_several_event_loops(tmp_path: Path) -> None:
    with RedisServer.start() as server:
        for url in ("memory://", f"sqlite:{tmp_path / 'm.sqlite'}", server.url):
            memory = open_memory(url, MemoryLimits(per_problem=5))
            for number in range(3):
                assert asyncio.run(_add(memory, number))
            assert asyncio.run(memory.stats()).entries == 3
            asyncio.run(memory.aclose())


async def _add(memory: threaded_memory.StoredMemory, number: int) -> bool:
    return await memory.add(a_lesson(number))
