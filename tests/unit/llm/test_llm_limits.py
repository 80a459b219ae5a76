"""How many requests an endpoint gets at a time: fixed, and finding out."""

import asyncio
import logging
import random

import pytest

from reflexion.llm.pacing.limits import AdaptiveLimiter, Limiter, limit_changes, limiter_for
from tests.support import virtual_time


class Clock:
    """Seconds that pass when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


async def run_round(limiter: AdaptiveLimiter, clock: Clock, outcomes: list[str], retry_after=None) -> None:
    """Fill the limit, then end the requests of the round as told."""
    clock.now += 0.1
    started = clock.now
    for _ in outcomes:
        await limiter.acquire()
    clock.now += 0.1
    for outcome in outcomes:
        limiter.release(outcome, started, retry_after)


async def clean_round(limiter, clock):
    await run_round(limiter, clock, ["ok"] * limiter.limit)


async def test_starts_at_20_and_doubles_per_clean_round():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False)
    limits = [limiter.limit]
    for _ in range(3):
        await clean_round(limiter, clock)
        limits.append(limiter.limit)
    assert limits == [20, 40, 80, 160]


async def test_after_the_first_429_it_grows_by_5_percent():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=50)
    await clean_round(limiter, clock)
    await run_round(limiter, clock, ["rate_limited"], retry_after=0.0)
    assert limiter.limit == 80
    clock.now += 2
    await clean_round(limiter, clock)
    assert limiter.limit == 84
    await clean_round(limiter, clock)
    assert limiter.limit == 89  # 88.2: what is not whole is paced


async def test_growth_gathers_speed_once_a_cut_is_more_than_made_good():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=50)
    await clean_round(limiter, clock)
    await run_round(limiter, clock, ["rate_limited"], retry_after=0.0)
    clock.now += 2
    whys = []
    for _ in range(9):
        await clean_round(limiter, clock)
        whys.append(limiter.changes[-1].why)
    assert whys == ["clean round, +5 %"] * 6 + ["clean round, +10 %", "clean round, +20 %", "clean round, +25 %"]


async def test_an_endpoint_that_was_away_is_won_back_by_doubling():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=50)
    await clean_round(limiter, clock)
    for _ in range(12):
        await run_round(limiter, clock, ["rate_limited"] * limiter.limit, retry_after=0.0)
        clock.now += 2
    limits = [limiter.limit]
    while limits[-1] <= 50:
        await clean_round(limiter, clock)
        limits.append(limiter.limit)
    assert limits == [7, 14, 28, 55]


async def test_a_single_429_among_many_answers_is_no_episode():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=100)
    await run_round(limiter, clock, ["rate_limited"], retry_after=0.0)
    clock.now += 20
    for _ in range(3):
        await clean_round(limiter, clock)
    limit = limiter.limit
    await run_round(limiter, clock, ["rate_limited", *["ok"] * 20], retry_after=0.0)
    assert limiter.limit == limit
    await run_round(limiter, clock, ["rate_limited"] * 3, retry_after=0.0)
    assert limiter.limit < limit


def test_many_429s_with_a_long_retry_after_stop_all():
    async def play():
        loop = asyncio.get_running_loop()
        limiter = AdaptiveLimiter("e", clock=loop.time)
        for outcome in ("ok", *["rate_limited"] * 10):
            await limiter.acquire()
            await asyncio.sleep(0.01)
            limiter.release(outcome, loop.time() - 0.005, 30.0)
        began = loop.time()
        await limiter.acquire()
        return loop.time() - began

    assert 29 < virtual_time.run(play()) < 31


async def test_one_episode_of_429s_cuts_once():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=100)
    await run_round(limiter, clock, ["rate_limited"] * 60, retry_after=0.0)
    assert limiter.limit == 80
    clock.now += 20  # without an answer, an episode is taken to last longer
    await run_round(limiter, clock, ["rate_limited"] * 60, retry_after=0.0)
    assert limiter.limit == 64
    assert [c.why for c in limiter.changes] == ["429", "429"]


async def test_the_slot_of_a_refused_request_rests_and_the_others_go_on():
    limiter = AdaptiveLimiter("e", start=5, paced=False)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(5):
        await limiter.acquire()
    limiter.release("rate_limited", started, 0.15)
    assert limiter.limit == 4
    limiter.release("ok", started)
    limiter.release("ok", started)
    await limiter.acquire()
    assert loop.time() - started < 0.1
    await limiter.acquire()
    assert loop.time() - started >= 0.15


async def test_more_429s_during_the_cool_down_are_the_same_episode():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=100, cool_down=1.0)
    await run_round(limiter, clock, ["ok"])
    for after, limit in ((0.0, 80), (0.5, 80), (0.4, 80), (0.2, 64)):
        clock.now += after
        await limiter.acquire()
        limiter.release("rate_limited", clock.now, None)
        assert limiter.limit == limit


async def test_after_a_429_requests_begin_evenly():
    limiter = AdaptiveLimiter("e", start=10)
    loop = asyncio.get_running_loop()
    now = loop.time()
    for outcome in ("ok", "rate_limited"):
        await limiter.acquire()
        limiter.release(outcome, now - 0.2, 0.001)
    assert limiter.limit == 8
    began = []
    for _ in range(5):
        await limiter.acquire()
        began.append(loop.time())
    gap = 0.2 * 1.2 / 8
    assert began[-1] - began[0] >= 3 * gap
    assert limiter.in_use >= 5


async def test_server_errors_stop_growth_without_cutting():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False)
    await run_round(limiter, clock, ["ok"] * 19 + ["failed"])
    assert limiter.limit == 20
    await clean_round(limiter, clock)
    assert limiter.limit == 40


class Endpoint:
    """Admits a rate of requests, by the virtual time of the running loop."""

    def __init__(self, rate, burst, *, seconds=0.2, shed=0.0):
        self.loop = asyncio.get_running_loop()
        self.rate, self.burst, self.seconds, self.shed = rate, burst, seconds, shed
        self.left, self.at = burst, self.loop.time()
        self.chance = random.Random(1)
        self.answers: list[bool] = []

    def admits(self):
        now = self.loop.time()
        self.left, self.at = min(self.burst, self.left + (now - self.at) * self.rate), now
        if self.left < 1 or self.chance.random() < self.shed:
            return False
        self.left -= 1
        return True

    async def caller(self, limiter):
        while True:
            await limiter.acquire()
            started, admitted = self.loop.time(), self.admits()
            await asyncio.sleep(self.seconds * self.chance.uniform(0.8, 1.2) if admitted else 0.005)
            self.answers.append(admitted)
            limiter.release("ok" if admitted else "rate_limited", started, 0.2)
            if not admitted:
                await asyncio.sleep(0.2)


async def after_half_a_minute(endpoint, callers=100, measured=20):
    """Answers a second, and the share of 429s, once the limiter had its time."""
    limiter = AdaptiveLimiter("e", clock=endpoint.loop.time)
    tasks = [asyncio.create_task(endpoint.caller(limiter)) for _ in range(callers)]
    await asyncio.sleep(30)
    endpoint.answers.clear()
    await asyncio.sleep(measured)
    answers = list(endpoint.answers)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return sum(answers) / measured, 1 - sum(answers) / len(answers)


@pytest.mark.parametrize(("rate", "seconds"), [(20, 0.05), (20, 0.2), (40, 0.2), (100, 0.2), (40, 1.0)])
def test_it_finds_the_rate_an_endpoint_admits(rate, seconds):
    async def play():
        return await after_half_a_minute(Endpoint(rate, burst=rate / 10, seconds=seconds))

    answered, refused = virtual_time.run(play())
    assert answered >= 0.85 * rate
    assert refused < 0.05


def test_429s_by_chance_do_not_bring_it_down():
    async def play(shed):
        return await after_half_a_minute(Endpoint(1e9, burst=1e9, shed=shed), measured=10)

    for shed, least in ((0.01, 100), (0.1, 50), (0.3, 200)):
        answered, _ = virtual_time.run(play(shed))
        assert answered > least, f"{shed:.0%} of 429s"


async def _limit_with_errors(probability) -> int:
    """The limit after half a minute of an endpoint that fails so often, told the requests it has at a time."""
    loop, chance = asyncio.get_running_loop(), random.Random(1)
    limiter = AdaptiveLimiter("e", clock=loop.time)

    async def caller():
        while True:
            await limiter.acquire()
            started = loop.time()
            failed = chance.random() < probability(limiter.in_use)
            await asyncio.sleep(0.005 if failed else chance.uniform(0.08, 0.12))
            limiter.release("failed" if failed else "ok", started)
            if failed:
                await asyncio.sleep(chance.uniform(0, 0.5))

    tasks = [asyncio.create_task(caller()) for _ in range(500)]
    await asyncio.sleep(30)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return limiter.limit


def test_server_errors_at_any_load_do_not_keep_it_down():
    assert virtual_time.run(_limit_with_errors(lambda at_a_time: 0.1)) > 100


@pytest.mark.parametrize("borne", [10, 30, 70])
def test_server_errors_that_load_brings_stop_it(borne):
    def probability(at_a_time):
        return max(0.0, 1 - borne / at_a_time)

    # By doubling it may go to twice what is borne before it meets an error, and without a round free of
    # errors it takes a step or two to learn that each makes it worse.
    assert virtual_time.run(_limit_with_errors(probability)) <= max(20 * 1.3, borne * 2 * 1.3)


async def test_an_endpoint_in_trouble_stops_growth_however_long_it_lasts():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False)
    for _ in range(50):
        await run_round(limiter, clock, (["ok", "failed"] * limiter.limit)[: limiter.limit])
    assert limiter.limit == 20
    await clean_round(limiter, clock)
    assert limiter.limit == 40


async def test_a_limit_that_is_not_reached_does_not_grow():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False)
    for _ in range(100):
        await run_round(limiter, clock, ["ok"] * 5)
    assert limiter.limit == 20


async def test_it_never_falls_below_one_or_grows_beyond_its_ceiling():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=2)
    for _ in range(20):
        await run_round(limiter, clock, ["rate_limited"], retry_after=0.0)
        clock.now += 20
    assert limiter.limit == 1
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=20, ceiling=50)
    for _ in range(5):
        await clean_round(limiter, clock)
    assert limiter.limit == 50


async def test_429s_that_do_not_follow_the_load_are_a_habit_not_a_limit():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=100)
    third = ["ok", "ok", "rate_limited"]
    for _ in range(12):
        await run_round(limiter, clock, (third * limiter.limit)[: limiter.limit], retry_after=0.0)
        clock.now += 0.1
    assert limiter.limit >= 80
    assert any("at any limit" in c.why for c in limiter.changes)
    high = limiter.limit
    for _ in range(3):  # and load that really is too much is still answered by a cut
        await run_round(limiter, clock, ["rate_limited"] * limiter.limit, retry_after=0.0)
        clock.now += 1
    assert limiter.limit < high


async def test_changes_are_remembered_and_logged(caplog):
    caplog.set_level(logging.INFO, logger="reflexion.llm.pacing.limits")
    clock = Clock()
    limiter = AdaptiveLimiter("http://endpoint/v1", clock=clock, paced=False)
    await clean_round(limiter, clock)
    (change,) = limiter.changes
    assert (change.endpoint, change.old, change.new, change.why) == ("http://endpoint/v1", 20, 40, "clean round")
    assert change in limit_changes(since=change.time)
    assert change not in limit_changes(since=change.time + 1)
    assert "40 requests at a time, was 20" in caplog.text


async def test_a_fixed_limit_stays():
    limiter = Limiter(3)
    for _ in range(3):
        await limiter.acquire()
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    for _ in range(3):
        limiter.release("rate_limited", 0.0, 5.0)
    await waiting
    assert limiter.limit == 3 and not limiter.changes


async def test_slots_go_in_order_and_survive_cancellation():
    limiter = Limiter(1)
    await limiter.acquire()
    order: list[int] = []

    async def take(name: int) -> None:
        await limiter.acquire()
        order.append(name)
        limiter.release("ok", 0.0)

    tasks = [asyncio.create_task(take(i)) for i in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    limiter.release("ok", 0.0)
    tasks[0].cancel()  # in the moment it is handed the slot
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [2, 3]
    assert [isinstance(r, asyncio.CancelledError) for r in results] == [True, True, False, False]
    assert limiter.in_use == 0


@pytest.mark.parametrize("waiting", [2, 3, 20])
async def test_cancelling_all_who_wait_is_a_cancellation_for_each(waiting: int):
    limiter = Limiter(1)
    await limiter.acquire()
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(waiting)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    limiter.release("cancelled", 0.0)  # whoever held the slot is cancelled with the rest
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ended} == {asyncio.CancelledError}
    await asyncio.wait_for(limiter.acquire(), 5)
    assert limiter.in_use == 1


async def test_all_callers_of_an_endpoint_share_a_limiter():
    assert limiter_for("http://a/v1") is limiter_for("http://a/v1")
    assert limiter_for("http://a/v1") is not limiter_for("http://b/v1")
    fixed = limiter_for("http://a/v1", 7)
    assert fixed is not limiter_for("http://a/v1")
    assert fixed.limit == 7 and not fixed.adaptive and limiter_for("http://a/v1").adaptive


@pytest.mark.parametrize("outcome", ["ok", "rate_limited", "failed", "cancelled"])
async def test_every_outcome_gives_the_slot_back(outcome):
    limiter = AdaptiveLimiter("e")
    await limiter.acquire()
    limiter.release(outcome, 0.0, 0.0)
    assert limiter.in_use == 0
