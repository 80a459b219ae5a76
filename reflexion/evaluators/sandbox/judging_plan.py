"""How a problem's answers are judged, decided from its tests and its prompt before any answer is seen.

The plan says which names the tests take from the solution, which from the library and which from the prompt; which
functions and cases have to be called, since the tests' own code only defines them; and what of the solution's
surroundings the tests set up. Tests that cannot judge are refused here, with the reason and what helps.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from reflexion._python_source import parse_python
from reflexion.evaluators.sandbox.syntax import (
    base_name,
    definitions,
    global_names,
    importable,
    library_names,
    mentioned,
    methods,
    required,
    says_something,
)

__all__ = ["PROGRAM", "TestPlan", "make_test_plan"]

PROGRAM = "__main__"
"""The entry point of a problem that asks for a whole program, which reads its input and writes its output."""

_CANDIDATES = frozenset({"candidate", "solution", "fn", "func", "function", "sol", "f", "func_to_test"})
_SOLUTION_MODULES = frozenset(
    {"solution", "main", "__main__", "answer", "submission", "your_module", "your_code", "task"}
)
_STEERING = ("StopIteration", "StopAsyncIteration", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "SkipTest")
_RUNNERS = ("unittest.main", "pytest.main")
_FILES = frozenset(
    {
        "open", "tempfile", "pathlib", "Path", "os", "shutil", "sqlite3", "csv", "zipfile", "gzip", "mkdtemp", "glob",
        "NamedTemporaryFile", "TemporaryDirectory", "tmp_path", "chdir", "pickle", "configparser", "tarfile",
    }
)  # fmt: skip
_PATCHING = frozenset({"patch", "mock", "Mock", "MagicMock", "monkeypatch"})


@dataclass(frozen=True)
class TestPlan:
    """What the sandbox needs to know of tests beside their text.

    Attributes:
        tests: the hidden tests as they are run; None when there are none.
        visible: the visible ones, each by itself.
        entry: the name in the solution that the tests need; None when none is named.
        program: whether the solution is a whole program.
        wanted: names that the tests take from the solution.
        tested: those of them that stand for classes the tests are about.
        expected: exceptions that the tests speak of.
        library: names that the tests take from the library: module, and name within it or None.
        modules: names by which the tests import the solution.
        units: what has to be called once the tests' code has run: kind, name and more.
        quiet: functions that would run the tests by themselves and end the process.
        flags: what of the solution's surroundings the tests set up.
        files: whether tests and solution share a folder.
        refusal: why these tests cannot judge, or None.
    """

    __test__ = False

    tests: str | None = None
    visible: tuple[str, ...] = ()
    entry: str | None = None
    program: bool = False
    wanted: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    library: Mapping[str, tuple[str, str | None]] = field(default_factory=dict[str, "tuple[str, str | None]"])
    modules: tuple[str, ...] = ()
    units: tuple[tuple[Any, ...], ...] = ()
    quiet: tuple[str, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict[str, Any])
    files: bool = False
    refusal: str | None = None

    def message(self) -> dict[str, Any]:
        """As it is sent to the sandbox."""
        return asdict(self)


@lru_cache(maxsize=4096)
def make_test_plan(
    tests: str | None,
    visible: tuple[str, ...],
    entry_point: str | None,
    *,
    prelude: str = "",
    prompt: str | None = None,
    own_solution: str | None = None,
    packages: tuple[str, ...] = (),
) -> TestPlan:
    """The plan of a problem.

    Args:
        tests: hidden tests, if any.
        visible: visible ones.
        entry_point: what is under test, as the problem names it: `add`, `Solution().add`, `__main__`.
        prelude: the prompt's own code.
        prompt: the whole prompt; None: not known, and then every name may come from the solution.
        own_solution: the record's own solution, if it has one.
        packages: packages that the sandbox is let see.
    """
    tests = _unlisted(tests)
    visible = tuple(each for test in visible for each in _listed(test))
    try:
        reading = _Reading(
            tests or "",
            visible,
            entry_point,
            prelude=prelude,
            prompt=prompt,
            own_solution=own_solution,
            packages=packages,
        )
    except _RefusedError as exc:
        return TestPlan(tests=tests, visible=visible, refusal=str(exc))
    return reading.plan(tests, visible)


class _RefusedError(Exception):
    """These tests cannot judge."""


def _strings_in(text: str) -> list[str] | None:
    """The strings of a text that is the literal of a list, or None."""
    if text.lstrip()[:1] not in ("[", "("):
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    items: list[Any] = list(value) if isinstance(value, list | tuple) else []
    return items if items and all(isinstance(item, str) for item in items) else None


def _unlisted(text: str | None) -> str | None:
    """Tests that are written as a list of texts in one text, as a cell of a table holds them."""
    found = _strings_in(text) if text else None
    return "\n".join(found) + "\n" if found else text


def _listed(text: str) -> list[str]:
    return _strings_in(text) or [text]


def _parsed(what: str, code: str) -> ast.Module:
    try:
        return parse_python(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        line = f", line {exc.lineno}" if isinstance(exc, SyntaxError) and exc.lineno else ""
        reason = exc.msg if isinstance(exc, SyntaxError) else str(exc)
        raise _RefusedError(f"field {what} is not valid Python{line}: {reason}") from exc


def _class_like(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


class _Reading:
    """One pass over the tests of a problem."""

    def __init__(
        self,
        tests: str,
        visible: tuple[str, ...],
        entry_point: str | None,
        *,
        prelude: str,
        prompt: str | None,
        own_solution: str | None,
        packages: tuple[str, ...],
    ) -> None:
        self.program = entry_point == PROGRAM
        root = re.match(r"[^\W\d]\w*", entry_point or "")
        self.entry = root[0] if root and not self.program else None
        self.entry_text = entry_point if self.entry else None
        self.prompt = prompt
        self.packages = packages
        self.tree = _parsed("'tests'", tests)
        self.trees = [self.tree]
        for number, test in enumerate(visible, 1):
            self.trees.append(_parsed(f"'visible_tests', item {number},", test))
        self.nodes = [node for tree in self.trees for node in ast.walk(tree)]
        self.prelude_functions, self.prelude_classes = definitions(prelude)
        self.own = frozenset[str]().union(*definitions(own_solution or ""))
        self.used, self.defined = global_names([tests, *visible])
        self.words = mentioned(self.nodes)
        self._refuse_what_says_nothing()
        self.modules, imported = self._imports()
        self.units = tuple(self._units())
        self._refuse_unmentioned_entry(imported)
        self.library: dict[str, tuple[str, str | None]] = {}
        self.wanted = self._wanted(imported)

    # --- names ---------------------------------------------------------------------------------------------------

    def _imports(self) -> tuple[tuple[str, ...], set[str]]:
        """Modules that stand for the solution, and the names taken from them."""
        modules: dict[str, None] = {}
        names: set[str] = set()
        for node in self.nodes:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                taken = {alias.name for alias in node.names}
                if self._is_solution(node.module, taken):
                    modules.setdefault(node.module)
                    names |= taken - {"*"}
                else:
                    self._demand(node.module)
            elif isinstance(node, ast.ImportFrom) and node.level:
                raise _RefusedError("the tests import from their own package, which the sandbox does not have")
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    taken = self._attributes_of(alias.asname or alias.name.partition(".")[0])
                    if self._is_solution(alias.name, taken):
                        modules.setdefault(alias.name)
                    else:
                        self._demand(alias.name)
        return tuple(modules), names

    def _attributes_of(self, name: str) -> set[str]:
        return {
            n.attr
            for n in self.nodes
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == name
        }

    def _is_solution(self, module: str, taken: set[str]) -> bool:
        if module == PROGRAM:
            return True
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in self.packages:
            return False
        return module in _SOLUTION_MODULES or (self.entry is not None and (self.entry in taken or taken == {"*"}))

    def _demand(self, module: str) -> None:
        top = module.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in self.packages:
            raise _RefusedError(
                f"the tests import {top!r}, which the sandbox does not have; if it is installed, let the sandbox see "
                f"it: --sandbox-packages {top}"
            )

    def _wanted(self, imported: set[str]) -> tuple[str, ...]:
        """Names that the solution has to give."""
        wanted = set(imported)
        if self.entry:
            wanted.add(self.entry)
        called = {n.func.id for n in self.nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        builtin = set(dir(__import__("builtins"))) | {"__name__", "__file__", "__doc__"}
        unknown = self.used - self.defined - builtin - wanted
        if self.program:
            unknown -= {"run_program", "same_output"}
        for name in sorted(unknown):
            if name in self.prelude_classes:
                wanted.add(name)
            elif name in self.prelude_functions:
                continue
            elif (place := self._in_library(name)) is not None:
                self.library[name] = place
            elif name in called and not _class_like(name) and not self._is_announced(name):
                raise _RefusedError(
                    f"the tests call {name!r}, which neither they nor the prompt nor the standard library define; "
                    "import or define it in the tests"
                )
            else:
                wanted.add(name)
        return tuple(sorted(wanted))

    def _is_announced(self, name: str) -> bool:
        if self.prompt is None or self.entry is None:
            return True
        return name in self.own or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", self.prompt) is not None

    def _in_library(self, name: str) -> tuple[str, str | None] | None:
        if self.prompt and re.search(rf"(?<!\w)(?:def|class)\s+{re.escape(name)}(?!\w)", self.prompt):
            return None
        if name in sys.stdlib_module_names and not name.startswith("_"):
            return name, None
        if self.prompt and not _class_like(name) and self._is_announced(name):
            return None  # the prompt may ask for a function of this name
        return library_names().get(name)

    # --- what has to be called -----------------------------------------------------------------------------------

    def _units(self) -> Iterator[tuple[Any, ...]]:
        references = {n.id for n in self.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        cases = self._cases()
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef):
                if node.name in cases:
                    if methods(node) or any(base_name(b) in cases for b in node.bases):
                        yield "unittest", node.name
                elif node.name.startswith("Test") and methods(node) and node.name not in references:
                    yield "class", node.name, [m.name for m in methods(node)]
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in references:
                unit = self._function_unit(node)
                if unit is not None:
                    yield unit

    def _cases(self) -> set[str]:
        """Names of classes that are `unittest` cases."""
        found: set[str] = set()
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and any(
                (base_name(b) or "").endswith("TestCase") or base_name(b) in found for b in node.bases
            ):
                found.add(node.name)
        return found

    def _function_unit(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[Any, ...] | None:
        needed = required(node)
        asserts = says_something(list(ast.walk(node)))
        if node.name.startswith("test") or (not needed and asserts):
            if needed and not any("parametrize" in ast.dump(d) for d in node.decorator_list):
                if len(needed) == 1 and needed[0] in _CANDIDATES:
                    return self._check_unit(node.name)
                raise _RefusedError(
                    f"the test function {node.name!r} needs {needed[0]!r}, a fixture of pytest, which the sandbox "
                    "does not have; call it with a value in the tests"
                )
            return "function", node.name
        if len(needed) == 1 and asserts and (node.name.startswith("check") or needed[0] in _CANDIDATES):
            return self._check_unit(node.name)
        return None

    def _refuse_unmentioned_entry(self, imported: set[str]) -> None:
        """Tests that never speak of what is under test would blame a right answer for not defining it."""
        handed = any(kind == "check" for kind, *_ in self.units)
        if self.entry and not handed and self.entry not in self.words | imported:
            raise _RefusedError(f"field 'entry_point' is {self.entry_text!r}, which the tests never mention")

    def _check_unit(self, name: str) -> tuple[Any, ...]:
        if self.entry_text is None:
            raise _RefusedError(f"field 'entry_point' is missing, the function to hand to {name!r} of the tests")
        return "check", name, self.entry_text

    def _refuse_what_says_nothing(self) -> None:
        if not self.tree.body and len(self.trees) == 1:
            raise _RefusedError("field 'tests' holds no code, only comments or white space")
        for tree in self.trees:
            if tree.body and not says_something(list(ast.walk(tree))):
                compares = any(isinstance(n, ast.Expr) and isinstance(n.value, ast.Compare) for n in tree.body)
                hint = "; write assert before each comparison" if compares else "; write asserts that call the solution"
                raise _RefusedError(f"the tests assert nothing, so that any answer would pass{hint}")

    # --- surroundings --------------------------------------------------------------------------------------------

    def _flags(self) -> dict[str, Any]:
        words = self.words
        strings = [n.value for n in self.nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        dotted = [s for s in strings if re.fullmatch(r"[A-Za-z_][\w.]*\.\w+", s)]
        spoken = words | {part for text in dotted for part in text.split(".")}
        replaced = self._replaced_modules(dotted) if self._patches() else []
        return {
            "output": bool(spoken & {"redirect_stdout", "redirect_stderr", "stdout", "stderr"}),
            "input": bool(spoken & {"input", "stdin"}),
            "environ": bool(spoken & {"environ", "putenv", "setenv", "delenv"}),
            "folder": "chdir" in words,
            "random": bool(words & {"seed", "setstate"}),
            "warnings": any(w.startswith(("warn", "assertWarn", "simplefilter")) for w in words),
            "logging": bool(words & {"logging", "assertLogs", "assertNoLogs"}),
            "patches": replaced,
            "exact_classes": "type" in words or "__class__" in words,
        }

    def _patches(self) -> bool:
        imported = self._imported_modules()
        assigned = any(
            isinstance(n, ast.Attribute)
            and isinstance(n.ctx, ast.Store | ast.Del)
            and isinstance(n.value, ast.Name)
            and n.value.id in imported
            for n in self.nodes
        )
        return assigned or bool(self.words & (_PATCHING | {"setattr"}))

    def _imported_modules(self) -> dict[str, str]:
        return {
            a.asname or a.name.partition(".")[0]: a.name
            for n in self.nodes
            if isinstance(n, ast.Import)
            for a in n.names
            if a.name not in self.modules
        }

    def _replaced_modules(self, dotted: list[str]) -> list[str]:
        found = dict.fromkeys(self._imported_modules().values())
        for text in dotted:
            parts = text.split(".")
            for end in range(len(parts) - 1, 0, -1):
                name = ".".join(parts[:end])
                if parts[0] in sys.stdlib_module_names and importable(name):
                    found.setdefault(name)
                    break
        return [name for name in found if name != PROGRAM and not name.startswith("unittest")]

    def plan(self, tests: str | None, visible: tuple[str, ...]) -> TestPlan:
        """The plan that follows."""
        known = self.prelude_classes | ({n for n in self.own if _class_like(n)})
        tested = [n for n in self.wanted if _class_like(n) or n in known or self._asks_for_class(n)]
        modules = self.modules
        if PROGRAM not in modules and any(
            isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value.startswith("__main__.")
            for n in self.nodes
        ):
            modules = (*modules, PROGRAM)
        return TestPlan(
            tests=tests if tests and self.tree.body else None,
            visible=visible,
            entry=self.entry,
            program=self.program,
            wanted=self.wanted,
            tested=tuple(tested),
            expected=tuple(sorted(self._expected())),
            library=self.library,
            modules=modules,
            units=self.units,
            quiet=tuple(r for r in _RUNNERS if r.partition(".")[0] in self.words and "main" in self.words),
            flags=self._flags(),
            files=bool(self.words & _FILES),
        )

    def _asks_for_class(self, name: str) -> bool:
        return bool(self.prompt and re.search(rf"(?<!\w)class\s+`?{re.escape(name)}(?!\w)", self.prompt))

    def _expected(self) -> set[str]:
        """Names of exceptions that the tests catch or demand."""
        found = {n for n in (*_STEERING, "BaseException", "AssertionError") if n in self.words}
        for node in self.nodes:
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                found |= {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
        return found
