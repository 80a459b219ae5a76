"""Exceptions that cross: raised here as the class that stands for theirs, with what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ..failures import DecodeError
from .mirrors import Mirrored

if TYPE_CHECKING:
    from .link import Link

__all__ = ["decode_exception", "encode_exception", "some_traceback"]

_HERE = frozenset({"args", "__traceback__", "__notes__", "reflexion_failure", "_reflexion_text"})
_MADE_BY_INIT = (OSError, StopIteration, SystemExit, ImportError, UnicodeError, SyntaxError)
"""Classes that keep what they are made with in places of their own."""


def encode_exception(link: Link, exc: BaseException) -> Any:
    """The node of an exception."""
    cls = type(exc)
    own = not link.is_library(cls)
    args = [link.encode(a) for a in _arguments(exc)]
    more = {} if own else {str(k): link.encode(v) for k, v in exc.__dict__.items() if k not in _HERE}
    cause = None if exc.__cause__ is None else link.encode(exc.__cause__)
    notes = [str(n) for n in getattr(exc, "__notes__", ())]
    text = _text_of(exc)[:10_000] if own else ""
    return ["E", link.export(exc), link.encode_class(cls), args, text, more, cause, notes]


def _arguments(exc: BaseException) -> tuple[Any, ...]:
    """What makes an equal exception; those of the operating system keep names of files elsewhere."""
    if isinstance(exc, OSError) and exc.filename is not None and len(exc.args) == 2:
        return (*exc.args, exc.filename)
    return exc.args


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - someone else's __str__
        return ""


def decode_exception(link: Link, number: int, described: Any, *parts: Any) -> BaseException:
    """The exception of a node.

    Raises:
        DecodeError: it is none.
    """
    args, text, more, cause, notes = parts
    found = link.mirrors.known(number)
    if isinstance(found, BaseException):
        return found
    if not isinstance(more, dict):
        raise DecodeError("no attributes")
    cls: Any = link.class_of(described)
    values = tuple(link.decode(a) for a in args)
    made: BaseException
    if isinstance(cls, Mirrored):
        made = link.mirrors.exception(number, described, values, str(text))
    elif isinstance(cls, type) and issubclass(cls, BaseException):
        made = _library_exception(cls, values)
        attributes = cast("dict[Any, Any]", more)
        made.__dict__.update({str(k): link.decode(v) for k, v in attributes.items()})
    else:
        made = Exception(*values)
    reason = None if cause is None else link.decode(cause)
    if isinstance(reason, BaseException):
        made.__cause__ = reason
    for note in notes:
        made.add_note(str(note))
    return made


def _library_exception(cls: type[BaseException], values: tuple[Any, ...]) -> BaseException:
    if issubclass(cls, _MADE_BY_INIT):
        try:
            return cls(*values)
        except Exception:  # noqa: BLE001 - arguments that do not fit it
            return Exception(*values)
    made = cls.__new__(cls, *values)
    made.args = values
    return made


def some_traceback() -> Any:
    """What stands for a traceback of the other side, which shows nothing of it: `__exit__` is handed one, and `throw`
    takes no stand-in."""
    try:
        raise LookupError
    except LookupError as exc:
        return exc.__traceback__
