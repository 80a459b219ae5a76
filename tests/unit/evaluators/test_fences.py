"""Fenced blocks as models write them."""

from __future__ import annotations

import pytest

from reflexion.evaluators.code import Block, fenced_blocks

CODE = "total = 0\nfor n in range(3):\n    total += n\n"


def fenced(info: str = "python", mark: str = "```", code: str = CODE) -> str:
    return f"{mark}{info}\n{code}{mark}\n"


def before_each(prefix: str, text: str) -> str:
    return "".join(f"{prefix}{line}\n" for line in text.rstrip("\n").split("\n"))


@pytest.mark.parametrize(
    ("info", "lang"),
    [
        ("python", "python"),
        ("Python", "python"),
        ("py3", "py3"),
        (" python title=sum.py", "python"),
        ("{.python .line-numbers}", "python"),
        ("{python}", "python"),
        ("python:src/sum.py", "python"),
        ("c++", "c++"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("mark", ["```", "~~~", "`````"])
def test_the_info_string_names_the_language(info: str, lang: str, mark: str) -> None:
    assert fenced_blocks(f"Here:\n\n{fenced(info, mark)}Done.") == [Block(lang, CODE, 4)]


@pytest.mark.parametrize(
    "text",
    [
        before_each("> ", fenced()),
        before_each("> > ", fenced()),
        before_each(">", fenced()),
        before_each("  ", fenced()),
        before_each("\t", fenced()),
        "- " + before_each("  ", fenced())[2:],
        "12. " + before_each("    ", fenced())[4:],
        "* item\n\n" + before_each("    ", fenced()),
    ],
)
def test_lists_and_quotes_leave_no_trace_in_the_code(text: str) -> None:
    assert [(b.lang, b.body) for b in fenced_blocks(text)] == [("python", CODE)]


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{CODE.rstrip()}```\nDone.",
        f"This is it: ```python\n{CODE}```",
        f"\u200b```python\u200b\n{CODE}```\u00a0\nDone.",
        f"````markdown\n# Sum\n{fenced()}````",
        f"```markdown\n# Sum\n{fenced()}```\n",
        f"~~~~\n{fenced()}~~~~",
        f"```\nfirst\n```\n{fenced()}",
        f"```python\n```\n\n{fenced()}",
        f"```python\n{CODE}",
    ],
)
def test_what_models_make_of_fences(text: str) -> None:
    python = [b for b in fenced_blocks(text) if b.lang == "python"]
    assert [b.body for b in python] == [CODE]


@pytest.mark.parametrize("quotes", ['"""', "'''"])
@pytest.mark.parametrize("inner", ["```\nf(1)\n```", "```python\nf(1)\n```", "~~~\nf(1)\n~~~\n```\nf(2)\n```"])
def test_a_fence_in_a_docstring_ends_nothing(quotes: str, inner: str) -> None:
    code = f"def f(x):\n    {quotes}Doc.\n\n{inner}\n    {quotes}\n    return x\n"
    assert [b.body for b in fenced_blocks(f"```python\n{code}```\nUse `f`.\n{fenced()}")] == [code, CODE]


@pytest.mark.parametrize("broken", ['"""Doc', "'''Doc\n    it", 's = """'])
def test_a_string_that_only_another_block_ends_is_none(broken: str) -> None:
    first, second = f"def f(x):\n    {broken}\n", f'def g(x):\n    """Doc."""\n    return "{broken[:3]}"\n'
    blocks = fenced_blocks(f"```python\n{first}```\nBetter:\n```python\n{second}```\n")
    assert [b.body for b in blocks] == [first, second]


@pytest.mark.parametrize(
    ("text", "lang", "body"),
    [
        ("```python x = 1 ```", "python", "x = 1\n"),
        ("So ```x = 1``` it is.", "", "x = 1\n"),
        ("```def f(): return 1```", "", "def f(): return 1\n"),
        ("```python def f(x):\n    return x\n```", "python", "def f(x):\n    return x\n"),
        ("```import os\nos.sep\n```", "", "import os\nos.sep\n"),
    ],
)
def test_code_may_stand_on_the_fences_line(text: str, lang: str, body: str) -> None:
    assert [(b.lang, b.body) for b in fenced_blocks(text)] == [(lang, body)]


def test_blocks_say_where_they_begin_and_whether_they_end() -> None:
    text = f"One\n```sh\nls\n```\n\n\n{fenced()}> ```\n> q\n> ```\n```text\nleft open"
    assert [(b.line, b.closed) for b in fenced_blocks(text)] == [(3, True), (8, True), (13, True), (16, False)]


@pytest.mark.parametrize("text", ["", "no code", "```\n```", "a `b` c", "`` ` ``", "``", "```python\n\n\n```"])
def test_where_there_is_none(text: str) -> None:
    assert fenced_blocks(text) == []
