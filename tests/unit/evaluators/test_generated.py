"""Tests that the model writes: they direct the agent, hidden ones decide, and the two are compared."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reflexion import Episode, Problem, ReflexionAgent
from reflexion.errors import EndpointError, MalformedReplyError, RefusalError
from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.generated import asserts_of
from reflexion.llm.chat_model import ChatRequest
from reflexion.report.tally import Tally
from reflexion.testing import ScriptedLLM
from reflexion.types import Trial, Usage

DOUBLE = Problem(
    id="double",
    prompt="Write double(n), n twice.",
    entry_point="double",
    tests="assert double(3) == 6 and double(-1) == -2",
)
RIGHT, WRONG, ABSOLUTE = (f"def double(n):\n    return {body}\n" for body in ("n * 2", "n + 3", "abs(n) * 2"))
GOOD = "```python\nassert double(1) == 2\nassert double(4) == 8\n```"


def agent(tests: Any, *answers: str, problem: Problem = DOUBLE, **more: Any) -> tuple[Episode, ScriptedLLM]:
    left, lessons = iter(answers), iter(f"Lesson {n}." for n in range(9))

    def script(request: ChatRequest) -> Any:
        return {"judge": lambda: tests, "actor": lambda: next(left), "reflector": lambda: next(lessons)}[request.role]()

    llm = ScriptedLLM(script)
    given: dict[str, Any] = {"evaluator": "generated", "max_trials": len(answers)}
    return ReflexionAgent(llm, **(given | more)).run(problem), llm


def test_the_tests_are_written_once_and_shown_with_what_they_got() -> None:
    episode, llm = agent(GOOD, WRONG, RIGHT)
    assert episode.solved_at == 2
    asked = [r for r in llm.requests if r.role == "judge"]
    assert len(asked) == 1 and "Write 6 asserts that call double" in asked[0].messages[-1].content
    first, second = (t.evaluation for t in episode.trials)
    assert first is not None and second is not None
    assert first.feedback.startswith("assert double(1) == 2\n  got 4, wanted 2") and "double(3)" not in first.feedback
    assert (first.accepted, second.accepted, second.passed) == (False, True, True)
    assert first.details["generated"] == ["assert double(1) == 2", "assert double(4) == 8"]
    assert (first.usage.calls, second.usage.calls) == (1, 0)
    assert first.evaluator == "generated"


def test_an_agent_that_is_content_too_early_stops_and_has_not_solved_it() -> None:
    episode, _ = agent(GOOD, ABSOLUTE, RIGHT)
    assert len(episode.trials) == 1 and not episode.solved
    verdict = episode.trials[0].evaluation
    assert verdict is not None and verdict.accepted and not verdict.passed


def test_an_agent_that_is_never_content_hands_in_its_last_answer() -> None:
    episode, llm = agent("assert double(1) == 3", RIGHT, WRONG, RIGHT)
    assert episode.solved_at == 3 and len(episode.trials) == 3
    # That hidden tests passed is not told: only what its own test said.
    lesson = next(r for r in llm.requests if r.role == "reflector").messages[-1].content
    assert "assert double(1) == 3\n  got 2, wanted 3" in lesson and "hidden" not in lesson


def test_false_positives_and_negatives_are_counted() -> None:
    tally = Tally()
    strict = "assert double(1) == 3"
    for tests, answers in [(GOOD, [ABSOLUTE]), (GOOD, [RIGHT]), (GOOD, [WRONG, RIGHT]), (strict, [RIGHT])]:
        tally.add(agent(tests, *answers)[0])
    assert set(tally.agreements) == {"generated_tests"}
    counted = tally.agreements["generated_tests"]
    # Passed: one wrong, two right. Rejected: one wrong, one right.
    assert (counted.total, counted.false_positives, counted.false_negatives) == (5, 1 / 3, 1 / 2)
    assert (counted.wrong_let_through, counted.right_rejected) == (1 / 2, 1 / 3)


NOTHING = ["I cannot.", MalformedReplyError("no choices", usage=Usage(calls=1, prompt=3)), "assert True", "```\n```"]


@pytest.mark.parametrize("reply", [*NOTHING, RefusalError("no")])
def test_hidden_tests_decide_where_the_model_writes_none(reply: Any) -> None:
    episode, _ = agent(reply, WRONG, RIGHT)
    # With no test of its own the agent has nothing to object to.
    assert len(episode.trials) == 1 and not episode.solved
    assert agent(reply, RIGHT)[0].solved
    verdict = episode.trials[0].evaluation
    assert verdict is not None and verdict.decided_by == "hidden_tests" and verdict.accepted


@pytest.mark.parametrize("reply", [*NOTHING, RefusalError("no")])
@pytest.mark.parametrize("answer", [RIGHT, WRONG, "nothing"])
def test_without_any_test_there_is_no_verdict(reply: Any, answer: str) -> None:
    episode, _ = agent(reply, answer, RIGHT, problem=DOUBLE.model_copy(update={"tests": None}))
    assert not episode.solved and len(episode.trials) == 1
    verdict = episode.trials[0].evaluation
    assert verdict is not None and verdict.failure_class == "NoVerdict" and verdict.decided_by == "own_tests"
    assert verdict.feedback.startswith("There is no verdict: the model wrote no assert")
    asked = 1 if isinstance(reply, RefusalError) else 2
    assert verdict.usage.calls == asked


def test_a_model_that_wrote_nothing_usable_is_asked_once_more() -> None:
    llm = ScriptedLLM(["def double(n):\n    return n + n\n", GOOD])
    evaluator = resolve_evaluator("generated", DOUBLE, judge=llm)
    verdict = asyncio.run(evaluator.evaluate(DOUBLE, Trial(index=1, answer=RIGHT)))
    assert verdict.passed and verdict.usage.calls == 2 and len(verdict.details["generated"]) == 2  # type: ignore[arg-type]
    first, second = llm.requests
    assert [m.role for m in second.messages] == ["system", "user", "assistant", "user"]
    assert "None of that could be used" in second.messages[-1].content
    assert (first.sampling.max_tokens or 0) < (second.sampling.max_tokens or 0)


@pytest.mark.parametrize(
    ("update", "decided_by"),
    [
        ({}, "hidden_tests"),
        ({"tests": None, "visible_tests": ("assert double(0) == 0",)}, "visible_tests"),
        ({"tests": None}, "own_tests"),
    ],
)
@pytest.mark.parametrize("answer", [RIGHT, WRONG, "  "])
def test_a_verdict_says_what_reached_it(update: dict[str, Any], decided_by: str, answer: str) -> None:
    episode, _ = agent(GOOD, answer, problem=DOUBLE.model_copy(update=update))
    verdict = episode.trials[0].evaluation
    assert verdict is not None and verdict.decided_by == decided_by and verdict.passed == (answer == RIGHT)


@pytest.mark.parametrize(
    "line",
    [
        "assert True",
        "assert (double(1) == 2, 'a pair')",
        "assert [double(1)]",
        "assert double(1) == double(1)",
        "assert double(2) >= double(2)",
        "assert double(1) == 3 or True",
        "assert not {}",
        "assert lambda: double(1)",
        "assert 'double(1)'",
        "assert callable(double)",
    ],
)
def test_an_assert_that_cannot_fail_is_left_out(line: str) -> None:
    assert asserts_of(f"```python\n{line}\nassert double(5) == 10\n```", "double", 9) == ("assert double(5) == 10",)


@pytest.mark.parametrize(
    "reply",
    [
        "<think>\nassert double(1) == 1\n</think>\nassert double(5) == 10",
        "```python\nassert double(5) == 10\n```\nNot:\n```text\nassert double(1) == 1\n```",
        "1. `assert double(5) == 10`\n2. assert double(2 ==",
        "import unittest\n\nclass T(unittest.TestCase):\n    def test(self):\n        assert double(5) == 10\n",
        "- assert double(5) == 10\n- and so on",
    ],
)
def test_asserts_are_found_in_any_form_of_reply(reply: str) -> None:
    assert asserts_of(reply, "double", 9) == ("assert double(5) == 10",)


def test_asserts_of_several_blocks_keep_their_order() -> None:
    reply = "".join(f"Case {n}:\n```python\nassert double({n}) == {2 * n}\n```\n" for n in range(5))
    assert asserts_of(reply, "double", 4) == tuple(f"assert double({n}) == {2 * n}" for n in range(4))


def test_visible_tests_count_with_the_generated_ones() -> None:
    problem = DOUBLE.model_copy(update={"visible_tests": ("assert double(-2) == -4",)})
    episode, _ = agent(GOOD, ABSOLUTE, RIGHT, problem=problem)
    assert episode.solved_at == 2


def test_asserts_are_read_and_those_that_cannot_stand_alone_are_not() -> None:
    reply = """```python
def test_one():
    expected = 4
    assert double(2) == expected, "needs a variable"
    assert double(3) == 6, "with a message"
    assert double(3) == 6
assert sorted([double(n) for n in (2, 1)]) == [2, 4]
assert other(1) == 2
assert True
```"""
    wanted = ("assert double(3) == 6", "assert sorted([double(n) for n in (2, 1)]) == [2, 4]")
    # The order in which they stand in the code, outer ones first.
    assert sorted(asserts_of(reply, "double", 9)) == sorted(wanted)
    assert asserts_of("assert double(1) == 2\nassert double(2 ==\nassert double(0) == 0", "double", 1) == (
        "assert double(1) == 2",
    )
    assert asserts_of("assert f(1) == 2\nassert x == 2", None, 9) == ("assert f(1) == 2",)


async def test_an_endpoint_that_is_down_is_asked_again_by_the_next_trial() -> None:
    llm = ScriptedLLM([EndpointError("down"), GOOD])
    evaluator = resolve_evaluator("generated:2", DOUBLE, judge=llm)
    trial = Trial(index=1, answer=RIGHT)
    with pytest.raises(EndpointError):
        await evaluator.evaluate(DOUBLE, trial)
    both = await asyncio.gather(evaluator.evaluate(DOUBLE, trial), evaluator.evaluate(DOUBLE, trial))
    assert all(e.passed for e in both) and len(llm.requests) == 2
    assert sum(e.usage.calls for e in both) == 1
    assert evaluator.config["model"] == llm.identity and evaluator.config["count"] == 2


def test_a_problem_without_a_function_cannot_have_tests_written() -> None:
    evaluator = resolve_evaluator("generated", DOUBLE, judge=ScriptedLLM())
    reason = evaluator.check(Problem(id="t", prompt="Why?"))
    assert reason is not None and "field 'entry_point' is missing" in reason
    assert evaluator.check(DOUBLE.model_copy(update={"tests": "assert ("})) is not None
