"""Judges Python code by running its tests in the sandbox.

Hidden tests (`Problem.tests`) decide, as in the paper's programming tasks (Shinn et al. 2023, section 4.3);
visible ones are what feedback may show. When there are only visible ones, they decide.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from reflexion.errors import PermanentError
from reflexion.evaluators.common import BaseEvaluator
from reflexion.evaluators.code import extract_code, prompt_code
from reflexion.types import Evaluation, Problem, Trial

if TYPE_CHECKING:
    from reflexion.evaluators.sandbox.model import Failure, Job, Report, TestOutcome

__all__ = ["PythonTests"]

_RETRY_WALL = 2.0
"""Seconds for finding out which visible test a solution hangs in, once a hidden one did."""
_SHOWN = 3
"""Visible tests shown at most."""


class PythonTests(BaseEvaluator):
    """Runs the tests of a problem against the code of a reply.

    Args:
        name: as given to `--evaluator`.
        timeout: seconds for loading the code and running all tests.
        in_process: run tests in the solution's own process. Needed for tests that hand objects of their own
            classes to the solution; a hostile solution could then tamper with them.
        reveal_answers: whether feedback may quote hidden tests' errors.
    """

    expensive = True

    def __init__(
        self, name: str = "python", *, timeout: float = 10.0, in_process: bool = False, reveal_answers: bool = False
    ) -> None:
        super().__init__(name, reveal_answers=reveal_answers)
        self._timeout = timeout
        self._in_process = in_process

    @property
    def config(self) -> dict[str, Any]:
        """Includes the limits."""
        from dataclasses import asdict

        from reflexion.evaluators.sandbox.model import Limits

        limits = asdict(Limits(wall=self._timeout))
        return {**super().config, "in_process": self._in_process, "limits": limits}

    def check(self, problem: Problem) -> str | None:
        """There must be tests, and they must be Python."""
        if not problem.tests and not problem.visible_tests:
            return "field 'tests' is missing (or 'visible_tests'), which the evaluator 'python' runs"
        reason = _parse_error("tests", problem.tests or "")
        for number, test in enumerate(problem.visible_tests, 1):
            reason = reason or _parse_error(f"visible_tests, item {number}", test)
        return reason

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Run the tests.

        Raises:
            PermanentError: the sandbox cannot be started at all.
        """
        from dataclasses import replace

        from reflexion.evaluators.sandbox import Job, shared_sandbox

        job = Job(
            code=extract_code(trial.answer, problem.prompt, problem.entry_point),
            tests=problem.tests,
            visible=problem.visible_tests,
            entry_point=problem.entry_point,
            prelude=prompt_code(problem.prompt, problem.entry_point) or "",
            in_process=self._in_process,
        )
        try:
            sandbox = shared_sandbox()
            report = await sandbox.run(job, wall=self._timeout)
            if job.tests and job.visible and report.ended is not None and len(report.visible) < len(job.visible):
                # The hidden tests took the process down. Ask the visible ones for something to tell.
                again = await sandbox.run(replace(job, tests=None), wall=min(self._timeout, _RETRY_WALL))
                report = replace(report, visible=_complete(again))
        except OSError as exc:
            raise PermanentError(f"the sandbox cannot be started: {exc}") from exc
        return self._verdict(job, report)

    def _verdict(self, job: Job, report: Report) -> Evaluation:
        seen = report.visible
        visible_passed = None
        if job.visible:
            visible_passed = len(seen) == len(job.visible) and all(o.passed for o in seen)
        complete = report.load is None and report.ended is None
        if job.tests:
            passed = complete and report.hidden is not None and report.hidden.passed
        else:
            passed = complete and bool(visible_passed)
        details: dict[str, Any] = {
            "visible": len(job.visible),
            "visible_passed": sum(o.passed for o in seen),
            "cpu_seconds": round(report.cpu_seconds, 4),
        }
        if not job.tests:
            details["hidden"] = False  # nothing to hold the visible tests against
        if report.in_process:
            details["in_process"] = True
        more: dict[str, Any] = {"visible_passed": visible_passed, "details": details}
        if passed:
            return self.passed(**more)
        feedback, kind = self._explain(job, report)
        score = sum(o.passed for o in seen) / len(job.visible) if job.visible and not job.tests else 0.0
        return self.failed(feedback, kind, score, **more)

    def _explain(self, job: Job, report: Report) -> tuple[str, str]:
        """Feedback and failure class. Nothing of the hidden tests is quoted."""
        if report.load is not None:
            return _load_feedback(report.load), report.load.kind
        broken = [(test, o) for test, o in zip(job.visible, report.visible, strict=False) if not o.passed]
        if broken:
            shown = "\n".join(_test_feedback(test, outcome) for test, outcome in broken[:_SHOWN])
            more = f"\n{len(broken) - _SHOWN} more tests failed." if len(broken) > _SHOWN else ""
            return f"{shown}{more}", _failure_class(broken[0][1])
        failure = report.ended or (report.hidden.failure if report.hidden is not None else None)
        if failure is None:
            return "The tests were not run to their end.", "NoVerdict"
        if not job.tests:
            return _ended_feedback(job.visible[len(report.visible)], failure), failure.kind
        return self._hidden_feedback(job, failure), _hidden_class(failure)

    def _hidden_feedback(self, job: Job, failure: Failure) -> str:
        passing = "The tests you know pass, but a" if job.visible else "A"
        if failure.origin == "sandbox":
            return f"{passing} hidden test did not come to its end: {_ended_text(failure)}."
        wrong = failure.kind == "AssertionError"
        text = f"{passing} hidden test failed" + (": wrong result." if wrong else f": {failure.kind}")
        if not wrong and (self._reveal or (failure.origin == "solution" and not job.visible)) and failure.message:
            text += f": {failure.message}"
        if failure.line is not None and failure.origin == "solution":
            text += f"\nin your line {failure.line}: {failure.source}"
        return text


@lru_cache(maxsize=4096)
def _parse_error(field: str, code: str) -> str | None:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError) as exc:
        line = f", line {exc.lineno}" if isinstance(exc, SyntaxError) and exc.lineno else ""
        reason = exc.msg if isinstance(exc, SyntaxError) else str(exc)
        return f"field {field!r} is not valid Python{line}: {reason}"
    return None


def _complete(report: Report) -> tuple[TestOutcome, ...]:
    """The visible outcomes, where a test that took the process down has failed by that."""
    from reflexion.evaluators.sandbox import TestOutcome

    if report.ended is None:
        return report.visible
    return (*report.visible, TestOutcome(passed=False, failure=report.ended))


def _ended_text(failure: Failure) -> str:
    if failure.kind == "Timeout":
        return "it took too long (is there an endless loop?)"
    return f"the program ended by itself ({failure.message})"


def _ended_feedback(test: str, failure: Failure) -> str:
    return f"{test}\n  did not come to its end: {_ended_text(failure)}."


def _load_feedback(failure: Failure) -> str:
    text = f"Your code cannot be run: {failure.kind}: {failure.message}".rstrip(": ")
    if failure.line is not None:
        text += f"\nin your line {failure.line}: {failure.source}"
    return text


def _failure_class(outcome: TestOutcome) -> str:
    kind = outcome.failure.kind if outcome.failure is not None else "AssertionError"
    return "WrongAnswer" if kind == "AssertionError" else kind


def _hidden_class(failure: Failure) -> str:
    return "WrongAnswer" if failure.kind == "AssertionError" else failure.kind


def _test_feedback(test: str, outcome: TestOutcome) -> str:
    failure = outcome.failure
    if failure is not None and failure.origin == "sandbox":
        return _ended_feedback(test, failure)
    if outcome.got is not None and outcome.wanted is not None:
        return f"{test}\n  got {outcome.got}, wanted {outcome.wanted}"
    if failure is None or failure.kind == "AssertionError":
        return f"{test}\n  is not fulfilled"
    text = f"{test}\n  raised {failure.kind}: {failure.message}".rstrip(": ")
    if failure.line is not None:
        text += f"\n  in your line {failure.line}: {failure.source}"
    return text
