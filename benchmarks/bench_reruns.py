"""Nothing is computed twice, and nothing piles up: second runs, a nightly change, and memory over a long run.

    pytest benchmarks/bench_reruns.py -s

Every run has a process of its own and asks a scripted endpoint in another. `REFLEXION_BENCH_PROBLEMS` and
`REFLEXION_BENCH_LONG` set the problems of a run (1,000) and of the long one (20,000).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.endpoint import EndpointProcess, endpoint_process
from benchmarks.harness import ROOT, clean_environment, prefect_server
from tests.redis_server import RedisServer

PROBLEMS = int(os.environ.get("REFLEXION_BENCH_PROBLEMS", "1000"))
LONG = int(os.environ.get("REFLEXION_BENCH_LONG", "20000"))
CONCURRENCY = int(os.environ.get("REFLEXION_BENCH_CONCURRENCY", "32"))
"""Episodes at a time where a first run is compared with a second: 160 calls a second at 200 ms each."""

CALLS = 3
"""Calls of an episode: a wrong answer, a reflection, the right answer."""

FASTER = 10.0
HIT_RATE = 0.8
GROWTH_MB = 40.0
CHANGED = 10
"""One problem in so many is another one the next night."""

_RUN = """
import asyncio, json, sys, time
import psutil
from reflexion.run.batch_run import execute_batch
from reflexion.run.parameters import BatchParameters

me, seen = psutil.Process(), []
class Watch:
    total = done = 0
    def started(self, folder, total, done):
        self.total = total
    def finished(self, episode):
        self.done += 1
        if self.done % 100 == 0:
            seen.append((self.done, me.memory_info().rss / 1e6))

parameters, watch = BatchParameters.model_validate_json(sys.argv[1]), Watch()
began = time.perf_counter()
if sys.argv[2] == "flow":
    from reflexion.flows.batch import PROGRESS, batch_evaluation
    PROGRESS.set(watch)
    began = time.perf_counter()
    result = batch_evaluation.run(parameters)
else:
    result = asyncio.run(execute_batch(parameters, progress=watch))
wall = time.perf_counter() - began
print(json.dumps({"wall": wall, "summary": result.summary.model_dump(mode="json"), "seen": seen}))
"""


def write(path: Path, count: int, night: int = 0) -> str:
    """Problems; every tenth one is another one each night."""
    with path.open("w") as file:
        for n in range(count):
            version = night if n % CHANGED == 0 else 0
            row = {"id": f"p{n}", "prompt": f"[{version}] What is {n} times three, minus {3 * n - 42}?", "answer": "42"}
            file.write(json.dumps(row) + "\n")
    return str(path)


class Runs:
    """Makes runs over one endpoint."""

    def __init__(self, folder: Path, endpoint: EndpointProcess, server: str | None = None) -> None:
        self.folder, self.endpoint, self.server = folder, endpoint, server

    def __call__(self, engine: str = "direct", **parameters: Any) -> dict[str, Any]:
        """A run's wall time, figures and memory; `calls` is what the endpoint saw."""
        self.endpoint.reset()
        given = {"llm": "mock", "runs": str(self.folder / "runs"), **parameters}
        home = str(self.folder / "home")
        environment = clean_environment() | {
            "PYTHONPATH": str(ROOT),
            "HOME": home,
            "PREFECT_HOME": home,
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "OPENAI_BASE_URL": self.endpoint.url,
            "OPENAI_API_KEY": "none",
        }
        if self.server is not None:
            environment["PREFECT_API_URL"] = self.server
        done = subprocess.run(
            [sys.executable, "-c", _RUN, json.dumps(given), engine],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return {**json.loads(done.stdout.splitlines()[-1]), "calls": self.endpoint.stats()["calls"]}


@pytest.fixture
def slow_runs(tmp_path: Path) -> Iterator[Runs]:
    with endpoint_process(latency=0.2) as endpoint:
        yield Runs(tmp_path, endpoint)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", ["local", "redis"])
def test_second_run(store: str, slow_runs: Runs, tmp_path: Path) -> None:
    """No call, every step from the cache, and at least ten times as fast."""
    dataset = write(tmp_path / "problems.jsonl", PROBLEMS)
    with RedisServer.start() as redis:
        cache = redis.url if store == "redis" else str(tmp_path / "cache")
        first, second = (slow_runs(dataset=dataset, cache=cache, concurrency=CONCURRENCY) for _ in range(2))
    ratio = first["wall"] / second["wall"]
    print(
        f"\n{store}: {PROBLEMS} problems, {CONCURRENCY} at a time, in {first['wall']:.1f} s, again in "
        f"{second['wall']:.2f} s: {ratio:.1f} times as fast, {second['calls']} calls, "
        f"{second['summary']['cache_hit_rate']:.1%} hits"
    )
    assert first["calls"] == PROBLEMS * CALLS
    assert (second["calls"], second["summary"]["llm_calls"], second["summary"]["cache_hit_rate"]) == (0, 0, 1.0)
    assert ratio >= FASTER


@pytest.mark.timeout(1200)
def test_nightly(slow_runs: Runs, tmp_path: Path) -> None:
    """A tenth of the problems changed since yesterday: the other reflections are there already."""
    cache = str(tmp_path / "cache")
    slow_runs(dataset=write(tmp_path / "problems.jsonl", PROBLEMS, night=1), cache=cache)
    tonight = slow_runs(dataset=write(tmp_path / "problems.jsonl", PROBLEMS, night=2), cache=cache)
    reflections = tonight["summary"]["steps"]["reflect"]
    rate = reflections["cached"] / (reflections["cached"] + reflections["executed"])
    print(f"\nnightly: {rate:.1%} of the reflections from the cache, {tonight['calls']} of {PROBLEMS * CALLS} calls")
    assert rate >= HIT_RATE
    assert tonight["calls"] == len(range(0, PROBLEMS, CHANGED)) * CALLS


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("engine", "together"), [("direct", 1), ("flow", 64), ("flow", 1)])
def test_memory_of_a_long_run(engine: str, together: int, tmp_path: Path) -> None:
    """Memory grows with what is under way, not with what was done."""
    dataset = write(tmp_path / "problems.jsonl", LONG)
    parameters: dict[str, Any] = {"dataset": dataset, "cache": str(tmp_path / "cache"), "concurrency": 64}
    with endpoint_process(latency=0.001) as endpoint:
        if engine == "direct":
            run = Runs(tmp_path, endpoint)(**parameters)
        else:
            with prefect_server(tuned=True) as server:
                run = Runs(tmp_path, endpoint, server.url)(engine, **parameters, steps_per_task_run=together)
    warm = LONG // 10
    early = max(rss for done, rss in run["seen"] if done <= warm)
    late = max(rss for done, rss in run["seen"] if done > warm)
    name = engine if engine == "direct" else f"{engine}, {together} steps to a task run"
    curve = ", ".join(f"{rss:.0f}" for done, rss in run["seen"] if done % warm == 0)
    print(
        f"\n{name}: {LONG} problems in {run['wall']:.0f} s, {early:.0f} MB after {warm}, {late:.0f} MB at most "
        f"afterwards: {late - early:+.1f} MB ({curve})"
    )
    assert run["calls"] == LONG * CALLS
    assert late - early < GROWTH_MB
