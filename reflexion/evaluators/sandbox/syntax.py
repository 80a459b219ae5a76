"""What the text of Python code tells without running it: names, what it mentions, whether it can fail."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import symtable
from collections.abc import Sequence
from functools import lru_cache

from reflexion._python_source import parse_python

__all__ = [
    "base_name",
    "definitions",
    "global_names",
    "importable",
    "library_names",
    "mentioned",
    "methods",
    "required",
    "says_something",
]

_LIBRARY = (
    "collections", "typing", "math", "itertools", "functools", "heapq", "bisect", "re", "string", "random", "datetime",
    "decimal", "fractions", "copy", "json", "operator", "statistics", "cmath",
)  # fmt: skip
"""Modules whose names tests may take for granted, in the order in which a name is looked for."""


def definitions(code: str) -> tuple[frozenset[str], frozenset[str]]:
    """Names of functions and values, and of classes, that code defines at its top level."""
    try:
        body = parse_python(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset(), frozenset()
    classes = {n.name for n in body if isinstance(n, ast.ClassDef)}
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {a.asname or a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return frozenset(names), frozenset(classes)


def global_names(sources: Sequence[str]) -> tuple[set[str], set[str]]:
    """Names that code reads from its module, and names that it gives its module."""
    used: set[str] = set()
    defined: set[str] = set()
    for source in sources:
        tables = [symtable.symtable(source, "<tests>", "exec")]
        top = tables[0]
        while tables:
            table = tables.pop()
            tables += table.get_children()
            for symbol in table.get_symbols():
                if table is top:
                    if symbol.is_assigned() or symbol.is_imported():
                        defined.add(symbol.get_name())
                    if symbol.is_referenced():
                        used.add(symbol.get_name())
                elif symbol.is_global():
                    used.add(symbol.get_name())
                    if symbol.is_assigned():
                        defined.add(symbol.get_name())
    return used, defined


def mentioned(nodes: Sequence[ast.AST]) -> set[str]:
    """Every name, attribute and module that tests mention."""
    words = set[str]()
    for node in nodes:
        if isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            words |= {part for a in node.names for part in a.name.split(".")}
            if isinstance(node, ast.ImportFrom) and node.module:
                words |= set(node.module.split("."))
    return words


def says_something(nodes: Sequence[ast.AST]) -> bool:
    """Whether code can fail by what it finds: an assert, a raise, a call that asserts."""
    for node in nodes:
        if isinstance(node, ast.Assert | ast.Raise):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.lower().startswith(("assert", "check", "verify", "fail", "expect", "raises", "exit", "_exit")):
                return True
    return False


def methods(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The test methods of a class."""
    return [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name.startswith("test")]


def base_name(node: ast.expr) -> str | None:
    """The last part of a base class's name."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def required(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Parameters without a default."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = positional[: len(positional) - len(arguments.defaults)]
    named = [a for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is None]
    return [a.arg for a in (*required, *named)]


@lru_cache(maxsize=1)
def library_names() -> dict[str, tuple[str, str | None]]:
    """Names that tests may take for granted: the module each is in, and its name there."""
    found: dict[str, tuple[str, str | None]] = {}
    for module in _LIBRARY:
        owner = importlib.import_module(module)
        for name in getattr(owner, "__all__", dir(owner)):
            if not name.startswith("_") and len(name) > 1:
                found.setdefault(name, (module, name))
    return found


@lru_cache(maxsize=512)
def importable(name: str) -> bool:
    """Whether there is a module of this name here."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False
