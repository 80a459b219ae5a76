"""Numbers: how they are written, which one of a reply counts, and when two are the same."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.reading.quantities import first_number, last_number, whole_number
from reflexion.types import Problem, Trial


async def passes(spec: str | None, answer: Any, reply: str) -> bool:
    problem = Problem(id="p", prompt="?", answer=answer)
    evaluator = resolve_evaluator(spec, problem)
    assert evaluator.check(problem) is None
    return (await evaluator.evaluate(problem, Trial(index=1, answer=reply))).passed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3,456,789", 3456789),
        ("34 567", 34567),
        ("34\u00a0567", 34567),
        ("34\u202f567", 34567),
        ("34'567", 34567),
        ("34\u2019567", 34567),
        ("34{,}567", 34567),
        ("34\\,567", 34567),
        ("3,45,678", 345678),
        ("3.456.789", 3456789),
        ("3.456,5", Fraction("3456.5")),
        ("3_456_789", 3456789),
        ("3,5", Fraction(7, 2)),
        ("0,250", Fraction(1, 4)),
        (".75", Fraction(3, 4)),
        ("\u22127", -7),
        ("\u20137", -7),
        ("- 7", -7),
        ("minus 7", -7),
        ("-$7.50", Fraction(-15, 2)),
        ("$-7.50$", Fraction(-15, 2)),
        ("\\$7.50", Fraction(15, 2)),
        ("7.50 \u20ac", Fraction(15, 2)),
        ("7/8", Fraction(7, 8)),
        ("3 7/8", Fraction(31, 8)),
        ("3\u215e", Fraction(31, 8)),
        ("\\frac{7}{8}", Fraction(7, 8)),
        ("\\dfrac78", Fraction(7, 8)),
        ("3\\tfrac{7}{8}", Fraction(31, 8)),
        ("-\\frac{7}{8}", Fraction(-7, 8)),
        ("12.5%", Fraction(1, 8)),
        ("12.5\\%", Fraction(1, 8)),
        ("12.5 percent", Fraction(1, 8)),
        ("2.5e3", 2500),
        ("2.5 \\times 10^{3}", 2500),
        ("2.5\u00b710\u00b3", 2500),
        ("2^{11}", 2048),
        ("2.5 million", 2500000),
        ("$40k", 40000),
        ("3 lakh", 300000),
        ("\u0664\u0662", 42),
        ("\uff14\uff12", 42),
        ("42 m\u00b2", 42),
        ("42\\text{ cm}", 42),
        ("42^\\circ", 42),
        ("x = 42", 42),
        ("42nd", 42),
    ],
)
def test_the_ways_to_write_a_number(text: str, value: Any) -> None:
    found = whole_number(text, units=True)
    assert found is not None and found.value == value


@pytest.mark.parametrize("text", ["H2O", "x_1", "five and six", "3 or 4", "2024-05-01 to 2024-06-01", "1.2.3", ""])
def test_what_is_no_number(text: str) -> None:
    assert whole_number(text, units=True) is None


@given(st.integers(), st.sampled_from(["{:,}", "{}", "{:_}"]))
def test_whole_numbers_of_any_size_are_exact(number: int, form: str) -> None:
    found = whole_number(form.format(number))
    assert found is not None and found.value == number


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_any_decimal_is_read_back(number: float) -> None:
    found = last_number(f"The result is {number!r}")
    assert found is not None and float(found.value) == number


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("12 because 3 * 4 = 12 and 2 are left", 12, 2),
        ("3 * 4 = 12", 12, 12),
        ("$3 \u00d7 4 = $12", 12, 12),
        ("20 - 5 - 3 = 12 eggs", 12, 12),
        ("12 (that is 3 * 4)", 12, 4),
        ("3 or so, not 12", 3, 12),
        ("version B12 costs 7.", 7, 7),
    ],
)
def test_of_what_is_marked_the_first_number_counts_and_of_the_rest_the_last(text: str, first: int, last: int) -> None:
    a, b = first_number(text), last_number(text)
    assert (a and a.value, b and b.value) == (first, last)


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("31", "Answer: 31 (since 5 * 6 + 1 = 31, and 2 > 1)", True),
        ("31", "The answer is 31 because 32 - 1 = 31, not 30.", True),
        ("31", "#### 31 (3 boxes of 10 and 1)", True),
        ("31", "Answer: 30\nOr 31", False),
        ("31", "\\boxed{30}, and 31 is wrong", False),
        ("31", "She has 32 - 1 = 31 eggs.", True),
        ("31", "Answer: found by adding\n30 + 1 = 31", True),
        ("31", "Answer: thirty-one", True),
        ("31", "Answer: 31 or 32", False),
        ("31", "She has **31 eggs** in 2 boxes.", True),
        ("31", "She has **30** or **31** eggs in 2 boxes.", False),
        ("31", "Answer: not 31", False),
        ("31", "Answer: 31 - 5", False),
        ("31", "Answer: 26 + 5", True),
        ("31", "Answer: 31 and 5", False),
        ("31", "Answer: 31 and 5 are left", True),
        ("31", "Answer: B-31", False),
        ("31", "Answer: 31.4", False),
        ("31", "Answer: 310", False),
        ("31", "Answer: 3^1", False),
        ("31", "Answer: \\sqrt{31}", False),
        ("31", "Answer: 31\\pi", False),
        ("90000000", "90000001", False),
        ("900000000000000000000000001", "900000000000000000000000002", False),
        ("900000000000000000000000001", "900,000,000,000,000,000,000,000,001", True),
        ("0.6666667", "2/3", True),
        ("0.67", "2/3", False),
        ("0", "0.00000001", True),
        ("0", "0.01", False),
        ("40%", "40%", True),
        ("40%", "0.4", True),
        ("40%", "40", True),
        ("40%", "4", False),
        ("0.4", "40%", True),
        ("0.4", "40", False),
        ("40", "40%", True),
        ("7:45", "at 7:45 pm", True),
        ("7:45", "at 7:54 pm", False),
        ("7:45", "45", False),
        ("1999", "On 1999-12-31", True),
        ("1999", "On 31 December 1999", True),
        ("-4", "4", False),
        ("4", "-4", False),
        ("4", "Answer: No.4", True),
        ("4", "Answer: #4", True),
        ("4 eggs", "4", True),
        ("It was 2 + 2 = 4.\n#### 4", "The total is 4", True),
    ],
)
async def test_numeric(answer: str, reply: str, right: bool) -> None:
    assert await passes("numeric", answer, reply) is right


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        (31, "31.0", True),
        (31, "She has 31 eggs.", True),
        ("31", "$31.00", True),
        ("-31", "31", False),
        (3.1, "31", False),
        ("3/8", "38", False),
        ("3/8", "0.375", True),
        ("3,100", "3100", True),
        ("0.31", "Answer: 031", False),
        ("007", "7", False),
        ("007", "007", True),
        (r"\frac{3}{8}", r"\boxed{\frac{6}{16}}", True),
        ("1999-2004", "1999\u20132004", True),
        ("1999-2004", "-5", False),
        ("555-0199", "555-0198", False),
    ],
)
async def test_exact_compares_numbers_as_numbers(answer: Any, reply: str, right: bool) -> None:
    assert await passes(None, answer, reply) is right


@pytest.mark.parametrize(("spec", "reply", "right"), [("numeric:0.05", "104", True), ("numeric:0.05", "106", False)])
async def test_a_tolerance_of_ones_own_is_relative(spec: str, reply: str, right: bool) -> None:
    assert await passes(spec, "100", reply) is right


@pytest.mark.parametrize("answer", ["several", "4 or 5", True, float("inf"), ["4", "x"], "1.2.3"])
def test_a_reference_that_is_no_number_is_refused(answer: Any) -> None:
    problem = Problem(id="p", prompt="?", answer=answer)
    reason = resolve_evaluator("numeric", problem).check(problem)
    assert reason is not None and "'answer'" in reason and "not a number" in reason
