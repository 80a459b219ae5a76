"""What decided to stop, what would have been handed in without it, and by whom answers were judged."""

from __future__ import annotations

from typing import Any

import pytest

from reflexion.report import phrases
from reflexion.report.statistics import pass_at_k_estimate, wilson
from reflexion.telemetry.deciders import Stopper, episode_stopper, handed_in
from reflexion.telemetry.summary import Summary, SummaryBuilder
from reflexion.types import Episode, EpisodeError, Evaluation, Outcome, Strategy, Trial


def verdict(passed: bool, decided_by: str | None = "hidden_tests", **more: Any) -> Evaluation:
    given = {"evaluator": "python", "passed": passed, "score": float(passed), "decided_by": decided_by, **more}
    return Evaluation.model_validate(given)


def episode(*verdicts: Evaluation | None, problem: str = "p", repeat: int = 0, error: str | None = None) -> Episode:
    """Trials with these verdicts; None: a trial that was not judged any more."""
    trials = tuple(
        Trial(index=n, answer="a", model="m", evaluation=found, error=found.failure_class if found else None)
        for n, found in enumerate(verdicts, 1)
    )
    solved = error is None and verdicts[-1] is not None and verdicts[-1].passed
    return Episode(
        problem_id=problem,
        repeat=repeat,
        strategy=Strategy.REFLEXION,
        outcome=Outcome.ERROR if error else Outcome.SOLVED if solved else Outcome.FAILED,
        solved_at=len(trials) if solved else None,
        trials=trials,
        error=EpisodeError(step="trial", kind=error, message="no") if error else None,
    )


def summarize(*episodes: Episode, missing: int = 0, max_trials: int = 3) -> Summary:
    builder = SummaryBuilder()
    for each in episodes:
        builder.add(each)
    return builder.build(
        run="r", dataset="d", llm="m", strategy="none", max_trials=max_trials, wall_seconds=1.0, missing=missing
    )


NO, YES = verdict(False), verdict(True)
OWN: dict[str, Any] = {"details": {"generated": ["assert f(1) == 1"]}}
NONE_WRITTEN: dict[str, Any] = {"details": {"generated": []}}


@pytest.mark.parametrize(
    ("last", "stopper"),
    [
        (verdict(True, "hidden_tests", visible_passed=True), "hidden_tests"),
        (verdict(True, "reference", evaluator="exact"), "reference"),
        (verdict(True, "visible_tests", visible_passed=True), "visible_tests"),
        (verdict(False, "hidden_tests", accepted=True, **OWN), "own_tests"),
        (verdict(False, "own_tests", accepted=False, **OWN), "own_tests"),
        (verdict(False, None, accepted=True), "own_tests"),
        (verdict(True, "hidden_tests", accepted=True, visible_passed=True, **NONE_WRITTEN), "visible_tests"),
        (verdict(True, "judge", evaluator="judge:3"), "judge"),
        (verdict(True, "judge", evaluator="judge", details={"exact_match": False}), "judge_with_reference"),
        (verdict(True, "environment", evaluator="environment"), "environment"),
        (verdict(True, "function", evaluator="mine:check"), "function"),
        (verdict(True, "function", evaluator="mine:check", accepted=False), "function"),
        (verdict(True, None), "not_on_record"),
    ],
)
def test_what_decides_is_read_off_the_verdict(last: Evaluation, stopper: Stopper) -> None:
    assert episode_stopper(episode(last)) == stopper


def test_a_trial_nobody_could_judge_does_not_tell_what_decides() -> None:
    cut = verdict(False, "hidden_tests", failure_class="RefusalError")
    assert episode_stopper(episode(verdict(False, "visible_tests", visible_passed=False), cut)) == "visible_tests"
    assert episode_stopper(episode(cut)) == "hidden_tests"
    unread = verdict(False, "judge", details={})
    shown = verdict(False, "judge", details={"exact_match": False})
    assert episode_stopper(episode(shown, unread)) == "judge_with_reference"


def test_errors_and_episodes_that_did_not_run_were_stopped_by_no_verdict() -> None:
    assert episode_stopper(episode(NO, None, error="EndpointError")) is None
    waiting = Episode(problem_id="p", strategy=Strategy.NONE, outcome=Outcome.NOT_RUN)
    assert episode_stopper(waiting) is None and handed_in(waiting) is False
    assert summarize(waiting, episode(NO, error="EndpointError")).stopped_by == {}


SEEN_NO, SEEN_YES = verdict(False, visible_passed=False), verdict(False, visible_passed=True)
CUT = verdict(False, failure_class="RefusalError")


@pytest.mark.parametrize(
    ("judged", "right"),
    [
        # Nothing but an oracle: nobody else would have told the agent to go on.
        ((YES,), True),
        ((NO, YES), False),
        ((verdict(False, "reference"), verdict(True, "reference")), False),
        ((verdict(False, "judge", details={"exact_match": False}), verdict(True, "judge")), False),
        # Visible tests: the first they accept, else the last.
        ((SEEN_NO, verdict(True, visible_passed=True)), True),
        ((SEEN_YES, verdict(True, visible_passed=True)), False),
        ((SEEN_NO, SEEN_YES, verdict(True, visible_passed=True)), False),
        ((SEEN_NO, SEEN_NO, SEEN_NO), False),
        ((SEEN_NO, verdict(True, visible_passed=False)), True),
        ((CUT, verdict(True, visible_passed=True)), True),
        # Tests of its own come before visible ones, and end the episode themselves.
        ((verdict(False, visible_passed=True, accepted=False, **OWN), verdict(True, accepted=True, **OWN)), True),
        ((verdict(True, accepted=False, **OWN), verdict(False, accepted=True, **OWN)), False),
        ((verdict(True, accepted=False, **OWN), verdict(True, accepted=False, **OWN)), True),
        # What decides without being an oracle is the agent's signal.
        ((verdict(False, "judge"), verdict(True, "judge")), True),
        ((verdict(False, "environment"), verdict(True, "environment")), True),
        ((verdict(False, "function"), verdict(True, "function")), True),
        # Older records: one trial, or a signal on record, is enough.
        ((verdict(True, None),), True),
        ((verdict(False, None, visible_passed=True), verdict(True, None, visible_passed=True)), False),
        ((verdict(False, None), verdict(True, None)), None),
    ],
)
def test_what_would_have_been_handed_in(judged: tuple[Evaluation, ...], right: bool | None) -> None:
    assert handed_in(episode(*judged)) is right


def test_the_rate_is_of_all_episodes_with_wilsons_interval() -> None:
    summary = summarize(
        episode(YES, problem="at-once"),
        episode(NO, YES, problem="told"),
        episode(SEEN_NO, verdict(True, visible_passed=True), problem="seen"),
        episode(NO, None, problem="broken", error="EndpointError"),
        missing=1,
    )
    assert (summary.solved, summary.episodes, summary.pass_rate) == (3, 5, 0.6)
    found = summary.handed_in
    assert found is not None and (found.solved, found.rate, found.not_on_record) == (2, 0.4, 0)
    assert found.interval == wilson(2, 5)
    assert found.interval.low == pytest.approx(0.1176, abs=1e-4)  # Wilson's score interval by hand
    assert found.interval.high == pytest.approx(0.7693, abs=1e-4)
    assert summary.stopped_by == {"hidden_tests": 3}


def test_repeats_are_clustered_by_problem_as_those_of_the_pass_rate() -> None:
    episodes = [
        episode(*judged, problem=problem, repeat=repeat)
        for problem, runs in {"a": [(YES,), (NO, YES)], "b": [(NO, YES), (NO, YES)], "c": [(YES,), (YES,)]}.items()
        for repeat, judged in enumerate(runs)
    ]
    summary = summarize(*episodes)
    assert summary.pass_rate == 1.0 and summary.handed_in is not None
    assert summary.handed_in.rate == 0.5
    assert summary.handed_in.interval == pass_at_k_estimate([(2, 1), (2, 0), (2, 2)], 1)


def test_what_is_not_on_record_gives_no_rate() -> None:
    summary = summarize(episode(verdict(False, None), verdict(True, None)), episode(YES))
    assert summary.handed_in is not None and summary.handed_in.rate is None
    assert summary.handed_in.not_on_record == 1 and phrases.handed_in(summary.handed_in) == "not on record"
    assert summary.stopped_by == {"hidden_tests": 1, "not_on_record": 1}


def test_an_older_summary_is_read_and_says_so() -> None:
    new = ("handed_in", "stopped_by", "verdicts", "ways", "retested", "unproven", "notes")
    older = summarize(episode(YES)).model_dump(mode="json", exclude=set(new))
    summary = Summary.model_validate(older)
    assert phrases.stopped_by(summary.stopped_by, 3) == phrases.handed_in(summary.handed_in) == "not on record"
    assert phrases.verdict_rows(summary) == [] and summary.notes == ()


def test_rows_judged_in_different_ways_are_counted_apart() -> None:
    summary = summarize(
        episode(NO, YES),
        episode(NO),
        episode(YES),
        episode(verdict(True, "visible_tests", visible_passed=True)),
        episode(verdict(False, "reference", evaluator="exact"), error="EndpointError"),
        Episode(problem_id="p", strategy=Strategy.NONE, outcome=Outcome.NOT_RUN),
    )
    assert [(r.evaluator, r.decided_by, r.episodes, r.solved, r.rate) for r in summary.verdicts] == [
        ("python", "hidden_tests", 3, 2, 2 / 3),
        ("exact", "reference", 1, 0, 0.0),
        ("python", "visible_tests", 1, 1, 1.0),
    ]
    assert phrases.verdict_rows(summary)[0] == ("Judged by", "python (hidden tests): 2 of 3 episodes solved, 66.7%")
    alone = summarize(episode(verdict(True, "reference", evaluator="exact")))
    assert phrases.verdict_rows(alone) == [("Judged by", "exact (reference)")]


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (("m", "m"), "judge (judged by the model itself)"),
        (("m", "other"), "judge (1 of 2 judged by the model itself)"),
        (("other", None), "judge"),
    ],
)
def test_a_model_that_judges_itself_is_named(models: tuple[str | None, ...], told: str) -> None:
    judged = [verdict(True, "judge", evaluator="judge", model=model) for model in models]
    assert phrases.verdict_rows(summarize(*map(episode, judged))) == [("Judged by", told)]


def test_where_tests_ran_and_doubtful_verdicts_are_counted() -> None:
    def ran(**details: Any) -> Evaluation:
        return verdict(False, details={"cpu_seconds": 0.1, **details})

    summary = summarize(
        episode(ran(), ran(in_process=True), ran(in_process=True, retested=True)),
        episode(ran(retested=True, unproven=True), verdict(False, details={"unproven": True})),
        episode(verdict(True, "reference", details={"unproven": False})),
    )
    assert summary.ways == {"apart": 2, "in_process": 2}
    assert (summary.retested, summary.unproven) == (2, 2)
    assert phrases.judging(summary) == [
        ("Tests ran", "apart from the solution 2, in the solution's own process 2 (verdicts)"),
        ("Judged again, alone", "2 verdicts"),
        ("Tests not proved before the run", "2 verdicts"),
    ]
    assert phrases.judging(summarize(episode(verdict(True, "reference")))) == []


def test_the_line_on_what_decided_to_stop() -> None:
    shown = [verdict(True, "visible_tests", visible_passed=True)] * 2 + [verdict(True, "judge")] + [YES] * 3
    counts = summarize(*map(episode, shown)).stopped_by
    assert phrases.stopped_by(counts, 2) == "hidden tests (oracle) 3, visible tests 2, a judge 1"
    assert phrases.stopped_by(counts, 1) == "nothing, there was one trial each"
