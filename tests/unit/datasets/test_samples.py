"""The samples in published formats: each problem can be answered by the actor it is made for."""

from __future__ import annotations

from typing import Any

import pytest

from reflexion import Problem, ReflexionAgent
from reflexion.actors.builtin_tools import BUILTIN
from reflexion.datasets import open_dataset
from reflexion.evaluators import resolve_evaluator
from reflexion.testing import ScriptedLLM
from reflexion.types import Trial

ROOMS = {
    "rooms-1": "take apple, put apple on table",
    "rooms-2": "take book, go east, put book on shelf",
    "rooms-3": "go south, take milk, go north, open fridge, put milk in fridge",
    "rooms-4": "east, open drawer, take key, west, south, drop key, take letter, north, east, put letter on desk",
}


@pytest.mark.parametrize(
    ("name", "format", "count"), [("hotpot-sample", "HotpotQA", 10), ("gsm8k-sample", "GSM8K", 12)]
)
async def test_samples_are_in_their_format_and_their_answers_pass(name: str, format: str, count: int) -> None:
    dataset = open_dataset(name)
    assert (dataset.format, len(dataset)) == (format, count)
    for problem in dataset:
        evaluator = resolve_evaluator(problem.evaluator, problem)
        assert evaluator.check(problem) is None
        assert (await evaluator.evaluate(problem, Trial(index=1, answer=f"Answer: {problem.answer}"))).passed
        assert not (await evaluator.evaluate(problem, Trial(index=1, answer="Answer: nothing"))).passed


async def test_every_question_s_supporting_facts_are_found_by_their_titles() -> None:
    search = BUILTIN["documents"][0]
    for problem in open_dataset("hotpot-sample"):
        facts: Any = problem.metadata["supporting_facts"]
        for title, _ in facts:
            assert (await search.call(title, problem)).text.startswith(f"{title}: ")


@pytest.mark.parametrize("problem", list(open_dataset("rooms")), ids=lambda p: p.id)
def test_every_world_can_be_won(problem: Problem) -> None:
    llm = ScriptedLLM([f"Action: {command.strip()}" for command in ROOMS[problem.id].split(",")])
    assert ReflexionAgent(llm, actor="react", max_trials=1).run(problem).solved
