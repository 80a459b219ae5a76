"""What all drivers share: their arguments, the problems, the words of the loop, and the line they print.

Standard library only, since each driver runs in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

ACT = "You solve the task. Answer briefly."
REFLECT = "You failed. Reflect on why, and give a short plan for the next attempt."
ANSWER = "42"
MAX_TRIALS = 3


@dataclass(frozen=True)
class Work:
    """What a driver is to do."""

    problems: int
    concurrency: int
    url: str
    salt: str
    options: list[str]

    @property
    def prompts(self) -> list[str]:
        """The problems' prompts; the salt keeps one run's apart from another's."""
        return [prompt(f"{self.salt}{number}") for number in range(self.problems)]


def prompt(name: str) -> str:
    """The prompt of one problem."""
    return f"[task:{name}] What is six times seven? Answer with the number only."


def with_lessons(text: str, lessons: list[str]) -> str:
    """What a trial is asked."""
    return text + "".join(f"\nEarlier lesson: {lesson}" for lesson in lessons)


def with_answer(text: str, answer: str) -> str:
    """What a reflection is asked."""
    return f"{text}\nYour answer: {answer}"


def work() -> Work:
    """The work the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--url", required=True, help="base URL of the endpoint")
    parser.add_argument("--salt", default="")
    given, options = parser.parse_known_args()
    os.environ.setdefault("OPENAI_API_KEY", "unused")
    return Work(given.problems, given.concurrency, given.url, given.salt, options)


class Clock:
    """Wall and processor time from here on."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self) -> dict[str, float]:
        """The seconds up to now, for a driver that goes on to other things."""
        return {"seconds": time.perf_counter() - self.wall, "cpu_seconds": time.process_time() - self.cpu}

    def tell(self, **figures: Any) -> None:
        """Print the figures as one line of JSON."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line = {
            **self.stop(),
            "peak_mb": (peak if sys.platform == "darwin" else peak * 1024) / 1e6,
        }
        print(json.dumps(line | figures), flush=True)
