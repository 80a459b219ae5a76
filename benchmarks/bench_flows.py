"""What Prefect adds to the same loop: the same problems without it, with a task run per step, and in bulk.

    pytest benchmarks/bench_flows.py

The endpoint answers at once, so processor time decides. Each run has a process of its own; the figures
are in the extra info, of the client and of the server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.endpoint import EndpointProcess, endpoint_process
from benchmarks.harness import Server, drive, prefect_server

PROBLEMS = 50


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with prefect_server(tuned=True) as running:
        yield running


@pytest.fixture(scope="module")
def endpoint() -> Iterator[EndpointProcess]:
    with endpoint_process() as running:
        yield running


@pytest.mark.parametrize("granularity", [0, 1, 16], ids=["direct", "a task run per step", "bulk 16"])
def test_batch(benchmark: Any, granularity: int, server: Server, endpoint: EndpointProcess, tmp_path: Path) -> None:
    command = ["--problems", str(PROBLEMS), "--url", endpoint.url, "--salt", f"g{granularity}-"]
    command += ["--granularity", str(granularity), "--folder", str(tmp_path), "--name", f"g{granularity}"]

    def run() -> dict[str, Any]:
        return drive(Path(sys.executable), "reflexion_peer.py", command, server=server if granularity else None)

    figures = benchmark.pedantic(run, rounds=1)
    assert figures["solved"] == PROBLEMS and figures["made"] == figures["recorded"]
    benchmark.extra_info |= {
        "client_ms_per_episode": 1000 * figures["cpu_seconds"] / PROBLEMS,
        "server_ms_per_episode": 1000 * figures["server_cpu_seconds"] / PROBLEMS,
        "task_runs": figures["made"],
    }
