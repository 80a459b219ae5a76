"""Counts steps, errors and episodes in constant memory; every event brings its own time.

`PerformanceMonitor` feeds one while a run goes on; figures from the records of past runs are counted by
the same code, so that both mean the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from reflexion.telemetry.deciders import Stopper
from reflexion.telemetry.histogram import DurationHistogram
from reflexion.telemetry.performance import Memory, PerformanceReport, StepFigures, Throughput
from reflexion.telemetry.summary import Percentiles, Tokens, UsageSum, asks_model, is_cacheable
from reflexion.telemetry.targets import Targets
from reflexion.types import Outcome, StepName, StepOutput

__all__ = ["Collector"]

Name = TypeVar("Name", bound=str)


@dataclass
class _Step:
    cached: int = 0
    executed: int = 0
    errors: int = 0
    hits: int = 0
    misses: int = 0


@dataclass
class _Window:
    """Counts of the last seconds, in buckets of one second."""

    seconds: int
    buckets: deque[list[int]] = field(default_factory=deque[list[int]])
    """`[second, requests, episodes]`, oldest first."""

    def add(self, at: float, *, requests: int = 0, episodes: int = 0) -> None:
        second = int(at)
        for bucket in reversed(self.buckets):
            if bucket[0] == second:
                bucket[1] += requests
                bucket[2] += episodes
                return
            if bucket[0] < second:
                break
        self.buckets.append([second, requests, episodes])
        if len(self.buckets) > 1 and self.buckets[-2][0] > second:  # records may come out of order
            self.buckets = deque(sorted(self.buckets))
        newest = self.buckets[-1][0]
        while self.buckets[0][0] <= newest - self.seconds:
            self.buckets.popleft()

    def totals(self, now: float) -> tuple[int, int]:
        recent = [b for b in self.buckets if b[0] > int(now) - self.seconds]
        return sum(b[1] for b in recent), sum(b[2] for b in recent)


class Collector:
    """Accumulates what happened. Not thread-safe: callers hold their own lock.

    A *request* is a step that asks a model (a trial, a reflection, a verdict of a judge), whether the
    model or the cache answered.

    Args:
        window: seconds of the sliding throughput.
    """

    def __init__(self, window: int = 60) -> None:
        self._steps: dict[str, _Step] = {}
        self._response = DurationHistogram()
        self._waiting = DurationHistogram()
        self._errors: dict[str, int] = {}
        self._retries: dict[str, int] = {}
        self._spent = UsageSum()
        self._saved = UsageSum()
        self._outcomes: dict[str, int] = {}
        self._stopped: dict[Stopper, int] = {}
        self._requests = 0
        self._episodes = 0
        self._window = _Window(window)
        self._first: float | None = None
        self._last: float | None = None

    @property
    def window(self) -> int:
        """Seconds of the sliding throughput."""
        return self._window.seconds

    def step(self, step: StepName, output: StepOutput | None, *, waited: float, at: float) -> None:
        """A step came to its end.

        Args:
            output: what it gave; None for steps that give nothing.
            waited: seconds its caller waited for it, look-ups and queues included.
            at: when it ended, in seconds of any one clock.
        """
        self._seen(at - waited, at)
        counts = self._steps.setdefault(step, _Step())
        if output is None:
            counts.executed += 1
            return
        if is_cacheable(step, output):
            counts.hits += output.cached
            counts.misses += not output.cached
        request = asks_model(step, output)
        if request:
            self._requests += 1
            self._waiting.record(waited)
            self._window.add(at, requests=1)
        if output.cached:
            counts.cached += 1
            self._saved.add(output.usage)
            return
        counts.executed += 1
        for kind in output.retried:
            _count(self._retries, kind)
        if output.usage.calls:
            self._spent.add(output.usage)
        if request:
            # A model that does not time itself is timed from outside.
            self._response.record(output.seconds or waited)

    def error(self, step: str, kind: str, *, at: float) -> None:
        """A step ended in an error of class `kind`."""
        self._seen(at, at)
        self._steps.setdefault(step, _Step()).errors += 1
        _count(self._errors, kind)

    def episode(self, outcome: Outcome, *, at: float, stopped: Stopper | None = None) -> None:
        """An episode came to its end; `stopped` says what decided that, if a verdict did."""
        self._seen(at, at)
        self._episodes += 1
        _count(self._outcomes, outcome.value)
        if stopped is not None:
            _count(self._stopped, stopped)
        self._window.add(at, episodes=1)

    def _seen(self, begun: float, ended: float) -> None:
        self._first = begun if self._first is None else min(self._first, begun)
        self._last = ended if self._last is None else max(self._last, ended)

    def merge(self, other: Collector) -> None:
        """Add all that another one counted; both must have used the same clock."""
        for name, theirs in other._steps.items():
            ours = self._steps.setdefault(name, _Step())
            ours.cached += theirs.cached
            ours.executed += theirs.executed
            ours.errors += theirs.errors
            ours.hits += theirs.hits
            ours.misses += theirs.misses
        self._response.merge(other._response)
        self._waiting.merge(other._waiting)
        _add(self._errors, other._errors)
        _add(self._retries, other._retries)
        _add(self._outcomes, other._outcomes)
        _add(self._stopped, other._stopped)
        self._spent.add(other._spent.total)
        self._saved.add(other._saved.total)
        self._requests += other._requests
        self._episodes += other._episodes
        for second, requests, episodes in other._window.buckets:
            self._window.add(second, requests=requests, episodes=episodes)
        if other._first is not None and other._last is not None:
            self._seen(other._first, other._last)

    def report(self, targets: Targets, *, memory: Memory | None = None, now: float | None = None) -> PerformanceReport:
        """The figures so far, held against the targets.

        Args:
            memory: memory of the run, if it was measured.
            now: the present, for the sliding throughput; None: the last event.
        """
        first, last = self._first, self._last
        elapsed = 0.0 if first is None or last is None else last - first
        memory = memory or Memory()
        response = Percentiles.of(self._response)
        steps = {
            name: StepFigures(cached=s.cached, executed=s.executed, errors=s.errors, hits=s.hits, misses=s.misses)
            for name, s in self._steps.items()
        }
        hits, misses = sum(s.hits for s in steps.values()), sum(s.misses for s in steps.values())
        executed = sum(s.executed for name, s in steps.items() if name != "memorize")
        errors = sum(self._errors.values())
        throughput = self._throughput(elapsed, now)
        spent = self._spent.total
        reflect = steps.get("reflect")
        return PerformanceReport(
            elapsed_seconds=elapsed,
            requests=self._requests,
            episodes=self._episodes,
            outcomes=dict(sorted(self._outcomes.items())),
            stopped_by=dict(sorted(self._stopped.items(), key=lambda item: (-item[1], item[0]))),
            steps=steps,
            cache_hit_rate=hits / (hits + misses) if hits + misses else None,
            response_time=response,
            response_time_mean=self._response.mean,
            responses=self._response.count,
            waiting_time=Percentiles.of(self._waiting),
            error_rate=errors / (executed + errors) if executed + errors else None,
            errors_by_class=dict(sorted(self._errors.items())),
            retries_by_class=dict(sorted(self._retries.items())),
            throughput=throughput,
            memory=memory,
            llm_calls=spent.calls,
            tokens=Tokens(
                prompt=spent.prompt,
                completion=spent.completion,
                saved=self._saved.total.total,
                cached_prompt=spent.cached_prompt,
            ),
            cost_usd=spent.cost_usd,
            targets=targets.check(
                response_time_p95=response.p95,
                peak_rss_mb=memory.peak_rss_mb,
                requests_per_minute=throughput.requests_per_minute if self._requests else None,
                reflection_hit_rate=reflect.hit_rate if reflect else None,
                elapsed_seconds=elapsed,
            ),
        )

    def _throughput(self, elapsed: float, now: float | None) -> Throughput:
        if elapsed <= 0 or self._last is None or self._first is None:
            return Throughput(window_seconds=self._window.seconds)
        now = self._last if now is None else max(now, self._last)
        span = min(max(now - self._first, elapsed), self._window.seconds)
        requests, episodes = self._window.totals(now)
        return Throughput(
            requests_per_minute=60 * self._requests / elapsed,
            episodes_per_minute=60 * self._episodes / elapsed,
            window_seconds=self._window.seconds,
            recent_requests_per_minute=60 * requests / span,
            recent_episodes_per_minute=60 * episodes / span,
        )


def _count(counts: dict[Name, int], name: Name) -> None:
    counts[name] = counts.get(name, 0) + 1


def _add(counts: dict[Name, int], more: Mapping[Name, int]) -> None:
    for name, number in more.items():
        counts[name] = counts.get(name, 0) + number
