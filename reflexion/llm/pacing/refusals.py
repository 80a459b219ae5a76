"""Telling an endpoint that refuses because of the load from one that refuses a share whatever the load."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

__all__ = ["FaultHistory", "RecentShare", "RefusalHistory", "UselessCuts"]

_FEWEST = 8
"""Answers from which a share is worth reckoning with."""
_SURPRISE = 0.05
"""How unlikely it must be that no answer was refused, before that is put down to the lower limit."""
_RARE = 0.03
"""A share of 429s that is neither a sign of load nor a habit worth knowing."""
_STANDSTILL = 60
"""Answers at one limit from which its share of errors is known, where nothing is known of lower limits."""
_STEP = 30
"""Answers at a limit that was raised, before its errors are compared with those below: errors come back first."""
_MOST_FAULTS = 0.3
"""With more errors than that, an endpoint is in trouble, whatever the cause."""
_FORGET = 0.8
"""What earlier answers count for after each round, or each step up."""


class RecentShare:
    """The share of 429s among the last answers, the newest counting most.

    Args:
        horizon: answers that count, about.
    """

    def __init__(self, horizon: int = 80) -> None:
        self._weight = 1 / horizon
        self.value = 0.0

    def add(self, refused: bool) -> None:
        """One more answer."""
        self.value += (refused - self.value) * self._weight

    @property
    def rare(self) -> bool:
        """Whether 429s come one by one: a single one in many answers says nothing of the load."""
        return self.value < _RARE


class UselessCuts(NamedTuple):
    """Cuts that changed nothing: where they began, and the share that is refused anyhow."""

    limit: float
    share: float


class _Cut(NamedTuple):
    limit: float
    answers: int
    refused: int


class RefusalHistory:
    """What each limit that was cut from had shown: its answers, and how many of them were 429."""

    def __init__(self) -> None:
        self._cuts: deque[_Cut] = deque(maxlen=16)
        self._answers = self._refused = 0

    def add(self, refused: bool) -> None:
        """One more answer, at the limit as it is now."""
        self._answers += 1
        self._refused += refused
        if not self._cuts or self._refused or self._answers % 10:
            return
        # So many in a row without a 429 would be a great chance if the share were still the same.
        if (1 - _share(self._cuts)) ** self._answers < _SURPRISE:
            self._cuts.clear()

    def cut(self, limit: float, *, used: bool, lowest: bool) -> UselessCuts | None:
        """The limit is about to be cut; told when cuts turn out to be of no use.

        Args:
            limit: as it is before the cut.
            used: whether so many requests were under way at all; else its cut says nothing.
            lowest: whether it cannot be cut any more.
        """
        if self._answers >= _FEWEST:
            if used:
                self._cuts.append(_Cut(limit, self._answers, self._refused))
            self._answers = self._refused = 0
        cuts = self._cuts
        if len(cuts) < 4:
            return None
        half = len(cuts) // 2
        before, after = _share(islice(cuts, half)), _share(islice(cuts, half, None))
        if after > before * 1.5 + 0.05 or after < before * 0.5:
            # Cuts were of use, or what the endpoint bears at once was used up on the way. What is left
            # may still be a habit.
            cuts.popleft()
            return None
        # With load as the cause, a share of a half at most means at most twice what is borne.
        lower = cuts[-1].limit <= cuts[0].limit * 0.5 or (lowest and cuts[0].limit <= limit)
        share = _share(cuts)
        if not lower or before > 0.5 or after > 0.5 or share < _RARE:
            return None
        began = cuts[0].limit
        cuts.clear()
        return UselessCuts(began, share)


class FaultHistory:
    """Tells server errors that come whatever the load from those that load brings.

    Errors that are as frequent at a limit as they were below it are none that a lower limit would spare.
    """

    def __init__(self) -> None:
        self._below = _Answers()
        self._here = _Answers()

    def add(self, failed: bool) -> None:
        """One more answer, at the limit as it is now."""
        self._here.count += 1
        self._here.failed += failed

    def raised(self) -> None:
        """The limit was raised: what was seen at it was seen below the new one."""
        self._below.keep(_FORGET)
        self._below.count += self._here.count
        self._below.failed += self._here.failed
        self._here = _Answers()

    def lowered(self) -> None:
        """The limit was cut: nothing is known of lower ones."""
        self._below, self._here = _Answers(), _Answers()

    def stay(self) -> None:
        """A round ended without a change of the limit; an outage that is over should be forgotten."""
        self._here.keep(_FORGET)

    @property
    def steady(self) -> bool:
        """Whether errors are no more frequent than they were at lower limits, and not too frequent at all."""
        share = self._here.share
        if share > _MOST_FAULTS:
            return False
        if self._here.count < (_STEP if self._below.count else _STANDSTILL):
            return False
        if not self._below.count:
            return True
        # One error more: of few answers, none at all may have failed by chance.
        expected = (self._below.failed + 1) / (self._below.count + 2)
        return share <= expected * 1.5 + 0.05


@dataclass(slots=True)
class _Answers:
    count: float = 0.0
    failed: float = 0.0

    @property
    def share(self) -> float:
        return self.failed / self.count if self.count else 0.0

    def keep(self, part: float) -> None:
        self.count *= part
        self.failed *= part


def _share(cuts: Iterable[_Cut]) -> float:
    answers = refused = 0
    for cut in cuts:
        answers += cut.answers
        refused += cut.refused
    return refused / answers
