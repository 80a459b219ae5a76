"""Judges Python code by running its tests in the sandbox.

Hidden tests (`Problem.tests`) decide, as in the paper's programming tasks (Shinn et al. 2023, section 4.3);
visible ones are what feedback may show. When there are only visible ones, they decide.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import platform
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from reflexion._python_source import parse_python
from reflexion.errors import DatasetError, PermanentError
from reflexion.evaluators.code import Solution, extract_solution, prompt_code
from reflexion.evaluators.common import BaseEvaluator
from reflexion.evaluators.proof import own_solution, prove
from reflexion.types import Decider, Evaluation, Problem, Trial

if TYPE_CHECKING:
    from reflexion.evaluators.sandbox.jobs import Failure, Job, Report, TestOutcome

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
        packages: installed packages that tests and solutions may import beside the standard library.
        reveal_answers: whether feedback may quote hidden tests' errors.
    """

    expensive = True

    def __init__(
        self,
        name: str = "python",
        *,
        timeout: float = 10.0,
        packages: tuple[str, ...] = (),
        reveal_answers: bool = False,
    ) -> None:
        super().__init__(name, reveal_answers=reveal_answers)
        self._timeout = timeout
        self._packages = packages

    @property
    def config(self) -> dict[str, Any]:
        """Includes the limits, the packages, and the version of the interpreter that judges."""
        from dataclasses import asdict

        from reflexion.evaluators.sandbox.jobs import Limits

        fields = {"limits": asdict(Limits(wall=self._timeout)), "rules": _RULES, "interpreter": _interpreter()}
        if self._packages:
            fields["packages"] = _versions(self._packages)
        return {**super().config, **fields}

    def check(self, problem: Problem) -> str | None:
        """There must be tests, and they must be proved able to judge: see `proof.py`."""
        return self.glance(problem) or self._proved(problem)

    def runs_tests(self, problem: Problem) -> bool:
        """Whether the problem's own tests judge it, so that they can be proved able to."""
        return bool(problem.tests or problem.visible_tests)

    def glance(self, problem: Problem) -> str | None:
        """What of `check` needs no sandbox."""
        if not problem.tests and not problem.visible_tests:
            return "field 'tests' is missing (or 'visible_tests'), which the evaluator 'python' runs"
        job = self._job(problem, "")
        if job.plan.refusal is not None or not (job.plan.tests and job.visible):
            return job.plan.refusal
        return visible_alone(job).plan.refusal

    def _proved(self, problem: Problem) -> str | None:
        """Why the tests cannot judge, as running them shows; asked once for each problem."""
        key = self._proof_key(problem)
        if key not in _PROVED:
            from reflexion.evaluators.sandbox import SandboxError, shared_sandbox

            own = own_solution(problem)
            code = extract_solution(own, problem.prompt, problem.entry_point).code if own is not None else None
            sandbox = shared_sandbox(self._packages)
            try:
                reason = prove(self._job(problem, ""), code, lambda job: sandbox.run_blocking(job, self._timeout))
            except SandboxError as exc:
                return f"the sandbox cannot be started: {exc}"
            if len(_PROVED) >= _REMEMBERED:
                _PROVED.clear()
            _PROVED[key] = reason
        return _PROVED[key]

    async def _proof(self, problem: Problem) -> str | None:
        """As `_proved`, beside the event loop, for a problem that nobody has checked before."""
        key = self._proof_key(problem)
        if key in _PROVED or key in _UNPROVED:
            return _PROVED.get(key)
        return await asyncio.to_thread(self._proved, problem)

    def leave_unproved(self, problem: Problem) -> None:
        """Judge this problem although nobody has made sure that its tests can; its verdicts say so."""
        if len(_UNPROVED) >= _REMEMBERED:
            _UNPROVED.clear()
        _UNPROVED.add(self._proof_key(problem))

    def _proof_key(self, problem: Problem) -> tuple[Any, ...]:
        return problem.digest, own_solution(problem), self._timeout, self._packages

    def _job(self, problem: Problem, code: str) -> Job:
        from reflexion.evaluators.sandbox.jobs import Job

        own = own_solution(problem)
        return Job(
            code=code,
            tests=problem.tests,
            visible=problem.visible_tests,
            entry_point=problem.entry_point,
            prelude=prompt_code(problem.prompt, problem.entry_point) or "",
            prompt=problem.prompt,
            own_solution=own,
            packages=self._packages,
        )

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Run the tests.

        A run that timed out although it hardly used the processor is run again alone: the machine may have been
        busy. Such a verdict is not kept.

        Raises:
            DatasetError: the tests cannot judge.
            PermanentError: the sandbox cannot be started at all.
        """
        from dataclasses import replace

        from reflexion.evaluators.sandbox import shared_sandbox

        solution = extract_solution(trial.answer, problem.prompt, problem.entry_point)
        job = self._job(problem, solution.code)
        reason = job.plan.refusal or await self._proof(problem)
        if reason is not None:
            raise DatasetError(f"problem {problem.id!r} cannot be judged by {self.name!r}: {reason}")
        retested = False
        try:
            sandbox = shared_sandbox(self._packages)
            # Processes of their own: what the visible tests show must not have seen the hidden ones.
            apart = bool(job.plan.tests and job.visible)
            first = replace(job, visible=()) if apart else job
            report = await sandbox.run(first, wall=self._timeout)
            if _starved(report, self._timeout):
                retested = True
                report = await sandbox.run(first, wall=self._timeout, alone=True)
            if apart and report.load is None:
                wall = self._timeout if report.ended is None else min(self._timeout, _RETRY_WALL)
                again = await sandbox.run(visible_alone(job), wall=wall)
                seconds = report.cpu_seconds + again.cpu_seconds
                report = replace(report, visible=_complete(again), cpu_seconds=seconds)
        except OSError as exc:
            raise PermanentError(f"the sandbox cannot be started: {exc}") from exc
        verdict = self._verdict(job, in_own_lines(report, solution))
        if self._proof_key(problem) in _UNPROVED:
            verdict = verdict.model_copy(update={"details": {**verdict.details, "unproven": True}})
        if not retested:
            return verdict
        return verdict.model_copy(update={"uncertain": True, "details": {**verdict.details, "retested": True}})

    def _verdict(self, job: Job, report: Report) -> Evaluation:
        seen, visible = report.visible, job.plan.visible
        visible_passed = None
        if visible:
            visible_passed = len(seen) == len(visible) and all(o.passed for o in seen)
        complete = report.load is None and report.ended is None
        if job.plan.tests:
            passed = complete and report.hidden is not None and report.hidden.passed
        else:
            passed = complete and bool(visible_passed)
        details: dict[str, Any] = {
            "visible": len(visible),
            "visible_passed": sum(o.passed for o in seen),
            "cpu_seconds": round(report.cpu_seconds, 4),
        }
        if not job.plan.tests:
            details["hidden"] = False  # nothing to hold the visible tests against
        decider: Decider = "hidden_tests" if job.plan.tests else "visible_tests"
        more: dict[str, Any] = {"visible_passed": visible_passed, "details": details, "decided_by": decider}
        if passed:
            return self.passed(**more)
        feedback, kind = self._explain(job, report)
        score = sum(o.passed for o in seen) / len(visible) if visible and not job.plan.tests else 0.0
        return self.failed(feedback, kind, score, **more)

    def _explain(self, job: Job, report: Report) -> tuple[str, str]:
        """Feedback and failure class. Nothing of the hidden tests is quoted."""
        if report.load is not None:
            return _load_feedback(report.load) + _limits_met(job, report.load), report.load.kind
        visible = job.plan.visible
        broken = [(test, o) for test, o in zip(visible, report.visible, strict=False) if not o.passed]
        if broken:
            shown = "\n".join(_test_feedback(test, outcome) for test, outcome in broken[:_SHOWN])
            more = f"\n{len(broken) - _SHOWN} more tests failed." if len(broken) > _SHOWN else ""
            return f"{shown}{more}", _failure_class(broken[0][1])
        failure = report.ended or (report.hidden.failure if report.hidden is not None else None)
        if failure is None:
            return "The tests were not run to their end.", "NoVerdict"
        if not job.plan.tests:
            return _ended_feedback(visible[len(report.visible)], failure), failure.kind
        return self._hidden_feedback(job, failure), _hidden_class(job, failure)

    def _hidden_feedback(self, job: Job, failure: Failure) -> str:
        """What may be told of a hidden test: that it failed, and where in the code; no value of it."""
        passing = "The tests you know pass, but a" if job.visible else "A"
        if failure.origin == "sandbox":
            told = _ENDED.get(failure.kind, "it ended by itself")
            return f"{passing} hidden test did not come to its end: {told}."
        kind = _hidden_class(job, failure)
        text = f"{passing} hidden test failed" + (": wrong result." if kind == "WrongAnswer" else f": {kind}")
        if kind != "WrongAnswer" and self._reveal and failure.message:
            text += f": {failure.message}"
        if failure.line is not None and failure.origin == "solution":
            text += f"\nin your line {failure.line}: {failure.source}"
        return text + _limits_met(job, failure)


_RULES = 3
"""Raised whenever the same code and tests may get another verdict than before."""
_REMEMBERED = 1_000_000
_PROVED: dict[tuple[Any, ...], str | None] = {}
"""Why a problem's tests cannot judge, by its content; None: they can."""
_UNPROVED: set[tuple[Any, ...]] = set()
"""Problems that are judged without proof, by their content."""


_SOURCE = 200
"""Characters of a line of the answer that feedback shows."""

_STARTING = re.compile(r"\b(?:multiprocessing|subprocess|ProcessPoolExecutor|os\.fork|os\.system|os\.popen)\b")


def _limits_met(job: Job, failure: Failure) -> str:
    """What the sandbox does not allow, where code has failed by it."""
    if failure.kind == "ModuleNotFoundError":
        packages = f" and {', '.join(job.packages)}" if job.packages else ""
        return f"\nOnly the standard library{packages} can be imported here."
    if failure.kind in ("PermissionError", "FileNotFoundError", "OSError") and _STARTING.search(job.code):
        return "\nNo processes can be started here: do the work in one."
    return ""


def _starved(report: Report, wall: float) -> bool:
    """Whether a run timed out without having used the processor: its own waiting, or a busy machine."""
    return report.ended is not None and report.ended.kind == "Timeout" and report.cpu_seconds < wall / 2


@lru_cache(maxsize=1)
def _interpreter() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of packages; empty for one that is not installed, which the sandbox will say."""
    from importlib import metadata

    owners = metadata.packages_distributions()
    versions: dict[str, str] = {}
    for package in packages:
        try:
            versions[package] = metadata.version(next(iter(owners.get(package, [package]))))
        except metadata.PackageNotFoundError:
            versions[package] = ""
    return versions


def in_own_lines(report: Report, solution: Solution) -> Report:
    """A report whose failures name lines of the answer's own code, not of what was put in front of it.

    The solution's process says which line it was; it is told where that is a line of code, as it stands in the answer.
    """
    from dataclasses import replace

    code = solution.code.splitlines()

    def failure(found: Failure | None) -> Failure | None:
        if found is None or found.line is None:
            return found
        source = code[found.line - 1].strip() if 0 < found.line <= len(code) else ""
        line = solution.own_line(found.line) if source and not source.startswith("#") else None
        return replace(found, line=line, source=source[:_SOURCE] if line is not None else "")

    def outcome(found: TestOutcome | None) -> TestOutcome | None:
        return None if found is None else replace(found, failure=failure(found.failure))

    visible = tuple(o for o in map(outcome, report.visible) if o is not None)
    return replace(report, load=failure(report.load), hidden=outcome(report.hidden), visible=visible)


def visible_alone(job: Job) -> Job:
    """The visible tests of a job without the hidden ones, but with what those import and define for them."""
    from dataclasses import replace

    try:
        body = parse_python(job.plan.tests or "").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        body = []
    imports = [ast.unparse(n) for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
    helpers = [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) or _is_constant(n, job.plan.wanted)]
    names = {name for n in helpers for name in _bound_names(n)}
    setup = "\n".join(map(ast.unparse, helpers))
    needs = [bool(names & set(re.findall(r"[^\W\d]\w*", test))) for test in job.plan.visible]
    visible = [f"{setup}\n{test}" if need else test for test, need in zip(job.plan.visible, needs, strict=True)]
    return replace(job, tests=None, visible=tuple(visible), prelude="\n".join([job.prelude, *imports]))


def _is_constant(node: ast.stmt, wanted: tuple[str, ...]) -> bool:
    """Whether a statement gives names to what the solution has no part in."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return False
    return not any(isinstance(n, ast.Name) and n.id in wanted for n in ast.walk(node))


def _bound_names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _complete(report: Report) -> tuple[TestOutcome, ...]:
    """The visible outcomes, where a test that took the process down has failed by that."""
    from reflexion.evaluators.sandbox import TestOutcome

    if report.ended is None:
        return report.visible
    return (*report.visible, TestOutcome(passed=False, failure=report.ended))


_ENDED = {
    "Timeout": "it took too long (is there an endless loop?)",
    "Exited": "the program ended by itself",
    "Killed": "the program was ended by a signal",
    "OutputLimit": "the program gave a value that is larger than allowed",
    "Forged": "the program sent what is no value",
}
"""How a program ended, by the kind of failure; the rest of what is known of it could tell values."""


def _ended_text(failure: Failure) -> str:
    return _ENDED["Timeout"] if failure.kind == "Timeout" else f"the program ended by itself ({failure.message})"


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


def _hidden_class(job: Job, failure: Failure) -> str:
    """The class of a hidden test's failure: a name of the language or of the code, never one made up in a call."""
    if failure.kind == "AssertionError":
        return "WrongAnswer"
    known = hasattr(builtins, failure.kind) or failure.origin == "sandbox" or failure.kind == "NotUsed"
    named = re.search(rf"\bclass\s+{re.escape(failure.kind)}\b", job.code) is not None
    return failure.kind if known or named else "Exception"


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
