"""What one side tells the other of a class, so that it can be stood for."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from .shared import kind_of
from .values import library

if TYPE_CHECKING:
    from .link import Link

__all__ = ["BINARY", "COMPARISONS", "OPERATORS", "TOLD", "data_base", "describe_class", "is_special", "real_class"]

COMPARISONS = frozenset({"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"})
BINARY = frozenset(
    f"__{prefix}{name}__"
    for name in (
        "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and",
        "xor", "or",
    )
    for prefix in ("", "r", "i")
)  # fmt: skip
_UNARY = frozenset(
    {
        "__abs__", "__bool__", "__bytes__", "__ceil__", "__complex__", "__copy__", "__deepcopy__", "__float__",
        "__floor__", "__format__", "__fspath__", "__hash__", "__index__", "__int__", "__invert__", "__len__",
        "__length_hint__", "__neg__", "__pos__", "__repr__", "__reversed__", "__round__", "__str__", "__trunc__",
    }
)  # fmt: skip
_ACTIONS = frozenset(
    {
        "__aenter__", "__aexit__", "__aiter__", "__anext__", "__await__", "__call__", "__contains__", "__delitem__",
        "__dir__", "__enter__", "__exit__", "__getitem__", "__iter__", "__missing__", "__next__", "__setitem__",
    }
)  # fmt: skip
OPERATORS = COMPARISONS | BINARY | _UNARY | _ACTIONS
"""Methods that Python calls by itself, and that are carried out where the object lives."""
TOLD = ("__init__", "__post_init__", "__replace__", "__doc__", "__annotations__")
_NAMES = 500
_TYPES = {kind.__name__: kind for kind in vars(types).values() if isinstance(kind, type)}
_SUBCLASSED_DATA = (int, float, complex, str, bytes, tuple, frozenset)


def data_base(cls: type) -> type | None:
    """The class of data that a class is made from, or None."""
    return kind_of(cls) or next((base for base in _SUBCLASSED_DATA if issubclass(cls, base)), None)


def real_class(module: str, name: str) -> type | None:
    """A class of the standard library as it is known here, or None."""
    found: Any = _TYPES.get(name) if module == "builtins" else None
    found = found or library(module, name)
    return found if isinstance(found, type) else None


def describe_class(link: Link, cls: type) -> list[Any]:
    """What the other side needs to make a class that stands for one of ours."""
    own = vars(cls)
    ours = not link.is_library(cls)
    names = [n for n in own if n in OPERATORS or (ours and (n in TOLD or not is_special(n)))]
    bases = [link.encode_class(base) for base in cls.__bases__ if base is not object]
    if own.get("__hash__", own) is None:
        names.remove("__hash__")
    return [link.export(cls), cls.__name__[:200], cls.__qualname__[:200], cls.__module__, bases, names[:_NAMES]]


def is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
