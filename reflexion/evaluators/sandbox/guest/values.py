"""Values as data: how arguments and results cross between solution and tests.

None, booleans, texts, floats and small integers are themselves; everything else is a JSON array whose first
item says what it is. Nothing is ever pickled, and decoding calls no code but the constructors named here.
Subclasses cross as the data they hold, so an overridden `__eq__` stays behind.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
from collections.abc import Callable
from typing import Any

__all__ = ["MAX_DEPTH", "DecodeError", "TooDeepError", "decode", "encode"]

MAX_DEPTH = 200
_SMALL = 1 << 53

Node = Any
"""A JSON value that stands for a Python value."""


class TooDeepError(Exception):
    """A value is nested too deep, or contains itself."""


class DecodeError(Exception):
    """What arrived is not an encoded value."""


def encode(value: Any, refer: Callable[[Any], Node], depth: int = 0) -> Node:
    """The data of a value; what is none goes to `refer`, which gives a node or raises.

    Raises:
        TooDeepError: the value is nested deeper than `MAX_DEPTH`.
    """
    kind = type(value)
    if value is None or kind in (bool, str, float) or (kind is int and -_SMALL < value < _SMALL):
        return value
    if depth >= MAX_DEPTH:
        raise TooDeepError(f"nested deeper than {MAX_DEPTH}")
    encoder = _ENCODERS.get(kind) or next((e for base, e in _ENCODERS.items() if isinstance(value, base)), None)
    if encoder is None:
        return refer(value)
    return encoder(value, lambda item: encode(item, refer, depth + 1))


_Encode = Callable[[Any], Node]


def _pairs(value: Any, sub: _Encode) -> list[Node]:
    out: list[Node] = []
    for key, item in dict.items(value):
        out += (sub(key), sub(item))
    return out


def _time(value: datetime.time | datetime.datetime) -> list[int]:
    return [value.hour, value.minute, value.second, value.microsecond]


def _encode_datetime(value: datetime.datetime, sub: _Encode) -> Node:
    zone = value.utcoffset()
    seconds = None if zone is None else zone.total_seconds()
    return ["dt", value.year, value.month, value.day, *_time(value), seconds]


def _encode_float(value: Any, sub: _Encode) -> Node:
    return float.__float__(value)


# Order matters for subclasses: a Counter is a dict, a datetime a date, a bool never gets here.
_ENCODERS: dict[type, Callable[[Any, _Encode], Node]] = {
    list: lambda v, sub: ["l", *map(sub, list.__iter__(v))],
    tuple: lambda v, sub: ["t", *map(sub, tuple.__iter__(v))],
    collections.Counter: lambda v, sub: ["C", *_pairs(v, sub)],
    collections.OrderedDict: lambda v, sub: ["O", *_pairs(v, sub)],
    collections.defaultdict: lambda v, sub: ["D", *_pairs(v, sub)],
    dict: lambda v, sub: ["d", *_pairs(v, sub)],
    set: lambda v, sub: ["s", *map(sub, set.__iter__(v))],
    frozenset: lambda v, sub: ["f", *map(sub, frozenset.__iter__(v))],
    collections.deque: lambda v, sub: ["q", v.maxlen, *map(sub, collections.deque.__iter__(v))],
    str: lambda v, sub: str.__str__(v),
    int: lambda v, sub: ["i", format(int.__int__(v), "x")],
    float: _encode_float,
    complex: lambda v, sub: ["c", v.real, v.imag],
    bytes: lambda v, sub: ["b", bytes.hex(v)],
    bytearray: lambda v, sub: ["B", bytearray.hex(v)],
    range: lambda v, sub: ["r", sub(v.start), sub(v.stop), sub(v.step)],
    slice: lambda v, sub: ["S", sub(v.start), sub(v.stop), sub(v.step)],
    type(...): lambda v, sub: ["..."],
    fractions.Fraction: lambda v, sub: ["F", sub(v.numerator), sub(v.denominator)],
    decimal.Decimal: lambda v, sub: ["M", decimal.Decimal.__str__(v)],
    datetime.datetime: _encode_datetime,
    datetime.date: lambda v, sub: ["da", v.year, v.month, v.day],
    datetime.time: lambda v, sub: ["ti", *_time(v)],
    datetime.timedelta: lambda v, sub: ["td", v.days, v.seconds, v.microseconds],
    type({}.keys()): lambda v, sub: ["l", *map(sub, v)],
    type({}.values()): lambda v, sub: ["l", *map(sub, v)],
    type({}.items()): lambda v, sub: ["l", *map(sub, v)],
}


def decode(node: Node, resolve: Callable[[list[Any]], Any]) -> Any:
    """The value of a node; arrays with a tag that is not known here go to `resolve`.

    Raises:
        DecodeError: it is not the data of a value. Untrusted data raises nothing else.
    """
    try:
        return _decode(node, resolve)
    except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError, RecursionError) as exc:
        raise DecodeError(f"{type(exc).__name__}: {exc}") from exc


def _decode(node: Node, resolve: Callable[[list[Any]], Any]) -> Any:
    if not isinstance(node, list):
        if isinstance(node, dict):
            raise TypeError("an object is no value")
        return node
    parts: list[Any] = node  # pyright: ignore[reportUnknownVariableType]
    decoder = _DECODERS.get(parts[0])
    if decoder is None:
        return resolve(parts)
    return decoder(parts, lambda item: _decode(item, resolve))


def _dict(parts: list[Any], sub: Callable[[Node], Any]) -> dict[Any, Any]:
    items = iter(parts[1:])
    return {sub(key): sub(value) for key, value in zip(items, items, strict=True)}


def _decode_datetime(parts: list[Any], sub: Callable[[Node], Any]) -> datetime.datetime:
    *fields, seconds = parts[1:]
    zone = None if seconds is None else datetime.timezone(datetime.timedelta(seconds=seconds))
    return datetime.datetime(*fields, tzinfo=zone)


_DECODERS: dict[str, Callable[[list[Any], Callable[[Node], Any]], Any]] = {
    "l": lambda p, sub: [sub(x) for x in p[1:]],
    "t": lambda p, sub: tuple(sub(x) for x in p[1:]),
    "C": lambda p, sub: collections.Counter(_dict(p, sub)),
    "O": lambda p, sub: collections.OrderedDict(_dict(p, sub)),
    # The factory does not cross; reading a missing key then fails, as for a plain dict.
    "D": lambda p, sub: collections.defaultdict(None, _dict(p, sub)),
    "d": _dict,
    "s": lambda p, sub: {sub(x) for x in p[1:]},
    "f": lambda p, sub: frozenset(sub(x) for x in p[1:]),
    "q": lambda p, sub: collections.deque((sub(x) for x in p[2:]), maxlen=p[1]),
    "i": lambda p, sub: int(p[1], 16),
    "c": lambda p, sub: complex(p[1], p[2]),
    "b": lambda p, sub: bytes.fromhex(p[1]),
    "B": lambda p, sub: bytearray.fromhex(p[1]),
    "r": lambda p, sub: range(sub(p[1]), sub(p[2]), sub(p[3])),
    "S": lambda p, sub: slice(sub(p[1]), sub(p[2]), sub(p[3])),
    "...": lambda p, sub: ...,
    "F": lambda p, sub: fractions.Fraction(sub(p[1]), sub(p[2])),
    "M": lambda p, sub: decimal.Decimal(p[1]),
    "dt": _decode_datetime,
    "da": lambda p, sub: datetime.date(*p[1:]),
    "ti": lambda p, sub: datetime.time(*p[1:]),
    "td": lambda p, sub: datetime.timedelta(*p[1:]),
}
