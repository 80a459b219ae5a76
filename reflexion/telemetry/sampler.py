"""Memory of this process and its children, sampled beside the event loop."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import psutil

__all__ = ["MEGABYTE", "ProcessSampler"]

MEGABYTE = 1_000_000
_SHARE = 0.0025


class ProcessSampler:
    """Samples the resident memory of a process tree in a daemon thread.

    The figure is the sum over this process and all its descendants, so pages they share count more than
    once: it errs on the high side. Peaks of this process alone between two samples are not missed, since
    the operating system keeps them.

    As a context manager it samples for as long as the block runs.

    Args:
        interval: seconds between samples; stretched where sampling would take more than a quarter of
            a percent of a core, because of many children.
    """

    def __init__(self, interval: float = 0.5) -> None:
        self._interval = interval
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._process: psutil.Process | None = None
        self._baseline = 0
        self.rss: int | None = None
        """Bytes at the last sample; None: not sampled yet."""
        self.peak: int | None = None
        """Most bytes ever seen; None: not sampled yet."""

    @property
    def running(self) -> bool:
        """Whether the thread samples."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to sample; harmless when called again."""
        with self._lock:
            if self.running or self._stop.is_set():
                return
            self._thread = threading.Thread(target=self._run, name="reflexion-memory-sampler", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; harmless when called twice. `sample` still works."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def sample(self) -> int:
        """Sample now; bytes of the process tree."""
        import psutil

        with self._lock:
            if self._process is None:
                self._process = psutil.Process()
                self._baseline = _own_peak()
            rss = _tree_rss(self._process)
            own = _own_peak()
            # The system's own mark counts only if it rose since we began: before, it was not our run.
            seen = max(rss, own if own > self._baseline else 0)
            self.rss = rss
            self.peak = seen if self.peak is None else max(self.peak, seen)
        return rss

    def note_peak(self, peak: int) -> None:
        """Take into account what another sampler saw, in bytes."""
        with self._lock:
            self.peak = peak if self.peak is None else max(self.peak, peak)

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            before = time.thread_time()
            self.sample()
            pause = max(self._interval, (time.thread_time() - before) / _SHARE)


def _tree_rss(process: psutil.Process) -> int:
    import psutil

    total: int = process.memory_info().rss
    for child in process.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.Error:  # it ended meanwhile, or belongs to somebody else now
            continue
    return total


def _own_peak() -> int:
    import resource
    import sys

    # Linux hands `ru_maxrss` of whoever started us on to us; the high-water mark is our own.
    with suppress(OSError, ValueError), Path("/proc/self/status").open("rb") as status:
        for line in status:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
