"""What `open_memory` accepts, and what it says to the rest."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from reflexion.errors import ConfigurationError, StorageError
from reflexion.memory import MemoryLimits, make_limits, open_memory
from tests.redis_server import RedisServer, free_port
from tests.unit.memory.lessons import lesson


@pytest.mark.parametrize(
    "url", ["", "memory", "mongodb://x", "sqlite:", "sqlite://host/x.sqlite", "notes.txt", "http://x"]
)
def test_an_unknown_url_is_answered_with_the_known_ones(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"memory://.*sqlite:PATH.*redis://"):
        open_memory(url)


@pytest.mark.parametrize("form", ["sqlite:{}", "sqlite:///{}", "{}"])
async def test_every_way_to_name_a_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / "new" / "lessons.sqlite"
    memory = open_memory(form.format(path))
    await memory.add(lesson(1))
    await memory.aclose()
    assert path.is_file()


async def test_three_slashes_before_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await open_memory("sqlite:///here.db").aclose()
    assert (tmp_path / "here.db").is_file()


@pytest.mark.parametrize("option", ["per_problem", "entries", "bytes", "max_age"])
def test_a_capacity_below_one_names_its_option(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"memory {option} = 0"):
        make_limits(**{option: 0})


def test_an_unknown_eviction_policy_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="'oldest', 'least_used' or 'least_useful'"):
        make_limits(eviction="newest")
    assert make_limits(entries=5) == MemoryLimits(entries=5)


_HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA locking_mode = EXCLUSIVE")
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_file_another_process_holds_is_given_up_after_the_wait(tmp_path: Path) -> None:
    path = tmp_path / "held.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            StorageError, match=r"held\.sqlite: the memory is locked by another process \(waited 0\.1 s\)"
        ):
            open_memory(str(path), wait=0.1)
        holder.communicate()


def test_files_that_are_no_memory_are_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("these are my notes, not a database\n" * 100)
    with pytest.raises(StorageError, match=r"text\.sqlite: not a memory"):
        open_memory(str(text))
    assert text.read_text().startswith("these are my notes")
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE accounts (name)")
    db.close()
    with pytest.raises(StorageError, match="another program"):
        open_memory(str(other))
    with pytest.raises(StorageError, match="cannot be opened"):
        open_memory(f"sqlite:{tmp_path}")


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    await open_memory(str(path)).aclose()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StorageError, match=r"newer version .*format 99"):
        open_memory(str(path))


async def test_the_file_is_memory_mapped_and_logs_ahead(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    memory = open_memory(str(path))
    await memory.add(lesson(1))
    maps = Path("/proc/self/maps").read_text() if sys.platform == "linux" else str(path)
    assert str(path) in maps
    assert (tmp_path / "m.sqlite-wal").exists()
    await memory.aclose()


async def test_lower_limits_take_hold_of_a_file_that_is_there(tmp_path: Path) -> None:
    path = str(tmp_path / "m.sqlite")
    memory = open_memory(path)
    for number in range(300):
        await memory.add(lesson(number, problem=f"p{number // 3}"))
    await memory.aclose()
    memory = open_memory(path, MemoryLimits(entries=50, per_problem=1))
    gone = 0
    while step := await memory.cleanup(budget=40):
        assert step <= 40
        gone += step
    stats = await memory.stats()
    assert (gone, stats.entries, stats.problems) == (250, 50, 50)
    await memory.aclose()


async def test_redis_with_a_wrong_password() -> None:
    with RedisServer.start(password="sesame") as server:
        await open_memory(server.url).aclose()
        for password in ("wrong", None):
            with pytest.raises(StorageError, match="password") as caught:
                open_memory(server.url_with(password))
            assert "wrong@" not in str(caught.value) and ":wrong" not in str(caught.value)


def test_redis_that_is_not_there() -> None:
    with pytest.raises(StorageError, match="cannot be used"):
        open_memory(f"redis://:secret@127.0.0.1:{free_port()}/0")


def test_redis_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with pytest.raises(StorageError, match="cannot be used"):
            open_memory(f"redis://127.0.0.1:{port}/0", wait=0.1)


def test_redis_url_with_nonsense() -> None:
    with pytest.raises(ConfigurationError, match="not a Redis URL"):
        open_memory("redis://127.0.0.1:6379/0?nonsense=1")
    with pytest.raises(ConfigurationError, match="not a Redis URL"):
        open_memory("redis://127.0.0.1:port/0")


async def test_redis_of_a_newer_version(memory_redis: RedisServer) -> None:
    with redis.Redis.from_url(memory_redis.url) as client:
        client.set("{newer}:format", "99")
    with pytest.raises(StorageError, match="format 99"):
        open_memory(memory_redis.url + "?prefix=newer")


async def test_redis_forgets_by_itself_what_has_expired(memory_redis: RedisServer) -> None:
    memory = open_memory(memory_redis.url + "?prefix=expiring", MemoryLimits(max_age=1000))
    await memory.add(lesson(1, prompt="count vowels"))
    await memory.credit(["k1"], passed=True, by="t")
    with redis.Redis.from_url(memory_redis.url, decode_responses=True) as client:
        lives = {key: client.ttl(key) for key in client.scan_iter("{expiring}:*")}
    assert len(lives) == 15
    assert lives.pop("{expiring}:format") == -1
    assert all(990 <= life <= 1001 for life in lives.values()), lives
    await memory.aclose()


def test_importing_the_memory_is_cheap() -> None:
    code = "import sys, reflexion.memory; print({'redis', 'sqlite3', 'prefect', 'openai', 'httpx'} & set(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert out.stdout == "set()\n"
