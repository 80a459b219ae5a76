"""Prompt templates, each with a digest that enters the cache keys.

Order matters for speed: what is constant comes first (the system text, then the problem), what
changes from trial to trial comes last, so that an endpoint's prefix cache serves most of a prompt.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Literal

from pydantic import Field

from reflexion.actors.act_prompts import ActPrompts, told_turns
from reflexion.keys import digest
from reflexion.llm.chat_model import Message
from reflexion.loop.prompt_budget import TokenBudget, trim_middle
from reflexion.loop.strategies import Past
from reflexion.types import Frozen, Problem, Trial

__all__ = ["DEFAULT_PROMPTS", "Kind", "Prompts", "kind_of"]

Kind = Literal["text", "python"]
"""What form of answer a problem wants."""


_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


def kind_of(problem: Problem) -> Kind:
    """Whether a problem wants Python code or text."""
    code = problem.tests or problem.visible_tests or problem.entry_point or problem.evaluator == "python"
    return "python" if code else "text"


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
    again: dict[Kind, str] = Field(
        default={
            "text": "Now give a better answer.",
            "python": "Now write the corrected function in one ```python block.",
        }
    )
    reflect_system: dict[Kind, str] = Field(
        default={
            "text": (
                "You reflect on a failed attempt at a problem, so that the next one succeeds. Do not give the "
                "answer itself."
            ),
            "python": "You reflect on a Python function that failed its tests, so that the next one passes. No code.",
        }
    )
    reflect: str = "Problem:\n{prompt}\n\nAnswer:\n{answer}\n\nFeedback: {feedback}"
    # What is asked stands at the end: small models lose sight of what they read hundreds of tokens ago.
    reflect_ask: str = "In one or two sentences: what is wrong, and what should be done instead?"
    act: ActPrompts = Field(default=ActPrompts(), description="Templates of the actor `react`.")
    feedback_limit: int = Field(default=1200, ge=100, description="Characters of feedback shown.")
    answer_limit: int = Field(default=4000, ge=100, description="Characters of an answer shown.")
    lesson_limit: int = Field(default=800, ge=100, description="Characters of one lesson shown.")

    @cached_property
    def trial_digest(self) -> str:
        """Digest of what shapes a trial's prompt."""
        return digest(self.model_dump(exclude={"reflect_system", "reflect", "reflect_ask", "act"}))[:16]

    @cached_property
    def reflect_digest(self) -> str:
        """Digest of what shapes a reflection's prompt."""
        limits = {"feedback_limit", "answer_limit", "lesson_limit"}
        return digest(self.model_dump(include={"reflect_system", "reflect", "reflect_ask", "lessons"} | limits))[:16]

    def question(self, problem: Problem, *, documents: bool = True) -> str:
        """The problem as the model sees it: its documents, its text, and the tests it may see."""
        text = problem.prompt
        if documents and problem.context:
            shown = "\n\n".join(f"{d.title}\n{d.text}" for d in problem.context)
            text = self.documents.format(documents=shown, prompt=text)
        if problem.visible_tests:
            tests = "\n".join(problem.visible_tests)
            text = self.visible_tests.format(prompt=text, tests=tests)
        return text

    def trial_messages(
        self,
        problem: Problem,
        past: Past,
        budget: TokenBudget | None = None,
        *,
        cot: bool = False,
        system: str | None = None,
        documents: bool = True,
        after: str = "",
        reserved: int = 0,
    ) -> tuple[Message, ...]:
        """The messages of a trial, within the budget if there is one.

        Args:
            cot: ask for steps before the answer.
            system: the system text, if not that of a plain answer.
            documents: show the problem's documents; a model that reads them with a tool does without.
            after: what stands at the very end.
            reserved: characters of the budget that other messages take.
        """
        kind = kind_of(problem)
        if system is None:
            system = self.cot_system if cot and kind == "text" else self.trial_system[kind]
        question = self.question(problem, documents=documents)
        lessons = [self._lesson(text) for text in past.lessons]
        texts = list(self._attempt(past.last)) if past.last is not None else []
        if budget is not None:
            fixed = len(system) + len(question) + len(after) + len(self.lessons) + len(self.last_attempt)
            fixed += len(self.again[kind]) + reserved + 10
            lessons, texts = budget.fit(fixed, lessons, texts)
        parts = [question]
        if texts:
            parts.append(self.last_attempt.format(answer=texts[0], feedback=texts[1]))
        if lessons:
            parts.append(self.lessons.format(lessons="\n".join(lessons)))
        if len(parts) > 1:
            parts.append(self.again[kind])
        if after:
            parts.append(after)
        return (Message(role="system", content=system), Message(role="user", content="\n\n".join(parts)))

    def reflect_messages(
        self, problem: Problem, past: Past, trial: Trial, budget: TokenBudget | None = None
    ) -> tuple[Message, ...]:
        """The messages of a reflection on a failed trial, within the budget if there is one."""
        system, question = self.reflect_system[kind_of(problem)], self.question(problem)
        lessons = [self._lesson(text) for text in past.lessons]
        texts = list(self._attempt(trial))
        if budget is not None:
            fixed = len(system) + len(question) + len(self.reflect) + len(self.lessons) + len(self.reflect_ask) + 6
            lessons, texts = budget.fit(fixed, lessons, texts)
        parts = [self.reflect.format(prompt=question, answer=texts[0], feedback=texts[1])]
        if lessons:
            parts.append(self.lessons.format(lessons="\n".join(lessons)))
        parts.append(self.reflect_ask)
        return (Message(role="system", content=system), Message(role="user", content="\n\n".join(parts)))

    def _lesson(self, text: str) -> str:
        """A lesson on one line, trimmed. A lesson is prose: code in it is another attempt, and often as wrong."""
        prose = _FENCED.sub(" ", text)
        kept = prose if prose.strip() else text
        return f"- {trim_middle(' '.join(kept.split()), self.lesson_limit)}"

    def _attempt(self, trial: Trial) -> tuple[str, str]:
        """The answer and the feedback of a trial, trimmed."""
        feedback = trial.evaluation.feedback if trial.evaluation is not None else ""
        # Of a trial in turns, what was done says more than what came of it.
        answer = told_turns(trial.trajectory) or trial.answer or trial.error or "(no answer)"
        return (
            trim_middle(answer, self.answer_limit),
            trim_middle(feedback, self.feedback_limit) or "The answer is wrong.",
        )


DEFAULT_PROMPTS = Prompts()
