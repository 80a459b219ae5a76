"""What every stand-in can do, whatever the class of what it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .link import Link

__all__ = ["UNSEEN", "forwarding", "raising"]

UNSEEN = frozenset(
    {
        "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__", "_reflexion_text",
        "__abstractmethods__", "__isabstractmethod__", "__array_function__", "__array_ufunc__", "__array_priority__",
        "__globals__", "__builtins__", "__closure__",
    }
)  # fmt: skip
"""Attributes that libraries look for to let an object decide for them; no object there is asked for these."""
_HERE = frozenset(
    {
        "args", "__traceback__", "__cause__", "__context__", "__suppress_context__", "__notes__", "_reflexion_text",
        "reflexion_failure",
    }
)  # fmt: skip
"""Attributes of a raised exception that concern this side alone."""


def forwarding(link: Link) -> dict[str, Any]:
    """What every stand-in can do, whatever its class there defines."""

    def get(self: Any, name: str) -> Any:
        if name in UNSEEN:
            raise AttributeError(name)
        return link.mirrors.note_name(link.ask("get", self, name), name)

    def put(self: Any, name: str, value: Any) -> None:
        link.ask("set", self, name, value)

    def remove(self: Any, name: str) -> None:
        link.ask("del", self, name)

    def formatted(self: Any, form: str = "") -> str:
        return link.ask("text", self, "format", form)

    return {
        "__slots__": (),
        "_reflexion_link": link,
        "__getattr__": get,
        "__setattr__": put,
        "__delattr__": remove,
        "__str__": _text(link, "str"),
        "__repr__": _text(link, "repr"),
        "__format__": formatted,
        "__dir__": _asking(link, "dir"),
        "__copy__": _asking(link, "copy"),
        "__deepcopy__": _asking(link, "deepcopy"),
        "__dict__": property(lambda self: link.ask("get", self, "__dict__")),
        "__doc__": property(lambda self: link.ask("get", self, "__doc__")),
    }


def _text(link: Link, way: str) -> Callable[[Any], str]:
    def text(self: Any) -> str:
        return link.ask("text", self, way)

    return text


def _asking(link: Link, operation: str) -> Callable[..., Any]:
    def ask(self: Any, memo: Any = None) -> Any:
        return link.ask(operation, self)

    return ask


def _told(self: Any) -> str:
    return self._reflexion_text


def raising(link: Link) -> dict[str, Any]:
    """What every exception can do that stands for one there."""

    def get(self: Any, name: str) -> Any:
        if name in UNSEEN or name == "__notes__":
            raise AttributeError(name)
        return link.ask("get", self, name)

    def put(self: Any, name: str, value: Any) -> None:
        if name in _HERE or link.mirrors.number(self) is None:
            BaseException.__setattr__(self, name, value)
        else:
            link.ask("set", self, name, value)

    return {
        "__slots__": (),
        "_reflexion_link": link,
        "__getattr__": get,
        "__setattr__": put,
        "__str__": _told,
    }
