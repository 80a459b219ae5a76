"""Finds JSON in a reply: the values that stand in it, in linear time, whatever stands around them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import accumulate, islice
from typing import Any, NoReturn, cast

from pydantic import JsonValue

__all__ = ["extract_json", "json_objects", "load_json"]

_DEEPEST = 200
"""Brackets in brackets; deeper values are refused, since few readers survive them."""
_LEVELS = 3
"""How many brackets around JSON may be none of its own, as in `{see {"a": 1}}`."""
_MOST_FAILURES = 200
"""Pairs of brackets, or of fences, without JSON between them that are tried."""
_LONGEST = 30_000
"""Characters in which JSON among other text is looked for; in longer replies it must stand alone or in a fence."""
_OPENING = re.compile(r"[{\[]")
_SIGN = re.compile(r'"(?:[^"\\\n]|\\.)*"?|[{}\[\]]')
# A string that nothing ends goes on to the end: looked for anew at each quotation mark in it, that is quadratic.
_NO_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[^{}\[\]"]+', re.DOTALL)
_STEPS = {"{": 1, "[": 1, "}": -1, "]": -1}
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")


def load_json(text: str) -> JsonValue:
    """A JSON value; what only Python takes for JSON (`NaN`, surrogates' halves, too many brackets) is none.

    Raises:
        ValueError: the text is no JSON value, saying why.
    """
    if _depth(text) > _DEEPEST:
        raise ValueError(f"its brackets are more than {_DEEPEST} deep")
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark")
    value = _DECODER.decode(text)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ValueError("there is half a character in it") from exc
    return value


def _depth(text: str) -> int:
    """How deep the brackets of a text are, those in strings aside; 0 where there are too few to ask."""
    if text.count("[") + text.count("{") <= _DEEPEST:
        return 0
    return max(accumulate(map(_STEPS.__getitem__, _NO_BRACKETS.sub("", text))), default=0)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def extract_json(reply: str) -> Any:
    """The JSON value of a reply: the whole, that of its last fenced block, or its last object or array.

    Raises:
        ValueError: there is none.
    """
    problem = "the reply holds no JSON value"
    for text in (reply, *islice(_blocks(reply), _MOST_FAILURES)):
        if text.strip():
            try:
                return load_json(text)
            except ValueError as exc:
                problem = str(exc) if "deep" in str(exc) else problem
    if len(reply) > _LONGEST:
        start, end = _OPENING.search(reply), max(reply.rfind("}"), reply.rfind("]"))
        return load_json(reply[start.start() if start else 0 : end + 1])
    for value in _values(reply, last=True):
        return value
    raise ValueError(problem)


def same_json(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal; `true` is not 1, unlike in Python, and 1.0 is."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        a, b = cast("dict[str, Any]", left), cast("dict[str, Any]", right)
        return a.keys() == b.keys() and all(same_json(value, b[name]) for name, value in a.items())
    if isinstance(left, list) and isinstance(right, list):
        c, d = cast("list[Any]", left), cast("list[Any]", right)
        return len(c) == len(d) and all(map(same_json, c, d))
    return bool(left == right)


def json_objects(reply: str) -> list[dict[str, Any]]:
    """The JSON objects of a reply that stand in no other JSON value, in order."""
    try:
        values: list[Any] = [load_json(reply)]
    except ValueError:
        values = list(_values(reply))
    return [value for value in values if isinstance(value, dict)]


def _blocks(reply: str) -> Iterator[str]:
    """What stands in the fences of a reply, last first; in one that is left open too."""
    if "```" not in reply and "~~~" not in reply:
        return
    blocks: list[list[str]] = []
    inside = False
    for line in reply.splitlines():
        if _FENCE.match(line):
            inside = not inside
            if inside:
                blocks.append([])
        elif inside:
            blocks[-1].append(line)
    yield from ("\n".join(lines) for lines in reversed(blocks) if lines)


def _values(reply: str, *, last: bool = False) -> Iterator[Any]:
    """The objects and arrays of a reply that parse and stand in no other, in order; `last`: from the end."""
    spans = _spans(reply)
    failures = 0
    for _ in range(_LEVELS):
        inner: list[tuple[int, int]] = []
        for start, end in sorted(spans, reverse=last):
            try:
                value = load_json(reply[start:end])
            except ValueError:
                failures += 1
                if failures > _MOST_FAILURES:
                    return
                inner += [(start + 1 + a, start + 1 + b) for a, b in _spans(reply[start + 1 : end - 1])]
                continue
            yield value
        spans = inner


def _spans(text: str) -> list[tuple[int, int]]:
    """The spans of balanced brackets that stand in no other such span; brackets in JSON's strings do not count."""
    spans: list[tuple[int, int]] = []
    stack: list[tuple[str, int]] = []
    position = 0
    while (first := _OPENING.search(text, position)) is not None:
        # Quotation marks mean something only within brackets: outside them they are prose.
        position = first.start()
        for match in _SIGN.finditer(text, position):
            position = match.end()
            sign = match[0]
            if sign in "{[":
                stack.append((sign, match.start()))
            elif sign in "}]":
                opening, start = stack.pop()
                if opening == ("{" if sign == "}" else "["):
                    while spans and spans[-1][0] > start:
                        spans.pop()
                    spans.append((start, position))
                else:
                    stack.clear()
                if not stack:
                    break
        else:
            break
    return spans
