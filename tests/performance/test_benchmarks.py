"""Timings of the hot paths, in few rounds: `pytest tests/performance -v` prints them as a table.

Timings are not held to limits here, since machines differ: what they compute is. The suites with more
rounds and sizes are in `benchmarks/`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from reflexion.cache import open_cache
from reflexion.cache.step_cache import CachedStep
from reflexion.evaluators import resolve_evaluator
from reflexion.keys import digest
from reflexion.memory import open_memory
from reflexion.memory.episodic_memory import MemoryLimits, Query
from reflexion.run.batch_run import execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.tasks.step_records import COMPLETED, StepRecord, read_message, write_message
from reflexion.telemetry import PerformanceMonitor
from reflexion.testing import ScriptedEndpoint, ScriptedLLM
from reflexion.types import Lesson, Problem, Trial, Usage
from tests.support.evals import CALLS, write_problems

ROUNDS = 3
OUTPUT = Trial(index=1, answer="42", usage=Usage(prompt=400, completion=50, calls=1), seconds=0.25)


def test_direct_batch(benchmark: Any, openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    problems = write_problems(tmp_path / "problems.jsonl", 20)
    numbers = iter(range(100))

    def run() -> int:
        parameters = BatchParameters(dataset=problems, llm="mock", name=f"r{next(numbers)}", use_cache=False)
        return asyncio.run(execute_batch(parameters)).summary.solved

    assert benchmark.pedantic(run, rounds=ROUNDS) == 20
    rounds = 1 if benchmark.disabled else ROUNDS
    assert openai_endpoint.stats.calls == rounds * 20 * CALLS


def test_keys(benchmark: Any) -> None:
    fields = {"step": "trial", "problem": "0" * 64, "lessons": ["0" * 16] * 3, "sampling": {"temperature": 0.0}}
    keys = benchmark.pedantic(lambda: {digest(fields | {"trial": n}) for n in range(500)}, rounds=ROUNDS)
    assert len(keys) == 500


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_step_cache(benchmark: Any, where: str, tmp_path: Path) -> None:
    entries = [
        CachedStep(key=digest(n), step="trial", value={"answer": "42", "index": 1}, created=1.0) for n in range(100)
    ]
    folders = iter(range(100))

    async def run() -> int:
        cache = open_cache("memory:" if where == "memory" else str(tmp_path / f"c{next(folders)}"))
        try:
            await asyncio.gather(*(cache.put(entry) for entry in entries))
            return len(await cache.get_many([entry.key for entry in entries]))
        finally:
            await cache.aclose()

    assert benchmark.pedantic(lambda: asyncio.run(run()), rounds=ROUNDS) == 100


def test_memory(benchmark: Any, tmp_path: Path) -> None:
    folders = iter(range(100))

    async def run() -> int:
        memory = open_memory(f"sqlite:{tmp_path / str(next(folders))}.sqlite", MemoryLimits())
        try:
            for n in range(50):
                await memory.add(
                    Lesson(key=str(n), problem="p", episode="r/p/0", run="r", trial=n + 1, text="Count again.")
                )
            return len(
                await memory.recall(Query(problem="p", prompt="What?", episode="r/q/0", run="r", own=3, similar=0))
            )
        finally:
            await memory.aclose()

    assert benchmark.pedantic(lambda: asyncio.run(run()), rounds=ROUNDS) <= 3


def test_evaluator(benchmark: Any) -> None:
    problem = Problem(id="p", prompt="What is six times seven?", answer="42")
    evaluator = resolve_evaluator("exact", problem, judge=ScriptedLLM(lambda prompt: "yes"))

    async def run() -> int:
        return sum([(await evaluator.evaluate(problem, OUTPUT)).passed for _ in range(200)])

    assert benchmark.pedantic(lambda: asyncio.run(run()), rounds=ROUNDS) == 200


def test_monitor(benchmark: Any) -> None:
    def run() -> int:
        with PerformanceMonitor(sample_memory=False) as monitor:
            for _ in range(1000):
                monitor.record_step("trial", OUTPUT, 0.25)
            return monitor.report().requests

    assert benchmark.pedantic(run, rounds=ROUNDS) == 1000


def test_records(benchmark: Any) -> None:
    records = [StepRecord(f"trial:problem-{n}#1", COMPLETED, 1e9 + n, 0.25, 1, OUTPUT) for n in range(256)]

    def run() -> int:
        told = read_message(write_message(records, 1e9))
        assert told is not None
        return len(list(told[0]))

    assert benchmark.pedantic(run, rounds=ROUNDS) == 256
