"""The figures of a run: counted step by step, percentiles exact to three digits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reflexion.telemetry.error_words import in_short
from reflexion.telemetry.histogram import DurationHistogram
from reflexion.telemetry.summary import Summary, SummaryBuilder, UsageSum, is_cacheable
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


def priced(
    cost: float | None, *, calls: int = 1, unknown: int = 0, cached: int = 0, known: float | None = None
) -> Usage:
    told = calls - unknown
    return Usage(
        prompt=100 * told,
        completion=10 * told,
        calls=calls,
        unknown=unknown,
        cost_usd=cost,
        cached_prompt=cached,
        known_usd=known,
    )


@pytest.mark.parametrize(
    ("parts", "cost", "known"),
    [
        ([], 0.0, None),
        ([priced(0.25), priced(0.5)], 0.75, None),
        ([priced(0.25), priced(None, unknown=1)], None, 0.25),
        ([priced(None, unknown=1), priced(None)], None, None),
        ([priced(None, calls=3, unknown=1, known=0.5), priced(0.25)], None, 0.75),
        # A share of a call that several steps made together has tokens and no call of its own.
        ([priced(0.25), Usage(prompt=5, completion=1)], None, 0.25),
        ([priced(0.0), priced(None, unknown=1)], None, 0.0),
    ],
)
def test_a_running_sum_tells_what_is_known_of_a_cost(
    parts: list[Usage], cost: float | None, known: float | None
) -> None:
    running = UsageSum()
    for part in parts:
        running.add(part)
    assert (running.total.cost_usd, running.total.known_usd) == (cost, known)
    if parts:
        added = sum(parts, Usage())
        assert (added.cost_usd, added.known_usd) == (cost, known)


def test_prompt_tokens_that_the_endpoint_had_seen_and_calls_without_usage_are_counted() -> None:
    one = trial(1, passed=True).model_copy(update={"usage": priced(0.01, cached=64)})
    other = trial(1, passed=True).model_copy(update={"usage": priced(None, calls=2, unknown=2)})
    again = trial(1, passed=True, cached=True).model_copy(update={"usage": priced(None, unknown=1, known=0.02)})
    summary = build(*map(episode, (one, other, again)))
    assert (summary.tokens.prompt, summary.tokens.cached_prompt) == (100, 64)
    assert (summary.cost_usd, summary.cost_at_least_usd, summary.calls_without_usage) == (None, 0.01, 2)
    assert (summary.cost_saved_usd, summary.cost_saved_at_least_usd) == (None, 0.02)
    assert build(episode(one)).cost_at_least_usd is None
    (spent,) = summary.usage
    assert (spent.usage.cached_prompt, spent.usage.known_usd) == (64, 0.01)


def test_replies_without_an_answer_are_counted_by_step() -> None:
    cut = trial(1, passed=False).model_copy(update={"error": "ReplyCutError: 900 tokens", "answer": ""})
    lesson = Reflection(trial=2, text=" \n", error="empty", retried=("ReplyCutError",))
    found = build(episode(cut, trial(2, passed=False).model_copy(update={"reflection": lesson}), trial(3, passed=True)))
    assert (found.replies.cut, found.replies.asked_again) == ({"trial": 1}, {"reflect": 1})
    assert (found.replies.reflections, found.replies.empty_reflections) == (2, 1)
    assert [name for name, _ in found.replies.lines()] == ["Reasoning", "Empty reflections"]


def test_thoughts_alone_and_verdicts_that_were_cut_are_told() -> None:
    bare = {"error": "MalformedReplyError: a thought and no answer", "answer": "", "thought": "Hm."}
    unread = Evaluation(
        evaluator="judge", passed=False, score=0.0, failure_class="MalformedReplyError", retried=("ReplyCutError",) * 2
    )
    judged = trial(2, passed=False).model_copy(update={"evaluation": unread})
    found = build(episode(trial(1, passed=False).model_copy(update=bare), judged)).replies
    assert found.bare_thoughts == {"trial": 1}
    assert found.lines() == [
        ("Reasoning", "used up 2 replies (verdicts 2); 1 stayed without an answer; raise --judge-max-tokens"),
        ("Thoughts alone", "1 reply without an answer (trials 1)"),
    ]


def test_the_first_words_of_each_class_of_errors_are_kept() -> None:
    def ended(kind: str, message: str) -> Episode:
        error = EpisodeError(step="trial", kind=kind, message=message)
        return episode(outcome=Outcome.ERROR, error=kind).model_copy(update={"error": error})

    summary = build(
        ended("PermanentError", ""),
        ended("PermanentError", "no such\n\tmodel \x1b[2J\u202edrawer\x00"),
        ended("PermanentError", "another one"),
        *(ended(f"Error{n}", "long " * 100) for n in range(8)),
        ended("Silent", " "),
    )
    assert list(summary.errors_told) == ["PermanentError", "Error0", "Error1", "Error2", "Error3"]
    assert summary.errors_told["PermanentError"] == "no such model \\x1b[2J\\u202edrawer\\x00"
    assert len(summary.errors_told["Error0"]) <= 200 and summary.errors_told["Error0"].endswith("long…")
    assert summary.errors_by_class["PermanentError"] == 3 and len(summary.errors_by_class) == 10


@pytest.mark.parametrize("text", ["x" * 200, "x" * 201, "\x07" * 90, "é\U000e0041 " * 4000, " " * 2001 + "late"])
def test_a_text_in_short_is_one_printable_line(text: str) -> None:
    shown = in_short(text)
    assert len(shown) <= 200 and shown.isprintable()
    assert shown.endswith("…") is (text != "x" * 200)


def test_a_summary_from_before_these_figures_is_read() -> None:
    whole = build(episode(trial(1, passed=False), trial(2, passed=True, cost=None))).model_dump(mode="json")
    for name in ("cost_at_least_usd", "cost_saved_at_least_usd", "calls_without_usage", "errors_told", "replies"):
        del whole[name]
    del whole["tokens"]["cached_prompt"]
    for spent in whole["usage"]:
        del spent["usage"]["cached_prompt"], spent["usage"]["known_usd"]
    older = Summary.model_validate(whole)
    assert (older.cost_usd, older.cost_at_least_usd, older.calls_without_usage) == (None, None, 0)
    assert older.replies.lines() == [] and older.errors_told == {}
