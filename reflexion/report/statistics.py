"""Statistics of pass rates: unbiased pass@k, confidence intervals, the exact McNemar test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from pydantic import Field

from reflexion.types import Frozen

__all__ = ["Attempts", "Estimate", "mcnemar", "pass_at_k", "pass_at_k_estimate", "wilson"]

_KS = (1, 2, 3, 5, 10, 20, 50, 100)


class Estimate(Frozen):
    """A share with its confidence interval."""

    value: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    confidence: float = Field(gt=0, lt=1)

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def wilson(successes: int, total: int, confidence: float = 0.95) -> Estimate:
    """A share of independent successes with Wilson's score interval.

    It stays inside 0 to 1, and has a width where all or none succeeded.

    Raises:
        ValueError: `total` is not positive, or `successes` is not between 0 and `total`.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"wilson: {successes} successes of {total} is no share")
    z = _normal_quantile((1 + confidence) / 2)
    share = successes / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # At the ends the interval touches 0 or 1 exactly, which rounding would miss.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == total else min(1.0, centre + half)
    return Estimate(value=share, low=low, high=high, confidence=confidence)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that one of k attempts passes, from n attempts of which c passed.

    The unbiased estimator `1 - C(n-c, k) / C(n, k)` (Chen et al. 2021, *Evaluating Large Language
    Models Trained on Code*, arXiv 2107.03374, section 2.1).

    Raises:
        ValueError: unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass_at_k: needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def pass_at_k_estimate(counts: Iterable[tuple[int, int]], k: int, confidence: float = 0.95) -> Estimate:
    """pass@k of a dataset: the mean over its problems, and an interval that takes them as the sample.

    Repeats of one problem are not independent, so the interval comes from the spread between problems,
    by Student's distribution. Where there is no spread it would have no width, and Wilson's interval
    over problems is given instead.

    Args:
        counts: `(n, c)` of each problem: attempts, and those that passed.

    Raises:
        ValueError: there are no problems, or one has fewer than k attempts.
    """
    values: Counter[tuple[int, int]] = Counter(counts)
    total = values.total()
    if not total:
        raise ValueError("pass_at_k_estimate: there are no problems")
    shares = [(pass_at_k(n, c, k), weight) for (n, c), weight in values.items()]
    mean = min(max(math.fsum(share * weight for share, weight in shares) / total, 0.0), 1.0)
    squares = math.fsum(weight * (share - mean) ** 2 for share, weight in shares)
    if len({share for share, _ in shares}) == 1:
        return wilson(round(mean * total), total, confidence).model_copy(update={"value": mean})
    half = _student_quantile((1 + confidence) / 2, total - 1) * math.sqrt(squares / (total - 1) / total)
    return Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half), confidence=confidence)


class Attempts:
    """How often each problem was attempted and solved, kept as counts: memory does not grow with problems.

    The attempts at one problem are to be added one after another.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()
        self._problem: str | None = None
        self._n = self._c = 0

    def add(self, problem: str, passed: bool) -> None:
        """Count one attempt."""
        if problem != self._problem:
            self._close()
            self._problem = problem
        self._n += 1
        self._c += passed

    def _close(self) -> None:
        if self._n:
            self._counts[self._n, self._c] += 1
        self._n = self._c = 0

    def pass_at(self, confidence: float = 0.95) -> dict[int, Estimate]:
        """pass@k for k = 1, 2, 3, 5, 10 … as far as every problem was repeated; empty without repeats."""
        self._close()
        self._problem = None
        repeats = min((n for n, _ in self._counts), default=0)
        if repeats < 2:
            return {}
        ks = sorted({k for k in _KS if k < repeats} | {repeats})
        return {k: pass_at_k_estimate(self._counts.elements(), k, confidence) for k in ks}


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


def _student_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's distribution: exact for one and two degrees of freedom, else within 0.2 %."""
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z = _normal_quantile(p)
    # Expansion in powers of 1 / freedom (Abramowitz and Stegun, 26.7.5).
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test for paired outcomes.

    Args:
        only_a: pairs in which only the first succeeded.
        only_b: pairs in which only the second succeeded.

    Returns:
        The probability of a split at least as uneven if both were equally good; 1.0 without any
        discordant pair.

    Raises:
        ValueError: a count is negative.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"mcnemar: counts cannot be negative, got {only_a} and {only_b}")
    n, fewer = only_a + only_b, min(only_a, only_b)
    term = tail = 1
    for i in range(fewer):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)
