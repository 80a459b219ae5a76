"""What a trial sees of the past, and when an episode goes on: pure functions.

Source: Shinn et al. 2023, algorithm 1 (the loop) and section 4.2 (the strategies).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from reflexion.types import Frozen, Lesson, Reflection, Strategy, Trial

__all__ = ["OMEGA", "Decision", "Past", "decide", "view_past"]

OMEGA = 3
"""Lessons a trial sees at most: the paper bounds the memory to 1 to 3 experiences (section 3)."""


class Decision(Enum):
    """What follows a judged trial."""

    SOLVED = "solved"
    EXHAUSTED = "exhausted"
    RETRY = "retry"
    REFLECT = "reflect"


class Past(Frozen):
    """What a trial sees of the past.

    Attributes:
        lessons: texts of reflections, best first: those of this episode from the newest to the
            oldest, then those recalled from other episodes.
        last: the trial before it, if the strategy shows it.
        recalled: keys of the recalled lessons, for crediting them.
    """

    lessons: tuple[str, ...] = ()
    last: Trial | None = None
    recalled: tuple[str, ...] = ()


def decide(passed: bool, index: int, max_trials: int, strategy: Strategy) -> Decision:
    """Whether trial `index` (from 1) ends the episode, and if not, whether it is reflected upon.

    The last trial is never reflected upon: nobody would read the lesson, and it would cost a call.
    """
    if passed:
        return Decision.SOLVED
    if index >= max_trials:
        return Decision.EXHAUSTED
    return Decision.REFLECT if strategy.reflects else Decision.RETRY


def view_past(
    strategy: Strategy,
    trials: Sequence[Trial],
    recalled: Sequence[Lesson] = (),
    *,
    omega: int = OMEGA,
) -> Past:
    """What the next trial sees: own reflections first, then recalled lessons, at most `omega` of each.

    Texts that say the same are shown once; `none` and `last_attempt` show no lessons at all.
    """
    last = trials[-1] if trials and strategy.shows_last_attempt else None
    if not strategy.reflects:
        return Past(last=last)
    own: list[Reflection] = [t.reflection for t in reversed(trials) if t.reflection is not None and t.reflection.text]
    texts: dict[str, None] = {}
    for reflection in own[:omega]:
        texts.setdefault(reflection.text)
    keys: list[str] = []
    for lesson in recalled:
        if lesson.text not in texts:
            texts[lesson.text] = None
            keys.append(lesson.key)
    return Past(lessons=tuple(texts), last=last, recalled=tuple(keys))
