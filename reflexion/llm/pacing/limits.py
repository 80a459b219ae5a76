"""How many requests one endpoint gets at a time: a fixed number, or one that adapts.

The adaptive limit grows step by step and shrinks by a share, as in TCP congestion control: it starts at
20, doubles after each clean round until the first 429, grows by 5 % a round from then on, and shrinks to
80 % once per episode of 429s. Server errors and timeouts stop growth without cutting, unless they come
at any limit alike.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reflexion.llm.pacing.refusals import FaultHistory, RecentShare, RefusalHistory, UselessCuts

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


# Seconds:
_SHORTEST_EPISODE = 0.1
_LONGEST_COOL_DOWN = 60.0
_QUICKEST_ROUND = 0.15
_LONGEST_ROUND = 3.0
_CATCH_UP = 0.01
_FIRST_ANSWER = 10.0
_WORTH_A_PAUSE = 1.5
"""`Retry-After` from which all wait; a shorter one is over before a pause is of use."""

_SHORTEST_ROUND = 20
"""Answers: below, one 429 in a while is too large a share of them."""
_LEAST = 0.25
"""Requests at a time. A quarter: one begins every four times as long as an answer takes."""
_WON_BACK = 6
"""Clean rounds after which a cut is more than made good, and growth need not stay that careful."""
_FASTEST = 1.25
_SLACK = 1.2
"""Requests begin so much slower than the limit allows: else answers that come late would hold up the next
ones, which then began together."""
_HABIT_SAMPLE = 30
"""Answers of a round where 429s are the endpoint's habit."""
_HABIT_WEIGHT = 0.2
"""Of a round's share in what is known of the habit: at first that is a few dozen answers."""
_HABIT_GONE = 0.02

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
            elif waiter in self._waiters:  # another caller's `_wake` may have dropped it already
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

    A round is as many answered requests as the limit allows at a time, and at least 20 after the first
    429: of fewer, the one refusal that ends each climb would be too large a share. An episode of 429s
    lasts from the first one through the cool-down, which is what `Retry-After` says, and at least as long
    as an answer takes; requests that were under way when it began belong to it. When many are refused in
    one episode that the endpoint says is long, nothing begins until it is over. A single 429 among many
    answers is no episode: some endpoints shed a few whatever the load.

    From the first 429 on, requests begin evenly over the time of an answer: those that were answered
    together would otherwise be sent together, and be refused for coming at once, not for being many. So
    the limit holds its parts of a whole too: 4.2 at a time are 5 % more requests a second than 4.

    Growth of 5 % is right near what is borne and slow far below it. Hence up to half of the limit that
    was cut from is won back by doubling (an endpoint may have been away for a while), and when more
    rounds in a row are clean than a cut takes to be made good, the step doubles, up to 25 %.

    Some endpoints answer 429 to a share of requests whatever the load. When cuts to under half of the
    limit leave that share where it was, they were of no use: they are undone, and that share is then
    taken for the endpoint's habit until it changes.

    So it is with server errors and timeouts. Those that are as frequent at this limit as they were at lower
    ones are not brought by load, and do not keep it from growing, by 5 % to 25 % a round.

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
        self._paused_until = -1.0
        self._refused = 0
        """429s of this episode."""
        self._borne = 0.0
        """The limit that was cut from last, if rounds before were clean."""
        self._clean = 0
        """Clean rounds since the last cut."""
        self._habit = 0.0
        self._recent = RecentShare()
        self._history = RefusalHistory()
        self._faults = FaultHistory()
        self._begin_round()

    # -- rounds ------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """Requests allowed at a time."""
        return max(1, math.ceil(self._limit - 1e-9))

    def _begin_round(self) -> None:
        self._round_began = self._clock()
        self._round = 0
        self._round_429 = 0
        self._round_failed = 0
        self._begun = self._held_up = 0
        self._full = False

    async def acquire(self) -> None:
        """Wait for a slot and take it."""
        self._begun += 1
        self._held_up += bool(self._waiters) or not self._may_start()
        self._full = self._full or self.in_use + 1 >= self.limit
        await super().acquire()

    def release(self, outcome: Outcome, started: float, retry_after: float | None = None) -> None:
        """Give the slot back; the outcome moves the limit."""
        cool_down = self._default_cool_down if retry_after is None else min(retry_after, _LONGEST_COOL_DOWN)
        if outcome == "rate_limited" and cool_down > 0 and not (self._habit or self._pacing):
            # Whoever waits for the slot would be refused as well. The others go on.
            asyncio.get_running_loop().call_later(cool_down, self._give_back)
        else:
            self.in_use -= 1
        if outcome == "ok":
            took = self._clock() - started
            if not self._seconds:
                self._episode_until = min(self._episode_until, self._clock())
            self._seconds += (took - self._seconds) * (min(0.05, 1 / self.limit) if self._seconds else 1.0)
        if outcome != "cancelled":
            self._recent.add(outcome == "rate_limited")
            self._history.add(outcome == "rate_limited")
            self._faults.add(outcome == "failed")
        if outcome != "cancelled" and started > self._cut_at:
            self._round += 1
            if outcome == "rate_limited":
                self._round_429 += 1
                self._rate_limited(cool_down, pause=retry_after is not None and cool_down >= _WORTH_A_PAUSE)
            elif outcome == "failed":
                self._round_failed += 1
        if self._round >= self.limit and self._round_is_over():
            self._end_round()
        self._wake()

    def _round_is_over(self) -> bool:
        if self._habit:
            # Refusals come back sooner than answers, so the beginning of a round says little of its share.
            return self._round >= _HABIT_SAMPLE
        if self._doubling or self._winning_back:
            return True
        lasted = self._clock() - self._round_began
        return lasted > _LONGEST_ROUND or (self._round >= _SHORTEST_ROUND and lasted > _QUICKEST_ROUND)

    @property
    def _winning_back(self) -> bool:
        return self._limit * 2 <= self._borne

    @property
    def _used(self) -> bool:
        """Whether the limit was reached in this round."""
        return self._full or self._held_up * 2 > self._begun

    def _end_round(self) -> None:
        share = self._round_429 / self._round
        tolerated = min(self._habit * 1.5 + 0.05, 0.6) if self._habit else 0.0
        few = not self._doubling and not self._habit and self._recent.rare
        clean = (self._round_failed == 0 or self._faults.steady) and (few or share <= tolerated)
        if self._habit and share > tolerated and self._recent.value > tolerated:
            self._habit = 0.0  # one round of few answers may exceed it by chance
        elif self._habit:
            self._habit += (share - self._habit) * _HABIT_WEIGHT
            if self._habit < _HABIT_GONE:
                self._habit = 0.0
        # A limit that was not reached has not been tried: growing it would prove nothing.
        if clean and self._used:
            self._clean += 1
            factor = self._growth()
            why = "clean round" if factor == 2 else f"clean round, +{factor - 1:.0%}".replace("%", " %")
            self._change(min(self._limit * factor, self._ceiling), why)
        else:
            self._faults.stay()
        self._begin_round()

    def _growth(self) -> float:
        if (self._doubling or self._winning_back) and not self._round_failed:
            return 2.0
        careful = _WON_BACK if self._borne else 1  # a cut of the very first limit says little of what is borne
        return min(1 + 0.05 * 2.0 ** min(max(0, self._clean - careful), 10), _FASTEST)

    # -- 429s --------------------------------------------------------------------------------------

    def _give_back(self) -> None:
        self.in_use -= 1
        self._wake()

    def _rate_limited(self, cool_down: float, *, pause: bool) -> None:
        if self._habit:
            return  # what a round shows decides, not one answer
        now = self._clock()
        if now < self._episode_until:
            self._refused += 1
            if pause and self._refused >= max(3, self.limit // 4):
                self._paused_until = self._episode_until
            return
        if self._recent.rare and not self._doubling:
            return
        self._doubling = False
        useless = self._history.cut(self._limit, used=self._used, lowest=self._limit <= self._least)
        if useless is not None:
            self._take_for_habit(useless)
            return
        self._cut_at, self._refused = now, 1
        if self._clean:
            self._borne, self._clean = self._limit, 0
        # What a cut brought shows in the answers to requests that began after it.
        answer = self._seconds or _FIRST_ANSWER
        self._episode_until = now + max(cool_down, _SHORTEST_EPISODE, min(answer, _LONGEST_COOL_DOWN))
        self._change(max(self._limit * 0.8, self._least), "429")
        self._begin_round()

    @property
    def _least(self) -> float:
        """Where answers take long, there is no need for less than one request at a time."""
        return min(1.0, max(_LEAST, self._seconds))

    def _take_for_habit(self, useless: UselessCuts) -> None:
        self._habit = useless.share
        self._change(max(useless.limit, self._limit), f"{self._habit:.0%} of answers are 429 at any limit")
        self._begin_round()

    def _change(self, new: float, why: str) -> None:
        if new > self._limit:
            self._faults.raised()
        elif new < self._limit:
            self._faults.lowered()
        old, self._limit = self.limit, new
        if self.limit != old:
            change = LimitChange(time.time(), self.endpoint, old, self.limit, why)
            self.changes.append(change)
            _changes.append(change)
            log.info("%s: %d requests at a time, was %d (%s)", self.endpoint, self.limit, old, why)

    # -- pacing ------------------------------------------------------------------------------------

    @property
    def _pacing(self) -> bool:
        return self._paced and self._seconds > 0 and not self._doubling

    def _may_start(self) -> bool:
        now = self._clock()
        begin = max(self._next_start if self._pacing else now, self._paused_until)
        if begin <= now:
            return True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(begin - now, self._next)
        return False

    def _next(self) -> None:
        self._timer = None
        self._wake()

    def _start(self) -> None:
        super()._start()
        if self._pacing:
            gap = self._seconds * _SLACK / self._limit
            # What a busy event loop was late by is made up for, as long as it is little.
            self._next_start = max(self._next_start, self._clock() - max(gap, _CATCH_UP)) + gap


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
