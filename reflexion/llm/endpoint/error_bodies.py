"""What an endpoint's refusal says, whatever its shape: codes, parameters, waits, numbers of tokens.

Providers and the gateways in front of them agree on the status and on little else. What is read here is
structure: fields by the kind of their names, durations, and numbers with the words beside them. No
provider's sentence is known to it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import orjson

__all__ = ["Amount", "Told", "header_wait", "read_told", "seconds_in", "snake", "text_wait"]

_DEPTH = 8
"""Levels of a body that are read; a gateway wraps another one's error, and that a provider's."""
_MOST_TEXT = 4000

_MESSAGE = frozenset(
    {"message", "msg", "detail", "error", "description", "error_description", "error_message", "errmsg", "title"}
)
_CODE = frozenset({"code", "type", "status", "reason", "error_code", "error_type", "kind", "category", "err_code"})
_PARAMETER = frozenset({"param", "params", "parameter", "parameters", "field", "loc", "path", "property", "argument"})
_WAIT = re.compile(r"(?:^|_)(?:retry|wait|delay|backoff|cool_?down|again|resets?|available_in|come_back)(?:_|$)")
_COMPOUND = re.compile(r"[A-Za-z]+(?:[_.\-][A-Za-z0-9]+)+")
"""A code that stands where a message should."""
_IDENTIFIER = re.compile(r"[A-Za-z][\w.\-/ ]{0,79}")


def snake(text: str) -> str:
    """A name or a text in lower case, its words joined by underscores: `maxTokens` and `max tokens` are one."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    return re.sub(r"[\s\-./]+", "_", apart).lower()


class Amount(NamedTuple):
    """A number of a message: a limit that it tells, or what was asked for."""

    value: int
    kind: Literal["limit", "asked", "none"]
    spent: bool
    """Whether it counts what was used over a time, or requests: nothing about this request's size."""


@dataclass
class Told:
    """What a refusal says.

    Attributes:
        message: the endpoint's own words.
        codes: its codes, types and reasons, as `snake` writes them.
        parameters: the parameters it names in fields, as `snake` writes them.
        status: the status it tells in the body, if any.
        wait: seconds after which it may be asked again, as the body's fields tell.
        numbers: figures it tells in fields, as `name value`.
        raw: all texts in it.
    """

    message: str = ""
    codes: list[str] = field(default_factory=list[str])
    parameters: list[str] = field(default_factory=list[str])
    status: int | None = None
    wait: float | None = None
    numbers: list[str] = field(default_factory=list[str])
    raw: list[str] = field(default_factory=list[str])

    @cached_property
    def text(self) -> str:
        """Everything in words, in lower case, words joined by underscores: for looking names up."""
        return snake(" ; ".join(self.raw or [self.message]))[:_MOST_TEXT]

    def names(self, pattern: str) -> bool:
        """Whether a name stands in it as a whole, in a field or in the text."""
        found = re.compile(rf"(?<![a-z0-9]){pattern}(?![a-z0-9])")
        return any(found.search(p) for p in self.parameters) or found.search(self.text) is not None

    def coded(self, pattern: re.Pattern[str]) -> bool:
        """Whether one of its codes is of a kind."""
        return any(pattern.search(code) for code in self.codes)

    @cached_property
    def amounts(self) -> tuple[Amount, ...]:
        """Its numbers, each with what it is."""
        text = ". ".join([*self.raw, *self.numbers])[:_MOST_TEXT]
        return tuple(_amounts(_NAME.sub(lambda m: m[0].replace("_", " "), text)))

    def limits(self) -> list[int]:
        """The limits it tells, in order."""
        return [a.value for a in self.amounts if a.kind == "limit"]

    def asked(self) -> list[int]:
        """What it says was asked for, in order."""
        return [a.value for a in self.amounts if a.kind == "asked" and not a.spent]


def read_told(body: Any) -> Told:
    """What the body of a refusal says.

    Args:
        body: its bytes, or what they are as JSON.
    """
    told = Told()
    if isinstance(body, bytes):
        body = _loaded(body)
    if isinstance(body, str):
        told.message = body[:_MOST_TEXT]
        told.raw.append(told.message)
        return told
    _walk(body, "", told, 0)
    if not told.message and isinstance(body, Mapping | list) and body:
        told.message = orjson.dumps(body, default=str).decode()[:400]
    return told


def _loaded(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content[:_MOST_TEXT].decode(errors="replace")


def _walk(value: Any, name: str, told: Told, depth: int) -> None:
    if depth > _DEPTH:
        return
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        if _WAIT.search(name) and (wait := _of_parts(fields)) is not None:
            told.wait = wait if told.wait is None else max(told.wait, wait)
            return
        # The plain message first: it is what people are shown.
        for key in sorted(fields, key=lambda k: snake(k) not in _MESSAGE):
            _walk(fields[key], snake(str(key)), told, depth + 1)
    elif isinstance(value, list):
        items = cast("list[Any]", value)
        if name in _PARAMETER and all(isinstance(i, str | int) for i in items):
            told.parameters.append(snake(".".join(map(str, items))))
            return
        for item in items[:20]:
            _walk(item, name, told, depth + 1)
    elif isinstance(value, str):
        _text(value, name, told, depth)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _number(value, name, told)


def _text(value: str, name: str, told: Told, depth: int) -> None:
    inner = value.lstrip()
    if inner[:1] in ("{", "["):  # a gateway that passes another one's error on as a text
        parsed = _loaded(inner.encode(errors="replace")[:20_000])
        if isinstance(parsed, dict | list):
            _walk(parsed, name, told, depth + 1)
            return
    if _WAIT.search(name):
        wait = seconds_in(value)
        if wait is not None:
            told.wait = wait if told.wait is None else max(told.wait, wait)
        return
    if name in _PARAMETER:
        told.parameters.append(snake(value[:200]))
    elif name in _CODE and _IDENTIFIER.fullmatch(value) and value.count(" ") < 4:
        told.codes.append(snake(value))
    elif name in _CODE and value.isdecimal():
        _number(int(value), name, told)
    else:
        if _COMPOUND.fullmatch(value):
            told.codes.append(snake(value))
        told.raw.append(value[:_MOST_TEXT])
        if name in _MESSAGE or not name:
            told.message = told.message or value[:_MOST_TEXT]


def _number(value: float, name: str, told: Told) -> None:
    if name in _CODE and 400 <= value < 600:
        told.status = told.status or int(value)
    elif _WAIT.search(name) and math.isfinite(value) and value >= 0:
        short = re.search(r"(?:^|_)m(?:s|illis\w*)$", name)
        told.wait = value * 0.001 if short and value < _EPOCH else seconds_in(str(value))
    elif math.isfinite(value) and name not in _CODE:
        told.numbers.append(f"{name.replace('_', ' ')} {int(value)}")


# -- waits ---------------------------------------------------------------------------------------------

_UNITS = {
    0.001: r"ms|msecs?|millis(?:econd[a-z]*)?|mill?isec?gundos?|millisekunden?",
    1.0: r"s|secs?|second(?:s|es?|i|o)?|segundos?|sek|sekund(?:en?|er|y)?|сек\w*|秒|초",
    60.0: r"m|mins?|minut(?:es?|en|os?|i|er|y)?|мин\w*|分|分钟|分鐘|분",
    3600.0: r"h|hrs?|hours?|heures?|horas?|ore|stunden?|std|час\w*|小时|小時|時間|시간",
    86400.0: r"d|days?|jours?|d[ií]as?|tagen?|дн\w*|天|日",
}
"""Seconds of each unit, as the languages write it in which endpoints answer."""
_UNIT = rf"(?:{'|'.join(_UNITS.values())})(?![a-zà-ÿа-я])"
_PART = re.compile(rf"(\d+(?:[.,]\d+)?)\s*({_UNIT})", re.IGNORECASE)
_DURATION = re.compile(rf"(?<![a-z0-9_.])(?:\d+(?:[.,]\d+)?\s*{_UNIT}[\s,]*(?:(?:and|und|et|e|y)\s+)?)+", re.IGNORECASE)
_RATE = re.compile(
    r"(?:\b(?:per|every|each|last|past|within the|over|pro|je|alle|letzten|par|toutes les|derni[eè]res|por|cada|"
    r"[uú]ltimos)\s+|/\s*|每)$",
    re.IGNORECASE,
)
_EPOCH = 1e9
"""From here on a number of seconds is a time since 1970, and none that anybody waits."""


def _of_parts(fields: Mapping[str, Any]) -> float | None:
    """Seconds told in parts: `{"seconds": 3, "nanos": 5000000}`."""
    scales = {"seconds": 1.0, "secs": 1.0, "milliseconds": 0.001, "millis": 0.001, "ms": 0.001, "nanos": 1e-9}
    parts: list[float] = []
    for name, value in fields.items():
        scale = scales.get(snake(name))
        try:
            parts += [float(value) * scale] if scale is not None else []
        except (TypeError, ValueError):
            return None
    return sum(parts) if parts and all(math.isfinite(p) and p >= 0 for p in parts) else None


def _of_duration(text: str) -> float:
    return sum(_decimal(number) * _scale(unit.lower()) for number, unit in _PART.findall(text))


def _decimal(number: str) -> float:
    """A number with a point or a comma: before three digits, a comma sets thousands apart."""
    return float(number.replace(",", "" if re.fullmatch(r"[1-9]\d{0,2},\d{3}", number) else "."))


def _scale(unit: str) -> float:
    return next(scale for scale, names in _UNITS.items() if re.fullmatch(names, unit, re.IGNORECASE))


def seconds_in(value: str, now: float | None = None) -> float | None:
    """Seconds to wait that a value tells: a number, a duration such as `1m30s`, or a time in any usual form."""
    text, now = value.strip(), time.time() if now is None else now
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if not math.isfinite(number):
            return None
        if number >= _EPOCH:  # a time: in seconds, or in milliseconds
            number = (number / 1000 if number >= 1000 * _EPOCH else number) - now
        return max(0.0, number)
    short = text.upper().removeprefix("P").removeprefix("T").lower() if text[:1] in "Pp" else text  # ISO 8601
    if _DURATION.fullmatch(short):
        return _of_duration(short)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        pass
    try:
        return max(0.0, datetime.fromisoformat(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def text_wait(text: str) -> float | None:
    """Seconds that a message tells to wait: its last duration that is no rate (`per 60 s`, `in the last minute`)."""
    found = [m for m in _DURATION.finditer(text) if not _RATE.search(text[: m.start()])]
    return _of_duration(found[-1].group()) if found else None


def header_wait(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds after which the endpoint may be asked again, as its headers tell.

    `Retry-After` in any form goes before what counters of rate limits tell: of those, the one that is used up
    counts, else the longest that is short enough to be waited for.
    """
    for name, value in headers.items():
        if name.endswith("retry-after-ms"):
            found = seconds_in(value, now)
            if found is not None:
                return found / 1000
    for name, value in headers.items():
        if name.endswith("retry-after"):
            found = seconds_in(value, now)
            if found is not None:
                return found
    resets: list[float] = []
    for name, value in headers.items():
        if "ratelimit" not in name.replace("-", "") or "reset" not in name:
            continue
        found = seconds_in(value, now)
        if found is None:
            continue
        if _used_up(headers.get(name.replace("reset", "remaining"))):
            return found
        resets.append(found)
    short = [r for r in resets if r <= _WORTH_WAITING]
    return max(short, default=None)


_WORTH_WAITING = 60.0
"""Seconds: a counter that runs longer belongs to an hour or a day, and need not be the one that refused."""


def _used_up(remaining: str | None) -> bool:
    try:
        return remaining is not None and float(remaining) <= 0
    except ValueError:
        return False


# -- numbers -------------------------------------------------------------------------------------------

_NAME = re.compile(r"\b(?!max)[a-z]+(?:_[a-z]+)+", re.IGNORECASE)
"""A name whose words tell what a number beside it is; that of a limit which was sent tells nothing."""
_FIGURE = re.compile(r"(?<![\w.\-/])(\d{1,3}(?:[,_.'\u2019\u00a0\u202f]\d{3})+|\d+)(k?)(?![\w.]*\w)", re.IGNORECASE)
_STRONG = re.compile(
    r"\b(?:max|maximum|limit\w*|ceiling|cap|at most|up to|no more than|exceed\w*|than|over|allow\w*|only|capacity|"
    r"available|threshold|cannot be above|n ctx)\b|>|<=|≤",
    re.IGNORECASE,
)
_STRONG_AFTER = re.compile(r"\b(?:max|maximum|limit\w*|ceiling|cap|allow\w*|available|permitted)\b", re.IGNORECASE)
"""Of the words behind a number: a comparison there belongs to the next one."""
_TRAILING = re.compile(r"(?:\W*\w+){0,4}\W+(?:at most|max|maximum|allowed|permitted|at a time)\W*", re.IGNORECASE)
"""What ends a clause whose number is a limit."""
_LIMIT = re.compile(
    r"\b(?:context|ctx|window|supports?|supported|sizes?|holds?|budget|bound)\b",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"\b(?:request\w*|prompt|inputs?|messages?|ask\w*|needs?|needed|contain\w*|sent|provided|given|gave|got|"
    r"result\w*|call|query|text|counted|comes?|came|takes?|took|wants?|wanted|used|weighs?|totals?|completion|length)\b"
    r"|<",
    re.IGNORECASE,
)
_WEAK = re.compile(r"\b(?:is|are|was|were|has|have)\b", re.IGNORECASE)
_OF = re.compile(r"\s*(?:\w+\s+)?(?:of|out of|/|vs\.?|against)\s*(?:the\s+|a\s+)?", re.IGNORECASE)
"""What stands between what was asked for and the limit it is set against."""
_CLAUSE = re.compile(r"[.;:,!?](?=\s|$)|\s(?:and|but|however|while|whereas|yet|though|so)\s", re.IGNORECASE)
_SPENT = re.compile(r"\b(?:used|sent|made|spent|consumed|so far|already|current\w*|remaining|left)\b", re.IGNORECASE)
_COUNTED = re.compile(r"\s*(?:requests?|calls?|queries|rpm|times|per)\b", re.IGNORECASE)


def _amounts(text: str) -> Iterator[Amount]:
    """The numbers of a text: a limit, or what was asked for, by the words of the clause they stand in."""
    found = list(_FIGURE.finditer(text))
    for index, match in enumerate(found):
        start = found[index - 1].end() if index else 0
        end = found[index + 1].start() if index + 1 < len(found) else len(text)
        before, after = text[start : match.start()][-90:], text[match.end() : end][:40]
        cuts = [m.end() for m in _CLAUSE.finditer(before)]
        clause = before[cuts[-1] :] if cuts else before
        rest = _CLAUSE.split(after, maxsplit=1)[0].partition("(")[0].replace(">", " ").replace("<", " ")
        value = int(re.sub(r"\D", "", match[1])) * (1000 if match[2] else 1)
        trailing = "limit" if _TRAILING.fullmatch(rest) else None
        kind = trailing or _kind(clause, _STRONG) or _kind(rest, _STRONG_AFTER) or _kind(before, _STRONG) or "none"
        spent = bool(_SPENT.search(clause) or _SPENT.search(rest) or _COUNTED.match(after))
        if index + 1 < len(found) and _OF.fullmatch(text[match.end() : end]):
            kind = "asked"  # `5200 of 4096`
        elif index and _OF.fullmatch(text[start : match.start()]):
            kind = "limit"
        yield Amount(value, kind, spent)


def _kind(words: str, strong: re.Pattern[str]) -> Literal["limit", "asked"] | None:
    if strong.search(words):
        return "limit"
    limit, asked = (max((m.end() for m in p.finditer(words)), default=0) for p in (_LIMIT, _ASKED))
    if limit or asked:
        return "limit" if limit > asked else "asked"
    return "asked" if _WEAK.search(words) else None
