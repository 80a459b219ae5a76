"""Keys and passwords appear nowhere but in memory: not in records, logs, results, reports or cache keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from reflexion.testing import ScriptedEndpoint
from tests.redis_server import RedisServer
from tests.support.evals import cli, write_problems
from tests.support.prefect_server import PrefectServer
from tests.support.records import flow_run_of

KEY = "sk-marked-7f3a9c1e5b"
PASSWORD = "marked-password-2d8e4f"
PROXY_PASSWORD = "marked-proxy-6b1c0a"

pytestmark = pytest.mark.prefect


@pytest.fixture
def locked_redis() -> Iterator[RedisServer]:
    with RedisServer.start(PASSWORD) as server:
        yield server


def found_in(folder: Path) -> list[str]:
    """Files below a folder that hold a secret."""
    secrets = [s.encode() for s in (KEY, PASSWORD, PROXY_PASSWORD)]
    return [str(p) for p in folder.rglob("*") if p.is_file() and any(s in p.read_bytes() for s in secrets)]


def checkpoint(server: PrefectServer) -> None:
    """Bring what the server's write-ahead log holds into the database, where it can be read."""
    with sqlite3.connect(server.database, timeout=30) as database:
        database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    database.close()


@pytest.mark.parametrize("granularity", ["1", "8"])
def test_a_run_leaves_no_secret_behind(
    granularity: str,
    prefect_server: PrefectServer,
    locked_redis: RedisServer,
    endpoint: ScriptedEndpoint,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    isolated: Path,
) -> None:
    endpoint.faults.extend(["500", "400"])
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    dataset = write_problems(tmp_path / "problems.jsonl", 3)
    url = endpoint.url.replace("http://", f"http://proxy:{PROXY_PASSWORD}@")
    arguments = ["eval", dataset, "--llm", "mock", "--steps-per-task-run", granularity, "--verbose", "--name", "kept"]
    arguments += ["--cache", locked_redis.url, "--memory", f"{locked_redis.url}?prefix=secrets"]
    code, out, err = cli(*arguments, "--base-url", url)
    run = flow_run_of(prefect_server, dataset)

    assert endpoint.stats.answered > 0, err
    assert code == 0, err
    assert not [s for s in (KEY, PASSWORD, PROXY_PASSWORD) if s in out + err + str(run)]
    assert (isolated / "runs" / "kept" / "summary.json").exists()
    assert found_in(tmp_path) == [] and found_in(isolated) == []
    checkpoint(prefect_server)
    assert found_in(prefect_server.home) == []

    import redis

    with redis.Redis.from_url(locked_redis.url) as client:
        names = list(client.scan_iter())
        assert len(names) > 3
        everything = b"".join(names) + b"".join(filter(None, (client.dump(name) for name in names)))
    assert not [s for s in (KEY, PASSWORD, PROXY_PASSWORD) if s.encode() in everything]


def test_an_endpoint_that_repeats_the_key_does_not_make_it_public(
    prefect_server: PrefectServer,
    endpoint: ScriptedEndpoint,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    isolated: Path,
) -> None:
    endpoint.api_key = "sk-another"  # its refusal quotes the key it was given
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    dataset = write_problems(tmp_path / "problems.jsonl", 2)
    code, out, err = cli("eval", dataset, "--llm", "mock", "--verbose")
    assert code == 1 and "401" in err
    assert KEY not in out + err + str(flow_run_of(prefect_server, dataset))
    checkpoint(prefect_server)
    assert found_in(isolated) == [] and found_in(prefect_server.home) == []
