"""How the answer is found in a reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexion.evaluators.extract import (
    answer_candidates,
    extract_json,
    final_answer,
    last_number,
    normalize_answer,
)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("42", "42"),
        ("I think so.\nAnswer: **Paris**.", "Paris**."),
        ("Final answer: Paris", "Paris"),
        ("The answer is Paris", "Paris"),
        ("First.\n#### 72\n", "72"),
        ("So \\boxed{12} it is.", "12"),
        ("Answer: A\nno, wait\nAnswer: B", "B"),
        ("Some thoughts.\n\nParis\n", "Paris"),
        ("", ""),
    ],
)
def test_the_stated_answer_comes_first(reply: str, answer: str) -> None:
    assert final_answer(reply) == answer


def test_last_line_and_whole_reply_are_candidates_too() -> None:
    assert answer_candidates("Answer: A\nB") == ("A", "B", "Answer: A\nB")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("it costs $1,234.50 in all", 1234.5),
        ("-3", -3),
        ("\u22127 degrees", -7),
        ("between 3 and 4.", 4),
        (".5", 0.5),
        ("6e3", 6000),
        ("1,2", 2),
        ("none", None),
    ],
)
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_any_number_is_read_back(number: float) -> None:
    assert last_number(f"The result is {number!r}") == number


def test_normalisation_is_hotpots() -> None:
    assert normalize_answer("The  Quick, “brown” fox!") == "quick brown fox"


@given(st.text())
def test_normalisation_is_stable(text: str) -> None:
    once = normalize_answer(text)
    assert normalize_answer(once) in (once, normalize_answer(normalize_answer(once)))


def test_json_is_found_in_fences_and_in_text() -> None:
    assert extract_json('Sure:\n```json\n{"a": 1}\n```') == {"a": 1}
    assert extract_json('I say {"a": [1]} and {"b": 2}, done') == {"b": 2}
    assert extract_json(" 5 ") == 5
    with pytest.raises(ValueError, match="no JSON"):
        extract_json("nothing")
