"""How the answer is found in a reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexion.evaluators.extract import (
    answer_candidates,
    extract_code,
    extract_json,
    final_answer,
    last_number,
    normalize_answer,
    prompt_code,
)

PROMPT = 'Complete it.\n\nfrom typing import List\n\n\ndef add(a: int, b: int) -> int:\n    """Add two numbers."""\n'


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


def test_the_last_block_that_defines_the_function_is_the_code() -> None:
    reply = "```python\ndef f(): return 1\n```\nBetter:\n```python\ndef f(): return 2\n```\nUse:\n```\nf()\n```"
    assert extract_code(reply, "", "f") == "def f(): return 2\n"
    assert extract_code(reply) == "f()\n"


def test_a_fence_that_is_cut_off_or_indented_still_counts() -> None:
    assert extract_code("Here:\n  ```python\n  def f():\n      return 1\n") == "def f():\n    return 1\n"


def test_a_reply_without_fences_is_code() -> None:
    assert extract_code("def f():\n    return 1") == "def f():\n    return 1\n"


@pytest.mark.parametrize(
    "reply",
    [
        "def f():\n    return 1\n\nThis function returns one, as it's asked for.",
        "Here's the function:\n\ndef f():\n    return 1\n",
        "```python\ndef f():\n    return 1\n\ndef g(",
        "def f():\n    return 1\n# Usage:\nprint(f(",
    ],
)
def test_prose_around_bare_code_and_a_tail_that_was_cut_are_left_out(reply: str) -> None:
    assert extract_code(reply, "", "f").strip() == "def f():\n    return 1"


def test_code_that_does_not_define_the_function_is_judged_as_it_stands() -> None:
    assert extract_code("def g():\n    return 1\n\nThat's it.", "", "f").endswith("That's it.\n")


@pytest.mark.parametrize("body", ["    return a + b\n", "return a + b", "```python\n    return a + b\n```"])
def test_a_body_completes_the_prompt(body: str) -> None:
    space: dict[str, object] = {}
    exec(extract_code(body, PROMPT, "add"), space)
    assert space["add"](1, 2) == 3  # type: ignore[operator]


def test_a_whole_function_gets_the_prompts_imports() -> None:
    code = extract_code("```python\ndef add(a: List, b):\n    return a\n```", PROMPT, "add")
    assert code.startswith("from typing import List\n")


def test_prompt_code_starts_where_the_text_ends() -> None:
    code = prompt_code(PROMPT, "add")
    assert code is not None and code.startswith("from typing")
    assert prompt_code("Write add.", "add") is None
    assert prompt_code(PROMPT, "other") is None


@given(st.text())
def test_any_reply_gives_some_code(reply: str) -> None:
    assert extract_code(reply, PROMPT, "add").endswith("\n")


def test_json_is_found_in_fences_and_in_text() -> None:
    assert extract_json('Sure:\n```json\n{"a": 1}\n```') == {"a": 1}
    assert extract_json('I say {"a": [1]} and {"b": 2}, done') == {"b": 2}
    assert extract_json(" 5 ") == 5
    with pytest.raises(ValueError, match="no JSON"):
        extract_json("nothing")
