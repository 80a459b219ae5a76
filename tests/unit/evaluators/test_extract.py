"""How code is found in a reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexion.evaluators.extract import extract_code, prompt_code

PROMPT = 'Complete it.\n\nfrom typing import List\n\n\ndef add(a: int, b: int) -> int:\n    """Add two numbers."""\n'


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
