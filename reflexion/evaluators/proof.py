"""Proves, before any answer is asked for, that a problem's tests can judge.

Tests that never run, or that swallow what they find, pass whatever an answer does. So each problem's tests are run
against solutions that must not pass: one that raises at every call, one that returns nothing, and one that returns
what equals nothing. Where the record has a solution of its own, that one must pass.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, cast

from reflexion.evaluators.sandbox.model import Job, Report
from reflexion.evaluators.sandbox.plan import TestPlan
from reflexion.types import Problem

__all__ = ["own_solution", "prove"]

_OWN = ("own_solution", "canonical_solution", "code", "solution", "solution_code", "reference_solution")
"""Names under which records keep a solution of their own, in `metadata`."""

Run = Callable[[Job], Report]


def own_solution(problem: Problem) -> str | None:
    """The record's own solution, or None."""
    found = (problem.metadata.get(name) for name in _OWN)
    return next((text for text in found if isinstance(text, str) and text.strip()), None)


def prove(job: Job, own: str | None, run: Run) -> str | None:
    """Why the tests of a job cannot judge, or None.

    Args:
        job: the problem's tests; its code is not looked at.
        own: the record's own solution as a whole program, if it has one.
        run: carries a job out.
    """
    plan = job.plan
    if plan.refusal is not None:
        return plan.refusal
    raising = run(_with(job, _stub(plan, "raise NotImplementedError('stub')")))
    reason = _broken(raising)
    if reason is not None:
        return reason
    if _passes(job, raising):
        return "the tests accept a solution that raises an exception at every call, so they cannot judge"
    if own is None:
        # Tests may be content with a value and care about exceptions alone.
        raised = [f"raise {name}('stub')" for name in plan.expected if hasattr(builtins, name)]
        values = ("return None", "return object()", *raised)
        if all(_passes(job, run(_with(job, _stub(plan, value)))) for value in values):
            return "the tests accept a solution that returns nothing, and any other value, so they cannot judge"
        return None
    report = run(_with(job, own))
    return None if _passes(job, report) else _own_fails(report)


def _with(job: Job, code: str) -> Job:
    fields = {name: getattr(job, name) for name in Job.__slots__}
    return Job(**cast("Any", {**fields, "code": code}))


def _passes(job: Job, report: Report) -> bool:
    if report.load is not None or report.ended is not None:
        return False
    if job.plan.tests:
        return report.hidden is not None and report.hidden.passed
    return len(report.visible) == len(job.plan.visible) and all(o.passed for o in report.visible)


def _stub(plan: TestPlan, body: str) -> str:
    """A solution that has every name the tests want, and does nothing but `body`."""
    if plan.program:
        return {"return None": "", "return object()": "print(object())"}.get(body, body)
    lines: list[str] = []
    for name in plan.wanted:
        if name in plan.expected:
            lines.append(f"class {name}(Exception): pass")
        elif name in plan.tested:
            first = body if body.startswith("raise") else "pass"
            lines.append(f"class {name}:")
            lines.append(f"    def __init__(self, *args, **kwargs):\n        {first}")
            if first == "pass":
                lines.append("    def __getattr__(self, name):\n        return _any")
        else:
            lines.append(f"def {name}(*args, **kwargs):\n    {body}")
    lines.append(f"def _any(*args, **kwargs):\n    {body}")
    return "\n".join(lines) + "\n"


def _broken(report: Report) -> str | None:
    """What is wrong with tests themselves, as a solution that does nothing shows it."""
    outcomes = [o for o in (report.hidden, *report.visible) if o is not None]
    for outcome in outcomes:
        failure = outcome.failure
        if failure is None or failure.origin != "test":
            continue
        if failure.kind in ("ModuleNotFoundError", "ImportError"):
            return (
                f"the tests cannot be run in the sandbox: {failure.message}; if the package is installed, let the "
                "sandbox see it: --sandbox-packages NAME"
            )
        if failure.kind == "NotUsed":
            return "the tests never use the solution, so any answer would pass"
        if failure.kind in ("NameError", "SyntaxError", "IndentationError"):
            return f"the tests cannot be run: {failure.message}"
    if report.ended is not None and not outcomes:
        return f"the tests do not come to their end, whatever the solution does: {report.ended.message}"
    if report.load is None and not outcomes:
        return "the tests end the process that runs them"
    return None


def _own_fails(report: Report) -> str:
    failure = report.load or report.ended
    if failure is None and report.hidden is not None:
        failure = report.hidden.failure
    if failure is None:
        failure = next((o.failure for o in report.visible if o.failure is not None), None)
    told = f"{failure.kind}: {failure.message}".rstrip(": ") if failure is not None else "no verdict"
    text = f"the record's own solution does not pass its tests ({told[:200]})"
    if failure is not None and failure.kind == "ModuleNotFoundError":
        text += "; if the package is installed, let the sandbox see it: --sandbox-packages NAME"
    return text
