"""Counts replies that brought no answer: used up by the model's thinking, or empty."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from reflexion.errors import MalformedReplyError, ReplyCutError
from reflexion.types import Episode, Evaluation, Frozen, Reflection, StepName, Trial

__all__ = ["ReplyCounter", "ReplyCounts"]

_CUT = ReplyCutError.__name__
_MALFORMED = MalformedReplyError.__name__
_STEPS: tuple[StepName, ...] = ("trial", "reflect", "evaluate")
_OPTIONS: dict[StepName, str] = {
    "trial": "--max-completion-tokens",
    "reflect": "--reflection-max-tokens",
    "evaluate": "--judge-max-tokens",
}
_NAMES: dict[StepName, str] = {"trial": "trials", "reflect": "reflections", "evaluate": "verdicts"}


class ReplyCounts(Frozen):
    """Replies without an answer, of the steps a run computed itself."""

    asked_again: dict[StepName, int] = Field(
        default_factory=dict[StepName, int],
        description="By step: replies whose limit thinking used up, which were asked for again with more room.",
    )
    cut: dict[StepName, int] = Field(
        default_factory=dict[StepName, int], description="By step: those that were left without an answer all the same."
    )
    bare_thoughts: dict[StepName, int] = Field(
        default_factory=dict[StepName, int], description="By step: replies that were a thought and no answer to it."
    )
    reflections: int = 0
    empty_reflections: int = Field(default=0, description="Reflections without a lesson: empty, cut or refused.")

    def lines(self) -> list[tuple[str, str]]:
        """What a person is told of it, as name and text; nothing where there is nothing to tell."""
        out: list[tuple[str, str]] = []
        bare = sum(self.bare_thoughts.values())
        used_up = sum(self.asked_again.values()) + sum(self.cut.values())
        if used_up:
            where = _by_step({s: self.asked_again.get(s, 0) + self.cut.get(s, 0) for s in _STEPS})
            left = sum(self.cut.values())
            got = "all were answered with more room" if not left else f"{left} stayed without an answer"
            options = ", ".join(_OPTIONS[step] for step in _STEPS if (self.cut or self.asked_again).get(step))
            out.append(("Reasoning", f"used up {_replies(used_up)} ({where}); {got}; raise {options}"))
        if bare:
            out.append(("Thoughts alone", f"{_replies(bare)} without an answer ({_by_step(self.bare_thoughts)})"))
        if self.empty_reflections:
            out.append(("Empty reflections", f"{self.empty_reflections} of {self.reflections}"))
        return out


def _replies(count: int) -> str:
    return "1 reply" if count == 1 else f"{count} replies"


def _by_step(counts: Mapping[StepName, int]) -> str:
    return ", ".join(f"{_NAMES[step]} {counts[step]}" for step in _STEPS if counts.get(step))


class ReplyCounter:
    """Counts over a run's episodes."""

    def __init__(self) -> None:
        self._again: dict[StepName, int] = {}
        self._cut: dict[StepName, int] = {}
        self._bare: dict[StepName, int] = {}
        self._reflections = self._empty = 0

    def add(self, episode: Episode) -> None:
        """Count one more episode; steps from the cache were told of by the run that computed them."""
        for step, output in episode.outputs():
            if output.cached:
                continue
            again = output.retried.count(_CUT) if output.retried else 0
            if again and isinstance(output, Evaluation) and output.failure_class == _MALFORMED:
                again -= 1  # the last of them was all there was
                self._cut[step] = self._cut.get(step, 0) + 1
            if again:
                self._again[step] = self._again.get(step, 0) + again
            if not isinstance(output, Trial | Reflection):
                continue
            if output.error is not None and output.error.startswith(_CUT):
                self._cut[step] = self._cut.get(step, 0) + 1
            elif output.error is not None and output.error.startswith(_MALFORMED) and output.thought:
                self._bare[step] = self._bare.get(step, 0) + 1
            if isinstance(output, Reflection):
                self._reflections += 1
                self._empty += not output.text.strip()

    @property
    def total(self) -> ReplyCounts:
        """The counts."""
        return ReplyCounts(
            asked_again=self._again,
            cut=self._cut,
            bare_thoughts=self._bare,
            reflections=self._reflections,
            empty_reflections=self._empty,
        )
