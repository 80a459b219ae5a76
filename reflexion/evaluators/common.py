"""What all evaluators share: replies without a usable answer, references, and wording of feedback."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from typing import Any

from pydantic import JsonValue

from reflexion.types import Decider, Evaluation, Problem, Trial

__all__ = ["BaseEvaluator", "accepted_answers", "needs_answer", "quoted"]

_CUT = "The reply was cut off at its token limit: answer more briefly."


def accepted_answers(problem: Problem) -> tuple[str, ...]:
    """The reference answers of a problem as texts; a list means that any of its items is right."""
    given = problem.answer
    values = given if isinstance(given, list) else [given]
    return tuple(_text(v) for v in values if v is not None)


def _text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def needs_answer(problem: Problem, evaluator: str) -> str | None:
    """Why a problem cannot be judged against a reference, or None."""
    if not accepted_answers(problem):
        return f"field 'answer' is missing, which the evaluator {evaluator!r} compares with"
    return None


def quoted(text: str, limit: int = 200) -> str:
    """A text in quotation marks on one line, cut to `limit` characters."""
    line = " ".join(text.split())
    return repr(line if len(line) <= limit else line[: limit - 1] + "…")


class BaseEvaluator(ABC):
    """An evaluator whose subclasses judge usable answers only.

    Args:
        name: as given to `--evaluator`.
        reveal_answers: whether feedback may show the reference answer.
    """

    expensive = False
    decider: Decider = "reference"
    """What reaches its verdicts, where one does not say otherwise."""

    def __init__(self, name: str, *, reveal_answers: bool = False) -> None:
        self._name = name
        self._reveal = reveal_answers

    @property
    def name(self) -> str:
        """Name as given to `--evaluator`."""
        return self._name

    @property
    def config(self) -> dict[str, Any]:
        """What changes its verdicts: part of the step's cache key."""
        return {"name": self._name, "reveal_answers": self._reveal}

    def check(self, problem: Problem) -> str | None:
        """Why this problem cannot be judged by it, or None."""
        return needs_answer(problem, self._name)

    async def evaluate(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge one trial; one without a usable answer has failed."""
        started = time.perf_counter()
        if trial.error is not None:
            kind = trial.error.partition(":")[0]
            evaluation = self.failed(
                f"There is no usable answer. {trial.error}", kind if kind.isidentifier() else "NoAnswer"
            )
        elif not trial.answer.strip():
            evaluation = self.failed("The reply is empty.", "EmptyAnswer")
        else:
            evaluation = await self.judge(problem, trial)
        update: dict[str, Any] = {"seconds": time.perf_counter() - started}
        if trial.finish_reason == "length" and not evaluation.passed:
            update["feedback"] = f"{evaluation.feedback} {_CUT}".strip()
            update["failure_class"] = "CutOff"
        return evaluation.model_copy(update=update)

    @abstractmethod
    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge a trial that has an answer."""

    def passed(self, score: float = 1.0, **more: Any) -> Evaluation:
        """The verdict on a right answer."""
        more.setdefault("decided_by", self.decider)
        return Evaluation(evaluator=self._name, passed=True, score=score, **more)

    def failed(self, feedback: str, failure_class: str = "WrongAnswer", score: float = 0.0, **more: Any) -> Evaluation:
        """The verdict on a wrong answer."""
        more.setdefault("decided_by", self.decider)
        return Evaluation(
            evaluator=self._name, passed=False, score=score, feedback=feedback, failure_class=failure_class, **more
        )

    def wrong(self, problem: Problem, feedback: str, score: float = 0.0) -> Evaluation:
        """The verdict on an answer that differs from the reference, which is shown only if that is wanted."""
        if self._reveal:
            answers = " or ".join(quoted(a) for a in accepted_answers(problem))
            feedback = f"{feedback} The right answer is {answers}."
        return self.failed(feedback, score=score)
