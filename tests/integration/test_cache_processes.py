"""Several processes on one store: each key is computed once, and a killed holder is succeeded."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reflexion.cache import open_cache
from tests.redis_server import RedisServer
from tests.waiting import wait_until

LEASE = 1.0

COMPUTE = """
import asyncio, os, random, sys, time
from reflexion.cache import CachedStep, compute_once, open_cache
from reflexion.keys import digest

url, log, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])

async def one(cache, number):
    async def compute():
        with open(log, "a") as file:
            file.write(f"{number}\\n")
        await asyncio.sleep(0.02)
        return CachedStep(key=digest(number), step="trial", value={"n": number}, created=time.time())

    entry, _ = await compute_once(cache, digest(number), f"{os.getpid()}", compute)
    assert entry.value == {"n": number}

async def main():
    cache = open_cache(url, **options)
    print("ready", flush=True)
    sys.stdin.readline()
    numbers = [n for n in range(40) for _ in range(5)]
    random.shuffle(numbers)
    await asyncio.gather(*(one(cache, n) for n in numbers))
    await cache.aclose()

asyncio.run(main())
"""

HOLD = """
import asyncio, sys
from reflexion.cache import open_cache

async def main():
    cache = open_cache(sys.argv[1], **eval(sys.argv[2]))
    assert await cache.acquire("key", "holder")
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(params=["local", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    if request.param == "local":
        yield str(tmp_path / "steps"), {}
        return
    with RedisServer.start() as server:
        yield server.url, {"lock_lease": LEASE}


@contextlib.contextmanager
def python(code: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A process of ours, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_four_processes_compute_each_key_once(store: tuple[str, dict[str, float]], tmp_path: Path) -> None:
    url, options = store
    log = tmp_path / "computed"
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(python(COMPUTE, url, str(log), repr(options))) for _ in range(4)]
        assert [line(worker) for worker in workers] == ["ready"] * 4
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        assert [worker.wait(60) for worker in workers] == [0] * 4
    assert sorted(map(int, log.read_text().split())) == list(range(40))


async def test_a_killed_holder_is_succeeded_within_the_lease(store: tuple[str, dict[str, float]]) -> None:
    url, options = store
    cache = open_cache(url, **options)
    with python(HOLD, url, repr(options)) as holder:
        assert line(holder) == "held"
        assert not await cache.acquire("key", "waiter", wait=0.05)
        holder.kill()
        holder.wait(10)
        killed = time.monotonic()
        assert await cache.acquire("key", "waiter", wait=30)
        # The lease, one look at it, and room for a busy machine.
        assert time.monotonic() - killed < LEASE + 2
        await cache.release("key", "waiter")
    await cache.aclose()


async def test_a_living_holder_keeps_its_lock_beyond_the_lease(store: tuple[str, dict[str, float]]) -> None:
    url, options = store
    cache = open_cache(url, **options)
    with python(HOLD, url, repr(options)) as holder:
        assert line(holder) == "held"
        assert not await cache.acquire("key", "waiter", wait=2.5 * LEASE)
        holder.kill()
    await cache.aclose()


async def test_counters_of_several_processes_add_up(store: tuple[str, dict[str, float]]) -> None:
    code = """
import asyncio, sys
from reflexion.cache import open_cache

async def main():
    cache = open_cache(sys.argv[1], **eval(sys.argv[2]))
    for _ in range(50):
        await cache.record([], [("trial", "m")])
        await cache.stats()
    await cache.aclose()

asyncio.run(main())
"""
    url, options = store
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(python(code, url, repr(options))) for _ in range(3)]
        assert [worker.wait(60) for worker in workers] == [0] * 3
    cache = open_cache(url, **options)

    async def complete() -> bool:
        (step,) = (await cache.stats()).steps
        return step.misses == 150

    await wait_until(complete, 5)
    await cache.aclose()
