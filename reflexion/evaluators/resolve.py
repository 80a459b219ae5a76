"""From a spec such as `f1:0.9` to an evaluator."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from reflexion.errors import ConfigurationError
from reflexion.types import Problem

if TYPE_CHECKING:
    from reflexion.evaluators.evaluator import Evaluator
    from reflexion.llm.chat_model import LLM

__all__ = ["EVALUATORS", "infer_evaluator", "resolve_evaluator"]

EVALUATORS: dict[str, str] = {
    "exact": "the answer is the reference: numbers, yes and no, formulas and texts each in their way",
    "em": "the answer equals the reference after the normalisation of SQuAD and HotpotQA",
    "f1": "token F1 with the reference, passed from a threshold: f1[:0.8]",
    "contains": "the reply contains the reference",
    "numeric": "the number stated equals the reference: numeric[:tolerance]",
    "regex": "the reply matches the pattern in 'answer'",
    "json_schema": "the reply is JSON that satisfies the schema in 'answer'",
    "choice": "the reply names the right option by letter or text",
    "python": "the code passes the problem's tests in a sandbox",
    "generated": "the code passes tests that the model wrote; hidden ones count: generated[:6]",
    "environment": "the reward of the problem's environment: environment[:threshold]",
    "judge": "a language model judges: judge[:pairwise][,VOTES][,rubric=TEXT]",
}
"""Names of the evaluators, each with what it does. `module:function` names your own."""

_CACHE: OrderedDict[tuple[str, bool, float, tuple[str, ...], int], tuple[Evaluator, LLM | None]] = OrderedDict()
_CACHE_SIZE = 64


def infer_evaluator(problem: Problem) -> str:
    """The evaluator for a problem that names none: its environment, its tests, its answer, else a judge.

    An answer that is the letter of one of the prompt's options is a choice.
    """
    if problem.environment is not None:
        return "environment"
    if problem.tests or problem.visible_tests:
        return "python"
    if problem.answer is None:
        return "judge"
    # An empty answer is told as such by `exact`, not handed to a judge in silence.
    return "choice" if _names_an_option(problem) else "exact"


def _names_an_option(problem: Problem) -> bool:
    """Whether the answer is the letter of an option that the prompt shows."""
    if not isinstance(problem.answer, str) or len(problem.answer.strip("() .")) != 1:
        return False
    from reflexion.evaluators.reading.multiple_choice import option_of, read_options

    options = read_options(problem.prompt)
    return bool(options) and next(iter(options)).isalpha() and option_of(problem.answer, options) is not None


def resolve_evaluator(
    spec: str | None,
    problem: Problem,
    *,
    judge: LLM | None = None,
    reveal_answers: bool = False,
    timeout: float = 10.0,
    packages: tuple[str, ...] = (),
) -> Evaluator:
    """The evaluator a spec names, or the one inferred for the problem when `spec` is None.

    Equal arguments give the same object, so that resolving one for each of many problems costs nothing.

    Args:
        spec: one of `EVALUATORS`, with its argument after a colon, or `module:function`.
        problem: what it will judge first; only looked at when `spec` is None.
        judge: the model the evaluator `judge` asks.
        reveal_answers: whether feedback may show the reference answer.
        timeout: seconds the tests of one answer may take.
        packages: installed packages that tests and answers may import.

    Raises:
        ConfigurationError: the name is unknown, its argument is wrong, or `judge` is missing.
    """
    wanted = infer_evaluator(problem) if spec is None else spec.strip()
    # The judge is kept with its evaluator, so its id cannot be given to another object meanwhile.
    key = (wanted, reveal_answers, timeout, packages, id(judge) if _name(wanted) in _ASKING else 0)
    hit = _CACHE.get(key)
    if hit is not None:
        return hit[0]
    evaluator = _build(wanted, judge, reveal_answers, timeout, packages)
    _CACHE[key] = (evaluator, judge if key[4] else None)
    if len(_CACHE) > _CACHE_SIZE:
        _CACHE.popitem(last=False)
    return evaluator


def _name(spec: str) -> str:
    return spec.partition(":")[0].strip()


def _build(spec: str, judge: LLM | None, reveal: bool, timeout: float, packages: tuple[str, ...]) -> Evaluator:
    name, colon, argument = spec.partition(":")
    name, argument = name.strip(), argument.strip()
    _check_installed(packages)
    if name not in EVALUATORS:
        if colon and argument:
            from reflexion.evaluators.own_function import load_function, wrap_callable

            return wrap_callable(load_function(spec), spec)
        raise ConfigurationError(
            f"unknown evaluator {spec!r}; there are {', '.join(EVALUATORS)}, or your own as module:function"
        )
    if colon and not argument:
        raise ConfigurationError(f"evaluator {spec!r}: something must follow the colon")
    if argument and name not in _WITH_ARGUMENT:
        raise ConfigurationError(f"evaluator {spec!r}: {name!r} takes no argument")
    if name == "generated":
        from reflexion.evaluators.generated import COUNT, GeneratedTests

        count = _number(spec, argument, COUNT, 1, 50)
        if judge is None:
            raise ConfigurationError(f"evaluator {spec!r} needs a model that writes tests; none was given")
        return GeneratedTests(spec, judge, count=int(count), timeout=timeout, packages=packages)
    if name == "judge":
        from reflexion.evaluators.judge import Judge, parse_judge

        options = parse_judge(argument)
        if judge is None:
            raise ConfigurationError(f"evaluator {spec!r} needs a model that judges; none was given")
        return Judge(spec, judge, options, reveal_answers=reveal)
    if name == "python":
        from reflexion.evaluators.python import PythonTests

        return PythonTests(spec, timeout=timeout, packages=packages, reveal_answers=reveal)
    return _BUILDERS[name](spec, argument, reveal, timeout)


def _check_installed(packages: tuple[str, ...]) -> None:
    if packages:
        from reflexion.evaluators.sandbox.backends import package_files

        try:
            package_files(packages)
        except OSError as exc:
            raise ConfigurationError(f"--sandbox-packages: {exc}") from None


_ASKING = ("judge", "generated")
"""Evaluators that ask a model."""
_WITH_ARGUMENT = {"generated", "f1", "numeric", "judge", "environment"}


def _number(spec: str, argument: str, default: float, low: float, high: float) -> float:
    if not argument:
        return default
    try:
        value = float(argument)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ConfigurationError(f"evaluator {spec!r}: {argument!r} is not a number from {low:g} to {high:g}")
    return value


def _exact(spec: str, argument: str, reveal: bool, timeout: float) -> Evaluator:
    from reflexion.evaluators.text import ExactMatch

    return ExactMatch(spec, reveal_answers=reveal)


def _em(spec: str, argument: str, reveal: bool, timeout: float) -> Evaluator:
    from reflexion.evaluators.text import NormalizedMatch

    return NormalizedMatch(spec, reveal_answers=reveal)


def _f1(spec: str, argument: str, reveal: bool, timeout: float) -> Evaluator:
    from reflexion.evaluators.text import TokenF1

    return TokenF1(spec, threshold=_number(spec, argument, 0.8, 0.0, 1.0), reveal_answers=reveal)


def _contains(spec: str, argument: str, reveal: bool, timeout: float) -> Evaluator:
    from reflexion.evaluators.text import Contains

    return Contains(spec, reveal_answers=reveal)


def _numeric(spec: str, argument: str, reveal: bool, timeout: float) -> Evaluator:
    from reflexion.evaluators.text import Numeric

    tolerance = _number(spec, argument, 0.0, 0.0, 1e9) if argument else None
    return Numeric(spec, tolerance=tolerance, reveal_answers=reveal)


def _choice(spec: str, argument: str, reveal: bool, timeout: float) -> Evaluator:
    from reflexion.evaluators.text import Choice

    return Choice(spec, reveal_answers=reveal)


def _regex(spec: str, argument: str, reveal: bool, timeout: float) -> Evaluator:
    from reflexion.evaluators.forms import Regex

    return Regex(spec, reveal_answers=reveal)


def _json_schema(spec: str, argument: str, reveal: bool, timeout: float) -> Evaluator:
    from reflexion.evaluators.forms import JsonSchema

    return JsonSchema(spec, reveal_answers=reveal)


def _environment(spec: str, argument: str, reveal: bool, timeout: float) -> Evaluator:
    from reflexion.evaluators.environment import EnvironmentReward

    return EnvironmentReward(spec, threshold=_number(spec, argument, 1.0, 0.0, 1.0))


_BUILDERS: dict[str, Callable[[str, str, bool, float], Evaluator]] = {
    "exact": _exact,
    "em": _em,
    "f1": _f1,
    "contains": _contains,
    "numeric": _numeric,
    "choice": _choice,
    "regex": _regex,
    "json_schema": _json_schema,
    "environment": _environment,
}
