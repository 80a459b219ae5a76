"""Reads what a judge decided: only what it says unambiguously, and never out of a text that it quotes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from reflexion.evaluators.reading.json_values import json_objects
from reflexion.loop.thought import split_thought

__all__ = ["Preference", "Vote", "read_preference", "read_vote"]

T = TypeVar("T")

_LONGEST = 10_000
"""Characters of a verdict; what is longer is none."""
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_FIELD = re.compile(rf'(?P<key>{_STRING})\s*:|{_STRING}|"[^\n]*')
_LOOSE = re.compile(
    r"(?<![\w\"'])[*_`']{0,3}(?P<name>passed|better)[*_`']{0,3}\s{0,20}[:=]\s{0,20}[*_`'\"]{0,3}(?P<value>\w{1,8})\b",
    re.IGNORECASE,
)
_VALUE = re.compile(r'\s*"?(?P<value>true|false|yes|no|A|B|tie)\b"?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Vote:
    """A rubric's verdict: `score` from 0 to 1."""

    passed: bool
    score: float
    reason: str


@dataclass(frozen=True, slots=True)
class Preference:
    """Which of two answers is better, `A`, `B` or `tie`, and why."""

    better: str
    reason: str


def read_vote(reply: str) -> Vote | None:
    """A rubric's verdict from a reply; JSON that is wrapped or cut is read as well. None: there is no clear one.

    The score is on a scale of 10. Where it contradicts `passed`, `passed` counts.
    """
    found = _decided(reply, "passed", _flag)
    if found is None:
        return None
    passed, fields = found
    return Vote(passed, _score(fields.get("score"), passed), _reason(fields))


def read_preference(reply: str) -> Preference | None:
    """Which of two answers a reply prefers. None: it does not say, or says more than one."""
    found = _decided(reply, "better", _side)
    return None if found is None else Preference(found[0], _reason(found[1]))


def _decided(reply: str, name: str, read: Callable[[Any], T | None]) -> tuple[T, dict[str, Any]] | None:
    """The one value that all of a reply's objects give a field, and the object that gives it."""
    split = split_thought(reply)
    if split.cut or len(split.answer) > _LONGEST:
        return None
    objects = [{str(k).strip().lower(): v for k, v in o.items()} for o in json_objects(split.answer)]
    inner = [v for o in objects if name not in o for v in o.values() if isinstance(v, dict)]
    objects += [{str(k).strip().lower(): v for k, v in o.items()} for o in inner]
    with_field = [o for o in objects if name in o]
    if with_field:
        values = {read(o[name]) for o in with_field}
        told = {v for v in map(read, _told(split.answer, name)) if v is not None}
        value = values.pop() if len(values) == 1 else None
        # An object that names its field twice keeps the last only; what it said before counts as well.
        return None if value is None or told - {value} else (value, with_field[-1])
    told = {v for v in map(read, _told(split.answer, name)) if v is not None}
    return (told.pop(), {}) if len(told) == 1 else None


def _told(text: str, name: str) -> list[str]:
    """What a text gives a field, as JSON that was cut off or loosely written; strings hold none."""
    values: list[str] = []
    rest: list[str] = []
    position = 0
    while (match := _FIELD.search(text, position)) is not None:
        rest.append(text[position : match.start()])
        position = match.end()
        key = match["key"]
        if key is not None and key.strip('"').strip().lower() == name:
            value = _VALUE.match(text, position)
            if value is not None:
                values.append(value["value"])
                position = value.end()
        elif key is None and rest[-1].rstrip()[-1:] in (":", "="):
            # A string may be the value of a key that is written without quotation marks.
            rest.append(match[0][:12])
        rest.append('""')
    rest.append(text[position:])
    values += [m["value"] for m in _LOOSE.finditer("".join(rest)) if m["name"].lower() == name]
    return values


def _flag(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"true": True, "yes": True, "false": False, "no": False}.get(value.strip().lower())
    return None


def _side(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    return {"a": "A", "b": "B", "tie": "tie"}.get(value.strip().lower())


def _score(value: Any, passed: bool) -> float:
    """A score from 0 to 1; 1 or 0 where the judge gave none that is a number."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d{1,9})?)(?:\s*/\s*10)?\s*", value)
        value = float(match[1]) if match is not None else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float(passed)
    if isinstance(value, float) and not math.isfinite(value):
        return float(passed)
    return min(max(value, 0), 10) / 10


def _reason(fields: dict[str, Any]) -> str:
    reason = fields.get("reason")
    return reason.strip() if isinstance(reason, str) else ""
