"""`PerformanceMonitor`: watches a run from inside, at a price of some microseconds a step."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

from reflexion.telemetry.collector import Collector
from reflexion.telemetry.deciders import episode_stopper
from reflexion.telemetry.performance import Memory, PerformanceReport
from reflexion.telemetry.sampler import MEGABYTE, ProcessSampler
from reflexion.telemetry.targets import Targets
from reflexion.types import Episode, StepName, StepOutput

__all__ = ["PerformanceMonitor"]


class PerformanceMonitor:
    """Response times, memory, cache hits, error rates, throughput and tokens of a run.

    The steps feed it; any number of threads may. Memory is sampled by a daemon thread that starts with
    the first record and ends with `close`, with the monitor itself, or with the interpreter. A monitor
    keeps counts and two histograms, whatever the length of the run.

    Args:
        targets: what the run should reach.
        window: seconds of the sliding throughput.
        sample_memory: whether to measure memory.
        clock: seconds that never go back.

    Example:
        >>> from reflexion import ReflexionAgent
        >>> monitor = PerformanceMonitor()
        >>> agent = ReflexionAgent(llm="gpt-4", performance_monitor=monitor)  # doctest: +SKIP
        >>> agent.run("Name the largest planet.")  # doctest: +SKIP
        >>> print(monitor.report().to_markdown())  # doctest: +SKIP
    """

    def __init__(
        self,
        targets: Targets | None = None,
        *,
        window: int = 60,
        sample_memory: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.targets = targets or Targets()
        self._clock = clock
        self._lock = threading.Lock()
        self._collector = Collector(window)
        self._sampler = ProcessSampler() if sample_memory else None
        if self._sampler is not None:
            # Holds the sampler, not the monitor: a monitor nobody needs any more ends its thread.
            self._finalizer = weakref.finalize(self, self._sampler.stop)
        self._started = False

    def _start(self) -> None:
        self._started = True
        if self._sampler is not None:
            self._sampler.start()

    def record_step(self, step: StepName, output: StepOutput | None, wall_seconds: float) -> None:
        """A step came to its end just now, computed or cached, after `wall_seconds` of waiting for it."""
        at = self._clock()
        if not self._started:
            self._start()
        with self._lock:
            self._collector.step(step, output, waited=wall_seconds, at=at)

    def record_error(self, step: StepName, error: BaseException) -> None:
        """A step ended in an error."""
        at = self._clock()
        if not self._started:
            self._start()
        with self._lock:
            self._collector.error(step, type(error).__name__, at=at)

    def record_episode(self, episode: Episode) -> None:
        """An episode came to its end."""
        at = self._clock()
        if not self._started:
            self._start()
        with self._lock:
            self._collector.episode(episode.outcome, at=at, stopped=episode_stopper(episode))

    def merge(self, other: PerformanceMonitor) -> None:
        """Add all that another monitor of this process saw; the other is left as it is."""
        if other is self:
            raise ValueError("a monitor cannot be merged with itself: everything would count twice")
        # Never two locks at a time: two threads may merge two monitors into each other.
        copy = Collector(other._collector.window)
        with other._lock:
            copy.merge(other._collector)
        with self._lock:
            self._collector.merge(copy)
        ours, theirs = self._sampler, other._sampler
        if ours is not None and theirs is not None and theirs.peak is not None:
            ours.note_peak(theirs.peak)

    def report(self) -> PerformanceReport:
        """The figures so far. May be called while the run goes on."""
        memory: Memory | None = None
        if self._sampler is not None and self._started:
            rss = self._sampler.sample()
            peak = self._sampler.peak or rss
            memory = Memory(rss_mb=rss / MEGABYTE, peak_rss_mb=peak / MEGABYTE)
        with self._lock:
            return self._collector.report(self.targets, memory=memory, now=self._clock())

    def close(self) -> None:
        """End the sampling of memory; harmless when called twice. `report` still works."""
        if self._sampler is not None:
            self._sampler.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
