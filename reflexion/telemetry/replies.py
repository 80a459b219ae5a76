"""Counts replies that brought no answer: used up by the model's thinking, or empty."""

from __future__ import annotations

from pydantic import Field

from reflexion.errors import ReplyCutError
from reflexion.types import Episode, Frozen, Reflection, StepName, Trial

__all__ = ["ReplyCounter", "ReplyCounts"]

_CUT = ReplyCutError.__name__
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
    reflections: int = 0
    empty_reflections: int = Field(default=0, description="Reflections without a lesson: empty, cut or refused.")

    def lines(self) -> list[tuple[str, str]]:
        """What a person is told of it, as name and text; nothing where there is nothing to tell."""
        out: list[tuple[str, str]] = []
        used_up = sum(self.asked_again.values()) + sum(self.cut.values())
        if used_up:
            counts: list[tuple[StepName, int]] = [
                (step, self.asked_again.get(step, 0) + self.cut.get(step, 0)) for step in _STEPS
            ]
            where = ", ".join(f"{_NAMES[step]} {count}" for step, count in counts if count)
            left = sum(self.cut.values())
            got = "all were answered with more room" if not left else f"{left} stayed without an answer"
            options = ", ".join(_OPTIONS[step] for step in _STEPS if (self.cut or self.asked_again).get(step))
            many = "1 reply" if used_up == 1 else f"{used_up} replies"
            out.append(("Reasoning", f"used up {many} ({where}); {got}; raise {options}"))
        if self.empty_reflections:
            out.append(("Empty reflections", f"{self.empty_reflections} of {self.reflections}"))
        return out


class ReplyCounter:
    """Counts over a run's episodes."""

    def __init__(self) -> None:
        self._again: dict[StepName, int] = {}
        self._cut: dict[StepName, int] = {}
        self._reflections = self._empty = 0

    def add(self, episode: Episode) -> None:
        """Count one more episode; steps from the cache were told of by the run that computed them."""
        for step, output in episode.outputs():
            if output.cached:
                continue
            if output.retried and (again := output.retried.count(_CUT)):
                self._again[step] = self._again.get(step, 0) + again
            if not isinstance(output, Trial | Reflection):
                continue
            if output.error is not None and output.error.startswith(_CUT):
                self._cut[step] = self._cut.get(step, 0) + 1
            if isinstance(output, Reflection):
                self._reflections += 1
                self._empty += not output.text.strip()

    @property
    def total(self) -> ReplyCounts:
        """The counts."""
        return ReplyCounts(
            asked_again=self._again, cut=self._cut, reflections=self._reflections, empty_reflections=self._empty
        )
