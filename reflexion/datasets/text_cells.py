"""Lists and objects that stand as text in a cell, as CSV files and data frames keep them."""

from __future__ import annotations

import ast
import io
import math
import tokenize
from collections.abc import Iterator
from typing import Any, cast

import orjson

from reflexion._python_source import parse_python

__all__ = ["as_list", "read_cell"]

_OPENING = ("[", "{", "(", "array(")
_NAMES = {"nan": math.nan, "inf": math.inf, "null": None, "true": True, "false": False}
_ATOMS = (tokenize.STRING, tokenize.NUMBER, tokenize.NAME)


def read_cell(text: str) -> list[Any] | dict[str, Any] | None:
    """The list or object that a text is, or None: JSON, a Python literal, or what NumPy prints.

    Nothing is evaluated: only literals, and `array(…)` around them, are understood.
    """
    stripped = text.strip()
    if not stripped.startswith(_OPENING):
        return None
    try:
        value: Any = orjson.loads(stripped)
    except orjson.JSONDecodeError:
        try:
            value = _value(parse_python(_with_commas(stripped), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
            return None
    if isinstance(value, tuple | set):
        value = list(cast("tuple[Any, ...]", value))
    return cast("Any", value) if isinstance(value, list | dict) else None


def as_list(value: Any) -> list[Any] | None:
    """A list, or the list that a text cell holds; None for anything else."""
    if isinstance(value, str):
        value = read_cell(value)
    return cast("list[Any]", value) if isinstance(value, list) else None


def _with_commas(text: str) -> str:
    """The text with a comma wherever two values follow each other, as in NumPy's `['a' 'b']`.

    Python would take two texts side by side for one, and a list of two tests would become one wrong test.
    """
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    places: list[int] = []
    previous: tokenize.TokenInfo | None = None
    for token in _significant(text):
        ended = previous is not None and (previous.type in _ATOMS or previous.string in ("]", ")", "}"))
        begins = token.type in _ATOMS or token.string in ("[", "{")
        if previous is not None and ended and begins:
            places.append(starts[previous.end[0] - 1] + previous.end[1])
        previous = token
    for place in reversed(places):
        text = f"{text[:place]},{text[place:]}"
    return text


def _significant(text: str) -> Iterator[tokenize.TokenInfo]:
    skipped = (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)
    return (t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in skipped)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value) if value is not Ellipsis:
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return [_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {str(_value(cast("ast.expr", k))): _value(v) for k, v in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.Call(func=ast.Name(id="array"), args=[inner, *_]):
            return _value(inner)
        case _:
            raise ValueError("not a literal")
