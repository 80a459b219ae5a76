"""Tests are proved able to judge before the first call; what cannot judge is refused, never a verdict."""

from __future__ import annotations

from typing import Any

import pytest

from reflexion.errors import DatasetError
from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.proof import Proofs
from reflexion.types import Problem, Trial


def problem(tests: str, entry_point: str = "f", **more: Any) -> Problem:
    return Problem(id="p", prompt=more.pop("prompt", "Write f."), tests=tests, entry_point=entry_point, **more)


def check(given: Problem) -> str | None:
    return resolve_evaluator("python", given, timeout=2.0).check(given)


REFUSED = {
    "tests that never call it": ("x = f\nassert 1 == 1", "never use the solution"),
    "tests of something else": ("x = 1\nassert x == 1", "never mention"),
    "a case whose tests were renamed away": ("def helper():\n    return f(1)\nassert callable(helper)", "never use"),
    "tests that swallow what they find": (
        "try:\n    assert f(1) == 2\nexcept Exception:\n    pass",
        "raises an exception",
    ),
    "any exception is right": (
        "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.assertRaises(Exception, f)",
        "raises an exception",
    ),
    "any value is right": ("r = f(1)\nassert r == r", "any other value"),
    "an assert that holds for everything": ("f(1)\nassert True", "any other value"),
    "tests that end the process": ("import os\nf\nos._exit(0)\nassert f(1)", "end the process"),
    "tests that never end": ("import time\nwhile True: time.sleep(1)\nassert f(1) == 2", "do not come to their end"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_tests_that_pass_whatever_an_answer_does_are_refused(name: str) -> None:
    tests, told = REFUSED[name]
    reason = check(problem(tests))
    assert reason is not None and told in reason and "\n" not in reason


ABLE = {
    "values": "assert f(1) == 2",
    "exceptions alone": (
        "try:\n    f(1)\nexcept ValueError as error:\n    assert str(error) == 'one'\nelse:\n    raise AssertionError"
    ),
    "one exception and its text": "try:\n    f(1)\nexcept KeyError as error:\n    assert error.args == ('k',)",
    "what is changed in place": "rows = [1]\nf(rows)\nassert rows == [2]",
    "what is printed": (
        "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out): f()\nassert out.getvalue()"
    ),
    "a class": "assert F(1).total == 1",
    "truth alone": "assert f(2)",
}  # fmt: skip


@pytest.mark.parametrize("name", ABLE)
def test_tests_that_can_fail_are_kept(name: str) -> None:
    assert check(problem(ABLE[name], "F" if name == "a class" else "f")) is None


def test_the_records_own_solution_must_pass() -> None:
    tests = "assert f(3) == 9"
    assert check(problem(tests, metadata={"own_solution": "def f(x):\n    return x * x\n"})) is None
    wrong = check(problem(tests, metadata={"canonical_solution": "def f(x):\n    return x + x\n"}))
    assert wrong is not None and "own solution does not pass" in wrong
    absent = check(problem(tests, metadata={"code": "import no_such_package\ndef f(x):\n    return x * x\n"}))
    assert absent is not None and "no_such_package" in absent and "--sandbox-packages" in absent


async def test_a_problem_that_nobody_checked_is_proved_before_its_first_verdict() -> None:
    given = problem("r = f(7)\nassert r == r")
    with pytest.raises(DatasetError, match="any other value"):
        await resolve_evaluator("python", given, timeout=2.0).evaluate(
            given, Trial(index=1, answer="def f(x): return 1")
        )


async def test_beyond_its_budget_a_run_proves_an_even_sample_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflexion.evaluators.proof.PROVED_AT_MOST", 3)
    problems = [problem(f"assert f({n}) == {n}" if n != 6 else "r = f(6)\nassert r == r") for n in range(9)]
    proofs = Proofs(len(problems), workers=2)
    for number, each in enumerate(problems):
        evaluator = resolve_evaluator("python", each, timeout=2.0)
        proofs.add(f"row {number}", each, evaluator)  # type: ignore[arg-type]
    proofs.finish()
    assert [r.where for r in proofs.refused] == ["row 6"] and proofs.left == 6
    assert proofs.note is not None and proofs.note.startswith("3 of 9 problems")
    evaluator = resolve_evaluator("python", problems[1], timeout=2.0)
    verdict = await evaluator.evaluate(problems[1], Trial(index=1, answer="def f(x): return x"))
    assert verdict.passed and verdict.details["unproven"] is True
