"""How many requests an endpoint gets at a time: fixed, and finding out."""

import asyncio
import logging

import pytest

from reflexion.llm.limits import AdaptiveLimiter, Limiter, limit_changes, limiter_for


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
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=100)
    await run_round(limiter, clock, ["rate_limited"], retry_after=0.0)
    assert limiter.limit == 80
    clock.now += 2
    await clean_round(limiter, clock)
    assert limiter.limit == 84
    await clean_round(limiter, clock)
    assert limiter.limit == 88  # 88.2


async def test_one_episode_of_429s_cuts_once():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False, start=100)
    await run_round(limiter, clock, ["rate_limited"] * 60, retry_after=0.0)
    assert limiter.limit == 80
    clock.now += 2
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
    gap = 0.2 / (8 * 1.25)
    assert began[-1] - began[0] >= 3 * gap
    assert limiter.in_use >= 5


async def test_server_errors_stop_growth_without_cutting():
    clock = Clock()
    limiter = AdaptiveLimiter("e", clock=clock, paced=False)
    await run_round(limiter, clock, ["ok"] * 19 + ["failed"])
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
        clock.now += 1
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
    caplog.set_level(logging.INFO, logger="reflexion.llm.limits")
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
