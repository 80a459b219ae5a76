"""Fallible verdicts held against those that decide: four rates, each with its own denominator."""

from __future__ import annotations

import pytest

from reflexion.report import phrases
from reflexion.telemetry.agreement import Agreement, AgreementRates, Fallible, verdicts
from reflexion.types import Decider, Episode, Evaluation, Outcome, Strategy, Trial


def counted(both: int, let_through: int, refused: int, neither: int) -> Agreement:
    """Trials: passed and right, passed and wrong, rejected and right, rejected and wrong."""
    found = Agreement()
    for said, true, number in (
        (True, True, both),
        (True, False, let_through),
        (False, True, refused),
        (False, False, neither),
    ):
        for _ in range(number):
            found.add(said, true)
    return found


@pytest.mark.parametrize(
    ("cells", "positives", "negatives", "through", "rejected"),
    [
        # 60 + 20 pass: 20 / 80 of them are wrong. 5 + 15 are rejected: 5 / 20 of them are right.
        ((60, 20, 5, 15), 20 / 80, 5 / 20, 20 / 35, 5 / 65),
        ((3, 1, 0, 4), 1 / 4, 0.0, 1 / 5, 0.0),
        ((0, 2, 6, 0), 1.0, 1.0, 1.0, 1.0),
        ((4, 0, 0, 0), 0.0, None, None, 0.0),
        ((0, 0, 0, 3), None, 0.0, 0.0, None),
    ],
)
def test_rates_by_hand(
    cells: tuple[int, int, int, int],
    positives: float | None,
    negatives: float | None,
    through: float | None,
    rejected: float | None,
) -> None:
    rates = counted(*cells).rates
    assert (rates.false_positive_rate, rates.false_negative_rate) == (positives, negatives)
    assert (rates.wrong_let_through, rates.right_rejected) == (through, rejected)
    assert rates.trials == sum(cells) and rates.agreement == (cells[0] + cells[3]) / sum(cells)


def test_without_trials_there_are_no_rates() -> None:
    rates = Agreement().rates
    assert set(rates.model_dump(exclude={"trials"}).values()) == {None} and phrases.agreement(rates) == ""


def test_the_line_names_what_each_rate_is_of() -> None:
    assert phrases.agreement(counted(60, 20, 5, 15).rates) == (
        "right on 75.0% of 100 trials, false positives 25.0%, false negatives 25.0%, "
        "wrong answers let through 57.1%, right answers rejected 7.7%"
    )


def test_older_summaries_had_the_other_direction_under_the_same_names() -> None:
    older = '{"trials": 9, "agreement": 0.5, "false_positive_rate": 0.25, "false_negative_rate": null}'
    rates = AgreementRates.model_validate_json(older)
    assert (rates.false_positive_rate, rates.wrong_let_through) == (None, 0.25)
    assert (rates.false_negative_rate, rates.right_rejected) == (None, None)
    now = counted(3, 1, 2, 4).rates
    assert AgreementRates.model_validate_json(now.model_dump_json()) == now


@pytest.mark.parametrize(
    ("decider", "details", "named"),
    [
        ("hidden_tests", {}, {"visible_tests"}),
        ("hidden_tests", {"generated": ["assert twice(2) == 4"]}, {"generated_tests"}),
        (None, {}, {"visible_tests"}),
        ("visible_tests", {}, set()),
        ("own_tests", {"generated": ["assert twice(0) == 0"]}, set()),
        (None, {"hidden": False}, set()),
        ("judge", {"exact_match": True, "hidden": False}, {"judge"}),
    ],
)
def test_only_what_another_verdict_can_contradict_is_counted(
    decider: Decider | None, details: dict[str, object], named: set[Fallible]
) -> None:
    verdict = Evaluation.model_validate(
        {
            "evaluator": "e",
            "passed": False,
            "score": 0,
            "visible_passed": True,
            "decided_by": decider,
            "details": details,
        }
    )
    trials = (Trial(index=1, answer="a"), Trial(index=2, answer="b", evaluation=verdict))
    one = Episode(problem_id="p", strategy=Strategy.NONE, outcome=Outcome.FAILED, trials=trials)
    assert {name for name, _, _ in verdicts(one)} == named
