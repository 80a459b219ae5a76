"""Reads Python that nobody vouches for: what it defines, what it lacks, and how far it is whole.

Python's own parser does the work. It is quick on code and slow on floods of tiny statements, so what one text may
cost is bounded beforehand by what is counted in it. The bound is not a time: one text has one reading everywhere.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import threading
import unicodedata
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from reflexion._python_source import parse_python
from reflexion.evaluators.reading.normalisation import crowded

__all__ = [
    "BUILTINS",
    "Reader",
    "defined_names",
    "definitions",
    "method_of",
    "placed",
    "root_name",
    "statement_lines",
    "statements_in",
]

WORK = 20_000
"""Microseconds that parsing for one reply may take at worst; on usual code it takes a quarter of that."""
_PRICES = {
    "\n": 4.8,
    ";": 3.0,
    ",": 2.0,
    "(": 1.5,
    "[": 1.5,
    "{": 5.0,
    ".": 0.8,
    "=": 1.2,
    '"': 0.7,
    "'": 0.7,
    "@": 2.0,
    **dict.fromkeys("<>+-*/%&|^", 0.8),
}
"""Microseconds that a character adds at worst, measured over floods of each."""
_PRICE = 0.06
_MOST_NAMES = 2_000
"""Names of all scopes of a code that are looked at; where there are more, none is taken to be lacking."""
_COMPOSED = 0.3
"""Microseconds for each character that names may have to be composed of."""
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_NAME = re.compile(r"[^\W\d]\w*")
BUILTINS = frozenset(dir(builtins)) | {"__file__", "__builtins__", "__annotations__"}
"""Names that every module has."""

_SILENCING = threading.Lock()

_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def root_name(entry_point: str | None) -> str | None:
    """The name that code must define for an entry point: of `Solution().add` it is `Solution`.

    None for a whole program (`__main__`) and where nothing is asked for.
    """
    match = _NAME.match(entry_point.strip()) if entry_point else None
    return None if match is None or match[0] == "__main__" else match[0]


class Reader:
    """Parses the texts of one reply, each once, as long as its work lasts; afterwards nothing reads any more.

    Args:
        work: microseconds at worst.
    """

    def __init__(self, work: float = WORK) -> None:
        self._left = work
        self._trees: dict[str, ast.Module | int] = {}

    def tree(self, code: str) -> ast.Module | None:
        """The syntax tree of code; None where it is not Python, or was too much to read."""
        found = self._parsed(code)
        return found if isinstance(found, ast.Module) else None

    def reads(self, code: str) -> bool:
        """Whether code is Python and no `return` stands outside a function."""
        return self.tree(code) is not None

    def error_line(self, code: str) -> int | None:
        """The line, from 1, from which on code is no Python; None where it is, or was too much to read."""
        found = self._parsed(code)
        return found if isinstance(found, int) and found > 0 else None

    def lacking(self, code: str) -> set[str]:
        """Names that code takes from its module and neither defines nor imports; none where it is not Python."""
        if not self.reads(code) or not self._afford(code):
            return set()
        try:
            with _silence():
                module = symtable.symtable(code, "<reply>", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return set()
        used: set[str] = set()
        bound: set[str] = set(BUILTINS)
        tables = [module]
        read = 0
        while tables:
            table = tables.pop()
            tables += table.get_children()
            read += len(table.get_identifiers())
            if read > _MOST_NAMES:
                return set()
            for symbol in table.get_symbols():
                if table is not module and not symbol.is_global():
                    continue
                if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
                    bound.add(symbol.get_name())
                elif symbol.is_referenced():
                    used.add(symbol.get_name())
        if any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in _imports(self.tree(code))):
            return set()
        return used - bound

    def _parsed(self, code: str) -> ast.Module | int:
        found = self._trees.get(code)
        if found is None:
            found = self._trees[code] = self._parse(code) if self._afford(code) else 0
        return found

    def _afford(self, code: str) -> bool:
        if len(code) * _PRICE > self._left:
            return False
        if crowded(code):
            return False
        cost = _PRICE * len(code) + sum(price * code.count(char) for char, price in _PRICES.items())
        if not unicodedata.is_normalized("NFC", code):
            cost += _COMPOSED * len(_FOREIGN.findall(code))
        if cost > self._left:
            return False
        self._left -= cost
        return True

    def _parse(self, code: str) -> ast.Module | int:
        try:
            with _silence():
                tree = parse_python(code, "<reply>")
        except SyntaxError as exc:
            return exc.lineno or 0
        except (ValueError, RecursionError, MemoryError):
            return 0
        return _stray_return(tree.body) or tree


@contextmanager
def _silence() -> Generator[None]:
    """No warnings of invalid escapes, which are none of ours. Filters are the process's: one thread at a time."""
    with _SILENCING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _stray_return(body: list[ast.stmt]) -> int | None:
    """The line of a `return` outside a function, which ast.parse lets pass."""
    pending = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Return):
            return node.lineno
        if not isinstance(node, _Scope):
            pending += statements_in(node)
    return None


def statements_in(node: ast.stmt) -> list[ast.stmt]:
    """The statements directly within a compound one."""
    found: list[ast.stmt] = []
    for field in ("body", "orelse", "finalbody"):
        found += getattr(node, field, [])
    for part in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
        found += part.body
    return found


def _imports(tree: ast.Module | None) -> Iterator[ast.ImportFrom | ast.Import]:
    for node in tree.body if tree is not None else []:
        if isinstance(node, ast.ImportFrom | ast.Import):
            yield node


def defined_names(node: ast.stmt, *, imported: bool = True) -> set[str]:
    """The names a statement of a module gives a value: by definition, assignment, import, also within `if` or `try`."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Import() | ast.ImportFrom():
            return {(alias.asname or alias.name).partition(".")[0] for alias in node.names} if imported else set()
        case ast.Assign():
            return {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return {name}
        case _:
            return set[str]().union(*(defined_names(inner, imported=imported) for inner in statements_in(node)))


def definitions(tree: ast.Module, *, imported: bool = True) -> set[str]:
    """The names a module defines."""
    return set[str]().union(*(defined_names(node, imported=imported) for node in tree.body))


def method_of(node: ast.stmt, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The method of that name, where a statement is a class that has it."""
    if not isinstance(node, ast.ClassDef):
        return None
    methods = (n for n in reversed(node.body) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return next((n for n in methods if n.name == name), None)


def placed(front: str, code: str, reader: Reader) -> tuple[str, int]:
    """Code with whole lines in front of it, and how many those are.

    What both import from `__future__` comes first, as Python wants it; in the code itself `pass` stays in its place,
    so that its lines keep their numbers. An import that stood in the wrong place remains there, an error as before.
    """
    if not front.strip():
        return code, 0
    features: list[str] = []
    texts: list[str] = []
    for text in (front, code):
        lines = text.split("\n")
        tree = reader.tree(text)
        for node in _future_imports(tree) if tree is not None else []:
            features += [alias.name for alias in node.names]
            first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
            before = lines[first].encode()[: node.col_offset].decode()
            after = lines[last].encode()[node.end_col_offset :].decode()
            lines[first : last + 1] = [f"{before}pass{after}", *[""] * (last - first)]
        texts.append("\n".join(lines))
    future = [f"from __future__ import {', '.join(dict.fromkeys(features))}"] if features else []
    above = "\n".join([*future, texts[0].strip("\n")]) + "\n"
    return above + texts[1], above.count("\n")


def _future_imports(tree: ast.Module) -> list[ast.ImportFrom]:
    """The imports from `__future__` that stand where Python allows them."""
    found: list[ast.ImportFrom] = []
    for position, node in enumerate(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            found.append(node)
        elif position or not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            break
    return found


def statement_lines(node: ast.stmt) -> tuple[int, int]:
    """The first line of a statement, its decorators included, and its last one, from 1."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return first, node.end_lineno or node.lineno
