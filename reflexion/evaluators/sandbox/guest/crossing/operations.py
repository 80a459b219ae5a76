"""What one side carries out for the other on its own objects."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator
from typing import Any, cast

from ..failures import Refused
from .classes import OPERATORS

__all__ = ["OPERATIONS", "make_subclass", "member_parts"]


def _call(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _set(thing: Any, name: str, value: Any) -> None:
    setattr(thing, name, value)


def _delete(thing: Any, name: str) -> None:
    delattr(thing, name)


def _get_from(owner: Any, thing: Any, name: str) -> Any:
    """An attribute as the class `owner` defines it, which another class may have put something in front of."""
    raw = owner.__dict__[name]
    kind: Any = type(raw)
    if hasattr(kind, "__get__") and (hasattr(kind, "__set__") or hasattr(kind, "__delete__")):
        return raw.__get__(thing, type(thing))
    inside = getattr(thing, "__dict__", None)
    if inside is not None and name in inside:
        return inside[name]
    return _bound_to(thing, raw)


def _bound_to(thing: Any, raw: Any) -> Any:
    """What a class holds under a name, as Python hands it out of an object; a mock binds to nothing."""
    return raw.__get__(thing, type(thing)) if hasattr(cast("Any", type(raw)), "__get__") else raw


def _operate(owner: Any, name: str, thing: Any, *args: Any) -> Any:
    if name not in OPERATORS:
        raise Refused(f"no operator {name!r}")
    raw = vars(owner).get(name)
    if raw is None:
        return getattr(owner, name)(thing, *args)
    return _bound_to(thing, raw)(*args)


def _iterate(thing: Any) -> Iterator[Any]:
    return iter(thing)


def _item(thing: Any, key: Any) -> Any:
    return thing[key]


def _contains(thing: Any, item: Any) -> bool:
    return item in thing


def _text(thing: Any, way: str, form: str = "") -> str:
    if way == "format":
        return format(thing, form)
    return str(thing) if way == "str" else repr(thing)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": _call,
    "set": _set,
    "del": _delete,
    "get_from": _get_from,
    "operate": _operate,
    "iter": _iterate,
    "len": len,
    "item": _item,
    "in": _contains,
    "text": _text,
    "dir": dir,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
"""By name; those that need the link itself are its own."""


def make_subclass(
    name: str, bases: list[Any], members: dict[str, Any], options: dict[str, Any], module: str
) -> tuple[type, list[str]]:
    """A subclass of our classes whose methods are on the other side, and the names it defines."""

    def fill(namespace: dict[str, Any]) -> None:
        namespace["__module__"] = module
        for key, (way, *parts) in members.items():
            namespace[key] = _bound(way, parts)

    cls = types.new_class(name, tuple(bases), options, fill)
    return cls, [n for n in vars(cls) if n in OPERATORS or n in ("__init__", "__doc__") or not n.startswith("__")]


def _bound(way: str, parts: list[Any]) -> Any:
    """A member of a class whose functions are on the other side."""

    def plain(function: Any) -> Any:
        if function is None or not callable(function):
            return function

        def method(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return method

    match way:
        case "method":
            return plain(parts[0])
        case "static":
            return staticmethod(plain(parts[0]))
        case "class":
            return classmethod(plain(parts[0]))
        case "property":
            return property(*map(plain, parts))
        case _:
            return parts[0]


def member_parts(value: Any) -> list[Any]:
    """A member of a class body as what crosses: how it is bound, and its functions."""
    if isinstance(value, staticmethod):
        return ["static", cast("Any", value).__func__]
    if isinstance(value, classmethod):
        return ["class", cast("Any", value).__func__]
    if isinstance(value, property):
        return ["property", value.fget, value.fset, value.fdel]
    if isinstance(value, types.FunctionType):
        return ["method", value]
    return ["value", value]
