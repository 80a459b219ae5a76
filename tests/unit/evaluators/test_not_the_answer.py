"""Replies that hold the right answer and do not give it: bounds, both signs, other answers, what is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.reading.answers import stated_answer
from reflexion.evaluators.reading.matching import number_stated
from reflexion.evaluators.reading.multiple_choice import chosen_option
from reflexion.types import Problem, Trial

TOWNS = {"A": "lima", "B": "oslo", "C": "cairo", "D": "none of these"}


async def passes(answer: Any, reply: str, spec: str | None = None) -> bool:
    problem = Problem(id="p", prompt="?", answer=answer)
    evaluator = resolve_evaluator(spec, problem)
    assert evaluator.check(problem) is None
    return (await evaluator.evaluate(problem, Trial(index=1, answer=reply))).passed


@pytest.mark.parametrize(
    "reply",
    [
        "Answer: > 17",
        "Answer: x \u2265 17",
        "Answer: $n < 17$",
        r"\boxed{n \le 17}",
        r"\boxed{\neq 17}",
        "Answer: \u00b117",
        "x = \u00b117",
        r"\boxed{\pm 17}",
        "Answer: 17 or -17",
        "Answer: x = 17 or x = -17",
        "Answer: x = 17, x = 3",
        "Answer: 17, 18, 19",
        "Answer: [17, 18, 19]",
        "Answer: 17+",
        "Answer: 17+ years",
        "Answer: seventeen or eighteen",
        "Answer: seventeen dozen",
        "Answer: seventeen percent",
        "Answer: 17 to 19",
        "Answer: 17; 19",
        "Answer: 17 (or 19)",
        "Answer: 17. Wait, 19.",
        "Answer: 17? No, 19",
        "Answer: 17 is wrong",
        "Answer: more than 17",
        "Answer: half of 17",
        "Answer: twice 17",
        "Answer: cannot be 17",
        "Answer: it isn't 17",
        "Answer: 17 squared",
        "Answer: 17 and a half",
        "Answer: 17 hundredths",
        "Answer: 17 or more",
        "Answer: 17 times 2",
        "Answer: 17 minus 2",
        "Answer: 17 * n",
        "Answer: 17(n + 1)",
        "Answer: 17i",
        "Answer: 17 + 2i",
        "Answer: f(17)",
        "Answer: log 17",
        "Answer: \u221b17",
        "Answer: -(17)",
        "40 - 17",
        r"\boxed{17!}",
        r"\boxed{\binom{17}{2}}",
        r"\boxed{\log_2 17}",
    ],
)
@pytest.mark.parametrize("spec", [None, "numeric"])
async def test_a_number_that_is_no_answer_by_itself(reply: str, spec: str | None) -> None:
    assert not await passes(17, reply, spec)


@pytest.mark.parametrize(
    "reply",
    ["=> 17", "Answer: -> 17", "Answer: \u2192 17", "Answer: <b>17</b> apples", "Answer:\n> 17", "Answer: n = 17 > 0",
     "Answer: 10 + 7", "10 + 7", "Answer: 10 plus 7 is 17",
     "Answer: 17 (not 18)", "Answer: 17 m", "Answer: 17! ", "Answer: 17 s", r"\boxed{|-17|}"],
)  # fmt: skip
async def test_signs_that_do_not_make_another_number(reply: str) -> None:
    assert await passes(17, reply)


@pytest.mark.parametrize(("answer", "reply"), [("-8", r"\boxed{|-8|}"), ("1", "one half"), ("2", "two thirds")])
async def test_numbers_within_an_expression(answer: str, reply: str) -> None:
    assert not await passes(answer, reply)


def test_a_decade_is_no_year() -> None:
    for reply in ("Answer: 1970s", "Answer: the 1970s", "Answer: 2010s"):
        assert number_stated(stated_answer(reply), reply) is None


@pytest.mark.parametrize(
    ("answer", "reply", "passed"),
    [
        ("$9", "Answer: \u20ac9", False),
        ("$9", "Answer: 9 euros", False),
        ("\u00a39", "Answer: $9", False),
        ("9%", "Answer: $9", False),
        ("$9", "Answer: 9 dollars", True),
        ("$9", "Answer: 9", True),
        ("9 \u20ac", "Answer: \u20ac9.00", True),
        ("9 dollars", "Answer: 9 euros", False),
        ("9 USD", "Answer: $9", True),
        ("9", "Answer: $9", True),
        ("$9$", "Answer: $9$ euros", True),
    ],
)
async def test_money_of_another_currency(answer: str, reply: str, passed: bool) -> None:
    assert await passes(answer, reply) is passed


@pytest.mark.parametrize(
    ("answer", "reply", "passed"),
    [
        ("4, -9", r"\boxed{4,-9}", True),
        ("4,9", r"\boxed{4, 9}", True),
        ("4, 9, 16", "Answer: 4,9,16", True),
        ("4, 9, 16", "Answer: 4, 9", False),
        ("4, 9, 16", "Answer: 16, 9, 4", False),
        ("4, -9", r"\boxed{4,9}", False),
        (r"22,\! 333,\! 444", r"\boxed{22,333,444}", True),
        (r"22,\! 333,\! 444", r"\boxed{22333445}", False),
        (r"7\text{ PM}", r"\boxed{7\text{ AM}}", False),
        (r"7\text{ a.m.}", r"\boxed{7\text{ p.m.}}", False),
        (r"7\text{ cm}", r"\boxed{7}", True),
        (r"\begin{pmatrix} 4 \\ 9 \end{pmatrix}", r"\boxed{\begin{pmatrix}4\\9\end{pmatrix}}", True),
        (r"\begin{pmatrix} 4 \\ 9 \end{pmatrix}", r"\boxed{\begin{pmatrix}9\\4\end{pmatrix}}", False),
        (r"\begin{bmatrix} -4 \\ 9 \end{bmatrix}", r"\boxed{\begin{bmatrix}4\\9\end{bmatrix}}", False),
    ],
)
async def test_lists_and_vectors_keep_their_order(answer: str, reply: str, passed: bool) -> None:
    assert await passes(answer, reply) is passed


@pytest.mark.parametrize(
    "reply",
    [
        "Answer: Oslo. No wait, Bergen.",
        "Answer: Oslo - no, Bergen",
        "Answer: Oslo (or Bergen)",
        "Answer: Oslo (wrong)",
        "Answer: Oslo; Bergen",
        "Answer: Oslo. Bergen.",
        "Answer: Oslo - New Bergen",
        "Oslo\n\nHowever, this is wrong, since the town by the sea is Bergen.",
    ],
)
async def test_an_answer_taken_back_or_one_of_two(reply: str) -> None:
    assert not await passes("Oslo", reply)


@pytest.mark.parametrize(
    "reply",
    ["Answer: Oslo. It has been the capital since 1814.", "Answer: Oslo (in Norway)", "Answer: Oslo - the seat of it",
     "Answer: Oslo, not Bergen", "Answer: Oslo. Correct.", "Oslo\n\nIt has been the capital of Norway since 1814."],
)  # fmt: skip
async def test_an_answer_with_its_reason(reply: str) -> None:
    assert await passes("Oslo", reply)


@pytest.mark.parametrize(
    ("answer", "reply", "passed"),
    [
        ("no", "Answer: No. 7", False),
        ("no", "Answer: No (yes)", False),
        ("yes", "Answer: Yes - no", False),
        ("no", "Answer: No. No bird has teeth.", True),
        ("no", "Answer: No. Not all of them fly.", True),
        ("yes", "Answer: Yes. It does.", True),
        (True, "Answer: Yes; no", False),
    ],
)
async def test_yes_and_no(answer: Any, reply: str, passed: bool) -> None:
    assert await passes(answer, reply) is passed


@pytest.mark.parametrize(
    ("answer", "reply", "passed"),
    [
        ({"n": 1}, '{"n": true}', False),
        ({"n": False}, '{"n": 0}', False),
        ({"n": [0, {"m": True}]}, '{"n": [0, {"m": 1}]}', False),
        ({"n": 1}, '{"n": 1.0}', True),
        ({"n": [1, None], "m": "x"}, '{"m": "x", "n": [1, null]}', True),
    ],
)
async def test_true_is_not_one_in_json(answer: Any, reply: str, passed: bool) -> None:
    assert await passes(answer, reply) is passed


@pytest.mark.parametrize(
    ("answer", "reply", "passed"),
    [
        ("\u5357\u4eac", "\u6211\u4f4f\u5728\u5357\u4eac\u3002", True),
        ("\u6771\u4eac", "\u7b54\u3048\u306f\u6771\u4eac\u3067\u3059", True),
        ("\u0e40\u0e0a\u0e35\u0e22\u0e07", "\u0e19\u0e35\u0e48\u0e40\u0e0a\u0e35\u0e22\u0e07", True),
        ("\u5357\u4eac", "\u5317\u4eac", False),
        ("Ulm", "Ulmen", False),
    ],
)  # fmt: skip
async def test_scripts_without_spaces_have_no_bounds_of_words(answer: str, reply: str, passed: bool) -> None:
    assert await passes(answer, reply, "contains") is passed


@pytest.mark.parametrize(
    "reply",
    [
        "Answer: B) Lima",
        "Answer: B. Cairo",
        "B is tempting",
        "B is tempting but it rains there",
        "B is a bad option",
        "B fails",
        "B would be a mistake",
        "B makes no sense",
        "B est faux",
        "B \u4e0d\u5bf9",
        "All except B",
        "Anything but B",
        "B... actually C",
        "my answer is B... no, C",
        "The answer is B? No.",
    ],
)
def test_a_label_that_is_spoken_of_is_not_chosen(reply: str) -> None:
    assert chosen_option(reply, TOWNS) != "B"


@pytest.mark.parametrize(
    "reply",
    ["B because A and C fail", "B is right", "B is the capital of Norway", "B seems the best", "Definitely B!",
     "C is tempting but B is right", "Answer: B (not C)", "B, since the others are wrong", "I'd say (B)."],
)  # fmt: skip
def test_a_label_with_its_reason_is_chosen(reply: str) -> None:
    assert chosen_option(reply, TOWNS) == "B"


@pytest.mark.parametrize("answer", ["\u200b", "<think>Oslo</think>", "\u2060 \ufeff", ["<think>Oslo</think>", ""]])
def test_a_reference_that_not_even_itself_meets_is_refused(answer: Any) -> None:
    problem = Problem(id="p", prompt="?", answer=answer)
    assert "no reply can" in (resolve_evaluator("exact", problem).check(problem) or "")


@pytest.mark.parametrize(
    "answer", ["<b>", "C#", "!", "**", "...", "{}", "a\n\nb", "Answer: 5", r"\boxed{7}", "\u00bd", "5 < 6"]
)
async def test_odd_references_are_met_by_themselves(answer: str) -> None:
    assert await passes(answer, answer) or await passes(answer, f"Answer: {answer}")


@pytest.mark.parametrize("pattern", [".*", "x*", "y|", "(?s).{0,9}"])
def test_a_pattern_that_any_reply_matches_is_refused(pattern: str) -> None:
    problem = Problem(id="p", prompt="?", answer=pattern)
    assert "any reply matches" in (resolve_evaluator("regex", problem).check(problem) or "")


@pytest.mark.parametrize("pattern", ["^$", r"\w", "^(?!.*sorry)", "Oslo|Bergen", "[^a]*"])
def test_a_pattern_that_some_reply_fails_is_taken(pattern: str) -> None:
    problem = Problem(id="p", prompt="?", answer=pattern)
    assert resolve_evaluator("regex", problem).check(problem) is None
