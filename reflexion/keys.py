"""Cache keys: SHA-256 over canonical JSON, and why two of them differ.

Hashing JSON rather than a pickle keeps keys equal across processes, machines and Python versions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import orjson

__all__ = ["canonical", "differences", "digest"]


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no white space, UTF-8.

    Floats that are whole numbers are written as integers, so that `1` and `1.0` are one value.

    Raises:
        TypeError: for anything JSON cannot express, rather than hashing its `repr`.
    """
    return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS)


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one return for each kind
    kind = type(value)
    if kind is str or value is None or kind is bool or (kind is int and -(2**63) <= value < 2**64):
        return value  # nearly all values; the checks below cost several times as much
    if kind is dict:
        return {
            k if type(k) is str else str(k): v if v is None or type(v) is str else _plain(v) for k, v in value.items()
        }
    if kind is list:
        return [v if type(v) is str else _plain(v) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value} has no place in JSON")
        return int(value) if value.is_integer() and abs(value) <= 2**53 else value
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return {"integer": str(value)}  # a dataset may hold numbers that machines do not
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """The fields in which two keys' inputs differ, as `(path, in a, in b)`; a missing one is None."""
    out: list[tuple[str, Any, Any]] = []
    for name in sorted({*a, *b}):
        left, right = a.get(name), b.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            out += differences(left, right, f"{prefix}{name}.")  # pyright: ignore[reportUnknownArgumentType]
        elif _plain(left) != _plain(right):
            out.append((f"{prefix}{name}", left, right))
    return out
