"""Prompt templates, each with a digest that enters the cache keys.

Order matters for speed: what is constant comes first (the system text, then the problem), what
changes from trial to trial comes last, so that an endpoint's prefix cache serves most of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from pydantic import Field

from reflexion.keys import digest
from reflexion.llm.base import Message
from reflexion.strategies import Past
from reflexion.types import Frozen, Problem, Trial

__all__ = ["DEFAULT_PROMPTS", "Kind", "Prompts", "kind_of", "trim_middle"]

Kind = Literal["text", "python"]
"""What form of answer a problem wants."""


def kind_of(problem: Problem) -> Kind:
    """Whether a problem wants Python code or text."""
    code = problem.tests or problem.visible_tests or problem.evaluator == "python"
    return "python" if code else "text"


def trim_middle(text: str, limit: int) -> str:
    """At most `limit` characters of a text, cut in the middle: errors tell most at both ends."""
    if len(text) <= limit:
        return text
    mark = "\n[…]\n"
    keep = max(0, limit - len(mark))
    head = keep - keep // 2
    return text[:head] + mark + text[len(text) - keep // 2 :] if keep else text[:limit]


class Prompts(Frozen):
    """All templates. Change one and only the steps that use it are computed again."""

    trial_system: dict[Kind, str] = Field(
        default={
            "text": "Solve the problem. Give only the final answer, as short as possible.",
            "python": "You write Python. Answer with the complete function in one ```python block.",
        }
    )
    cot_system: str = (
        "Solve the problem step by step. End with a line `Answer: ` and the final answer, as short as possible."
    )
    documents: str = "Documents:\n{documents}\n\nQuestion: {prompt}"
    visible_tests: str = "{prompt}\n\nIt must pass:\n{tests}"
    last_attempt: str = "Your previous answer was wrong:\n{answer}\n\nFeedback: {feedback}"
    lessons: str = "Lessons from earlier attempts:\n{lessons}"
    again: str = "Now give a better answer."
    reflect_system: dict[Kind, str] = Field(
        default={
            "text": (
                "You failed to solve a problem. Reflect: say in one or two sentences what went wrong and what "
                "to do differently. Do not give the answer itself."
            ),
            "python": (
                "Your Python function failed its tests. Reflect: say in one or two sentences what is wrong in "
                "the code and how to change it."
            ),
        }
    )
    reflect: str = "Problem:\n{prompt}\n\nAnswer:\n{answer}\n\nFeedback: {feedback}"
    feedback_limit: int = Field(default=1200, ge=100, description="Characters of feedback shown.")
    answer_limit: int = Field(default=4000, ge=100, description="Characters of an answer shown.")
    lesson_limit: int = Field(default=800, ge=100, description="Characters of one lesson shown.")

    @cached_property
    def trial_digest(self) -> str:
        """Digest of what shapes a trial's prompt."""
        return digest(self.model_dump(exclude={"reflect_system", "reflect"}))[:16]

    @cached_property
    def reflect_digest(self) -> str:
        """Digest of what shapes a reflection's prompt."""
        shapes = {"reflect_system", "reflect", "lessons", "feedback_limit", "answer_limit", "lesson_limit"}
        return digest(self.model_dump(include=shapes))[:16]

    def question(self, problem: Problem) -> str:
        """The problem as the model sees it: its documents, its text, and the tests it may see."""
        text = problem.prompt
        if problem.context:
            documents = "\n\n".join(f"{d.title}\n{d.text}" for d in problem.context)
            text = self.documents.format(documents=documents, prompt=text)
        if problem.visible_tests:
            tests = "\n".join(problem.visible_tests)
            text = self.visible_tests.format(prompt=text, tests=tests)
        return text

    def trial_messages(self, problem: Problem, past: Past, *, cot: bool = False) -> tuple[Message, ...]:
        """The messages of a trial."""
        parts = [self.question(problem)]
        if past.last is not None:
            parts.append(self.last_attempt.format(**self._attempt(past.last)))
        if past.lessons:
            parts.append(self.lessons.format(lessons=self.lesson_list(past.lessons)))
        if len(parts) > 1:
            parts.append(self.again)
        system = self.cot_system if cot and kind_of(problem) == "text" else self.trial_system[kind_of(problem)]
        return (Message(role="system", content=system), Message(role="user", content="\n\n".join(parts)))

    def reflect_messages(self, problem: Problem, past: Past, trial: Trial) -> tuple[Message, ...]:
        """The messages of a reflection on a failed trial."""
        parts = [self.reflect.format(prompt=self.question(problem), **self._attempt(trial))]
        if past.lessons:
            parts.append(self.lessons.format(lessons=self.lesson_list(past.lessons)))
        return (
            Message(role="system", content=self.reflect_system[kind_of(problem)]),
            Message(role="user", content="\n\n".join(parts)),
        )

    def lesson_list(self, lessons: Sequence[str]) -> str:
        """Lessons as a list, each on its own line and trimmed."""
        return "\n".join(f"- {trim_middle(' '.join(text.split()), self.lesson_limit)}" for text in lessons)

    def _attempt(self, trial: Trial) -> dict[str, str]:
        feedback = trial.evaluation.feedback if trial.evaluation is not None else ""
        return {
            "answer": trim_middle(trial.answer or trial.error or "(no answer)", self.answer_limit),
            "feedback": trim_middle(feedback, self.feedback_limit) or "The answer is wrong.",
        }


DEFAULT_PROMPTS = Prompts()
