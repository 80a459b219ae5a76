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


@pytest.mark.parametrize("spec", ["exact", "em", "f1", "contains", "numeric", "choice"])
async def test_feedback_keeps_the_answer_unless_asked(spec: str) -> None:
    answer, wrong = ("8712", "17") if spec != "choice" else ("B", "A")
    hidden = await judge(spec, answer, wrong)
    assert not hidden.passed and f"{answer} " not in f"{hidden.feedback} ".replace("'", " ")
    shown = await judge(spec, answer, wrong, reveal_answers=True)
    assert answer in shown.feedback


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("Oslo", "Answer: Oslo.", True),
        ("Oslo", "Answer: \u201cOslo\u201d", True),
        ("Oslo", "The answer is **Oslo**, because it is the capital.", True),
        ("Oslo", "Answer: Oslo (Norway)", True),
        ("Oslo", "Answer: [Oslo]", True),
        ("Oslo", "Answer: Oslo, not Rome", True),
        ("Oslo", "It is Oslo", False),
        ("Oslo", "Answer: Oslo or Rome", False),
        ("Oslo", "Answer: Oslo, Norway", False),
        ("Oslo", "Answer: Rome\nOslo", False),
        ("Oslo", "\\boxed{Rome}\nAnswer: Oslo", False),
        ("St. Gallen", "The answer is St. Gallen. It lies in the east.", True),
        ("Oslo", "Oslo\n\nIt has been the capital of Norway for a long time.", True),
        ("Rome", "Rome\n\nOslo", False),
        ("(x)", "Answer: (x)", True),
        ("not guilty", "Answer: not guilty", True),
        ("not guilty", "The answer is not guilty.", True),
        ("guilty", "The answer is not guilty.", False),
        ("Oslo", "The answer is not Rome. It lies elsewhere.\nOslo", True),
        ("C", "Answer: C*", False),
        ("1A", "A", False),
        ("F#", "F", False),
        ("F#", "f#.", True),
        ("F", "Answer: F#", False),
        ("C++", "C", False),
        ("B+", "B", False),
        (".org", "org", False),
        ("A*", "**A***", True),
        ("Vitamin A", "Vitamin", False),
        ("O'Neill", "O\u2019Neill", True),
        ("Caf\u00e9", "Cafe\u0301", True),
        ("Ma\u00dfe", "MASSE", True),
        ("10 km", "10\u00a0km", True),
        ("e-mail", "e\u2011mail", True),
        ("the city of Oslo", "City of Oslo", True),
        ("\u30aa\u30b9\u30ed", "\u7b54\u3048\u306f\u30aa\u30b9\u30ed\u3067\u3059\u3002", True),
        (True, "Yes.", True),
        (True, "true", True),
        (True, "No", False),
        (False, "The answer is no.", True),
        (False, "False", True),
        ("yes", "Answer: true", True),
        ("no", "yes", False),
        (True, "Yes, as I said before", False),
        ({"value": "Oslo", "aliases": ["Kristiania", "Christiania"]}, "Kristiania", True),
        ({"text": ["Oslo", "Oslo, Norway"], "answer_start": [5, 5]}, "Oslo, Norway", True),
        ({"spans": ["Oslo"], "number": "", "date": {}}, "Oslo", True),
        ([{"text": "Oslo"}, {"text": "Rome"}], "Rome", True),
        ({"value": "Oslo", "aliases": []}, "Rome", False),
        ({"city": "Oslo", "size": 3}, '```json\n{"size": 3, "city": "Oslo"}\n```', True),
        ({"city": "Oslo"}, '{"city": "Rome"}', False),
        ("So it is the capital.\n#### Oslo", "Oslo", True),
    ],
)
async def test_exact_keeps_what_belongs_to_a_word(answer: Any, reply: str, right: bool) -> None:
    assert (await judge(None, answer, reply)).passed is right


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("The Beatles", "beatles", True),
        ("Rock 'n' Roll", "Answer: rock n roll", True),
        ("Oslo", "Answer: Oslo, because it is the capital", True),
        ("Oslo", "It is Oslo", False),
        (["Oslo", "Rome"], "rome!", True),
    ],
)
async def test_em_is_the_scorers_of_question_answering(answer: Any, reply: str, right: bool) -> None:
    assert (await judge("em", answer, reply)).passed is right


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("C", "I like C# and C++.", False),
        ("C", "I like C.", True),
        ("2.5", "about 25", False),
        ("2.5", "some 2.50 m", True),
        ("5", "-5 or 15", False),
        ("1500", "some 1,500 men", True),
        ("new york", "New\nYork!", True),
        ("a", "the", False),
    ],
)
async def test_contains_takes_whole_words_and_whole_numbers(answer: str, reply: str, right: bool) -> None:
    assert (await judge("contains", answer, reply)).passed is right


@pytest.mark.parametrize("spec", [None, "exact", "em", "f1", "contains", "numeric", "choice", "regex"])
@pytest.mark.parametrize("answer", ["", "  \n", [], {}, [""], [None, " "], {"text": [], "answer_start": []}])
def test_an_answer_that_no_reply_can_meet_is_refused(spec: str | None, answer: Any) -> None:
    problem = Problem(id="p", prompt="?", answer=answer)
    reason = resolve_evaluator(spec, problem).check(problem)
    assert reason is not None and "'answer' is empty" in reason and "\n" not in reason


async def test_only_the_answer_part_of_a_reply_is_judged() -> None:
    assert not (await judge("contains", "Rome", "<think>Rome? No.</think>Oslo")).passed
    assert (await judge("exact", "Oslo", "The answer is Rome? No.\n</think>\nOslo")).passed
    cut = await judge("numeric", "3", "<think>\nAnswer: 3")
    assert (cut.passed, cut.failure_class) == (False, "NoAnswer") and "within its thoughts" in cut.feedback
    empty = await judge("exact", "Oslo", "<think>Oslo</think>\n")
    assert empty.failure_class == "EmptyAnswer" and "thoughts only" in empty.feedback


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
    ],
)
def test_what_cannot_be_judged_is_said_beforehand(spec: str, answer: Any, named: str) -> None:
    problem = Problem(id="p", prompt="?", answer=answer)
    reason = resolve_evaluator(spec, problem).check(problem)
    assert reason is not None and named in reason
