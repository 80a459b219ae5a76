"""Values as data: what crosses between solution and tests as itself.

None, booleans, texts, floats and small integers stand for themselves; everything else is a JSON array whose first
item says what it is. Nothing is ever pickled, and decoding calls no code but the constructors named here.
Containers that can change are not in here: both sides keep them in step (`link.py`).
"""

from __future__ import annotations

import binascii
import collections
import datetime
import decimal
import fractions
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

from ..failures import DecodeError
from . import arrays

__all__ = [
    "EMPTY_CONTAINERS",
    "MAX_DEPTH",
    "OrderedSet",
    "as_object",
    "decode_plain",
    "keep_order",
    "library",
    "plain_encoders",
    "rebuild",
    "rebuildable",
    "same_order",
]

MAX_DEPTH = 200
"""Tuples within tuples that cross as data; what is nested deeper stays where it is."""

Node = Any
"""A JSON value that stands for a Python value."""

Encode = Callable[[Any], Node]


def _time(value: datetime.time | datetime.datetime) -> list[int]:
    return [value.hour, value.minute, value.second, value.microsecond]


def _datetime(value: datetime.datetime, sub: Encode) -> Node:
    zone = value.tzinfo
    if zone is None or type(zone) is datetime.timezone:
        offset = value.utcoffset()
        seconds = None if offset is None else offset.total_seconds()
        return ["dt", value.year, value.month, value.day, *_time(value), value.fold, seconds]
    return ["dz", value.year, value.month, value.day, *_time(value), value.fold, sub(zone)]


def _at(value: datetime.time, sub: Encode) -> Node:
    return ["ti", *_time(value), value.fold, None if value.tzinfo is None else sub(value.tzinfo)]


plain_encoders: dict[type, Callable[[Any, Encode], Node]] = {
    tuple: lambda v, sub: ["t", *[sub(x) for x in tuple.__iter__(v)]],
    frozenset: lambda v, sub: ["f", *[sub(x) for x in frozenset.__iter__(v)]],
    str: lambda v, sub: str.__str__(v),
    int: lambda v, sub: ["i", format(int.__int__(v), "x")],
    float: lambda v, sub: float.__float__(v),
    complex: lambda v, sub: ["c", v.real, v.imag],
    bytes: lambda v, sub: ["b", binascii.b2a_base64(v, newline=False).decode()],
    range: lambda v, sub: ["r", sub(v.start), sub(v.stop), sub(v.step)],
    slice: lambda v, sub: ["S", sub(v.start), sub(v.stop), sub(v.step)],
    type(...): lambda v, sub: ["..."],
    type(NotImplemented): lambda v, sub: ["NI"],
    fractions.Fraction: lambda v, sub: ["F", sub(v.numerator), sub(v.denominator)],
    decimal.Decimal: lambda v, sub: ["M", decimal.Decimal.__str__(v)],
    datetime.datetime: _datetime,
    datetime.date: lambda v, sub: ["da", v.year, v.month, v.day],
    datetime.time: _at,
    datetime.timedelta: lambda v, sub: ["td", v.days, v.seconds, v.microseconds],
    type({}.keys()): lambda v, sub: ["vk", *[sub(x) for x in v]],
    type({}.values()): lambda v, sub: ["vv", *[sub(x) for x in v]],
    type({}.items()): lambda v, sub: ["vi", *[sub(x) for pair in v for x in pair]],
}
"""By the exact class."""


def _datetime_of(parts: list[Any], sub: Callable[[Node], Any]) -> datetime.datetime:
    *fields, fold, seconds = parts[1:]
    zone = None if seconds is None else datetime.timezone(datetime.timedelta(seconds=seconds))
    return datetime.datetime(*fields, tzinfo=zone, fold=fold)


def _zoned(parts: list[Any], sub: Callable[[Node], Any]) -> datetime.datetime:
    *fields, fold, zone = parts[1:]
    return datetime.datetime(*fields, tzinfo=sub(zone), fold=fold)


def _time_of(parts: list[Any], sub: Callable[[Node], Any]) -> datetime.time:
    *fields, fold, zone = parts[1:]
    return datetime.time(*fields, tzinfo=None if zone is None else sub(zone), fold=fold)


def _pairs(parts: list[Any], sub: Callable[[Node], Any]) -> dict[Any, Any]:
    items = iter(parts[1:])
    return {sub(key): sub(value) for key, value in zip(items, items, strict=True)}


decode_plain: dict[str, Callable[[list[Any], Callable[[Node], Any]], Any]] = {
    "t": lambda p, sub: tuple([sub(x) for x in p[1:]]),
    "f": lambda p, sub: same_order([sub(x) for x in p[1:]], frozenset),
    "i": lambda p, sub: int(p[1], 16),
    "c": lambda p, sub: complex(p[1], p[2]),
    "b": lambda p, sub: binascii.a2b_base64(p[1]),
    "r": lambda p, sub: range(sub(p[1]), sub(p[2]), sub(p[3])),
    "S": lambda p, sub: slice(sub(p[1]), sub(p[2]), sub(p[3])),
    "...": lambda p, sub: ...,
    "NI": lambda p, sub: NotImplemented,
    "F": lambda p, sub: fractions.Fraction(sub(p[1]), sub(p[2])),
    "M": lambda p, sub: decimal.Decimal(p[1]),
    "dt": _datetime_of,
    "dz": _zoned,
    "da": lambda p, sub: datetime.date(*p[1:]),
    "ti": _time_of,
    "td": lambda p, sub: datetime.timedelta(*p[1:]),
    "vk": lambda p, sub: dict.fromkeys([sub(x) for x in p[1:]]).keys(),
    "vv": lambda p, sub: dict(enumerate([sub(x) for x in p[1:]])).values(),
    "vi": lambda p, sub: _pairs(p, sub).items(),
}

# Classes of the library whose objects are values: they are rebuilt on the other side by their constructor.
_REBUILT: dict[str, tuple[str, ...]] = {
    "uuid": ("UUID",),
    "pathlib": ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath"),
    "pathlib._local": ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath"),
    "ipaddress": ("IPv4Address", "IPv4Network", "IPv4Interface", "IPv6Address", "IPv6Network", "IPv6Interface"),
    "array": ("array",),
    "datetime": ("timezone",),
    "zoneinfo": ("ZoneInfo",),
    "re": ("Pattern",),
    "types": ("SimpleNamespace",),
    "statistics": ("NormalDist",),
    "string": ("Template",),
}


def _members(value: Any) -> tuple[Any, ...]:
    return tuple(item for pair in vars(value).items() for item in pair)


_TAKEN_APART: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "array": lambda v: (v.typecode, v.tolist()),
    "timezone": lambda v: (v.utcoffset(None), v.tzname(None)),
    "ZoneInfo": lambda v: (v.key,),
    "Pattern": lambda v: (v.pattern, v.flags),
    "NormalDist": lambda v: (v.mean, v.stdev),
    "Template": lambda v: (v.template,),
    "SimpleNamespace": _members,
    "UUID": lambda v: (v.int,),
}
_PUT_TOGETHER: dict[str, Callable[[Any, tuple[Any, ...]], Any]] = {
    "array": lambda owner, args: owner.array(args[0], args[1]),
    "timezone": lambda owner, args: owner.timezone.utc if args[1] == "UTC" else owner.timezone(*args),
    "Pattern": lambda owner, args: owner.compile(*args),
    "SimpleNamespace": lambda owner, args: owner.SimpleNamespace(**dict(zip(args[::2], args[1::2], strict=True))),
    "UUID": lambda owner, args: owner.UUID(int=args[0]),
}


def rebuildable(value: Any) -> tuple[str, str, tuple[Any, ...]] | None:
    """Module, class and arguments of an object of the library that is a value; None for any other."""
    kind = type(value)
    module = kind.__module__
    if module.partition(".")[0] in arrays.PACKAGES:
        return arrays.taken_apart(value)
    names = _REBUILT.get(module)
    if names is None or kind.__name__ not in names or getattr(sys.modules.get(module), kind.__name__, None) is not kind:
        return None
    return module, kind.__name__, _TAKEN_APART.get(kind.__name__, _by_text)(value)


def as_object(value: Any) -> dict[str, Any]:
    """A part of a message that must be an object, or is left out.

    Raises:
        DecodeError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DecodeError("not an object")
    return cast("dict[str, Any]", value)


def library(module: str, name: str) -> Any:
    """A class or function of the library as it is known here, or None; nothing is imported for it."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def rebuild(module: str, name: str, args: tuple[Any, ...]) -> Any:
    """The object that `rebuildable` took apart.

    Raises:
        DecodeError: it is none of those.
    """
    if module in arrays.PACKAGES:
        return arrays.put_together(module, name, args)
    if name not in _REBUILT.get(module, ()):
        raise DecodeError(f"{module}.{name} is no value")
    owner = __import__(module, fromlist=["_"])
    make = _PUT_TOGETHER.get(name)
    return getattr(owner, name)(*args) if make is None else make(owner, args)


def _by_text(value: Any) -> tuple[Any, ...]:
    return (str(value),)


class OrderedSet(set[Any]):
    """A set that gives its items in the order they have elsewhere, until it is changed."""

    _order: tuple[Any, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        order = self._order
        unchanged = len(order) == len(self) and all(map(self.__contains__, order))
        return iter(order) if unchanged else set.__iter__(self)

    def __repr__(self) -> str:
        return "{" + ", ".join(map(repr, self)) + "}" if self else "set()"


class _OrderedFrozenSet(frozenset[Any]):
    """As `OrderedSet`, of what cannot change."""

    _order: tuple[Any, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)

    def __repr__(self) -> str:
        return "frozenset({" + ", ".join(map(repr, self)) + "})"


plain_encoders[_OrderedFrozenSet] = plain_encoders[frozenset]
_ORDERED: dict[type, Any] = {set: OrderedSet, frozenset: _OrderedFrozenSet}
_ordering: list[bool] = []


def keep_order() -> None:
    """From now on sets that arrive give their items in the order they have on the other side.

    It depends on how a set came about, and tests may look at it. They must not look at the exact class then.
    """
    _ordering.append(True)


def same_order(items: list[Any], kind: type[set[Any]] | type[frozenset[Any]]) -> Any:
    """A set of these items, in this order where that is asked for."""
    made = kind(items)
    if not _ordering or len(items) < 2 or all(a is b for a, b in zip(made, items, strict=False)):
        return made
    ordered = _ORDERED[kind](items)
    ordered._order = tuple(items)
    return ordered


EMPTY_CONTAINERS: dict[str, Callable[[], Any]] = {
    "l": list,
    "d": dict,
    "s": set,
    "B": bytearray,
    "q": collections.deque,
    "C": collections.Counter,
    "O": collections.OrderedDict,
    "D": collections.defaultdict,
}
