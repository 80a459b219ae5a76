"""Durations with percentiles in constant memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

__all__ = ["DurationHistogram"]

_MICROSECONDS = 1_000_000
_LONGEST = 24 * 3600 * _MICROSECONDS
_DIGITS = 3


class DurationHistogram:
    """Durations in seconds; percentiles exact to three significant digits, however many are recorded.

    A High Dynamic Range histogram from 1 µs to one day takes about 200 kB once something is recorded,
    and two of them can be merged without loss. Longer durations count as one day; `maximum` is exact.

    Not thread-safe: callers hold their own lock.
    """

    __slots__ = ("_counts", "count", "maximum", "total")

    def __init__(self) -> None:
        self._counts: HdrHistogram | None = None
        self.count = 0
        """Durations recorded."""
        self.total = 0.0
        """Their sum in seconds."""
        self.maximum: float | None = None
        """The longest in seconds, exact; None: nothing recorded."""

    def _open(self) -> HdrHistogram:
        if self._counts is None:
            from hdrh.histogram import HdrHistogram

            self._counts = HdrHistogram(1, _LONGEST, _DIGITS)
        return self._counts

    def record(self, seconds: float) -> None:
        """Count one duration; a negative one, from a clock that was set back, counts as zero."""
        seconds = max(seconds, 0.0)
        self._open().record_value(min(max(round(seconds * _MICROSECONDS), 1), _LONGEST))
        self.count += 1
        self.total += seconds
        self.maximum = seconds if self.maximum is None else max(self.maximum, seconds)

    def percentile(self, percent: float) -> float | None:
        """The duration in seconds that `percent` (0 to 100) of all do not exceed; None without data."""
        if self._counts is None or self.maximum is None:
            return None
        # The library rounds the rank to the nearest, which may leave less than `percent` below.
        rank = max(math.ceil(percent / 100 * self.count), 1)
        value = self._counts.get_value_at_percentile(100 * rank / self.count)
        # A bucket's upper bound may lie above the longest duration that was ever seen.
        return min(value / _MICROSECONDS, self.maximum)

    @property
    def mean(self) -> float | None:
        """The mean in seconds; None without data."""
        return self.total / self.count if self.count else None

    def merge(self, other: DurationHistogram) -> None:
        """Add all durations of another histogram."""
        if other._counts is None or other.maximum is None:
            return
        self._open().add(other._counts)
        self.count += other.count
        self.total += other.total
        self.maximum = other.maximum if self.maximum is None else max(self.maximum, other.maximum)
