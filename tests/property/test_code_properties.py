"""Readers of code take any text, in little time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reflexion.evaluators.code import extract_code, extract_solution, fenced_blocks, prompt_code
from reflexion.evaluators.code.heads import read_head
from reflexion.evaluators.generated import asserts_of
from reflexion.loop.thought import split_thought
from tests.support.timing import MOST_SECONDS, idle_seconds

LENGTH = 100_000
PROMPT = 'import math\n\n\ndef add(a: int, b: int) -> int:\n    """Add."""\n'
CODE = "def add(a, b):\n    return a + b\n"
PARTS = [
    *(
        "(",
        "[",
        "{",
        '"',
        "'",
        '"""',
        "`",
        "```",
        "~~~",
        "\n",
        "1",
        "\0",
        "\ufeff",
        "\u00a0",
        "\t",
        " ",
        "\\",
        "-",
        "a.",
        "<|",
    ),
    *(
        "def ",
        "class ",
        "def f(): pass\n",
        "class C: pass\n",
        "def add(a, b): return 1\n",
        "def add(\n",
        "add = 1\n",
        "a\n",
    ),
    *(
        "@a\n",
        "x = '\n",
        '"\\"',
        "    x\n",
        "<think>\n",
        "</think>",
        "```\n",
        "```python\n",
        "```\n<think>\n",
        "~~~\n```\n",
    ),
    *(
        "```python\ndef add(a, b): pass\n```\n",
        "```python\ndef add(): return (\n```\n",
        '```python\n"""\n```\n',
        "> ```\n",
    ),
    *(
        "1. ```python\n",
        "- ",
        "> ",
        ">>> def add(a):\n... ",
        "&lt;",
        "<code>",
        "<|im_end|>\n",
        '{"a":',
        "[1,",
        '{"code": "x y"}\n',
    ),
    *(
        "It's a word. It isn't.\n",
        "if x:\n",
        "#\n",
        "# class A:\n",
        "from a import *\n",
        "lambda:",
        "not ",
        'f"{x}"\n',
        "return\n",
    ),
    *(
        "`a` ",
        "    return 1\n",
        "1,",
        "1;",
        "Title\n",
        "a: b\n",
        "from __future__ import annotations\n",
        "assert add(1) == 1\n",
    ),
    *(
        "class add:\n  def add(self): pass\n",
        "1 | add\n",
        "\u65e5\u672c\n",
        "for add in add:\n",
        "print(add)\n",
        "assert add",
    ),
    *(" or ", " if x else ", " in ", "<", "+", "**", " and not ", ":=", " is a.", "await "),
    *("a\u0301\u0323", "\u0301\u0323", "\uff9e\u0301", "\ufdfa", "\u00bd", "\ud800"),
]
FLOODS = {part: part * (LENGTH // len(part.encode(errors="surrogatepass"))) for part in PARTS}
NESTED = {
    "brackets": "add = " + "(" * 1000 + ")" * 1000,
    "json": '{"code":' * 1000 + "1" + "}" * 1000,
    "quotes": "> " * 1000 + f"```python\n{CODE}",
    "markdown": "````markdown\n" * 1000 + f"```python\n{CODE}```\n" + "````\n" * 1000,
    "indents": "".join(" " * depth + "if x:\n" for depth in range(440)),
    "calls": "add = " + "f(" * 1000 + ")" * 1000,
    "attributes": "add = x" + ".y" * 1000,
    "thoughts": "<think>\n" * 1000 + CODE + "</think>\n" * 1000,
}
READERS: dict[str, Callable[[str], object]] = {
    "extract_solution": lambda text: extract_solution(text, PROMPT, "add"),
    "extract_code of a program": lambda text: extract_code(text, "", "__main__"),
    "extract_code in LeetCode's form": lambda text: extract_code(
        text, "class Solution:\n    def f(self):\n", "Solution().f"
    ),
    "fenced_blocks": fenced_blocks,
    # What is remembered of prompts would hide what reading one costs.
    "prompt_code": lambda text: (read_head.cache_clear(), prompt_code(text, "add")),
    "asserts_of": lambda text: asserts_of(text, "add", 6),
    "split_thought": split_thought,
}


@pytest.mark.parametrize("reader", READERS)
def test_floods_of_anything_are_read_quickly(reader: str) -> None:
    slow = {}
    for name, flood in {**FLOODS, **NESTED}.items():
        for text in (flood, f"a{flood}", CODE + flood, f"```python\n{CODE}{flood}\n```"):
            if (took := idle_seconds(lambda t=text: READERS[reader](t))) > MOST_SECONDS:
                slow[name] = took
    assert slow == {}


@pytest.mark.parametrize("reader", READERS)
def test_floods_of_different_names_are_read_quickly(reader: str) -> None:
    slow = {}
    for part in PARTS:
        times = LENGTH // (len(part.encode(errors="replace")) + 10)
        text = "".join(f"a{number}{part}b{number}" for number in range(times))
        if (took := idle_seconds(lambda t=text: READERS[reader](t))) > MOST_SECONDS:
            slow[part] = took
    assert slow == {}


MIXED = st.lists(
    st.sampled_from([*PARTS, CODE, "add", "Solution", *FLOODS.values()][:90]) | st.text(max_size=20), max_size=30
)


@settings(max_examples=300, deadline=None)
@given(MIXED.map("".join))
def test_any_mixture_gives_code_that_ends_in_a_line_break(text: str) -> None:
    for reader in READERS.values():
        reader(text)
    solution = extract_solution(text, PROMPT, "add")
    assert solution.code.endswith("\n") and 0 <= solution.added <= solution.code.count("\n")


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="abc \n'\"(#:=", max_size=60), st.text(alphabet="abc.,' \n", max_size=60))
def test_a_fenced_answer_is_found_whatever_is_said_around_it(before: str, after: str) -> None:
    space: dict[str, object] = {}
    exec(extract_code(f"{before}\n\n```python\n{CODE}```\n{after}", "", "add"), space)
    assert space["add"](1, 2) == 3  # type: ignore[operator]
