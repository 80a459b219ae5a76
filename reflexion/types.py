"""The words of the field as frozen, JSON-safe models.

A `Problem` is tried up to `max_trials` times. Each `Trial` gets an `Evaluation` and, when it failed
and another follows, a `Reflection`. All of it together is an `Episode` (Shinn et al. 2023, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from reflexion.keys import digest

__all__ = [
    "Decider",
    "Document",
    "Episode",
    "EpisodeError",
    "Evaluation",
    "Frozen",
    "Lesson",
    "Outcome",
    "Problem",
    "Reflection",
    "StepName",
    "Strategy",
    "Trial",
    "Usage",
]

StepName = Literal["trial", "evaluate", "reflect", "memorize"]
"""The four steps, in the order in which an episode takes them."""

Decider = Literal["hidden_tests", "reference", "visible_tests", "own_tests", "judge", "environment", "function"]
"""What reached a verdict. Hidden tests and a reference are oracles: an agent at work could not see them."""


class Frozen(BaseModel):
    """Base of all values that travel between steps: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields replaced, unchecked, as pydantic's own; a flat one at a tenth of its price.

        What was computed from the old values, such as digests, does not go along with new ones.
        """
        if deep:
            return super().model_copy(update=update, deep=True)
        copy = self.__class__.__new__(self.__class__)
        values, given = self.__dict__, self.__pydantic_fields_set__
        if update:
            values, given = {**values, **update}, {*given, *update}
            fields = self.__class__.__pydantic_fields__
            if len(values) > len(fields):
                values = {name: value for name, value in values.items() if name in fields}
        else:
            values, given = values.copy(), given.copy()
        # Frozen refuses assignment, and none of these classes has private or further fields.
        put = object.__setattr__
        put(copy, "__dict__", values)
        put(copy, "__pydantic_fields_set__", given)
        put(copy, "__pydantic_extra__", None)
        put(copy, "__pydantic_private__", None)
        return copy


class Strategy(StrEnum):
    """What a trial sees of the past (Shinn et al. 2023, section 4.2, named as in the authors' code)."""

    NONE = "none"
    LAST_ATTEMPT = "last_attempt"
    REFLEXION = "reflexion"
    LAST_ATTEMPT_AND_REFLEXION = "last_attempt_and_reflexion"

    @property
    def reflects(self) -> bool:
        """Whether failed trials are reflected upon."""
        return self in (Strategy.REFLEXION, Strategy.LAST_ATTEMPT_AND_REFLEXION)

    @property
    def shows_last_attempt(self) -> bool:
        """Whether a trial sees the answer and the feedback of the trial before it."""
        return self in (Strategy.LAST_ATTEMPT, Strategy.LAST_ATTEMPT_AND_REFLEXION)


class Document(Frozen):
    """A titled text that belongs to a question (HotpotQA's context paragraphs, for example)."""

    title: str
    text: str


class Problem(Frozen):
    """One item of a dataset.

    Two problems with the same content and different ids share cache entries: `id` and `metadata` are
    not part of a step's key.
    """

    id: str = Field(min_length=1, description="Unique within its dataset.")
    prompt: str = Field(min_length=1, description="What the model is asked.")
    answer: JsonValue = Field(default=None, description="Reference answer, or a list of accepted answers.")
    evaluator: str | None = Field(default=None, description="Evaluator for this problem; None: inferred.")
    tests: str | None = Field(default=None, description="Python code that decides the result; never shown.")
    visible_tests: tuple[str, ...] = Field(default=(), description="Asserts a model may see and reflect on.")
    entry_point: str | None = Field(default=None, description="Function the tests call.")
    context: tuple[Document, ...] = Field(default=(), description="Documents that belong to the question.")
    environment: str | dict[str, JsonValue] | None = Field(
        default=None, description="World the trial acts in: its name, or an object with `name` and settings."
    )
    metadata: dict[str, JsonValue] = Field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """What the model and the evaluator see: the part of the problem that enters cache keys."""
        return self.model_dump(mode="json", exclude={"id", "metadata"}, exclude_defaults=True)

    @cached_property
    def digest(self) -> str:
        """Digest of the content: equal for the same problem in every run and dataset."""
        return digest(self.content())


class Usage(Frozen):
    """Tokens of one or several LLM calls.

    `calls` counts LLM calls; `unknown` how many of them came back without usage figures.
    """

    prompt: int = 0
    completion: int = 0
    calls: int = 0
    unknown: int = 0
    cost_usd: float | None = Field(
        default=None, description="US dollars; None: a price is unknown, or a call told no usage."
    )
    cached_prompt: int = Field(default=0, description="Prompt tokens the endpoint had seen before, priced as such.")
    known_usd: float | None = Field(
        default=None, description="US dollars of the calls whose cost is known, where `cost_usd` is not."
    )

    def __eq__(self, other: object) -> bool:
        # Compared for each step whenever an episode is written; pydantic's own way costs ten times as much.
        return vars(self) == vars(other) if isinstance(other, Usage) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    @property
    def total(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt + self.completion

    @property
    def at_least_usd(self) -> float | None:
        """US dollars spent at the least; None: of no call the cost is known."""
        return self.known_usd if self.cost_usd is None else self.cost_usd

    def __add__(self, other: Usage) -> Usage:
        # A share of a call that several steps made together has tokens and no call of its own.
        costs = [u.cost_usd for u in (self, other) if u.calls or u.total]
        known = [c for c in costs if c is not None]
        complete = bool(known) and len(known) == len(costs)
        parts = [] if complete else [p for p in (self.at_least_usd, other.at_least_usd) if p is not None]
        return Usage(
            prompt=self.prompt + other.prompt,
            completion=self.completion + other.completion,
            calls=self.calls + other.calls,
            unknown=self.unknown + other.unknown,
            # A sum with an unknown part is unknown, never too small.
            cost_usd=sum(known) if complete else None,
            cached_prompt=self.cached_prompt + other.cached_prompt,
            known_usd=sum(parts) if parts else None,
        )


class StepOutput(Frozen):
    """What every LLM-backed step tells of itself."""

    model: str | None = Field(default=None, description="Model that answered, if one was asked.")
    usage: Usage = Field(default=Usage(), description="What computing it cost, also when it was cached.")
    seconds: float = Field(default=0.0, description="Wall time of the computation, also when it was cached.")
    attempts: int = Field(default=1, description="LLM requests made, retries included.")
    retried: tuple[str, ...] = Field(default=(), description="Classes of the errors that were retried.")
    cached: bool = Field(default=False, description="Whether it came from the cache in this run.")
    key: str | None = Field(default=None, description="Its cache key, if it is of a kind that is cached.")


class Evaluation(StepOutput):
    """The verdict on one trial.

    `feedback` is what a reflection may build on; it does not leak the reference answer unless asked.
    `accepted` differs from `passed` where the agent judges itself, by tests it wrote: it decides whether there
    is another trial, and `passed` whether the last one solved the problem.
    """

    evaluator: str
    passed: bool
    score: float = Field(ge=0.0, le=1.0)
    feedback: str = ""
    failure_class: str | None = Field(default=None, description="Short class of the failure, e.g. `AssertionError`.")
    visible_passed: bool | None = Field(default=None, description="Verdict of the visible tests alone, if any.")
    accepted: bool | None = Field(
        default=None, description="Whether the agent itself takes the answer for right; None: as `passed`."
    )
    uncertain: bool = Field(
        default=False, description="Whether the machine, not the answer, may be to blame: not cached."
    )
    decided_by: Decider | None = Field(default=None, description="What reached the verdict; None: an older record.")
    details: dict[str, JsonValue] = Field(default_factory=dict)


class Reflection(StepOutput):
    """The lesson drawn from a failed trial."""

    trial: int = Field(ge=1)
    text: str = Field(description="The lesson; empty where the model gave none.")
    thought: str = Field(default="", description="What the model thought before it answered; shown, never fed back.")
    error: str | None = Field(default=None, description="Why there is no lesson (empty, cut, refused).")
    reused_from: str | None = Field(default=None, description="Key of the similar failure it was taken from.")
    similarity: float | None = Field(default=None, description="Similarity to that failure, 0 to 1.")


class Trial(StepOutput):
    """One attempt at a problem, with what came of it."""

    index: int = Field(ge=1, description="1 for the first trial.")
    answer: str
    thought: str = Field(default="", description="What the model thought before it answered; shown, never fed back.")
    trajectory: tuple[dict[str, JsonValue], ...] = Field(default=(), description="Turns of an acting agent.")
    finish_reason: str | None = None
    error: str | None = Field(default=None, description="Why there is no usable answer (malformed, cut, refused).")
    lessons: tuple[str, ...] = Field(default=(), description="Texts of the lessons it saw, best first.")
    evaluation: Evaluation | None = None
    reflection: Reflection | None = None


class Lesson(Frozen):
    """An entry of the episodic memory: a reflection and where it came from.

    `key` makes memorizing idempotent: the same step of the same episode writes the same key.
    """

    key: str
    problem: str = Field(description="Digest of the problem's content, the same in every run.")
    episode: str = Field(description="Run, problem and repeat it was learned in.")
    run: str = ""
    trial: int = Field(ge=1)
    text: str
    prompt: str = Field(default="", description="The problem's text, for finding similar problems.")
    feedback: str = Field(default="", description="The failure it was learned from.")
    evaluator: str = ""
    failure_class: str | None = None
    created: float = Field(default=0.0, description="Unix time in seconds.")
    uses: int = Field(default=0, description="Trials that saw it.")
    wins: int = Field(default=0, description="Trials that saw it and passed.")


class Outcome(StrEnum):
    """How an episode ended."""

    SOLVED = "solved"
    FAILED = "failed"
    ERROR = "error"
    NOT_RUN = "not_run"


class EpisodeError(Frozen):
    """Why an episode could not be carried to its end."""

    step: str
    kind: str = Field(description="Class of the error, e.g. `RateLimitError`.")
    message: str
    fatal: bool = Field(default=False, description="Whether every other episode would fail in the same way.")


class Episode(Frozen):
    """All trials of one problem, and how it ended."""

    problem_id: str
    repeat: int = 0
    strategy: Strategy
    outcome: Outcome
    solved_at: int | None = Field(default=None, description="Index of the trial that passed.")
    trials: tuple[Trial, ...] = ()
    error: EpisodeError | None = None
    seconds: float = Field(default=0.0, description="Wall time of the episode in this run.")
    lost: Usage = Field(
        default=Usage(), description="Spent by this run on earlier attempts at it whose steps were computed again."
    )

    @property
    def solved(self) -> bool:
        """Whether a trial passed."""
        return self.outcome is Outcome.SOLVED

    @property
    def answer(self) -> str | None:
        """The answer of the last trial, the passing one if the episode was solved."""
        return self.trials[-1].answer if self.trials else None

    @property
    def reflections(self) -> tuple[Reflection, ...]:
        """The reflections, in the order in which they were drawn."""
        return tuple(t.reflection for t in self.trials if t.reflection is not None)

    def outputs(self) -> list[tuple[StepName, StepOutput]]:
        """Every step's output in order: what figures are computed from."""
        out: list[tuple[StepName, StepOutput]] = []
        for trial in self.trials:
            out.append(("trial", trial))
            if trial.evaluation is not None:
                out.append(("evaluate", trial.evaluation))
            if trial.reflection is not None:
                out.append(("reflect", trial.reflection))
        return out

    @property
    def usage(self) -> Usage:
        """Tokens spent in this run: steps answered from the cache are not counted."""
        return sum((o.usage for _, o in self.outputs() if not o.cached), self.lost)

    @property
    def saved(self) -> Usage:
        """Tokens the cache saved in this run."""
        return sum((o.usage for _, o in self.outputs() if o.cached), Usage())
