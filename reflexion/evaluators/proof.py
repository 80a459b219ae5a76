"""Proves, before any answer is asked for, that a problem's tests can judge.

Tests that never run, or that swallow what they find, pass whatever an answer does. So each problem's tests are run
against solutions that must not pass: one that raises at every call, one that returns nothing, and one that returns
what equals nothing. Where the record has a solution of its own, that one must pass.
"""

from __future__ import annotations

import builtins
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, Protocol

from reflexion.evaluators.sandbox.jobs import Job, Report
from reflexion.evaluators.sandbox.judging_plan import TestPlan
from reflexion.types import Problem

__all__ = ["PROVED_AT_MOST", "PROVING_SECONDS", "Proofs", "Refusal", "own_solution", "prove"]

PROVED_AT_MOST = 2000
"""Problems of a run that are proved before its first call; of larger ones an even sample."""
PROVING_SECONDS = 60.0
"""Seconds that proving may take; what is left then is not proved."""

_OWN = ("own_solution", "canonical_solution", "code", "solution", "solution_code", "reference_solution")
"""Names under which records keep a solution of their own, in `metadata`."""

Run = Callable[[Job], Report]


class Provable(Protocol):
    """An evaluator that has to run a problem's tests to say whether they can judge."""

    @property
    def name(self) -> str:
        """Name as given to `--evaluator`."""
        ...

    def check(self, problem: Problem) -> str | None:
        """Why the problem cannot be judged, or None."""
        ...

    def leave_unproved(self, problem: Problem) -> None:
        """Judge this problem although nobody has made sure that its tests can."""
        ...


class Refusal(NamedTuple):
    """A problem that cannot be judged."""

    where: str
    problem: Problem
    evaluator: str
    reason: str


class Proofs:
    """Proves the problems of a run side by side, within a budget.

    Args:
        total: problems of the run, as far as known; an even sample of more than `PROVED_AT_MOST` is proved.
        workers: problems at a time.
    """

    def __init__(self, total: int, workers: int) -> None:
        self._stride = max(1, -(-total // PROVED_AT_MOST))
        self._workers = workers
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[tuple[str, Problem, str, Future[str | None]]] = deque()
        self._began = time.monotonic()
        self._seen = 0
        self.refused: list[Refusal] = []
        self.left = 0
        """Problems that were not proved."""

    def add(self, where: str, problem: Problem, evaluator: Provable) -> None:
        """Prove a problem, if it is of the sample and time is left."""
        self._seen += 1
        if (self._seen - 1) % self._stride or time.monotonic() - self._began > PROVING_SECONDS:
            evaluator.leave_unproved(problem)
            self.left += 1
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="proof")
        self._waiting.append((where, problem, evaluator.name, self._pool.submit(evaluator.check, problem)))
        while len(self._waiting) > 8 * self._workers:
            self._take()

    def _take(self) -> None:
        where, problem, evaluator, proof = self._waiting.popleft()
        reason = proof.result()
        if reason is not None:
            self.refused.append(Refusal(where, problem, evaluator, reason))

    def finish(self) -> None:
        """Wait for the proofs under way."""
        while self._waiting:
            self._take()
        if self._pool is not None:
            self._pool.shutdown()

    @property
    def note(self) -> str | None:
        """What is said of problems that were not proved."""
        if not self.left:
            return None
        return (
            f"{self._seen - self.left:,} of {self._seen:,} problems with tests were proved able to judge before the "
            f"run (an even sample, {PROVING_SECONDS:g} s at most); verdicts on the others are counted as unproven"
        )


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
    raising = run(replace(job, code=_stub(plan, "raise NotImplementedError('stub')")))
    reason = _broken(raising)
    if reason is not None:
        return reason
    if _passes(job, raising):
        return "the tests accept a solution that raises an exception at every call, so they cannot judge"
    if own is None:
        # Tests may be content with a value and care about exceptions alone.
        raised = [f"raise {name}('stub')" for name in plan.expected if hasattr(builtins, name)]
        values = ("return None", "return object()", *raised)
        if all(_passes(job, run(replace(job, code=_stub(plan, value)))) for value in values):
            return "the tests accept a solution that returns nothing, and any other value, so they cannot judge"
        return None
    report = run(replace(job, code=own))
    return None if _passes(job, report) else _own_fails(report)


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


_ABSENT = (
    "the tests cannot be run in the sandbox: {}; if the package is installed, let the sandbox see it: "
    "--sandbox-packages NAME"
)
_TESTS_TO_BLAME = {
    "ModuleNotFoundError": _ABSENT,
    "ImportError": _ABSENT,
    "NotUsed": "the tests never use the solution, so any answer would pass",
    "NameError": "the tests cannot be run: {}",
    "SyntaxError": "the tests cannot be run: {}",
    "IndentationError": "the tests cannot be run: {}",
}
"""Failures of tests against a solution that does nothing which say that the tests themselves are at fault."""


def _broken(report: Report) -> str | None:
    """What is wrong with tests themselves, as a solution that does nothing shows it."""
    outcomes = [o for o in (report.hidden, *report.visible) if o is not None]
    for outcome in outcomes:
        failure = outcome.failure
        if failure is not None and failure.origin == "test" and failure.kind in _TESTS_TO_BLAME:
            return _TESTS_TO_BLAME[failure.kind].format(failure.message.replace("{", "").replace("}", ""))
    if outcomes or (report.load is not None and report.ended is None):
        return None
    if report.ended is not None and report.ended.kind == "Timeout":
        return f"the tests do not come to their end, whatever the solution does: {report.ended.message}"
    return "the tests end the process that runs them" + (f" ({report.ended.message})" if report.ended else "")


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
