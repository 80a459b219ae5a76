"""What a task run's record tells of its steps, written and read back."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexion.tasks.step_records import (
    CACHED,
    COMPLETED,
    JUDGED_BY_MODEL,
    MESSAGE_LIMIT,
    FlowNote,
    StepRecord,
    item_size,
    read_message,
    read_task_run,
    step_of,
    write_message,
)
from reflexion.telemetry.deciders import stopper_of
from reflexion.types import Decider, Evaluation, Reflection, StepOutput, Trial, Usage

BEGAN, ENDED = "2026-01-02T03:04:05.000000Z", "2026-01-02T03:04:07.500000Z"


def read(message: str) -> list[StepRecord]:
    told = read_message(message)
    assert told is not None
    return list(told[0])


def figures(output: StepOutput | None) -> tuple[Any, ...] | None:
    if output is None:
        return None
    more: tuple[Any, ...] = ()
    if isinstance(output, Evaluation):
        more = (output.evaluator, output.passed)
    if isinstance(output, Reflection):
        more = (output.reused_from is not None,)
    return (type(output), output.usage, output.seconds, output.retried, output.cached, *more)


usages = st.builds(
    Usage,
    prompt=st.integers(0, 10**6),
    completion=st.integers(0, 10**6),
    calls=st.integers(1, 3),
    unknown=st.integers(0, 1),
    cached_prompt=st.integers(0, 10**6),
    cost_usd=st.none() | st.integers(0, 10**6).map(lambda n: n / 10**6),
    known_usd=st.none() | st.integers(1, 10**6).map(lambda n: n / 10**6),
)
common = {
    "usage": usages,
    "seconds": st.integers(0, 10**6).map(lambda n: n / 10**4),
    "retried": st.lists(st.sampled_from(["RateLimitError", "EndpointError"]), max_size=3).map(tuple),
    "cached": st.booleans(),
}
outputs = st.one_of(
    st.tuples(st.just("trial"), st.builds(Trial, index=st.just(1), answer=st.just("42"), **common)),
    st.tuples(
        st.just("evaluate"),
        st.builds(
            Evaluation,
            evaluator=st.just("judge"),
            passed=st.booleans(),
            score=st.just(0.0),
            decided_by=st.none() | st.sampled_from(get_args(Decider)),
            accepted=st.none() | st.booleans(),
            details=st.sampled_from([{}, {"exact_match": True}, {"generated": []}]),
            **common,
        ),
    ),
    st.tuples(
        st.just("reflect"),
        st.builds(Reflection, trial=st.just(1), text=st.just("…"), reused_from=st.none() | st.just("key"), **common),
    ),
    st.tuples(st.just("memorize"), st.none()),
)


@given(st.lists(outputs, min_size=1, max_size=5))
def test_figures_come_back_as_they_were(steps: list[tuple[str, StepOutput | None]]) -> None:
    written = [
        StepRecord(
            f"{step}:p{n}#1",
            CACHED if output is not None and output.cached else COMPLETED,
            1700000000.0 + n,
            0.25,
            1,
            output,
        )
        for n, (step, output) in enumerate(steps)
    ]
    back = read(write_message(written, 1700000000.0))
    assert [(r.name, r.outcome, r.start, r.waited, r.runs) for r in back] == [
        (r.name, r.outcome, r.start, r.waited, r.runs) for r in written
    ]
    assert [figures(r.output) for r in back] == [figures(r.output) for r in written]
    verdicts = [r.output for r in written if isinstance(r.output, Evaluation)]
    assert [r.stopper for r in back if r.name.startswith("evaluate:")] == list(map(stopper_of, verdicts))


@given(outputs, st.text(min_size=1, max_size=200))
def test_a_line_is_never_longer_than_it_is_taken_to_be(step: tuple[str, StepOutput | None], problem: str) -> None:
    name = f"{step[0]}:{problem}#100"
    one = write_message([StepRecord(name, COMPLETED, 1e9, 99999.1234, 3, step[1])], 0.0)
    none = write_message([], 0.0)
    assert len(one) - len(none) <= item_size(name)


@pytest.mark.parametrize("told", ["", ', "d": "an oracle of another version"'])
def test_verdicts_of_other_versions_do_not_tell_what_decided(told: str) -> None:
    line = f'["evaluate:p#1", "{COMPLETED}", 0, 0.1, 1, {{"e": "exact", "ok": true{told}}}]'
    (back,) = read(f'{{"started": 5.0, "items": [{line}]}}')
    assert isinstance(back.output, Evaluation) and back.output.passed and back.stopper is None


def test_an_error_is_told_by_its_class() -> None:
    record = StepRecord("trial:p#1", "RateLimitError", 10.0, 1.0, 3)
    (back,) = read(write_message([record], 10.0))
    assert (back.error, back.output, back.runs) == ("RateLimitError", None, 3)


@pytest.mark.parametrize(
    "message",
    [
        None,
        "",
        "Task run encountered an exception",
        "{broken",
        "[1, 2]",
        '{"items": 3}',
        '{"started": 1.0, "items": [["trial:p#1", "Completed", 0, 0, 1]]}',
        pytest.param(write_message([StepRecord("trial:p#1", COMPLETED, 0.0, 0.0)], 0.0)[:-5], id="cut"),
    ],
)
def test_what_is_not_ours_is_not_read(message: str | None) -> None:
    assert read_message(message) is None


def row(name: str, state: str, kind: str, message: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "start_time": BEGAN,
        "end_time": ENDED,
        "run_count": 1,
        "tags": [],
        "state": {"type": kind, "name": state, "message": message},
        **more,
    }


def only(given: dict[str, Any]) -> StepRecord:
    (record,) = read_task_run(given)[0]
    return record


def test_a_step_of_its_own_waited_as_long_as_prefect_says() -> None:
    message = write_message([StepRecord("trial:p#1", COMPLETED, 5.0, 0.2, output=Trial(index=1, answer="x"))], 5.0)
    record = only(row("trial:p#1", "Completed", "COMPLETED", message))
    assert record.waited == 2.5 and record.complete


def test_a_row_whose_state_is_not_there_yet_is_known_by_what_it_repeats_of_it() -> None:
    bare = row("trial:p#1", "", "") | {"state": None, "state_name": "Cached", "state_type": "COMPLETED"}
    assert (only(bare).outcome, only(bare).error) == ("Cached", None)


def test_prefects_own_fields_tell_of_cached_and_failed_steps() -> None:
    cached = only(row("trial:p#1", "Cached", "COMPLETED"))
    assert (cached.outcome, cached.complete, cached.waited) == (CACHED, False, 2.5)
    assert cached.output is not None and cached.output.cached
    failed = only(row("trial:p#1", "Failed", "FAILED", "Task run encountered an exception RateLimitError: 429"))
    assert failed.error == "RateLimitError"
    assert only(row("trial:p#1", "Crashed", "CRASHED")).error == "Crashed"


def test_a_cached_verdict_of_a_model_is_a_request() -> None:
    judged = only(row("evaluate:p#1", "Cached", "COMPLETED", tags=[JUDGED_BY_MODEL]))
    compared = only(row("evaluate:p#1", "Cached", "COMPLETED"))
    assert judged.output is not None and judged.output.usage.calls == 1
    assert compared.output is not None and compared.output.usage.calls == 0


def test_clocks_that_were_set_back_show_as_negative_times() -> None:
    assert only(row("memorize:p#1", "Completed", "COMPLETED", start_time=ENDED, end_time=BEGAN)).waited == -2.5


def test_names_of_others_are_no_steps() -> None:
    assert step_of("trial:p#1") == "trial" and step_of("train:p#1") is None and step_of("trial-run") is None


def test_a_flow_note_comes_back_and_others_are_ignored() -> None:
    note = FlowNote(600, 16, {"solved": 99, "failed": 1}, 140.5, 1234)
    assert FlowNote.from_message(note.to_message()) == note
    for other in (None, "All states completed.", '{"reflexion": 3}', '{"reflexion": {"unknown": 1}}'):
        assert FlowNote.from_message(other) is None


def test_messages_stay_below_what_prefect_cuts() -> None:
    assert MESSAGE_LIMIT < 100_000
