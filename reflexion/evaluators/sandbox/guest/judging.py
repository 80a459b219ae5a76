"""Runs tests in a namespace and says which failed, and how."""

from __future__ import annotations

import ast
from types import CodeType
from typing import Any

__all__ = ["SOLUTION", "Interruption", "compiled", "describe_failure", "run_tests"]

SOLUTION = "<solution>"
"""File name of the solution in tracebacks."""
_TESTS = "<tests>"
_SHOWN = 300

Outcome = dict[str, Any]


class Interruption(BaseException):
    """Judging cannot go on. No `Exception`, so that no test swallows it."""


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


def run_tests(
    tests: CodeType | str | None, visible: list[str], namespace: dict[str, Any], code: str = ""
) -> dict[str, Any]:
    """Run the hidden tests as a whole and each visible one by itself."""
    hidden = _outcome(tests, namespace, code) if tests else None
    return {"hidden": hidden, "visible": [_visible(test, namespace, code) for test in visible]}


def _outcome(tests: CodeType | str, namespace: dict[str, Any], code: str) -> Outcome:
    try:
        run = compile(tests, _TESTS, "exec", dont_inherit=True) if isinstance(tests, str) else tests
        exec(run, namespace)  # noqa: S102 - the dataset's own tests
    except Interruption:
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever a test raises, it has failed
        return {"passed": False, "failure": describe_failure(exc, "test", code)}
    return {"passed": True}


def _visible(test: str, namespace: dict[str, Any], code: str) -> Outcome:
    sides = _comparison(test)
    if sides is None:
        return _outcome(test, namespace, code)
    try:
        got, wanted = (
            eval(compile(ast.Expression(side), _TESTS, "eval", dont_inherit=True), namespace)  # noqa: S307
            for side in sides
        )
        if got == wanted:
            return {"passed": True}
    except Interruption:
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever a test raises, it has failed
        return {"passed": False, "failure": describe_failure(exc, "test", code)}
    failure = {"kind": "AssertionError", "message": "", "line": None, "source": "", "origin": "test"}
    return {"passed": False, "failure": failure, "got": _shown(got), "wanted": _shown(wanted)}


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
