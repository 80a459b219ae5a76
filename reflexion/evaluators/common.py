"""What all evaluators share: replies without a usable answer, references, and wording of feedback."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from pydantic import JsonValue

from reflexion.loop.thought import split_thought
from reflexion.types import Decider, Evaluation, Problem, Trial

__all__ = ["BaseEvaluator", "accepted_answers", "needs_answer", "quoted", "references"]

_CUT = "The reply was cut off at its token limit: answer more briefly."
_THOUGHT_ONLY = "The reply was cut off within its thoughts: it holds no answer."
_MANY = ("aliases", "text", "texts", "spans", "answers", "short_answers", "normalized_aliases")
"""Fields in which published data sets keep several accepted answers of one question."""
_ONE = ("value", "number", "answer")
_BESIDE = ("answer_start", "type", "matched_wiki_entity_name", "normalized_value", "date", "hit_id", "worker_id")
_BESIDE_SPANS = ("normalized_matched_wiki_entity_name", "input_text", "span_start", "span_end", "answer_id")
_KNOWN = frozenset((*_MANY, *_ONE, *_BESIDE, *_BESIDE_SPANS))


def references(problem: Problem) -> tuple[JsonValue, ...]:
    """The reference answers of a problem, each as what it is; any of them is right.

    They are the items of a list, or what data sets such as TriviaQA (`{"value": …, "aliases": […]}`), SQuAD
    (`{"text": […], "answer_start": […]}`) and DROP keep in an object. Empty ones are left out.
    """
    found: dict[str, JsonValue] = {}
    for value in _flat(problem.answer):
        found.setdefault(f"{type(value).__name__}:{_text(value)}", value)
    return tuple(found.values())


def _flat(value: JsonValue, depth: int = 0) -> Iterator[JsonValue]:
    if value is None or value in ("", [], {}) or (isinstance(value, str) and not value.strip()):
        return
    if isinstance(value, list) and depth < 3:
        for item in value:
            yield from _flat(item, depth + 1)
    elif isinstance(value, dict) and value.keys() <= _KNOWN and (value.keys() & {*_MANY, *_ONE}):
        for name in (*_ONE, *_MANY):
            if name in value:
                yield from _flat(value[name], depth + 1)
    else:
        yield value


def accepted_answers(problem: Problem) -> tuple[str, ...]:
    """The reference answers of a problem as texts; any of them is right."""
    return tuple(dict.fromkeys(_text(v) for v in references(problem)))


def _text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def needs_answer(problem: Problem, evaluator: str) -> str | None:
    """Why a problem cannot be judged against a reference, or None."""
    if references(problem):
        return None
    if problem.answer is None:
        return f"field 'answer' is missing, which the evaluator {evaluator!r} compares with"
    shown = quoted(json.dumps(problem.answer, ensure_ascii=False), 40)
    return (
        f"field 'answer' is empty ({shown}), so that no reply can be right: give the right answer, "
        "or leave the field out to have a model judge"
    )


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
    rules = 3
    """Version of how it reads and compares: raised with them, so that no older verdict is taken from a cache."""

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
        return {"name": self._name, "reveal_answers": self._reveal, "rules": self.rules}

    def check(self, problem: Problem) -> str | None:
        """Why this problem cannot be judged by it, or None."""
        return needs_answer(problem, self._name)

    async def evaluate(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge one trial by the answer part of its reply; one without a usable answer has failed."""
        started = time.perf_counter()
        reply = split_thought(trial.answer)
        if trial.error is not None:
            kind = trial.error.partition(":")[0]
            evaluation = self.failed(
                f"There is no usable answer. {trial.error}", kind if kind.isidentifier() else "NoAnswer"
            )
        elif reply.cut:
            evaluation = self.failed(_THOUGHT_ONLY, "NoAnswer")
        elif not reply.answer.strip():
            empty = "The reply holds thoughts only, and no answer." if reply.thought else "The reply is empty."
            evaluation = self.failed(empty, "EmptyAnswer")
        else:
            evaluation = await self.judge(problem, trial.model_copy(update={"answer": reply.answer}))
        update: dict[str, Any] = {"seconds": time.perf_counter() - started}
        if trial.finish_reason == "length" and not evaluation.passed:
            update["feedback"] = f"{evaluation.feedback} {_CUT}".strip()
            update["failure_class"] = "CutOff"
        return evaluation.model_copy(update=update)

    @abstractmethod
    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge a trial that has an answer; what the model thought aloud is no part of it."""

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
