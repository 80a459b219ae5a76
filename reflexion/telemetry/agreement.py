"""How far fallible verdicts agree with those that decide: visible tests, tests a model wrote, a judge.

Of the trials that have both verdicts, four shares are told. The first two are those of the paper's table 2
(Shinn et al. 2023), which divides by what the tests said; the other two divide by what is right:

| figure | of the trials whose | share that |
|---|---|---|
| false positives, P(wrong given passed) | tests pass | is wrong |
| false negatives, P(right given rejected) | tests fail | is right |
| wrong answers let through, P(passed given wrong) | answer is wrong | the tests pass |
| right answers rejected, P(rejected given right) | answer is right | the tests fail |

The paper's 16.3 % for MBPP and 1.4 % for HumanEval are false positives in this sense.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

from pydantic import Field, model_validator

from reflexion.types import Episode, Frozen

__all__ = ["Agreement", "AgreementRates", "Fallible", "verdicts"]

Fallible = Literal["visible_tests", "generated_tests", "judge"]
"""Verdicts that may be wrong, named after who gave them."""


class AgreementRates(Frozen):
    """A fallible verdict held against the one that decides; None: there is nothing to divide by."""

    trials: int = Field(description="Trials that have both verdicts.")
    agreement: float | None = Field(description="Share on which both agree.")
    false_positive_rate: float | None = Field(
        description="P(wrong | passed): share of wrong answers among those it lets pass (the paper's table 2)."
    )
    false_negative_rate: float | None = Field(
        description="P(right | rejected): share of right answers among those it rejects (the paper's table 2)."
    )
    wrong_let_through: float | None = Field(description="P(passed | wrong): share of the wrong answers it lets pass.")
    right_rejected: float | None = Field(description="P(rejected | right): share of the right answers it rejects.")

    @model_validator(mode="before")
    @classmethod
    def _of_older_summaries(cls, data: Any) -> Any:
        """Older summaries had the last two figures under the names of the first two, and these not at all."""
        if not isinstance(data, dict) or "wrong_let_through" in data:
            return data
        fields = cast("dict[str, Any]", data)
        renamed = {"false_positive_rate": "wrong_let_through", "false_negative_rate": "right_rejected"}
        moved = {renamed.get(name, name): value for name, value in fields.items()}
        return {"false_positive_rate": None, "false_negative_rate": None, **moved}


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
        """P(wrong | passed): share of wrong answers among those the fallible verdict lets pass."""
        return self._share((True, False), (True, True))

    @property
    def false_negatives(self) -> float | None:
        """P(right | rejected): share of right answers among those the fallible verdict rejects."""
        return self._share((False, True), (False, False))

    @property
    def wrong_let_through(self) -> float | None:
        """P(passed | wrong): share of the wrong answers that the fallible verdict lets pass."""
        return self._share((True, False), (False, False))

    @property
    def right_rejected(self) -> float | None:
        """P(rejected | right): share of the right answers that the fallible verdict rejects."""
        return self._share((False, True), (True, True))

    def _share(self, part: tuple[bool, bool], rest: tuple[bool, bool]) -> float | None:
        total = self.counts[part] + self.counts[rest]
        return self.counts[part] / total if total else None

    @property
    def rates(self) -> AgreementRates:
        """The same as figures of a run."""
        return AgreementRates(
            trials=self.total,
            agreement=self.rate,
            false_positive_rate=self.false_positives,
            false_negative_rate=self.false_negatives,
            wrong_let_through=self.wrong_let_through,
            right_rejected=self.right_rejected,
        )


def verdicts(episode: Episode) -> Iterator[tuple[Fallible, bool, bool]]:
    """Who gave a fallible verdict on a trial, what it was, and what it should have been."""
    for trial in episode.trials:
        verdict = trial.evaluation
        if verdict is None:
            continue
        alone = verdict.decided_by in ("visible_tests", "own_tests") or verdict.details.get("hidden") is False
        if verdict.visible_passed is not None and not alone:
            name: Fallible = "generated_tests" if "generated" in verdict.details else "visible_tests"
            yield name, verdict.visible_passed, verdict.passed
        reference = verdict.details.get("exact_match")  # noted by the judge where an answer is given
        if isinstance(reference, bool):
            yield "judge", verdict.passed, reference
