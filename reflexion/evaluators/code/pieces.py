"""Code that stands in prose without fences, and the disguises that code comes in."""

from __future__ import annotations

import ast
import html
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from reflexion.evaluators.code.python_reader import BUILTINS, Reader, definitions
from reflexion.evaluators.code.supplied_imports import TYPING

__all__ = ["dedented", "disguises", "in_bare_text", "in_json", "inline_spans", "is_code_like", "set_off"]

_MOST_RUNS = 32
"""Pieces of code looked for in one text without fences."""
_MOST_CUTS = 4
"""Ends tried for one of them."""
_MOST_TICKS = 400
"""Backticks in prose that are looked at."""
_MOST_VALUES = 3
"""Places tried as the begin of a JSON value."""
_LONGEST_DISGUISED = 40_000
"""Characters of a text that may be disguised."""
_MOST_STRINGS = 64
"""Strings of a JSON value that may be code."""

_START = re.compile(
    r"^(?:(?:async[ \t]+def|def|class|import|from)[ \t]+\w|@\w|\"\"\"|'''|if[ \t]+__name__|print[ \t]*\("
    r"|[A-Za-z_][\w.]*+(?:[ \t]*:[^=\n]*+|[ \t]*,[^=\n]*+)?[ \t]*=(?!=)"
    r"|try[ \t]*:|for[ \t][^\n]*[ \t]in[ \t]|while[ \t])",
    re.MULTILINE,
)
_CODE_LIKE = re.compile(
    r"[A-Za-z_][\w.]*+(?:\[[^\]\n]*+\])?[ \t]*+(?:[-+*/%&|^@]|//|\*\*|<<|>>)?=(?!=)|@\w|[\w.]++\("
    r"|(?:try|else|finally)[ \t]*:|(?:(?:async[ \t]+)?def|class)[ \t]+\w+[ \t]*[(:]"
    r"|import[ \t]+\w+$|from[ \t]+[\w.]+[ \t]+import\b|return\b.*[\w)\]]$"
    r"|for[ \t].*[ \t]in[ \t].*:|(?:if|elif|while|with|except)[ \t].*[=<>(\[].*:"
)
_INVISIBLE = {
    **{ord(char): None for char in "\0\u200b\u200c\u200d\u2060\ufeff\u00ad"},
    **{ord(char): " " for char in "\u00a0\u2007\u202f\u3000"},
}
_PLAIN = {
    ord(char): plain
    for plain, chars in {
        "'": "\u2018\u2019\u201a\u2032",
        '"': "\u201c\u201d\u201e\u2033",
        "-": "\u2212\u2013",
        ":": "\uff1a",
        ",": "\uff0c",
        "(": "\uff08",
        ")": "\uff09",
        "=": "\uff1d",
    }.items()
    for char in chars
}
"""Marks that word processors and keyboards put in the place of ASCII's."""
_MAGIC = re.compile(r"^[%!][^\n]*", re.MULTILINE)
_TAG = re.compile(
    r"</?(?:code|pre|python|answer|solution|final|tt)(?:[ \t][^<>\n]{0,80})?>"
    r"|\[/?(?:PYTHON|CODE|ANSWER|SOLUTION|BEGIN|DONE|END)\]"
)
_PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.|In \[\d+\]:|\.\.\.:)(?: |$)")
_NUMBER = re.compile(r"^[ \t]*\d{1,4}(?:[.:|)]|[ \t]*\|)?(?: |\t|$)")
_JSON = re.compile(r"^[ \t]*[{\[\"]", re.MULTILINE)
_WORDS = re.compile(r"\w\s+\w|\(")
_REGION = re.compile(r"^[ \t]+\S[^\n]*(?:\n(?:[ \t]+[^\n]*|(?=\n|\Z)))*", re.MULTILINE)
_TICKS = re.compile(r"(`+)")


def in_bare_text(text: str, reader: Reader, *, cut: bool = False) -> list[str]:
    """The pieces of code in a text without fences, in order; prose before, between and after them is left out.

    Small models write code without a fence and go on in prose, and a token limit cuts a reply anywhere: neither says
    that the code is wrong. A piece that is no Python in its midst is given as it stands, to be judged so.

    Args:
        text: the text.
        reader: of the reply.
        cut: whether the last statement, if it is no Python, may be shortened to the lines that are.
    """
    if not text.strip():
        return []
    tree = reader.tree(text)
    if tree is not None:
        return [_without_words(text, tree)]
    pieces: list[str] = []
    position = 0
    for _ in range(_MOST_RUNS):
        match = _START.search(text, position)
        if match is None:
            break
        piece, length = _run(text[match.start() :], reader, cut)
        if piece.strip():
            tree = reader.tree(piece)
            pieces.append(piece if tree is None else _without_words(piece, tree))
        position = match.start() + max(length, 1)
    return pieces


def _run(text: str, reader: Reader, cut: bool) -> tuple[str, int]:
    """The code with which a text begins, and how many characters of the text are dealt with by that."""
    if reader.error_line(text) is None:
        return text, len(text)  # it is whole, or too much to read
    lines = text.split("\n")
    for _ in range(_MOST_CUTS):
        code = "\n".join(lines)
        if reader.reads(code):
            return code + "\n", len(code)
        line = reader.error_line(code)
        if line is None:
            return code, len(code)
        failing = min(line, len(lines)) - 1
        while failing and not lines[failing].strip():
            failing -= 1
        begin = failing
        while begin and (not lines[begin].strip() or lines[begin][0].isspace()):
            begin -= 1
        after = next(
            (n for n in range(failing + 1, len(lines)) if lines[n].strip() and not lines[n][0].isspace()), None
        )
        if (
            cut
            and begin < failing
            and after is None
            and _ends(lines, failing)
            and reader.reads("\n".join(lines[:failing]))
        ):
            lines = lines[:failing]
        elif after is None and begin and (begin < failing or is_code_like(lines[failing])):
            lines = lines[:begin]  # a last statement that was cut off, by a token limit for one
        elif begin == failing and not is_code_like(lines[failing]):
            if not failing:
                return "", len(lines[0]) + 1
            lines = lines[:failing]
        elif begin:
            lines = lines[:begin]
        else:
            bad = "\n".join(lines[:after])
            return bad, len(bad)
    return "", len(text.split("\n", 1)[0]) + 1


def is_code_like(line: str) -> bool:
    """Whether a line is meant as code, be it Python or not."""
    return _CODE_LIKE.match(line.strip()) is not None


def _ends(lines: list[str], failing: int) -> bool:
    """Whether nothing of a function follows its line that is no Python: prose begins there, or it was cut off there."""
    depth = _indent(lines[failing])
    below = (_indent(line) for line in lines[failing + 1 :] if line.strip())
    return not is_code_like(lines[failing]) or all(indent > depth for indent in below)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_words(code: str, tree: ast.Module) -> str:
    """Code without statements that are words of prose: `Explanation`, `[DONE]`, `Complexity: O(n)`."""
    said = [n for n in tree.body if isinstance(n, ast.Expr | ast.AnnAssign)]
    known = definitions(tree) | BUILTINS | TYPING if said else set[str]()
    lines = code.split("\n") if said else []
    for node in said:
        if _is_prose(node, known):
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return "\n".join(lines) if said else code


def _is_prose(node: ast.Expr | ast.AnnAssign, known: set[str]) -> bool:
    match node:
        case ast.AnnAssign(value=None, annotation=said) | ast.Expr(value=ast.Name() | ast.List() | ast.Tuple() as said):
            nodes = (said,) if isinstance(said, ast.Name) else ast.walk(said)
            names = {n.id for n in nodes if isinstance(n, ast.Name)}
            return bool(names) and names.isdisjoint(known)
        case _:
            return False


def inline_spans(text: str) -> list[str]:
    """What stands between single or double backticks."""
    parts = _TICKS.split(text, maxsplit=_MOST_TICKS) if "`" in text else []
    marks = range(1, len(parts) - 2, 2)
    return [parts[n + 1].strip() + "\n" for n in marks if len(parts[n]) < 3 and parts[n] == parts[n + 2]]


def in_json(text: str) -> list[str]:
    """The strings of several words in a text's first JSON value that begins a line: `{"code": "def add(a, b): …"}`."""
    decoder = json.JSONDecoder(strict=False)  # line breaks within strings are common in JSON written by hand
    found: list[str] = []
    for match, _ in zip(_JSON.finditer(text), range(_MOST_VALUES), strict=False):
        try:
            pending: list[Any] = [decoder.raw_decode(text, match.end() - 1)[0]]
        except (ValueError, RecursionError):
            continue
        while pending and len(found) < _MOST_STRINGS:
            value = pending.pop(0)
            if isinstance(value, str) and _WORDS.search(value):
                found.append(value)
            elif isinstance(value, dict):
                pending += list(value.values())[:_MOST_STRINGS]
            elif isinstance(value, list):
                pending += value[:_MOST_STRINGS]
        break
    return found


def disguises(text: str) -> Iterator[str]:
    """A text, and what it may have been before something on its way disguised it; each reading is further off."""
    yield text
    if len(text) > _LONGEST_DISGUISED:
        return
    for reveal in (
        _visible,
        _untagged,
        html.unescape,
        _plain,
        _without_magics,
        _typed_in,
        _unnumbered,
        _lines,
        set_off,
    ):
        revealed = reveal(text)
        if revealed != text:
            text = revealed
            yield text


def dedented(code: str) -> str:
    """Code without the indent that all its lines have."""
    # What begins without an indent, as nearly all code does, has none in common.
    return textwrap.dedent(code) if code.lstrip("\n")[:1].isspace() else code


def _visible(text: str) -> str:
    return text.translate(_INVISIBLE)


def _untagged(text: str) -> str:
    return _TAG.sub("\n", text) if "<" in text or "[" in text else text


def _plain(text: str) -> str:
    return text.translate(_PLAIN)


def _without_magics(text: str) -> str:
    """Code of a notebook without its commands: `!pip install …`."""
    return _MAGIC.sub("", text)


def _typed_in(text: str) -> str:
    """What was typed into an interactive session."""
    if ">>>" not in text and "In [" not in text:
        return text
    typed = [line[match.end() :] for line in text.split("\n") if (match := _PROMPT.match(line))]
    return "\n".join(typed) + "\n" if typed else text


def _unnumbered(text: str) -> str:
    """Code whose lines all have a number before them."""
    lines = text.split("\n")
    plain: list[str] = []
    for line in lines:
        match = _NUMBER.match(line)
        if match is None and line.strip(" \t`~python"):
            return text
        plain.append(line[match.end() :] if match else line)
    return "\n".join(plain)


def _lines(text: str) -> str:
    """One line in which line breaks are written as in a string."""
    return text.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"') if "\n" not in text.strip() else text


def set_off(text: str) -> str:
    """Code set off from prose by an indent, as markdown without fences has it."""
    return _REGION.sub(lambda m: textwrap.dedent(m[0]), text)
