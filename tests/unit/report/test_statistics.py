"""Estimators against their definitions: enumeration, known values, and what must always hold."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reflexion.report.statistics import Attempts, mcnemar, pass_at_k, pass_at_k_estimate, wilson


@settings(deadline=None)  # another process may take the core
@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_pass(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([i < c for i in range(n)], k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_of_many_attempts_does_not_overflow() -> None:
    assert pass_at_k(10_000, 5_000, 1) == pytest.approx(0.5)
    assert pass_at_k(1_000, 1, 1_000) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_pass_at_k_refuses_impossible_counts(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass_at_k"):
        pass_at_k(n, c, k)


def test_wilson_at_known_values() -> None:
    half = wilson(10, 20)
    assert (half.low, half.high) == (pytest.approx(0.2993, abs=1e-4), pytest.approx(0.7007, abs=1e-4))
    none = wilson(0, 10)
    assert (none.low, none.high) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(10, 10).high == 1.0
    for bad in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="wilson"):
            wilson(*bad)


@settings(deadline=None)  # another process may take the core
@given(st.lists(st.tuples(st.integers(2, 10), st.floats(0, 1)), min_size=1, max_size=50), st.sampled_from([1, 2]))
def test_an_estimate_lies_inside_its_interval(raw: list[tuple[int, float]], k: int) -> None:
    estimate = pass_at_k_estimate([(n, round(n * share)) for n, share in raw], k)
    assert 0 <= estimate.low <= estimate.value + 1e-9
    assert estimate.value <= estimate.high + 1e-9 and estimate.high <= 1
    assert estimate.low < estimate.high  # never a false certainty


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    chance = random.Random(7)
    rates = [chance.betavariate(2, 2) for _ in range(5_000)]
    truth = math.fsum(1 - (1 - p) ** 3 for p in rates) / len(rates)
    covered = 0
    for _ in range(200):
        sample = chance.sample(rates, 80)
        counts = [(8, sum(chance.random() < p for _ in range(8))) for p in sample]
        estimate = pass_at_k_estimate(counts, 3)
        covered += estimate.low <= truth <= estimate.high
    assert 0.88 <= covered / 200 <= 1.0


def test_mcnemar_at_known_values() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(15_000, 15_200) == pytest.approx(0.252, abs=0.003)
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 0)


def test_an_estimate_needs_problems() -> None:
    with pytest.raises(ValueError, match="no problems"):
        pass_at_k_estimate([], 1)


def test_few_problems_have_the_wide_interval_of_students_distribution() -> None:
    # Shares 1, 1/2 and 0: their mean is 1/2, its standard error sqrt(1/12); t = 4.303 with two degrees of freedom.
    three = pass_at_k_estimate([(2, 2), (2, 1), (2, 0)], 1)
    assert (three.low, three.high) == (0.0, 1.0)  # 0.5 -+ 1.24
    many = [(2, 2)] * 20 + [(2, 0)] * 20
    estimate = pass_at_k_estimate(many, 1)
    half = 2.0227 * math.sqrt(20 * 20 / 40 / 39 / 40)  # t with 39 degrees of freedom, from a table
    assert estimate.high - estimate.value == pytest.approx(half, rel=1e-3)


@pytest.mark.parametrize(("problems", "t"), [(2, 12.706), (3, 4.3027), (4, 3.1824), (6, 2.5706), (31, 2.0423)])
def test_the_interval_uses_students_quantiles(problems: int, t: float) -> None:
    # One problem differs by so little that no end is cut off at 0 or 1.
    counts = [(1000, 500)] * (problems - 1) + [(1000, 504)]
    estimate = pass_at_k_estimate(counts, 1)
    spread = 0.004 / math.sqrt(problems)
    assert estimate.high - estimate.value == pytest.approx(t * spread / math.sqrt(problems), rel=2e-3)


def test_attempts_are_counted_by_problem() -> None:
    attempts = Attempts()
    for problem, passes in (("a", [True, False, False]), ("b", [False] * 3), ("c", [True] * 3)):
        for passed in passes:
            attempts.add(problem, passed)
    found = attempts.pass_at()
    assert sorted(found) == [1, 2, 3]
    assert found[1].value == pytest.approx(4 / 9)
    assert found[2].value == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert found[3].value == pytest.approx(2 / 3)
    attempts.add("once", True)
    assert attempts.pass_at() == {}, "a problem without repeats leaves nothing to estimate"
