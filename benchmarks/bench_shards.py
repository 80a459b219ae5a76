"""What a second process brings: the same problems in one shard and in two, as processes of this machine.

    pytest benchmarks/bench_shards.py
    python benchmarks/bench_shards.py --problems 1000 --granularity 16 --shards 1 2

The endpoint answers at once, so processor time decides. Beside the episodes per minute the table has the
processor time of each part for an episode: on a machine whose processors are all busy with one shard, a
second one brings nothing, and the table shows with what.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.endpoint import EndpointProcess, endpoint_process
from benchmarks.harness import ROOT, Server, clean_environment, prefect_server

PROBLEMS, GRANULARITY = 100, 16


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with prefect_server(tuned=True) as running:
        yield running


@pytest.fixture(scope="module")
def endpoint() -> Iterator[EndpointProcess]:
    with endpoint_process() as running:
        yield running


@pytest.mark.parametrize("shards", [1, 2])
def test_shards(benchmark: Any, shards: int, server: Server, endpoint: EndpointProcess, tmp_path: Path) -> None:
    figures = benchmark.pedantic(lambda: measure(shards, PROBLEMS, GRANULARITY, server, endpoint, tmp_path), rounds=1)
    assert figures["solved"] == PROBLEMS
    benchmark.extra_info |= figures


def measure(
    shards: int, problems: int, granularity: int, server: Server, endpoint: EndpointProcess, folder: Path
) -> dict[str, Any]:
    """Run a batch in so many shards; its figures, and milliseconds of processor time for an episode."""
    dataset = folder / f"{shards}-shards.jsonl"
    with dataset.open("w") as file:
        for n in range(problems):
            file.write(json.dumps({"id": f"{n}", "prompt": f"{shards}: what is {n} + 1?", "answer": "42"}) + "\n")
    command = [
        sys.executable,
        "-c",
        "from reflexion.cli.main import main; main()",
        "eval",
        str(dataset),
        "--llm",
        "mock",
    ]
    command += ["--shards", str(shards), "--steps-per-task-run", str(granularity), "--json"]
    command += ["--runs", str(folder / "runs"), "--cache", str(folder / f"steps-{shards}"), "--name", f"s{shards}"]
    command += ["--shards-at-a-time", str(shards), "--concurrency", str(100 * shards)]
    environment = clean_environment() | {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": server.url,
        "PYTHONPATH": str(ROOT),
        "OPENAI_BASE_URL": endpoint.url,
        "OPENAI_API_KEY": "none",
    }
    before = server.cpu(), _endpoint_cpu()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.stdout, process.stderr
    assert out is not None and err is not None
    told, complaints = out.read(), err.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(complaints[-3000:])
    summary = json.loads(told)
    each = 1000 / problems
    return {
        "solved": summary["solved"],
        "seconds": summary["wall_seconds"],
        "working_seconds": working_seconds(folder / "runs" / f"s{shards}"),
        "episodes_per_minute": summary["episodes_per_minute"],
        "batch_and_shards_ms": each * (used.ru_utime + used.ru_stime),
        "server_ms": each * (server.cpu() - before[0]),
        "endpoint_ms": each * (_endpoint_cpu() - before[1]),
    }


def working_seconds(run: Path) -> float:
    """Wall time from the first shard's first sign of life to the end: without the start of the processes."""
    summary = json.loads((run / "summary.json").read_text())
    return float(summary["wall_seconds"]) - float(json.loads((run / "shards.json").read_text())["began_after"])


def _endpoint_cpu() -> float:
    """Processor time of the endpoint, a child of this process."""
    spent = 0.0
    for child in psutil.Process().children():
        if "benchmarks.endpoint" in " ".join(child.cmdline()):
            times = child.cpu_times()
            spent += times.user + times.system
    return spent


def main() -> None:
    """Print a line for each number of shards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--granularity", type=int, default=GRANULARITY)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    print("| shards | episodes/min | s | s without start | batch + shards ms | server ms | endpoint ms |")
    print("|---|---|---|---|---|---|---|")
    with prefect_server(tuned=True) as server, endpoint_process() as endpoint, tempfile.TemporaryDirectory() as folder:
        for shards in options.shards:
            f = measure(shards, options.problems, options.granularity, server, endpoint, Path(folder))
            print(
                f"| {shards} | {f['episodes_per_minute']:.0f} | {f['seconds']:.1f} | {f['working_seconds']:.1f} | "
                f"{f['batch_and_shards_ms']:.1f} | {f['server_ms']:.1f} | {f['endpoint_ms']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
