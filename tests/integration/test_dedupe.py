"""The same problems met by several processes at once: each distinct step is computed once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reflexion.testing import ScriptedEndpoint
from tests.redis_server import RedisServer
from tests.support.evals import CALLS, start_cli, write_problems

DISTINCT, COPIES, PROCESSES = 40, 5, 4


@pytest.mark.parametrize("store", ["redis", "folder"])
def test_four_processes_make_the_calls_of_one(
    store: str, openai_endpoint: ScriptedEndpoint, redis_server: RedisServer, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", DISTINCT, COPIES)
    cache = redis_server.url_with(None, db=3) if store == "redis" else str(tmp_path / "cache")
    openai_endpoint.latency = 0.05
    share = DISTINCT * COPIES // PROCESSES
    common = ("eval", dataset, "--llm", "mock", "--direct", "--json", "--cache", cache, "--limit", str(share))

    processes = [start_cli(*common, "--offset", str(n * share), "--name", f"part-{n}") for n in range(PROCESSES)]
    results = [process.communicate(timeout=120) for process in processes]

    assert [process.returncode for process in processes] == [0] * PROCESSES, [err for _, err in results]
    summaries = [json.loads(out) for out, _ in results]
    assert sum(s["solved"] for s in summaries) == DISTINCT * COPIES
    assert openai_endpoint.stats.calls == DISTINCT * CALLS
    assert openai_endpoint.stats.duplicates_in_flight == 0
    # What each run says of itself adds up to what the endpoint saw.
    assert sum(s["llm_calls"] for s in summaries) == DISTINCT * CALLS
    assert sum(s["cached_steps"] for s in summaries) == DISTINCT * (COPIES - 1) * CALLS
