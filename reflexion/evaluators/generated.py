"""Tests that the model writes itself, as in the paper's programming tasks (Shinn et al. 2023, section 4.3).

Specs: `generated`, `generated:8` (that many asserts at most, 6 by default). The tests are written once for a
problem, from its text alone, and join its visible ones. They are the agent's own verdict: they decide whether
it reflects and tries again, and feedback quotes nothing else. Hidden tests, where there are any, decide
whether the problem counts as solved; the agent never learns what they say. Reports compare the two.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reflexion.errors import MalformedReplyError, RefusalError
from reflexion.evaluators.extract import extract_code
from reflexion.evaluators.python import PythonTests
from reflexion.keys import digest
from reflexion.llm.base import LLM, ChatRequest, Message, Sampling
from reflexion.types import Evaluation, Problem, Trial, Usage

if TYPE_CHECKING:
    from reflexion.evaluators.sandbox.model import Job, Report

__all__ = ["GeneratedTests", "asserts_of"]

COUNT = 6
"""Asserts at most, where nothing is said."""
_KEPT = 10_000
"""Problems whose tests are kept."""
_SYSTEM = (
    "You write unit tests in Python. Reply with one ```python block of plain asserts, one a line, and nothing else."
)
_PROMPT = (
    "{task}\n\nDo not write the function. Write {count} asserts that call {name} with literal arguments and compare "
    "the result with the right literal value, edge cases included."
)
_VERSION = digest([_SYSTEM, _PROMPT])[:16]


@dataclass
class _Written:
    """The tests of one problem, and what writing them cost, until it was told."""

    tests: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    model: str | None = None


class GeneratedTests(PythonTests):
    """Judges code by asserts that a model wrote, and by hidden tests where there are any.

    Args:
        name: as given to `--evaluator`.
        llm: who writes the tests.
        count: asserts of one problem at most.
        timeout: seconds for loading the code and running all tests.
        packages: installed packages that tests and answers may import.
    """

    def __init__(
        self, name: str, llm: LLM, *, count: int = COUNT, timeout: float = 10.0, packages: tuple[str, ...] = ()
    ) -> None:
        super().__init__(name, timeout=timeout, packages=packages)
        self._llm = llm
        self._count = count
        self._written: OrderedDict[str, asyncio.Task[_Written]] = OrderedDict()

    @property
    def config(self) -> dict[str, Any]:
        """Includes the model that writes the tests."""
        return {**super().config, "count": self._count, "prompt": _VERSION, "model": self._llm.identity}

    def check(self, problem: Problem) -> str | None:
        """It must be a function that is asked for; its own tests must be Python."""
        if problem.tests or problem.visible_tests:
            return super().check(problem)
        if not problem.entry_point:
            return f"field 'entry_point' is missing, the function that the evaluator {self.name!r} writes tests for"
        return None

    async def evaluate(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge one trial.

        Raises:
            RetryableError, PermanentError: as the model raises them that writes the tests.
        """
        written = await self._tests(problem)
        joined = tuple(dict.fromkeys((*problem.visible_tests, *written.tests)))
        verdict = await super().evaluate(problem.model_copy(update={"visible_tests": joined}), trial)
        usage, written.usage = written.usage, Usage()  # told once, by the first trial that needed them
        details = {**verdict.details, "generated": list(written.tests)}
        return verdict.model_copy(update={"usage": usage, "details": details, "model": written.model})

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Run all tests; without any there is nothing to object to."""
        if not problem.tests and not problem.visible_tests:
            return self.passed(accepted=True)
        return await super().judge(problem, trial)

    def _verdict(self, job: Job, report: Report) -> Evaluation:
        verdict = super()._verdict(job, report)
        accepted = bool(verdict.visible_passed) if job.visible else report.load is None
        update: dict[str, Any] = {"accepted": accepted}
        if verdict.passed and not accepted:
            # Hidden tests say it is right; the agent does not know, and goes on by what its own tests say.
            update["feedback"], _ = self._explain(job, report)
        return verdict.model_copy(update=update)

    async def _tests(self, problem: Problem) -> _Written:
        """The tests of a problem; trials that need them at the same time wait for the same ones."""
        key = problem.digest
        task = self._written.get(key)
        if task is not None and task.done() and (task.cancelled() or task.exception() is not None):
            task = None
        if task is not None and task.get_loop() is not asyncio.get_running_loop():
            if task.done():
                return task.result()
            task = None
        if task is None:
            task = self._written[key] = asyncio.ensure_future(self._write(problem))
            while len(self._written) > _KEPT:
                self._written.popitem(last=False)
        return await asyncio.shield(task)

    async def _write(self, problem: Problem) -> _Written:
        name = problem.entry_point or "the function"
        prompt = _PROMPT.format(task=problem.prompt, count=self._count, name=name)
        request = ChatRequest(
            messages=(Message(role="system", content=_SYSTEM), Message(role="user", content=prompt)),
            sampling=Sampling(max_tokens=512),
            role="judge",
            salt="tests",
        )
        try:
            reply = await self._llm.chat(request)
        except MalformedReplyError as exc:
            return _Written(usage=exc.usage or Usage(calls=1, unknown=1), model=self._llm.model)
        except RefusalError:
            return _Written(usage=Usage(calls=1, unknown=1), model=self._llm.model)
        tests = asserts_of(reply.text, problem.entry_point, self._count)
        return _Written(tests, reply.usage, reply.model)


def asserts_of(reply: str, entry_point: str | None, most: int) -> tuple[str, ...]:
    """The asserts of a reply that parse and call the function, in order and each once.

    Those that need a variable of the reply are left out: each is judged by itself.
    """
    code = extract_code(reply)
    found: dict[str, None] = {}
    for statement in _statements(code):
        if isinstance(statement, ast.Assert) and _calls(statement.test, entry_point):
            statement.msg = None
            found.setdefault(ast.unparse(statement))
    return tuple(found)[:most]


def _statements(code: str) -> list[ast.stmt]:
    """The statements of a reply; of one that does not parse as a whole, those lines that do."""
    try:
        return [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    kept: list[ast.stmt] = []
    for line in code.splitlines():
        try:
            kept += ast.parse(line.strip()).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return kept


def _calls(node: ast.expr, name: str | None) -> bool:
    """Whether an assert calls the function, and needs nothing that stands elsewhere in the reply."""
    nodes = list(ast.walk(node))
    called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if name is None:
        return bool(called)
    own = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return name in called and read <= {name, *own, *dir(builtins)}
