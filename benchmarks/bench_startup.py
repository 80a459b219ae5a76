"""Start-up: how soon `reflexion run` makes its first LLM call, what imports take, what watching a run costs.

pytest benchmarks/bench_startup.py
python -m benchmarks.bench_startup
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import pytest

from benchmarks.harness import ROOT, clean_environment
from reflexion.telemetry import PerformanceMonitor
from reflexion.testing import ScriptedEndpoint
from reflexion.types import Evaluation, Reflection, Trial, Usage

ROUNDS = 5


def seconds_of_import(module: str) -> float:
    """Wall time of a fresh interpreter that imports a module."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=clean_environment())
    return time.perf_counter() - begun


def seconds_to_first_call() -> float:
    """Wall time from the start of `reflexion run` to the arrival of its first request."""
    arrived: list[float] = []

    def answer(prompt: str) -> str:
        arrived.append(time.perf_counter())
        return "42"

    with ScriptedEndpoint(answer) as endpoint, tempfile.TemporaryDirectory() as home:
        environment = clean_environment() | {
            "OPENAI_BASE_URL": endpoint.url,
            "OPENAI_API_KEY": "unused",
            "HOME": home,
            "PYTHONPATH": str(ROOT),
        }
        command = [
            sys.executable,
            "-c",
            "from reflexion.cli.main import main; main()",
            "run",
            "What is six times seven?",
            "--answer",
            "42",
        ]
        begun = time.perf_counter()
        subprocess.run(
            [*command, "--llm", "mock", "--no-cache"], check=True, env=environment, cwd=home, stdout=subprocess.DEVNULL
        )
    return arrived[0] - begun


def first_call_ratio(rounds: int = ROUNDS) -> float:
    """Median time to the first call over the median time of `import openai`, measured in turns."""
    pairs = [(seconds_to_first_call(), seconds_of_import("openai")) for _ in range(rounds)]
    return statistics.median(call for call, _ in pairs) / statistics.median(bare for _, bare in pairs)


def monitor_cost(episodes: int = 4_000) -> float:
    """Seconds of processor time `PerformanceMonitor` takes for the steps of a two-trial episode."""
    trial = Trial(index=1, answer="42", usage=Usage(prompt=40, completion=5, calls=1), seconds=0.2)
    verdict = Evaluation(evaluator="exact", passed=False, score=0.0)
    lesson = Reflection(trial=1, text="Count again.", usage=trial.usage, seconds=0.2)
    with PerformanceMonitor() as monitor:
        monitor.record_step("trial", trial, 0.2)
        begun = time.process_time()
        for _ in range(episodes):
            monitor.record_step("trial", trial, 0.2)
            monitor.record_step("evaluate", verdict, 0.001)
            monitor.record_step("reflect", lesson, 0.2)
            monitor.record_step("memorize", None, 0.001)
            monitor.record_step("trial", trial, 0.2)
            monitor.record_step("evaluate", verdict, 0.001)
        return (time.process_time() - begun) / episodes


def monitor_share(rows: list[dict[str, Any]]) -> float:
    """The monitor's share of the processor time of the cheapest run here, where it weighs most.

    Its sampler of memory keeps itself below half a percent of one processor, which is added in full.
    """
    episode = min(row["client_ms"] for row in rows if row["name"].startswith("ours") and row["calls"]) / 1000
    return monitor_cost() / episode + 0.005


@pytest.mark.parametrize("module", ["reflexion", "openai", "reflexion.cli.main", "reflexion.flows.batch"])
def test_import(benchmark: Any, module: str) -> None:
    benchmark.pedantic(seconds_of_import, args=(module,), rounds=3)


def test_first_call(benchmark: Any) -> None:
    benchmark.pedantic(seconds_to_first_call, rounds=3)


def test_monitor_of_an_episode(benchmark: Any) -> None:
    benchmark.extra_info["seconds"] = benchmark.pedantic(monitor_cost, args=(1000,), rounds=3)


if __name__ == "__main__":
    print(f"first call / import openai: {first_call_ratio():.2f} (load {os.getloadavg()[0]:.1f})")
    print(f"monitor: {monitor_cost() * 1e6:.1f} µs an episode")
