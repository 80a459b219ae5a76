"""Runs tests in a namespace and says which failed, and how."""

from __future__ import annotations

import ast
from types import CodeType, CoroutineType
from typing import Any, Protocol, cast

__all__ = ["SOLUTION", "Interruption", "compiled", "describe_failure", "run_units", "run_visible"]

SOLUTION = "<solution>"
"""File name of the solution in tracebacks."""
_TESTS = "<tests>"
_SHOWN = 300

Outcome = dict[str, Any]


class Interruption(BaseException):
    """Judging cannot go on. No `Exception`, so that no test swallows it."""


class Use(Protocol):
    """Tells how often tests used the solution, and what they asserted in vain within it."""

    used: int
    broken: BaseException | None


def describe_failure(exc: BaseException, origin: str, code: str) -> dict[str, Any]:
    """What is told of an exception; the line is the solution's innermost one."""
    carried = getattr(exc, "reflexion_failure", None)
    if isinstance(carried, dict):
        return carried  # pyright: ignore[reportUnknownVariableType]
    line = None
    if isinstance(exc, SyntaxError) and exc.filename == SOLUTION:
        line = exc.lineno
    else:
        step = exc.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename == SOLUTION:
                line = step.tb_lineno
            step = step.tb_next
    lines = code.splitlines()
    message = exc.msg if isinstance(exc, SyntaxError) else _message(exc)
    return {
        "kind": type(exc).__name__[:100],
        "message": message[:500],
        "line": line,
        "source": lines[line - 1].strip()[:200] if line and 0 < line <= len(lines) else "",
        "origin": origin,
    }


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - someone else's __str__
        return ""


def compiled(tests: str) -> CodeType | str:
    """The code of tests, or the tests themselves when they do not compile: running them will tell."""
    try:
        return compile(tests, _TESTS, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return tests


def run_units(tests: CodeType | str, units: list[list[Any]], namespace: dict[str, Any], use: Use) -> Outcome:
    """Run hidden tests: their code, then what it only defines.

    Args:
        tests: their code.
        units: what to call of it, as `judging_plan.py` found it: functions, `unittest` cases, `check` functions.
        namespace: the names they see.
        use: how far they used the solution.
    """
    before, use.broken = use.used, None
    try:
        try:
            run = compile(tests, _TESTS, "exec", dont_inherit=True) if isinstance(tests, str) else tests
            exec(run, namespace)  # noqa: S102 - the dataset's own tests
        except SystemExit as exc:  # as a script ends that is content
            if exc.code not in (None, 0):
                raise
        for unit in units:
            _run_unit(unit, namespace)
    except Interruption as exc:
        return _interrupted(exc)
    except BaseException as exc:  # noqa: BLE001 - whatever a test raises, it has failed
        return {"passed": False, "failure": describe_failure(exc, "test", "")}
    return _unused(use, before) or {"passed": True}


def _interrupted(exc: Interruption) -> Outcome:
    """A failure, where it is one of the solution's own; else judging ends."""
    carried = getattr(exc, "reflexion_failure", None)
    if carried is None:
        raise exc
    return {"passed": False, "failure": carried}


def _unused(use: Use, before: int) -> Outcome | None:
    """The failure of tests that passed and say nothing."""
    broken, use.broken = use.broken, None
    if broken is not None:
        return {"passed": False, "failure": describe_failure(broken, "test", "")}
    if use.used == before:
        message = "the tests never used the solution"
        return {
            "passed": False,
            "failure": {"kind": "NotUsed", "message": message, "line": None, "source": "", "origin": "test"},
        }
    return None


def _run_unit(unit: list[Any], namespace: dict[str, Any]) -> None:
    kind, name, *more = unit
    if kind == "unittest":
        _run_cases(namespace[name])
    elif kind == "class":
        for method in more[0]:
            instance = namespace[name]()
            for each in ("setup_method", "setUp", "setup"):
                _call_if_there(instance, each)
            _finish(getattr(instance, method)())
            for each in ("teardown_method", "tearDown", "teardown"):
                _call_if_there(instance, each)
    elif kind == "check":
        _finish(namespace[name](namespace[more[0]] if more[0] in namespace else eval(more[0], namespace)))  # noqa: S307
    else:
        for arguments in _parameters(namespace[name]):
            _finish(namespace[name](**arguments))


def _call_if_there(instance: Any, name: str) -> None:
    method = getattr(instance, name, None)
    if method is not None:
        import inspect

        _finish(method(*([None] if inspect.signature(method).parameters else [])))


def _finish(result: Any) -> None:
    if isinstance(result, CoroutineType):
        import asyncio

        asyncio.run(cast("Any", result))


def _parameters(function: Any) -> list[dict[str, Any]]:
    """The sets of arguments that marks of pytest give a test function; one empty set without any."""
    sets: list[dict[str, Any]] = [{}]
    for mark in getattr(function, "pytestmark", ()):
        if mark.name != "parametrize":
            continue
        names, values = mark.args[:2]
        names = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
        rows = [getattr(row, "values", row) if not isinstance(row, dict) else row for row in values]
        pairs = [dict(zip(names, row if len(names) > 1 else _single(row), strict=True)) for row in rows]
        sets = [{**a, **b} for a in sets for b in pairs]
    return sets


def _single(row: Any) -> tuple[Any, ...]:
    return cast("tuple[Any, ...]", row) if type(row) is tuple and len(row) == 1 else (row,)


def _run_cases(case: Any) -> None:
    """Run a `unittest` case; the first failure is raised."""
    import unittest

    result = _first_failure()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    suite.run(result)
    if result.failure is not None:
        raise result.failure
    if result.testsRun == 0:
        raise AssertionError(f"{case.__name__} has no tests")
    if result.unexpectedSuccesses:
        raise AssertionError("a test that must fail has passed")
    if not result.good:
        raise AssertionError("every test was skipped")
    if result.good + len(result.skipped) + len(result.expectedFailures) != result.testsRun:
        raise AssertionError("a test neither passed nor failed")


def _first_failure() -> Any:
    """A collector of results that keeps the first failure and stops there."""
    import unittest

    class FirstFailure(unittest.TestResult):
        failure: BaseException | None = None
        good = 0

        def addSuccess(self, test: Any) -> None:
            self.good += 1

        def addError(self, test: Any, err: Any) -> None:
            self._note(err)

        def addFailure(self, test: Any, err: Any) -> None:
            self._note(err)

        def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
            if err is not None:
                self._note(err)

        def _note(self, err: Any) -> None:
            self.failure = self.failure or err[1]
            self.stop()

    return FirstFailure()


def run_visible(test: str, namespace: dict[str, Any], use: Use) -> Outcome:
    """Run one visible test; of one that compares two values both are told."""
    before, use.broken = use.used, None
    sides = _comparison(test)
    try:
        if sides is None:
            exec(compile(test, _TESTS, "exec", dont_inherit=True), namespace)  # noqa: S102 - the dataset's own tests
            return _unused(use, before) or {"passed": True}
        got, wanted = (
            eval(compile(ast.Expression(side), _TESTS, "eval", dont_inherit=True), namespace)  # noqa: S307
            for side in sides
        )
        if got == wanted:
            return _unused(use, before) or {"passed": True}
        failure = {"kind": "AssertionError", "message": "", "line": None, "source": "", "origin": "test"}
        return {"passed": False, "failure": failure, "got": _shown(got), "wanted": _shown(wanted)}
    except Interruption as exc:
        return _interrupted(exc)
    except BaseException as exc:  # noqa: BLE001 - whatever a test raises, it has failed
        return {"passed": False, "failure": describe_failure(exc, "test", "")}


def _comparison(test: str) -> tuple[ast.expr, ast.expr] | None:
    """Both sides of a test that is one `assert a == b`."""
    try:
        body = ast.parse(test).body
    except (SyntaxError, ValueError):
        return None
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        return None
    condition = body[0].test
    if isinstance(condition, ast.Compare) and len(condition.ops) == 1 and isinstance(condition.ops[0], ast.Eq):
        return condition.left, condition.comparators[0]
    return None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - someone else's __repr__
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
