"""Comparisons with a reference answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.text import token_f1
from reflexion.types import Evaluation, Problem, Trial


async def judge(spec: str | None, answer: Any, reply: str, prompt: str = "?", **options: Any) -> Evaluation:
    problem = Problem(id="p", prompt=prompt, answer=answer)
    evaluator = resolve_evaluator(spec, problem, **options)
    assert evaluator.check(problem) is None
    return await evaluator.evaluate(problem, Trial(index=1, answer=reply))


@pytest.mark.parametrize(
    ("spec", "answer", "reply", "passed"),
    [
        (None, "Paris", "paris.", True),
        (None, "42", "I think.\nAnswer: 42", True),
        (None, ["Paris", "City of Paris"], "the city of Paris", True),
        (None, 42, "42", True),
        (None, 42.0, "42", True),
        (None, True, "true", True),
        (None, "Paris", "Paris or London", False),
        (None, "!", "?", False),
        ("f1:0.6", "the Eiffel Tower", "Eiffel Tower in Paris", True),
        ("f1", "the Eiffel Tower", "Eiffel Tower in Paris", False),
        ("f1", "yes", "yes it is", False),
        ("contains", "Eiffel", "The Eiffel Tower.", True),
        ("contains", "art", "The party", False),
        ("numeric", "72", "She has 48+24 = 72 clips.", True),
        ("numeric", "1234", "#### 1,234", True),
        ("numeric", "72", "Answer: 71", False),
        ("numeric:0.02", "72", "71", True),
        ("numeric", "0.3333333", "0.3333334", True),
        ("regex", r"^\d{3}-\d{4}$", "555-1234", True),
        ("regex", r"^\d{3}-\d{4}$", "5551234", False),
        ("json_schema", {"type": "object", "required": ["a"]}, '```json\n{"a": 1}\n```', True),
        ("json_schema", {"type": "object", "required": ["a"]}, '{"b": 1}', False),
        ("json_schema", {"type": "object"}, "no json", False),
        ("choice", "B", "Answer: B", True),
        ("choice", "B", "(b)", True),
        ("choice", "B", "**B) green**", True),
        ("choice", "B", "green", True),
        ("choice", "green", "B", True),
        ("choice", "B", "A. red", False),
        ("choice", "B", "no idea at all", False),
    ],
)
async def test_verdicts(spec: str | None, answer: Any, reply: str, passed: bool) -> None:
    prompt = "Which one?\nA) red\nB) green" if spec == "choice" else "?"
    evaluation = await judge(spec, answer, reply, prompt)
    assert evaluation.passed is passed, evaluation
    assert passed == (evaluation.failure_class is None)
    assert passed or evaluation.feedback


@pytest.mark.parametrize("spec", ["exact", "f1", "contains", "numeric", "choice"])
async def test_feedback_keeps_the_answer_unless_asked(spec: str) -> None:
    hidden = await judge(spec, "8712", "17")
    assert not hidden.passed and "8712" not in hidden.feedback
    shown = await judge(spec, "8712", "17" if spec != "choice" else "A", reveal_answers=True)
    assert "8712" in shown.feedback


async def test_a_schemas_constants_are_the_answer() -> None:
    hidden = await judge("json_schema", {"const": 8712}, "5")
    assert not hidden.passed and "8712" not in hidden.feedback
    assert "8712" in (await judge("json_schema", {"const": 8712}, "5", reveal_answers=True)).feedback


async def test_the_score_of_f1_is_f1() -> None:
    evaluation = await judge("f1", "a b c d", "b c x")
    assert evaluation.score == pytest.approx(token_f1("b c x", "a b c d"))


@given(st.text(), st.text())
def test_f1_is_symmetric_and_bounded(a: str, b: str) -> None:
    assert 0 <= token_f1(a, b) == token_f1(b, a) <= 1


async def test_trials_without_a_usable_answer_have_failed() -> None:
    problem = Problem(id="p", prompt="?", answer="x")
    evaluator = resolve_evaluator(None, problem)
    refused = await evaluator.evaluate(problem, Trial(index=1, answer="", error="RefusalError: not allowed"))
    assert (refused.passed, refused.failure_class) == (False, "RefusalError")
    assert "not allowed" in refused.feedback
    empty = await evaluator.evaluate(problem, Trial(index=1, answer="  "))
    assert (empty.passed, empty.failure_class) == (False, "EmptyAnswer")


async def test_a_reply_that_was_cut_off_is_told_so() -> None:
    problem = Problem(id="p", prompt="?", answer="x")
    evaluator = resolve_evaluator(None, problem)
    cut = await evaluator.evaluate(problem, Trial(index=1, answer="Well, I", finish_reason="length"))
    assert cut.failure_class == "CutOff" and "cut off" in cut.feedback
    assert (await evaluator.evaluate(problem, Trial(index=1, answer="x", finish_reason="length"))).passed


@pytest.mark.parametrize(
    ("spec", "answer", "named"),
    [
        ("exact", None, "answer"),
        ("numeric", "many", "not a number"),
        ("regex", "(", "regular expression"),
        ("json_schema", "x", "JSON schema"),
        ("json_schema", {"type": 5}, "JSON schema"),
    ],
)
def test_what_cannot_be_judged_is_said_beforehand(spec: str, answer: Any, named: str) -> None:
    problem = Problem(id="p", prompt="?", answer=answer)
    reason = resolve_evaluator(spec, problem).check(problem)
    assert reason is not None and named in reason
