"""Imports that the places supply for which code is written: names of `typing`, and what LeetCode's runtime imports."""

from __future__ import annotations

import importlib
import re
import typing
from functools import lru_cache

__all__ = ["TYPING", "supplied_imports"]

_OTHERS = frozenset({"Counter", "OrderedDict", "ChainMap"})
"""Names of `typing` that are more often meant as those of `collections`, which nobody supplies outside LeetCode."""
TYPING = frozenset(name for name in typing.__all__ if name[0].isupper()) - _OTHERS
"""Names of `typing` that are supplied."""

_LEETCODE = (
    "collections",
    "heapq",
    "bisect",
    "math",
    "itertools",
    "functools",
    "random",
    "string",
    "re",
    "datetime",
    "copy",
    "statistics",
    "operator",
    "json",
    "io",
    "sys",
    "time",
)
"""Modules that LeetCode imports, with all their names, before a solution; the first one that has a name supplies it."""


@lru_cache(maxsize=1)
def _runtime() -> dict[str, str]:
    """Names of LeetCode's runtime, each with the module it comes from."""
    found: dict[str, str] = {}
    for module in _LEETCODE:
        loaded = importlib.import_module(module)
        names: list[str] = getattr(loaded, "__all__", None) or [n for n in dir(loaded) if not n.startswith("_")]
        for name in names:
            found.setdefault(name, module)
    return found


def supplied_imports(lacking: set[str], code: str, *, leetcode: bool = False) -> list[str]:
    """Import lines for names that code lacks.

    Args:
        lacking: names that code uses, and nothing defines.
        code: tells a module from a function of its name, as `bisect` is both.
        leetcode: whether the code is written for LeetCode, whose runtime supplies more.
    """
    typed = sorted(lacking & TYPING)
    lines = ["import typing"] if "typing" in lacking else []
    if typed:
        lines.append(f"from typing import {', '.join(typed)}")
    if not leetcode:
        return lines
    runtime = _runtime()
    for name in sorted(lacking - TYPING):
        if name in _LEETCODE and (name not in runtime or re.search(rf"\b{name}[ \t]*\.", code)):
            lines.append(f"import {name}")
        elif name in runtime:
            lines.append(f"from {runtime[name]} import {name}")
    return lines
