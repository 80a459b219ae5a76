"""From specs to evaluators, and evaluators of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from reflexion.errors import ConfigurationError, RateLimitError
from reflexion.evaluators import EVALUATORS, Evaluator, infer_evaluator, resolve_evaluator, wrap_callable
from reflexion.types import Evaluation, Problem, Trial

PROBLEM = Problem(id="p", prompt="?", answer="x")
TRIAL = Trial(index=1, answer="x")


class Model:
    model = "m"
    identity: ClassVar[dict[str, Any]] = {"model": "m"}


def test_the_evaluator_is_inferred_from_what_a_problem_has() -> None:
    assert infer_evaluator(PROBLEM) == "exact"
    assert infer_evaluator(Problem(id="p", prompt="?")) == "judge"
    assert infer_evaluator(Problem(id="p", prompt="?", answer="")) == "exact"
    assert infer_evaluator(Problem(id="p", prompt="Which?\nA) x\nB) y", answer="B")) == "choice"
    assert infer_evaluator(Problem(id="p", prompt="Which letter?", answer="B")) == "exact"
    assert infer_evaluator(Problem(id="p", prompt="Do it:\n1. x\n2. y", answer="2")) == "exact"
    assert infer_evaluator(Problem(id="p", prompt="?", answer="x", tests="assert 1")) == "python"
    assert infer_evaluator(Problem(id="p", prompt="?", visible_tests=("assert 1",))) == "python"


@pytest.mark.parametrize("name", EVALUATORS)
def test_every_name_resolves_to_one_object(name: str) -> None:
    model: Any = Model()
    evaluator = resolve_evaluator(name, PROBLEM, judge=model)
    assert isinstance(evaluator, Evaluator) and evaluator.name == name
    assert resolve_evaluator(name, PROBLEM, judge=model) is evaluator
    assert resolve_evaluator(name, PROBLEM, judge=model, reveal_answers=True) is not evaluator
    assert evaluator.expensive == (name in ("python", "judge", "generated"))
    assert evaluator.config["name"] == name


def test_each_judge_has_its_own_evaluator() -> None:
    first: Any = Model()
    second: Any = Model()
    assert resolve_evaluator("judge", PROBLEM, judge=first) is not resolve_evaluator("judge", PROBLEM, judge=second)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("exactly", "exact, em, f1"),
        ("f1:high", "'high'"),
        ("f1:2", "from 0 to 1"),
        ("f1:", "colon"),
        ("exact:3", "no argument"),
        ("numeric:nan", "'nan'"),
        ("python:fast", "takes no argument"),
        ("judge", "model"),
        ("judge:often", "'often'"),
        ("judge:0", "'0'"),
        ("judge:rubric=", "rubric="),
        ("no.such.module:function", "no.such.module"),
        ("math:no_such_function", "no_such_function"),
        ("math:pi", "not a function"),
        ("", "unknown evaluator"),
    ],
)
def test_a_wrong_spec_is_named(spec: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named.replace("(", r"\(")):
        resolve_evaluator(spec, PROBLEM, judge=None if spec == "judge" else Model())  # type: ignore[arg-type]


async def test_a_function_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_checks.py").write_text("def same(problem, answer):\n    return answer == problem.answer\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    evaluator = resolve_evaluator("own_checks:same", PROBLEM)
    assert evaluator.name == "own_checks:same"
    assert (await evaluator.evaluate(PROBLEM, TRIAL)).passed
    assert not (await evaluator.evaluate(PROBLEM, Trial(index=1, answer="y"))).passed
    sys.modules.pop("own_checks")


def test_a_module_that_fails_to_import_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_checks.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigurationError, match="ZeroDivisionError"):
        resolve_evaluator("broken_checks:f", PROBLEM)


async def half(problem: Problem, answer: str) -> float:
    return 0.5


@pytest.mark.parametrize(
    ("function", "passed", "score"),
    [
        (lambda problem, answer: True, True, 1.0),
        (lambda problem, answer: 1, True, 1.0),
        (half, False, 0.5),
        (lambda answer: "", True, 1.0),
        (lambda trial, problem: "too short", False, 0.0),
        (lambda problem, answer: {"score": 0.25, "feedback": "meh"}, False, 0.25),
        (lambda problem, answer: {"passed": True}, True, 1.0),
        (lambda p, a: Evaluation(evaluator="mine", passed=True, score=0.9), True, 0.9),
    ],
)
async def test_what_a_function_may_return(function: Any, passed: bool, score: float) -> None:
    evaluation = await wrap_callable(function).evaluate(PROBLEM, TRIAL)
    assert (evaluation.passed, evaluation.score) == (passed, score)


@pytest.mark.parametrize("result", [1.5, None, {"passed": True, "colour": "red"}, {"feedback": "?"}, [1]])
async def test_a_wrong_result_is_a_failed_evaluation_that_says_so(result: Any) -> None:
    evaluation = await wrap_callable(lambda problem, answer: result, "mine").evaluate(PROBLEM, TRIAL)
    assert not evaluation.passed and "'mine'" in evaluation.feedback


async def test_an_exception_is_a_failed_evaluation_with_its_traceback() -> None:
    def broken(problem: Problem, answer: str) -> bool:
        raise KeyError("missing thing")

    evaluation = await wrap_callable(broken).evaluate(PROBLEM, TRIAL)
    assert evaluation.failure_class == "KeyError"
    assert "missing thing" in evaluation.feedback and "in broken" in evaluation.feedback


async def test_errors_of_this_package_pass_through() -> None:
    def limited(problem: Problem, answer: str) -> bool:
        raise RateLimitError("later")

    with pytest.raises(RateLimitError):
        await wrap_callable(limited).evaluate(PROBLEM, TRIAL)


def test_what_is_no_function_or_takes_too_much_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must be a name"):
        wrap_callable(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="parameters are"):
        wrap_callable(lambda a, b, c: True)
    with pytest.raises(ConfigurationError, match="parameters are"):
        wrap_callable(lambda: True)
