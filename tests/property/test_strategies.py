"""Properties of the pure decisions: when an episode goes on, and what a trial sees."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reflexion.loop.strategies import Decision, decide, view_past
from reflexion.types import Lesson, Reflection, Strategy, Trial

STRATEGIES = st.sampled_from(Strategy)
TEXTS = st.text("abc", min_size=1, max_size=3)


@given(st.booleans(), st.integers(1, 50), st.integers(1, 50), STRATEGIES)
def test_a_passed_trial_always_ends_the_episode(passed: bool, index: int, limit: int, strategy: Strategy) -> None:
    decision = decide(passed, index, limit, strategy)
    assert (decision is Decision.SOLVED) == passed


@given(st.integers(1, 50), st.integers(1, 50), STRATEGIES)
def test_a_failed_trial_goes_on_exactly_while_trials_are_left(index: int, limit: int, strategy: Strategy) -> None:
    decision = decide(False, index, limit, strategy)
    assert (decision is Decision.EXHAUSTED) == (index >= limit)
    assert (decision is Decision.REFLECT) == (index < limit and strategy.reflects)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 50), STRATEGIES)
def test_the_loop_always_ends_within_max_trials(verdicts: list[bool], limit: int, strategy: Strategy) -> None:
    for index in range(1, limit + 1):
        passed = verdicts[(index - 1) % len(verdicts)]
        if decide(passed, index, limit, strategy) in (Decision.SOLVED, Decision.EXHAUSTED):
            break
    else:
        raise AssertionError("still going on after the last trial")


def _trials(texts: list[str]) -> list[Trial]:
    return [
        Trial(index=i, answer=f"a{i}", reflection=Reflection(trial=i, text=text)) for i, text in enumerate(texts, 1)
    ]


@given(st.lists(TEXTS, max_size=6), st.lists(TEXTS, max_size=6), st.integers(1, 5), STRATEGIES)
def test_what_a_trial_sees(own: list[str], recalled: list[str], omega: int, strategy: Strategy) -> None:
    lessons = [Lesson(key=str(i), problem="p", episode="e", trial=1, text=t) for i, t in enumerate(recalled)]
    past = view_past(strategy, _trials(own), lessons, omega=omega)
    assert len(set(past.lessons)) == len(past.lessons)
    assert (past.last is not None) == (bool(own) and strategy.shows_last_attempt)
    if not strategy.reflects:
        assert past.lessons == ()
        return
    newest = list(reversed(own))[:omega]
    assert set(past.lessons) == {*newest, *recalled}
    if newest:
        assert past.lessons[0] == newest[0]
    by_key = {lesson.key: lesson.text for lesson in lessons}
    assert all(by_key[key] not in newest for key in past.recalled)
