"""The figures of a run: counted step by step, percentiles exact to three digits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reflexion.telemetry.histogram import DurationHistogram
from reflexion.telemetry.summary import Summary, SummaryBuilder, is_cacheable
from reflexion.types import Episode, EpisodeError, Evaluation, Outcome, Reflection, Strategy, Trial, Usage


def trial(
    index: int,
    *,
    passed: bool,
    cached: bool = False,
    seconds: float = 1.0,
    reused: str | None = None,
    judge: bool = False,
    cost: float | None = 0.01,
) -> Trial:
    usage = Usage(prompt=100, completion=10, calls=1, cost_usd=cost)
    return Trial(
        index=index,
        answer="a",
        model="big",
        usage=usage,
        seconds=seconds,
        cached=cached,
        evaluation=Evaluation(
            evaluator="judge" if judge else "exact",
            passed=passed,
            score=float(passed),
            model="small" if judge else None,
            usage=usage if judge else Usage(),
            seconds=seconds if judge else 0.0,
            cached=cached and judge,
        ),
        reflection=None
        if passed
        else Reflection(
            trial=index,
            text="try harder",
            model="big",
            usage=Usage() if reused else usage,
            seconds=0.0 if reused else seconds,
            cached=cached,
            reused_from=reused,
            retried=("RateLimitError",),
            attempts=2,
        ),
    )


def episode(*trials: Trial, outcome: Outcome = Outcome.SOLVED, error: str | None = None) -> Episode:
    return Episode(
        problem_id="p",
        strategy=Strategy.REFLEXION,
        outcome=outcome,
        solved_at=trials[-1].index if outcome is Outcome.SOLVED else None,
        trials=trials,
        error=EpisodeError(step="trial", kind=error, message="it broke") if error else None,
    )


def build(*episodes: Episode, **changes: object) -> Summary:
    builder = SummaryBuilder()
    for each in episodes:
        builder.add(each)
    return builder.build(
        **{
            "run": "r",
            "dataset": "d",
            "llm": "m",
            "strategy": "reflexion",
            "max_trials": 3,
            "wall_seconds": 60.0,
            **changes,
        }
    )


def test_outcomes_and_the_learning_curve() -> None:
    summary = build(
        episode(trial(1, passed=True)),
        episode(trial(1, passed=False), trial(2, passed=True)),
        episode(*[trial(i, passed=False) for i in (1, 2, 3)], outcome=Outcome.FAILED),
        episode(outcome=Outcome.ERROR, error="EndpointError"),
        missing=1,
    )
    assert (summary.episodes, summary.solved, summary.failed, summary.errors, summary.not_run) == (5, 2, 1, 1, 1)
    assert summary.solved_by_trial == (1, 2, 2)
    assert summary.pass_rate == 0.4
    assert summary.episodes_per_minute == 4
    assert summary.errors_by_class == {"EndpointError": 1}
    # 6 trials, 6 evaluations and 4 reflections came to their end, one step did not.
    assert summary.error_rate == pytest.approx(1 / 17)


def test_cached_steps_are_no_calls_and_do_not_lower_response_times() -> None:
    summary = build(
        episode(trial(1, passed=False, seconds=2.0), trial(2, passed=True, seconds=4.0)),
        episode(trial(1, passed=False, cached=True, seconds=0.001), trial(2, passed=True, cached=True, seconds=0.001)),
    )
    assert summary.llm_calls == 3
    assert (summary.cached_steps, summary.executed_steps, summary.cache_hit_rate) == (3, 3, 0.5)
    assert summary.steps["reflect"].hit_rate == 0.5
    assert (summary.tokens.prompt, summary.tokens.completion, summary.tokens.saved) == (300, 30, 330)
    assert summary.cost_usd == pytest.approx(0.03)
    assert summary.cost_saved_usd == pytest.approx(0.03)
    assert summary.tokens_per_solved == 165
    assert summary.response_time.p50 == pytest.approx(2.0, rel=1e-3)
    assert summary.response_time.p99 == 4.0


def test_usage_is_told_by_role_and_model() -> None:
    summary = build(episode(trial(1, passed=False, judge=True), trial(2, passed=True, judge=True)))
    assert [(u.role, u.model, u.usage.calls) for u in summary.usage] == [
        ("actor", "big", 2),
        ("judge", "small", 2),
        ("reflector", "big", 1),
    ]
    assert summary.steps["evaluate"].executed == 2
    assert summary.retries_by_class == {"RateLimitError": 1}


def test_an_unknown_price_makes_the_cost_unknown() -> None:
    known, unknown = episode(trial(1, passed=True)), episode(trial(1, passed=True, cost=None))
    assert build(known, unknown).cost_usd is None
    assert build(known).cost_usd == 0.01


@pytest.mark.parametrize(
    ("change", "cacheable"),
    [
        ({}, False),
        ({"key": "0a1b"}, True),
        ({"cached": True}, True),
        ({"usage": Usage(calls=1)}, True),
        ({"evaluator": "python:in_process"}, True),
        ({"evaluator": "pythonic"}, False),
    ],
)
def test_verdicts_that_are_kept_in_the_cache_count_as_cacheable(change: dict[str, object], cacheable: bool) -> None:
    verdict = Evaluation(evaluator="exact", passed=True, score=1.0).model_copy(update=change)
    assert is_cacheable("evaluate", verdict) is cacheable
    one = trial(1, passed=True).model_copy(update={"evaluation": verdict})
    summary = build(episode(one))
    assert summary.executed_steps + summary.cached_steps == 1 + cacheable


def test_reused_reflections_are_compared_with_fresh_ones() -> None:
    lessons = build(
        episode(trial(1, passed=False, reused="k"), trial(2, passed=True)),
        episode(trial(1, passed=False, reused="k"), outcome=Outcome.FAILED),
        episode(trial(1, passed=False), trial(2, passed=True)),
        episode(trial(1, passed=True)),
    ).lessons
    assert (lessons.reused.episodes, lessons.reused.solved) == (2, 1)
    assert (lessons.fresh.episodes, lessons.fresh.solved) == (1, 1)


def test_an_empty_run_has_no_rates_and_divides_by_nothing() -> None:
    summary = build(wall_seconds=0.0)
    assert summary.pass_rate is None and summary.cache_hit_rate is None and summary.episodes_per_minute is None
    assert summary.response_time.p95 is None and summary.tokens_per_solved is None
    assert (summary.error_rate, summary.cost_usd, summary.solved_by_trial) == (0.0, 0.0, (0, 0, 0))
    assert Summary.model_validate_json(summary.model_dump_json()) == summary


@settings(deadline=None)  # another process may take the core
@given(st.lists(st.floats(1e-5, 10_000), min_size=1, max_size=200), st.sampled_from([50, 95, 99]))
def test_percentiles_are_exact_to_three_digits(seconds: list[float], percent: int) -> None:
    whole, left, right = DurationHistogram(), DurationHistogram(), DurationHistogram()
    for i, value in enumerate(seconds):
        whole.record(value)
        (left if i % 2 else right).record(value)
    left.merge(right)
    exact = sorted(seconds)[math.ceil(percent / 100 * len(seconds)) - 1]
    found = whole.percentile(percent)
    assert found is not None
    assert abs(found - exact) <= exact * 1e-3 + 1e-6
    assert left.percentile(percent) == found
    assert (left.count, left.maximum) == (len(seconds), max(seconds))


def test_durations_out_of_range_are_kept() -> None:
    histogram = DurationHistogram()
    for seconds in (-1.0, 0.0, 200_000.0):
        histogram.record(seconds)
    assert histogram.maximum == 200_000.0
    assert histogram.percentile(50) == pytest.approx(0.0, abs=1e-5)
    assert DurationHistogram().percentile(99) is None and DurationHistogram().mean is None
