"""Statistics of pass rates: unbiased pass@k, confidence intervals, the exact McNemar test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

from pydantic import Field

from reflexion.types import Frozen

__all__ = ["Estimate", "mcnemar", "pass_at_k", "pass_at_k_estimate", "wilson"]


class Estimate(Frozen):
    """A share with its confidence interval."""

    value: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    confidence: float = Field(gt=0, lt=1)


def wilson(successes: int, total: int, confidence: float = 0.95) -> Estimate:
    """A share of independent successes with Wilson's score interval.

    It stays inside 0 to 1, and has a width where all or none succeeded.

    Raises:
        ValueError: `total` is not positive, or `successes` is not between 0 and `total`.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"wilson: {successes} successes of {total} is no share")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
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


def pass_at_k_estimate(counts: Sequence[tuple[int, int]], k: int, confidence: float = 0.95) -> Estimate:
    """pass@k of a dataset: the mean over its problems, and an interval that takes them as the sample.

    Repeats of one problem are not independent, so the interval comes from the spread between problems.
    Where there is no spread it would have no width, and Wilson's interval over problems is given instead.

    Args:
        counts: `(n, c)` of each problem: attempts, and those that passed.

    Raises:
        ValueError: there are no problems, or one has fewer than k attempts.
    """
    if not counts:
        raise ValueError("pass_at_k_estimate: there are no problems")
    values = [pass_at_k(n, c, k) for n, c in counts]
    mean = min(max(fmean(values), 0.0), 1.0)
    spread = stdev(values) if len(values) > 1 else 0.0
    if spread == 0.0:
        return wilson(round(mean * len(values)), len(values), confidence).model_copy(update={"value": mean})
    half = NormalDist().inv_cdf((1 + confidence) / 2) * spread / math.sqrt(len(values))
    return Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half), confidence=confidence)


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
