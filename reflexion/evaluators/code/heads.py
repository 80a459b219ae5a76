"""The code that stands in a prompt: imports, helpers, and the head of the function or class that is asked for."""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from functools import lru_cache
from typing import NamedTuple

from reflexion.evaluators.code.fences import is_python, scan
from reflexion.evaluators.code.pieces import dedented, in_bare_text, set_off
from reflexion.evaluators.code.python_reader import (
    BUILTINS,
    Reader,
    defined_names,
    method_of,
    placed,
    root_name,
    statement_lines,
    statements_in,
)
from reflexion.evaluators.code.supplied_imports import TYPING, supplied_imports

__all__ = ["Head", "prompt_code", "read_head"]

_KEPT = 1024
"""Prompts whose code is remembered: each is read again by every trial."""
_MOST_STATEMENTS = 300
"""Statements read of one piece of a prompt's code."""
_MOST_HEADERS = 200
"""Heads of functions and classes that one prompt is repaired in."""
_LONGEST_HEADER = 30
"""Lines of one of them."""
_WORK = 15_000
"""What reading one prompt may cost, as `Reader` counts it."""
_LONGEST = 30_000
"""Characters of a prompt that are read, those at its end: there its code stands."""

_HEADER = re.compile(r"^([ \t]*)(?:async[ \t]+def|def|class)[ \t]+\w", re.MULTILINE)
_COMMENTED = re.compile(r"^[ \t]*#[ \t]?(?=class[ \t]+(\w+))[^\n]*\n(?:[ \t]*#[^\n]*\n?)*", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*#[ \t]?", re.MULTILINE)
_TELLING = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Head(NamedTuple):
    """The code of a prompt.

    Attributes:
        code: it, as it runs by itself.
        before: its imports and helpers, which an answer gets that defines the function itself.
        names: what `before` defines.
        open: the function asked for, up to where it goes on; None where it does not end the prompt's code.
        name: of the function that goes on there.
        indent: the white space before each line of it.
        commented: classes that the prompt shows as comments, as LeetCode does, by name.
    """

    code: str
    before: str
    names: frozenset[str]
    open: str | None
    name: str
    indent: str
    commented: dict[str, str]


class _Statement(NamedTuple):
    node: ast.stmt
    text: str
    """Its whole lines."""
    asked: bool
    """Whether it defines what is asked for."""


def prompt_code(prompt: str, entry_point: str | None) -> str | None:
    """The Python code of a prompt, fenced or bare, as it runs by itself; None where there is none.

    It is HumanEval's head of a function with its imports and helpers, the skeleton of a class, or LeetCode's
    `class Solution`. A head without a body gets `pass`, and names of `typing` are imported. Statements that are
    no definitions, such as examples of use, are left out.

    Args:
        prompt: what the model is told.
        entry_point: what tests call: a name, or `Solution().name`. None and `__main__` ask for no function.
    """
    head = read_head(prompt, entry_point)
    return None if head is None else head.code


@lru_cache(maxsize=_KEPT)
def read_head(prompt: str, entry_point: str | None) -> Head | None:
    """The code of a prompt, taken apart; None where there is none."""
    name = root_name(entry_point)
    if name is None:
        return None
    reader = Reader(_WORK)
    text = prompt[-_LONGEST:].replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    blocks = [b.body for b in scan(text, reader).blocks if is_python(b.lang) or not b.lang]
    found = _statements(blocks, name, reader)
    for shown in dict.fromkeys((text, set_off(text))):
        if not any(s.asked for s in found):
            repaired = shown if reader.reads(shown) else _with_bodies(shown)
            bare = _statements(in_bare_text(repaired, reader), name, reader)
            found = bare if any(s.asked for s in bare) else found or bare
    return _head(found, name, _commented(text), reader) if found else None


def _statements(pieces: list[str], name: str, reader: Reader) -> list[_Statement]:
    """The definitions in pieces of a prompt's code, in order; of a piece with nothing but assignments, none."""
    found: list[_Statement] = []
    known: set[str] = set()
    for piece in pieces:
        for code in (dedented(piece), _with_bodies(dedented(piece))):
            tree = reader.tree(code)
            if tree is not None and any(isinstance(n, _TELLING) for n in tree.body):
                break
        else:
            continue
        lines, end = code.split("\n"), 0
        for node in tree.body[:_MOST_STATEMENTS]:
            first, last = statement_lines(node)
            if first > end and _is_definition(node, name, known):
                end = last
                known |= defined_names(node)
                asked = name in defined_names(node, imported=False) or method_of(node, name) is not None
                found.append(_Statement(node, "\n".join(lines[first - 1 : last]), asked))
    return found


def _is_definition(node: ast.stmt, name: str, known: set[str]) -> bool:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Assign() | ast.AnnAssign():
            # A value that needs what is asked for, or what nothing defines, is an example of its use.
            used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            return name not in used and not used - known - BUILTINS - TYPING
        case ast.If() | ast.Try():
            inner = statements_in(node)
            return all(isinstance(n, ast.Pass) or _is_definition(n, name, known) for n in inner)
        case _:
            return False


def _head(found: list[_Statement], name: str, commented: dict[str, str], reader: Reader) -> Head:
    asked = max((n for n, s in enumerate(found) if s.asked), default=None)
    before = [s for n, s in enumerate(found) if not s.asked and (asked is None or n < asked or not _uses(s.node, name))]
    names = frozenset[str]().union(*(defined_names(s.node) for s in before))
    goes_on = _goes_on(found[asked]) if asked is not None and asked == len(found) - 1 else (None, "", "")
    whole, helpers = (_by_itself(part, commented, reader) for part in (found, before))
    return Head(whole, helpers, names, *goes_on, commented)


def _uses(node: ast.stmt, name: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(node))


def _by_itself(statements: list[_Statement], commented: dict[str, str], reader: Reader) -> str:
    """Statements as code that runs without anything else, as far as only annotations need what is missing."""
    code = "".join(f"{s.text}\n" for s in statements)
    lacking = reader.lacking(code)
    front = supplied_imports(lacking, code) + [text for name, text in commented.items() if name in lacking]
    if lacking - TYPING - commented.keys():
        front.insert(0, "from __future__ import annotations")
    return placed("\n".join(front), code, reader)[0]


def _goes_on(statement: _Statement) -> tuple[str | None, str, str]:
    """A function without a body of its own up to where that would begin, its name, and the body's indent."""
    node, first = statement.node, statement_lines(statement.node)[0]
    while isinstance(node, ast.ClassDef):
        node = node.body[-1]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None, "", ""
    lines = statement.text.split("\n")
    begin = node.body[0].lineno - first
    indent = lines[begin][: len(lines[begin]) - len(lines[begin].lstrip())]
    stubs = [n for n in node.body if _is_stub(n)]
    if node.body[0].lineno == node.lineno or not all(n in stubs or _goes_before(n) for n in node.body):
        return None, "", ""
    end = stubs[0].lineno - first if stubs else len(lines)
    return "\n".join(lines[:end]) + "\n", node.name, indent


def _goes_before(node: ast.stmt) -> bool:
    """Whether a statement is a docstring or an import, as they stand in heads."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return True
        case _:
            return False


def _is_stub(node: ast.stmt) -> bool:
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant(value=builtins.Ellipsis)):
            return True
        case ast.Raise(exc=ast.Name(id="NotImplementedError") | ast.Call(func=ast.Name(id="NotImplementedError"))):
            return True
        case _:
            return False


def _with_bodies(code: str) -> str:
    """Code in which each head of a function or class without a body has one."""
    lines = code.split("\n")
    bodies: dict[int, str] = {}
    headers = [
        code.count("\n", 0, m.start()) for m, _ in zip(_HEADER.finditer(code), range(_MOST_HEADERS), strict=False)
    ]
    for header in headers:
        indent = lines[header][: len(lines[header]) - len(lines[header].lstrip())]
        for end in range(header, min(header + _LONGEST_HEADER, len(lines))):
            if lines[end].partition("#")[0].rstrip().endswith(":"):
                body = next((n for n in range(end + 1, len(lines)) if lines[n].partition("#")[0].strip()), None)
                if body is None or len(lines[body]) - len(lines[body].lstrip()) <= len(indent):
                    bodies[end] = f"{indent}    pass"
                break
    return "\n".join(f"{line}\n{bodies[n]}" if n in bodies else line for n, line in enumerate(lines))


def _commented(text: str) -> dict[str, str]:
    """Classes that a prompt defines in comments."""
    return (
        {m[1]: textwrap.dedent(_COMMENT.sub("", m[0])) for m in _COMMENTED.finditer(text)} if "# class" in text else {}
    )
