"""How far fallible verdicts agree with those that decide: visible tests, tests a model wrote, a judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from reflexion.types import Episode, Frozen

__all__ = ["Agreement", "AgreementRates", "Fallible", "verdicts"]

Fallible = Literal["visible_tests", "generated_tests", "judge"]
"""Verdicts that may be wrong, named after who gave them."""


class AgreementRates(Frozen):
    """A fallible verdict held against the one that decides."""

    trials: int = Field(description="Trials that have both verdicts.")
    agreement: float | None = Field(description="Share on which both agree.")
    false_positive_rate: float | None = Field(description="Share of the wrong answers that it lets pass.")
    false_negative_rate: float | None = Field(description="Share of the right answers that it rejects.")


class Agreement:
    """Counts of two verdicts on the same trials: a fallible one and the one that decides."""

    def __init__(self) -> None:
        self.counts = {(said, true): 0 for said in (True, False) for true in (True, False)}

    def add(self, said: bool, true: bool) -> None:
        """Count one trial."""
        self.counts[said, true] += 1

    @property
    def total(self) -> int:
        """Trials that have both verdicts."""
        return sum(self.counts.values())

    @property
    def rate(self) -> float | None:
        """Share on which both agree."""
        return (self.counts[True, True] + self.counts[False, False]) / self.total if self.total else None

    @property
    def false_positives(self) -> float | None:
        """Share of the wrong answers that the fallible verdict lets pass (Shinn et al. 2023, table 2)."""
        wrong = self.counts[True, False] + self.counts[False, False]
        return self.counts[True, False] / wrong if wrong else None

    @property
    def false_negatives(self) -> float | None:
        """Share of the right answers that the fallible verdict rejects."""
        right = self.counts[True, True] + self.counts[False, True]
        return self.counts[False, True] / right if right else None

    @property
    def rates(self) -> AgreementRates:
        """The same as figures of a run."""
        return AgreementRates(
            trials=self.total,
            agreement=self.rate,
            false_positive_rate=self.false_positives,
            false_negative_rate=self.false_negatives,
        )


def verdicts(episode: Episode) -> Iterator[tuple[Fallible, bool, bool]]:
    """Who gave a fallible verdict on a trial, what it was, and what it should have been."""
    for trial in episode.trials:
        verdict = trial.evaluation
        if verdict is None:
            continue
        if verdict.visible_passed is not None and verdict.details.get("hidden", True):
            name: Fallible = "generated_tests" if "generated" in verdict.details else "visible_tests"
            yield name, verdict.visible_passed, verdict.passed
        reference = verdict.details.get("exact_match")  # noted by the judge where an answer is given
        if isinstance(reference, bool):
            yield "judge", verdict.passed, reference
