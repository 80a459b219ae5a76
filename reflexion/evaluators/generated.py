"""Tests that the model writes itself, as in the paper's programming tasks (Shinn et al. 2023, section 4.3).

Specs: `generated`, `generated:8` (that many asserts at most, 6 by default). The tests are written once for a
problem, from its text alone, and join its visible ones. They are the agent's own verdict: they decide whether
it reflects and tries again, and feedback quotes nothing else. Hidden tests, where there are any, decide
whether the problem counts as solved; the agent never learns what they say. Reports compare the two.

Tests that cannot fail are left out. Where nothing usable is written, the model is asked once more; where that is in
vain too and there are no other tests, there is no verdict, and the answer does not count as solved.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import itertools
import re
import textwrap
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reflexion.errors import MalformedReplyError, RefusalError
from reflexion.evaluators.code import fenced_blocks
from reflexion.evaluators.code.fences import is_python
from reflexion.evaluators.code.python_reader import Reader, root_name, statements_in
from reflexion.evaluators.python import PythonTests
from reflexion.keys import digest
from reflexion.llm.chat_model import LLM, ChatRequest, Message, Sampling
from reflexion.loop.thought import split_thought
from reflexion.types import Decider, Evaluation, Problem, Trial, Usage

if TYPE_CHECKING:
    from reflexion.evaluators.sandbox.jobs import Job, Report

__all__ = ["GeneratedTests", "asserts_of"]

COUNT = 6
"""Asserts at most, where nothing is said."""
_KEPT = 10_000
"""Problems whose tests are kept."""
_MOST_READ = 200
"""Asserts looked at in one reply."""
_SYSTEM = (
    "You write unit tests in Python. Reply with one ```python block of plain asserts, one a line, and nothing else."
)
_PROMPT = (
    "{task}\n\nDo not write the function. Write {count} asserts that call {name} with literal arguments and compare "
    "the result with the right literal value, edge cases included."
)
_AGAIN = (
    "None of that could be used. Write {count} lines of the form `assert {name}(…) == …`, with literal values, "
    "in one ```python block."
)
_NO_TESTS = "There is no verdict: the model wrote no assert that could be used, and the problem has no tests."
_ASSERT = re.compile(r"assert\b[^`]*")
_VERSION = digest([_SYSTEM, _PROMPT, _AGAIN, 2])[:16]
_LENGTHS = (512, 2048)
"""Tokens at most of the first and the second reply: a model that thinks aloud may need more than asserts do."""


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
        given: Decider = "hidden_tests" if problem.tests else "visible_tests"
        update: dict[str, Any] = {
            "usage": usage,
            "model": written.model,
            "details": {**verdict.details, "generated": list(written.tests)},
            "decided_by": given if problem.tests or problem.visible_tests else "own_tests",
        }
        return verdict.model_copy(update=update)

    def _proof_key(self, problem: Problem) -> tuple[Any, ...]:
        # What the model adds to the visible tests changes nothing about the tests that were proved.
        return super()._proof_key(problem.model_copy(update={"visible_tests": ()}))

    async def _proof(self, problem: Problem) -> str | None:
        # Tests that the model wrote are its own affair: they may be poor, and decide nothing but its next step.
        return await super()._proof(problem) if problem.tests else None

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Run all tests; without any there is no verdict, and the agent has nothing to go on with."""
        if not problem.tests and not problem.visible_tests:
            return self.failed(_NO_TESTS, "NoVerdict", accepted=True, details={"hidden": False})
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
        messages = (Message(role="system", content=_SYSTEM), Message(role="user", content=prompt))
        written = _Written(model=self._llm.model)
        for attempt, length in enumerate(_LENGTHS):
            request = ChatRequest(
                messages=messages,
                sampling=Sampling(max_tokens=length),
                role="judge",
                salt="tests again" if attempt else "tests",
            )
            try:
                reply = await self._llm.chat(request)
            except MalformedReplyError as exc:
                written.usage += exc.usage or Usage(calls=1, unknown=1)
                continue
            except RefusalError:
                written.usage += Usage(calls=1, unknown=1)
                break
            written.usage += reply.usage
            written.model = reply.model
            written.tests = asserts_of(reply.text, problem.entry_point, self._count)
            if written.tests:
                break
            said = Message(role="assistant", content=reply.text.strip() or "…")
            messages = (*messages, said, Message(role="user", content=_AGAIN.format(count=self._count, name=name)))
        return written


def asserts_of(reply: str, entry_point: str | None, most: int) -> tuple[str, ...]:
    """The asserts of a reply that parse, call the function and can fail, in order and each once.

    Those that need a variable of the reply are left out: each is judged by itself. A thought holds none.
    """
    name = root_name(entry_point)
    found: dict[str, None] = {}
    asserts = (s for s in _statements(split_thought(reply).answer) if isinstance(s, ast.Assert))
    for statement in itertools.islice(asserts, _MOST_READ):
        if _calls(statement.test, name) and _can_fail(statement.test):
            statement.msg = None
            found.setdefault(ast.unparse(statement))
    return tuple(found)[:most]


def _statements(reply: str) -> Iterator[ast.stmt]:
    """The statements of a reply's code; of code that does not parse as a whole, those of its lines that do."""
    reader = Reader()
    blocks = fenced_blocks(reply)
    marked = [b for b in blocks if is_python(b.lang)] or [b for b in blocks if not b.lang]
    for code in [b.body for b in marked] or [reply]:
        tree = reader.tree(textwrap.dedent(code))
        if tree is None:
            lines = (line.strip() for line in code.split("\n") if "assert" in line)
            trees = [reader.tree(match[0]) for line in lines if (match := _ASSERT.search(line)) is not None]
        else:
            trees = [tree]
        for found in trees:
            yield from _within(found.body if found is not None else [])


def _within(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements and those within them, in the order of the text."""
    for statement in body:
        yield statement
        yield from _within(statements_in(statement))


def _calls(node: ast.expr, name: str | None) -> bool:
    """Whether an assert calls the function, and needs nothing that stands elsewhere in the reply."""
    nodes = list(ast.walk(node))
    called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if name is None:
        return bool(called)
    own = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return name in called and read <= {name, *own, *dir(builtins)}


def _can_fail(node: ast.expr) -> bool:
    """Whether an assert depends on what the function gives: not on a display, a constant, or its own repetition."""
    match node:
        case ast.Tuple() | ast.List() | ast.Set() | ast.Dict() | ast.Lambda() | ast.JoinedStr() | ast.Constant():
            return False
        case ast.BoolOp(op=ast.Or()):
            return all(_can_fail(value) for value in node.values)
        case ast.BoolOp():
            return any(_can_fail(value) for value in node.values)
        case ast.UnaryOp(op=ast.Not()):
            return _can_fail(node.operand)
        case ast.Compare(ops=[ast.Eq() | ast.Is() | ast.LtE() | ast.GtE()]):
            return ast.dump(node.left) != ast.dump(node.comparators[0])
        case _:
            return any(isinstance(n, ast.Call) for n in ast.walk(node))
