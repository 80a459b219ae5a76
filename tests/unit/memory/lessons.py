"""Lessons and a clock for the memory's tests."""

from __future__ import annotations

from collections.abc import Callable

from reflexion.memory import Memory
from reflexion.types import Lesson

Open = Callable[..., Memory]
"""Opens the backend under test with the limits given."""


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def lesson(number: int, problem: str = "p", **fields: object) -> Lesson:
    """A lesson; higher numbers are younger."""
    values: dict[str, object] = {
        "key": f"k{number}",
        "problem": problem,
        "episode": f"old/{problem}/{number}",
        "run": "old",
        "trial": 1,
        "text": f"lesson {number}",
        "created": 1_700_000_000.0 + number,
    }
    return Lesson.model_validate(values | fields)
