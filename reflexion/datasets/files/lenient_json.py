"""JSON as programs write it: also with NaN and infinities, whole numbers of any size, and half surrogates."""

from __future__ import annotations

import json
import sys
from typing import Any, cast

import orjson

__all__ = ["OddRecord", "is_inexact", "parse_json"]

_SMALLEST, _LARGEST = -(2.0**63), 2.0**63
"""Whole numbers within are read exactly by the fast way."""
_DIGITS = 4000
"""Digits beyond which a number stays a text: Python converts no longer ones."""


class OddRecord(dict[str, Any]):
    """An object with values that JSON has not, or cannot carry further: see `json_safe`."""


def parse_json(raw: bytes) -> Any:
    """A JSON value; an object that only the lenient way reads right is an `OddRecord`.

    Half a surrogate pair, which no UTF-8 can hold, becomes U+FFFD.

    Raises:
        ValueError: it is no JSON, in words; with the line as `lineno` where it is known.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return _lenient(raw, error)
    return _lenient(raw) if is_inexact(value) else value


def is_inexact(value: Any) -> bool:
    """Whether it holds a float so large that it may have been written as a whole number."""
    kind = value.__class__
    if kind is float:
        return not _SMALLEST < value < _LARGEST
    if kind is list:
        return any(map(is_inexact, value))
    return kind is dict and any(map(is_inexact, value.values()))


def _lenient(raw: bytes, strict: ValueError | None = None) -> Any:
    """The value, read the slow way; what even that way does not read is told in the words of the strict one."""
    try:
        text = raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}: save the file as UTF-8") from None
    try:
        value = json.loads(text, strict=False, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise strict or ValueError(str(error)) from None
    value = _mended(value)
    if isinstance(value, list):
        return [OddRecord(v) if isinstance(v, dict) else v for v in cast("list[Any]", value)]
    return OddRecord(cast("dict[str, Any]", value)) if isinstance(value, dict) else value


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS or not sys.get_int_max_str_digits() else digits


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    elif isinstance(value, list):
        return [_mended(item) for item in cast("list[Any]", value)]
    elif isinstance(value, dict):
        return {_mended(k): _mended(v) for k, v in cast("dict[str, Any]", value).items()}
    return value
