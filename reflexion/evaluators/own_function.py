"""Your own function as an evaluator: `module:function`, or any callable, sync or async.

The function is called with the problem and the answer's text, or with as many of
`(problem, answer, trial)` as it has parameters of these names. It returns

- `bool`: passed or not,
- `float` from 0 to 1: the score, passed when it is 1,
- `str`: empty for passed, else the feedback,
- `dict`: fields of `Evaluation` (`passed` or `score` at least),
- `Evaluation`.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import ValidationError

from reflexion.errors import ConfigurationError, ReflexionError
from reflexion.evaluators.common import BaseEvaluator
from reflexion.types import Evaluation, Problem, Trial

__all__ = ["CallableEvaluator", "load_function", "wrap_callable"]

_PARAMETERS = ("problem", "answer", "trial")


class CallableEvaluator(BaseEvaluator):
    """Judges by a function; an exception in it is a failed evaluation with the traceback as feedback.

    Errors of this package (`ReflexionError`) pass through: they say that judging was impossible.
    """

    decider = "function"

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        super().__init__(name)
        self._function = function
        self._arguments = _argument_names(name, function)

    @property
    def config(self) -> dict[str, Any]:
        """Its name; such verdicts are not cached, since nobody knows what the function reads."""
        return {"name": self.name}

    def check(self, problem: Problem) -> str | None:
        """Any problem can be judged."""
        return None

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by the function's result; sync functions run in a thread."""
        values = {"problem": problem, "answer": trial.answer, "trial": trial}
        arguments = [values[name] for name in self._arguments]
        try:
            if inspect.iscoroutinefunction(self._function):
                result = await self._function(*arguments)
            else:
                result = await asyncio.to_thread(self._function, *arguments)
                if inspect.isawaitable(result):
                    result = await result
            return self._evaluation(result)
        except ReflexionError:
            raise
        except Exception as exc:  # noqa: BLE001 - someone else's code: whatever it raises is its verdict
            lines = traceback.format_exception(exc)
            return self.failed(f"The evaluator raised an exception.\n{''.join(lines[-4:])}", type(exc).__name__)

    def _evaluation(self, result: Any) -> Evaluation:
        if isinstance(result, Evaluation):
            return result
        if isinstance(result, bool):
            return self.passed() if result else self.failed("The answer is wrong.")
        if isinstance(result, int | float):
            score = float(result)
            if not 0 <= score <= 1:
                raise ValueError(f"the evaluator {self.name!r} returned the score {score}; it must be from 0 to 1")
            return self.passed() if score == 1 else self.failed(f"The answer scores {score:g} of 1.", score=score)
        if isinstance(result, str):
            return self.failed(result) if result else self.passed()
        if isinstance(result, Mapping):
            return self._from_fields(dict(cast("Mapping[str, Any]", result)))
        raise TypeError(
            f"the evaluator {self.name!r} returned {type(result).__name__}; "
            "it must return bool, float, str, dict or Evaluation"
        )

    def _from_fields(self, fields: dict[str, Any]) -> Evaluation:
        if "passed" not in fields and "score" not in fields:
            raise ValueError(f"the evaluator {self.name!r} returned a dict without 'passed' and 'score'")
        fields.setdefault("passed", fields.get("score") == 1)
        fields.setdefault("score", float(bool(fields["passed"])))
        if not fields["passed"]:
            fields.setdefault("failure_class", "WrongAnswer")
            fields.setdefault("feedback", "The answer is wrong.")
        try:
            return Evaluation.model_validate({"evaluator": self.name, "decided_by": self.decider, **fields})
        except ValidationError as exc:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
            raise ValueError(f"the evaluator {self.name!r} returned a dict that is no Evaluation: {wrong}") from None


def _argument_names(name: str, function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # a builtin without a signature
        return ("problem", "answer")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if positional and all(p.name in _PARAMETERS for p in positional):
        return tuple(p.name for p in positional)
    required = [p for p in positional if p.default is p.empty]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(required) > 2 or (len(positional) < 2 and not variadic):
        raise ConfigurationError(
            f"the evaluator {name!r} must take (problem, answer), or parameters named problem, answer or trial; "
            f"its parameters are ({', '.join(p.name for p in parameters)})"
        )
    return ("problem", "answer")


def wrap_callable(function: Callable[..., Any], name: str | None = None) -> CallableEvaluator:
    """An evaluator of a function; see the module's docstring for what it takes and returns.

    Raises:
        ConfigurationError: it is not callable, or its parameters do not fit.
    """
    if not callable(function):
        raise ConfigurationError(f"an evaluator must be a name, an Evaluator or a function, not {function!r}")
    shown = name or getattr(function, "__qualname__", type(function).__name__)
    return CallableEvaluator(shown, function)


def load_function(spec: str) -> Callable[..., Any]:
    """The function `module:function` names.

    Raises:
        ConfigurationError: the module cannot be imported, or has no such function.
    """
    from reflexion._imports import load_object

    found = load_object(spec, "the evaluator")
    if not callable(found):
        raise ConfigurationError(f"the evaluator {spec!r}: {spec.partition(':')[2]!r} is not a function")
    return found
