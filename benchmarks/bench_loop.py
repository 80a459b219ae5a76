"""What the loop itself costs: an episode, a step's key, a step's line in a record.

    pytest benchmarks/bench_loop.py

The model answers at once, so that everything measured is ours.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reflexion import ReflexionAgent
from reflexion.keys import digest
from reflexion.llm import ChatRequest
from reflexion.tasks.step_records import COMPLETED, StepRecord, read_message, write_message
from reflexion.telemetry.collector import Collector
from reflexion.testing import ScriptedLLM, learns_from_reflection
from reflexion.types import Episode, Problem, Trial, Usage

EPISODES = 50
OUTPUT = Trial(index=1, answer="42", usage=Usage(prompt=400, completion=50, calls=1), seconds=0.25)
RECORDS = [StepRecord(f"trial:problem-{n}#1", COMPLETED, 1e9 + n, 0.25, 1, OUTPUT) for n in range(256)]


@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no cache"])
def test_episodes(benchmark: Any, cache: bool) -> None:
    """Two-trial episodes of an agent, one after another."""
    answer = learns_from_reflection()
    numbers = iter(range(10**6))

    def reply(request: ChatRequest) -> str:
        return answer("\n".join(message.content for message in request.messages))

    async def run() -> list[Episode]:
        async with ReflexionAgent(llm=ScriptedLLM(reply), cache=cache, evaluator="exact") as agent:
            tasks = [f"Name the answer to question {next(numbers)}." for _ in range(EPISODES)]
            return [await agent.arun(Problem(id=task, prompt=task, answer="42")) for task in tasks]

    episodes = benchmark.pedantic(lambda: asyncio.run(run()), rounds=3, warmup_rounds=1)
    benchmark.extra_info["episodes"] = EPISODES
    assert all(episode.solved_at == 2 for episode in episodes)


def test_key(benchmark: Any) -> None:
    """The digest of a step's fields, as long as they usually are."""
    fields = {
        "step": "trial",
        "version": 1,
        "problem": "0" * 64,
        "trial": 2,
        "repeat": 0,
        "lessons": ["0" * 16] * 3,
        "sampling": {"temperature": 0.0, "top_p": None, "max_tokens": 512, "seed": None},
        "model": {"model": "gpt-4o-mini", "base_url": "https://api.openai.com/v1"},
    }
    assert len(benchmark(digest, fields)) == 64


def test_record_written(benchmark: Any) -> None:
    """The message of a task run that 256 steps share."""
    message = benchmark(write_message, RECORDS, 1e9)
    benchmark.extra_info["bytes_per_step"] = len(message) / len(RECORDS)


def test_record_read(benchmark: Any) -> None:
    """The same message read back and counted."""
    message = write_message(RECORDS, 1e9)

    def read() -> Collector:
        collector = Collector()
        told = read_message(message)
        assert told is not None
        for record in told[0]:
            collector.step("trial", record.output, waited=record.waited, at=record.start)
        return collector

    benchmark(read)
