"""How long a call takes on a machine of its own, told apart from what others on the machine take away from it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

__all__ = ["MOST_SECONDS", "idle_seconds"]

MOST_SECONDS = 0.05
"""What a reader may take over 100 kB on an idle machine."""
_REFERENCE_SECONDS = 0.0018
"""What the reference takes on an idle machine; all times are scaled by what it takes at the moment."""
_TRIES = 8
_PAUSE = 0.01
"""Seconds that the pause before each further try grows by: load comes and goes."""
_HOPELESS = 20
"""Times the bound: what takes that long is slow, and is not tried again."""
_TEXT = "The answer is 12, because 3 * 4 = 12. " * 40
_WORD = re.compile(r"\w+")


def _reference() -> float:
    """Processor time of a fixed piece of work of the readers' own kind: patterns, calls, small texts."""
    started = time.thread_time()
    for _ in range(16):
        " ".join(_WORD.sub(lambda m: m[0].upper(), _TEXT).split()).casefold()
    return time.thread_time() - started


def idle_seconds(call: Callable[[], Any], most: float = MOST_SECONDS) -> float:
    """Seconds of processor time that a call takes where nothing else runs: the least of up to eight tries.

    Others on the same core slow a thread down by half and more, without its clock standing still meanwhile. So each
    try is measured against a fixed piece of work, done right before and after it. What is well below `most` is tried
    once, and so is what is far above.
    """
    best = float("inf")
    for attempt in range(_TRIES):
        time.sleep(attempt * _PAUSE)
        before = _reference()
        started = time.thread_time()
        call()
        took = time.thread_time() - started
        best = min(best, took * 2 * _REFERENCE_SECONDS / (before + _reference()))
        if best < most / 2 or best > most * _HOPELESS:
            break
    return best
