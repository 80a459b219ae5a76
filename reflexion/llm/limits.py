"""How many requests one endpoint gets at a time: a fixed number, or one that adapts.

The adaptive limit is additive-increase, multiplicative-decrease, as in TCP congestion control: it
starts at 20, doubles after each clean round until the first 429, grows by 5 % a round from then on,
and shrinks to 80 % once per episode of 429s. Server errors and timeouts stop growth without cutting.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["AdaptiveLimiter", "LimitChange", "Limiter", "Outcome", "limit_changes", "limiter_for"]

log = logging.getLogger(__name__)

Outcome = Literal["ok", "rate_limited", "failed", "cancelled"]
"""How a request ended, as far as the limit is concerned: `failed` is a 5xx, a timeout, a lost connection."""


_KEPT = 10_000
"""Changes remembered; a long run forgets its oldest."""


@dataclass(frozen=True, slots=True)
class LimitChange:
    """One change of a limit. `time` is Unix time in seconds."""

    time: float
    endpoint: str
    old: int
    new: int
    why: str


_SHORTEST_EPISODE = 0.1
_LONGEST_COOL_DOWN = 60.0
"""Seconds."""
_HABIT_SAMPLE = 30
_SAMPLE = 8
"""Answers from which a share of 429s is worth reckoning with."""


class _Cut(NamedTuple):
    limit: float
    answers: int
    rate_limited: int


def _share(cuts: Sequence[_Cut]) -> float:
    return sum(c.rate_limited for c in cuts) / sum(c.answers for c in cuts)


_changes: deque[LimitChange] = deque(maxlen=_KEPT)


class Limiter:
    """Lets at most `limit` requests run at a time, first come, first served. For one event loop."""

    adaptive = False

    def __init__(self, limit: int, endpoint: str = "") -> None:
        self.endpoint = endpoint
        self.changes: deque[LimitChange] = deque(maxlen=_KEPT)
        self.in_use = 0
        self._limit = float(limit)
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Requests allowed at a time."""
        return int(self._limit)

    async def acquire(self) -> None:
        """Wait for a slot and take it."""
        if self.in_use < self.limit and not self._waiters and self._may_start():
            self._start()
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wake()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.in_use -= 1  # the slot was handed over in the same moment: pass it on
            else:
                self._waiters.remove(waiter)
            self._wake()
            raise

    def release(self, outcome: Outcome, started: float, retry_after: float | None = None) -> None:
        """Give the slot back and tell how the request ended.

        Args:
            outcome: how it ended.
            started: `time.monotonic()` when it began.
            retry_after: seconds the endpoint asked us to wait.
        """
        self.in_use -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiters and self.in_use < self.limit and self._may_start():
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._start()
                waiter.set_result(None)

    def _may_start(self) -> bool:
        return True

    def _start(self) -> None:
        self.in_use += 1


class AdaptiveLimiter(Limiter):
    """A limit that finds what the endpoint bears.

    A round is as many answered requests as the limit allows at a time. An episode of 429s lasts from
    the first one through the cool-down, which is what `Retry-After` says; requests that were under way
    when it began belong to it. The slot of a refused request rests for the cool-down: whoever waits
    for a slot would be refused as well. The others go on, since a pause of all would end in a burst.

    From the first 429 on, requests begin evenly over the time of a round: those that were answered
    together would otherwise be sent together, and be refused for coming at once, not for being many.

    Some endpoints answer 429 to a share of requests whatever the load. When cuts to under half of the
    limit leave that share where it was, they were of no use: they are undone, and that share is then
    taken for the endpoint's habit until it changes.

    Args:
        start: the limit to begin with.
        ceiling: never exceeded.
        cool_down: seconds when the endpoint does not tell.
        paced: whether requests are spread from the first 429 on.
        clock: monotonic seconds, the same as `time.monotonic` in `release`.
    """

    adaptive = True

    def __init__(
        self,
        endpoint: str = "",
        *,
        start: int = 20,
        ceiling: int = 1000,
        cool_down: float = 1.0,
        paced: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(start, endpoint)
        self._ceiling = ceiling
        self._default_cool_down = cool_down
        self._clock = clock
        self._doubling = True
        self._cut_at = self._episode_until = -1.0
        self._paced = paced
        self._seconds = 0.0
        """Moving average of the time an answer takes."""
        self._next_start = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._habit = 0.0
        self._cuts: list[_Cut] = []
        self._begin_round()
        self._begin_sample()

    # -- rounds ------------------------------------------------------------------------------------

    def _begin_round(self) -> None:
        self._round = 0
        self._round_429 = 0
        self._round_failed = 0
        self._saturated = False

    def _begin_sample(self) -> None:
        self._sampled = 0
        self._sampled_429 = 0

    async def acquire(self) -> None:
        """Wait for a slot and take it."""
        await super().acquire()
        if self.in_use >= self.limit:
            self._saturated = True

    def release(self, outcome: Outcome, started: float, retry_after: float | None = None) -> None:
        """Give the slot back; the outcome moves the limit."""
        cool_down = self._default_cool_down if retry_after is None else min(retry_after, _LONGEST_COOL_DOWN)
        if outcome == "rate_limited" and cool_down > 0 and not self._habit:
            asyncio.get_running_loop().call_later(cool_down, self._give_back)
        else:
            self.in_use -= 1
        if outcome == "ok":
            took = self._clock() - started
            self._seconds += (took - self._seconds) * (0.1 if self._seconds else 1.0)
        if outcome != "cancelled":
            self._sampled += 1
            self._sampled_429 += outcome == "rate_limited"
        if outcome != "cancelled" and started > self._cut_at:
            self._round += 1
            if outcome == "rate_limited":
                self._round_429 += 1
                self._rate_limited(cool_down)
            elif outcome == "failed":
                self._round_failed += 1
        # Refusals come back sooner than answers, so the beginning of a round says little of its share.
        if self._round >= (max(self.limit, _HABIT_SAMPLE) if self._habit else self.limit):
            self._end_round()
        self._wake()

    def _end_round(self) -> None:
        share = self._round_429 / self._round
        tolerated = self._habit * 1.5 + 0.05 if self._habit else 0.0
        clean = self._round_failed == 0 and share <= tolerated
        if self._habit and share > tolerated:
            self._habit = 0.0
        elif self._habit and share < self._habit / 2:
            self._habit = share if share > 0.02 else 0.0
        # A limit that was not reached has not been tried: growing it would prove nothing.
        if clean and self._saturated:
            if not self._round_429 and self._round >= _SAMPLE:
                self._cuts.clear()
            factor, why = (2.0, "clean round") if self._doubling else (1.05, "clean round, +5 %")
            self._change(min(self._limit * factor, self._ceiling), why)
        self._begin_round()

    # -- 429s --------------------------------------------------------------------------------------

    def _give_back(self) -> None:
        self.in_use -= 1
        self._wake()

    def _rate_limited(self, cool_down: float) -> None:
        if self._habit:
            return  # what a round shows decides, not one answer
        now = self._clock()
        if now < self._episode_until:
            return
        if self._sampled >= _SAMPLE:
            self._cuts.append(_Cut(self._limit, self._sampled, self._sampled_429))
            self._begin_sample()
        self._doubling = False
        if self._useless_cuts():
            return
        self._cut_at = now
        self._episode_until = now + max(cool_down, _SHORTEST_EPISODE)
        self._change(max(self._limit * 0.8, 1.0), "429")
        self._begin_round()

    def _useless_cuts(self) -> bool:
        if len(self._cuts) < 4:
            return False
        first, last = self._cuts[0].limit, self._cuts[-1].limit
        before, after = (_share(half) for half in (self._cuts[: len(self._cuts) // 2], self._cuts[-2:]))
        # With load as the cause, a share of a half at most means at most twice what is borne.
        if last > first * 0.5 or before > 0.5 or after < before * 0.5:
            return False
        self._habit = _share(self._cuts)
        self._cuts.clear()
        self._change(max(first, self._limit), f"{self._habit:.0%} of answers are 429 at any limit")
        self._begin_round()
        self._begin_sample()
        return True

    def _change(self, new: float, why: str) -> None:
        old, self._limit = self.limit, new
        if self.limit != old:
            change = LimitChange(time.time(), self.endpoint, old, self.limit, why)
            self.changes.append(change)
            _changes.append(change)
            log.info("%s: %d requests at a time, was %d (%s)", self.endpoint, self.limit, old, why)

    # -- pacing ------------------------------------------------------------------------------------

    def _may_start(self) -> bool:
        if not self._paced or self._doubling or self._habit:
            return True
        wait = self._next_start - self._clock()
        if wait <= 0:
            return True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._next)
        return False

    def _next(self) -> None:
        self._timer = None
        self._wake()

    def _start(self) -> None:
        super()._start()
        # A little faster than even, so that pacing itself never keeps the limit from being reached.
        gap = self._seconds / (self._limit * 1.25)
        self._next_start = max(self._next_start, self._clock() - gap) + gap


_limiters: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int | None], Limiter]] = (
    weakref.WeakKeyDictionary()
)


def limiter_for(endpoint: str, fixed: int | None = None) -> Limiter:
    """The limiter all callers of this endpoint share in the running event loop.

    Args:
        endpoint: its URL.
        fixed: requests at a time; None: adaptive.
    """
    limiters = _limiters.setdefault(asyncio.get_running_loop(), {})
    limiter = limiters.get((endpoint, fixed))
    if limiter is None:
        limiter = AdaptiveLimiter(endpoint) if fixed is None else Limiter(fixed, endpoint)
        limiters[endpoint, fixed] = limiter
    return limiter


def limit_changes(since: float = 0.0) -> list[LimitChange]:
    """The changes of adaptive limits in this process since a Unix time, oldest first."""
    return [change for change in _changes if change.time >= since]
