"""Estimators against their definitions: enumeration, known values, and what must always hold."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reflexion.report.statistics import mcnemar, pass_at_k, pass_at_k_estimate, wilson


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
