"""Stores that go away, were tampered with, or are named wrongly: a warning, a reported miss, or one clear error."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reflexion.cache import open_cache
from reflexion.cli.main import execute
from reflexion.run.batch_run import execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.run.run_folder import RunFolder
from reflexion.testing import ScriptedEndpoint
from reflexion.types import Episode
from tests.redis_server import RedisServer
from tests.support.evals import CALLS, evaluate, write_problems


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of this test's own, to be stopped and started."""
    with RedisServer.start() as server:
        yield server


class At:
    """Does something when so many episodes are finished."""

    def __init__(self, actions: dict[int, Callable[[], None]]) -> None:
        self.actions, self.done = actions, 0

    def started(self, folder: RunFolder, total: int, done: int) -> None:
        pass

    def finished(self, episode: Episode) -> None:
        self.done += 1
        self.actions.get(self.done, lambda: None)()


def test_a_redis_that_goes_and_comes_back(
    server: RedisServer, openai_endpoint: ScriptedEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    problems = 60
    dataset = write_problems(tmp_path / "problems.jsonl", problems)
    openai_endpoint.latency = 0.1
    caplog.set_level(logging.INFO, "reflexion")
    parameters = BatchParameters(dataset=dataset, llm="mock", cache=server.url, memory=server.url, concurrency=6)
    result = asyncio.run(execute_batch(parameters, progress=At({8: server.stop, 14: server.launch})))

    assert result.summary.solved == problems
    assert len((result.folder / "episodes.jsonl").read_text().splitlines()) == problems
    assert openai_endpoint.stats.calls == problems * CALLS
    told = [r.getMessage() for r in caplog.records if r.name == "reflexion.cache"]
    assert [text.partition(" is ")[2].partition(" (")[0] for text in told] == ["not reachable", "back and used again"]
    assert sum(r.name == "reflexion.memory" and r.levelname == "WARNING" for r in caplog.records) == 1

    # The server came back empty; what was computed after that is in it.
    again = asyncio.run(execute_batch(parameters))
    assert again.summary.solved == problems
    assert 0 < again.summary.cached_steps < problems * CALLS


@pytest.fixture
def first_run(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> tuple[str, Path]:
    """A dataset and the local cache of a run over it."""
    dataset, cache = write_problems(tmp_path / "problems.jsonl", 2), tmp_path / "cache"
    evaluate("direct", dataset, cache=str(cache))
    return dataset, cache


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["pickle", "torn", "empty", "other JSON"])
def test_an_entry_that_was_tampered_with_is_a_reported_miss(
    kind: str,
    first_run: tuple[str, Path],
    openai_endpoint: ScriptedEndpoint,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset, cache = first_run
    entries = [path for path in (cache / "entries").rglob("*") if path.is_file()]
    assert len(entries) == 2 * CALLS
    planted = {
        "pickle": pickle.dumps(Planted(tmp_path / "was-unpickled")),
        "torn": entries[0].read_bytes()[:-30],
        "empty": b"",
        "other JSON": json.dumps({"step": "trial"}).encode(),
    }
    entries[0].write_bytes(planted[kind])

    result = evaluate("direct", dataset, cache=str(cache))

    assert result.summary.solved == 2
    assert openai_endpoint.stats.calls == 2 * CALLS + 1
    assert not (tmp_path / "was-unpickled").exists()
    assert any("counts as a miss" in record.getMessage() for record in caplog.records)
    assert evaluate("direct", dataset, cache=str(cache)).summary.llm_calls == 0


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("reflexion: error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in out + err
    return lines[0]


@pytest.mark.parametrize(
    ("options", "named", "code"),
    [
        (["--cache", "memcached://127.0.0.1/0"], "'memcached'", 2),
        (["--cache", "redis://127.0.0.1:99999/0"], "port", 2),
        (["--cache", "redis+sentinel://127.0.0.1"], "service", 2),
        (["--memory", "mongodb://127.0.0.1/0"], "mongodb", 2),
        (["--memory-entries", "0"], "memory_entries", 2),
        (["--memory-bytes", "0"], "memory_bytes", 2),
        (["--memory-per-problem", "0"], "memory_per_problem", 2),
        (["--memory-max-age", "soon"], "memory_max_age", 2),
        (["--omega", "0"], "omega", 2),
        (["--ttl", "later"], "ttl", 2),
        (["--ttl", "trail=1d"], "trail", 2),
        (["--reflection-reuse", "1.5"], "reflection_reuse", 2),
        (["--reflection-reuse", "0.8", "--similarity", "guess"], "similarity", 2),
        (["--memory", "redis://127.0.0.1:9/0"], "redis://127.0.0.1:9/0", 1),
    ],
)
def test_wrong_options_are_named(
    options: list[str],
    named: str,
    code: int,
    openai_endpoint: ScriptedEndpoint,
    isolated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 1)
    assert execute(["eval", dataset, "--llm", "mock", "--direct", *options]) == code
    assert named in one_line(capsys)
    # Nothing was begun: no call, no run.
    assert openai_endpoint.stats.calls == 0
    assert not list(isolated.glob("runs/*"))


def test_a_wrong_password_is_never_shown(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 1)
    with RedisServer.start(password="right-secret") as server:
        for option in ("--cache", "--memory"):
            for url in (server.url_with("wrong-secret"), server.url_with(None)):
                with pytest.MonkeyPatch.context() as patch:
                    # The command hands URLs with a password on by the environment of its process.
                    for name in ("REFLEXION_CACHE", "REFLEXION_MEMORY"):
                        patch.setenv(name, "")
                    assert execute(["eval", dataset, "--llm", "mock", "--direct", option, url]) in (1, 2)
                error = one_line(capsys)
                assert "password" in error.lower() or "authentication" in error.lower()
                assert "secret" not in error
    assert openai_endpoint.stats.calls == 0


def test_stores_of_a_newer_version_are_left_alone(
    first_run: tuple[str, Path], server: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, cache = first_run
    marker = next(p for p in cache.iterdir() if p.is_file() and "format" in p.name.lower())
    marker.write_text(marker.read_text().replace("1", "99"))
    assert execute(["eval", dataset, "--llm", "mock", "--direct", "--cache", str(cache)]) == 1
    assert "99" in one_line(capsys)

    import redis

    with redis.Redis(port=server.port) as client:
        client.set("reflexion:steps:format", 99)
    assert execute(["cache", "stats", "--cache", server.url]) == 1
    assert "99" in one_line(capsys)

    memory = tmp_path / "memory.sqlite"
    evaluate("direct", dataset, cache="none:", memory=str(memory))
    with sqlite3.connect(memory) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert execute(["memory", "stats", "--memory", str(memory)]) == 1
    assert "newer" in one_line(capsys)


def test_a_memory_file_another_process_holds(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, memory = write_problems(tmp_path / "problems.jsonl", 1), tmp_path / "memory.sqlite"
    evaluate("direct", dataset, memory=str(memory))
    db = sqlite3.connect(memory, isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    try:
        assert execute(["eval", dataset, "--llm", "mock", "--direct", "--memory", str(memory)]) == 1
    finally:
        db.close()
    assert "memory.sqlite" in one_line(capsys)


def test_questions_about_a_store_that_is_away_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["cache", "stats"], ["cache", "prune"], ["cache", "clear", "--all"]):
        assert execute([*arguments, "--cache", "redis://127.0.0.1:9/0"]) == 1
        assert "cannot be reached" in one_line(capsys)
    assert execute(["memory", "stats", "--memory", "redis://127.0.0.1:9/0"]) == 1
    one_line(capsys)


def test_a_cache_that_is_away_from_the_start(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 4, copies=2)
    openai_endpoint.latency = 0.05
    result = evaluate("direct", dataset, cache="redis://127.0.0.1:9/0")
    assert result.summary.solved == 8
    assert sum("not reachable" in r.getMessage() for r in caplog.records) == 1


def test_entries_in_redis_end_with_their_time_to_live(
    server: RedisServer, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 1)
    evaluate("direct", dataset, cache=server.url, ttl="trial=1h,reflect=2h")
    import redis

    with redis.Redis(port=server.port) as client:
        ages = sorted(client.ttl(key) for key in client.scan_iter("reflexion:steps:e:*"))
    assert [round(age / 3600) for age in ages] == [1, 1, 2]


async def test_the_store_named_by_the_settings_is_used(isolated: Path) -> None:
    cache = open_cache(None)
    assert cache.location == str(isolated / "steps")
    await cache.aclose()
