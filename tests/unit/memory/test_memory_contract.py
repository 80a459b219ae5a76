"""What every memory does, over the three backends."""

from __future__ import annotations

import asyncio

import pytest

from reflexion.memory import Memory, Query
from tests.unit.memory.lessons import Clock, Open, lesson

NEW = {"episode": "new/p/0", "run": "new"}


def keys(lessons: list) -> list[str]:
    return [x.key for x in lessons]


async def kept(memory: Memory) -> list[str]:
    return keys([x async for x in memory.export()])


async def test_a_lesson_comes_back_as_it_was_given(opened: Open) -> None:
    memory = opened()
    given = lesson(
        1, prompt="Zähle die Wörter", feedback="3 ≠ 4", failure_class="AssertionError", evaluator="python", trial=2
    )
    assert await memory.add(given)
    assert await memory.lessons("p") == [given]
    assert isinstance(memory, Memory)


async def test_adding_twice_adds_once(opened: Open) -> None:
    memory = opened()
    assert await memory.add(lesson(1))
    assert not await memory.add(lesson(1, text="the same step, replayed"))
    assert [x.text for x in await memory.lessons("p")] == ["lesson 1"]
    assert (await memory.stats()).entries == 1


async def test_many_at_once_add_once(opened: Open) -> None:
    memory = opened()
    added = await asyncio.gather(*(memory.add(lesson(i % 4, problem=f"p{i % 4}")) for i in range(40)))
    assert sum(added) == 4
    assert (await memory.stats()).entries == 4


async def test_a_lesson_without_a_time_gets_the_clock_s(opened: Open, clock: Clock) -> None:
    memory = opened()
    await memory.add(lesson(1, created=0.0))
    assert [x.created for x in await memory.lessons("p")] == [clock.now]


async def test_recall_gives_own_lessons_newest_first(opened: Open) -> None:
    memory = opened(per_problem=5)
    for number in (2, 1, 3):
        await memory.add(lesson(number))
    await memory.add(lesson(9, problem="q"))
    assert keys(await memory.recall(Query(problem="p", own=2, **NEW))) == ["k3", "k2"]
    assert await memory.recall(Query(problem="p", own=0, **NEW)) == []


async def test_recall_leaves_out_what_this_run_learned(opened: Open) -> None:
    memory = opened(per_problem=5)
    await memory.add(lesson(1))
    await memory.add(lesson(2, run="new", episode="new/p/7"))
    await memory.add(lesson(3, run="", episode="new/p/0"))
    assert keys(await memory.recall(Query(problem="p", **NEW))) == ["k1"]
    assert keys(await memory.recall(Query(problem="p", episode="new/p/0", run=""))) == ["k2", "k1"]


async def test_recall_gives_no_text_twice(opened: Open) -> None:
    memory = opened(per_problem=5)
    prompt = "Count the vowels of a word"
    await memory.add(lesson(1, text="Mind the  Y", prompt=prompt))
    await memory.add(lesson(2, text="mind the y", prompt=prompt))
    await memory.add(lesson(3, problem="q", text="Mind the y", prompt=prompt))
    await memory.add(lesson(4, problem="q", text="Use lower()", prompt=prompt))
    found = await memory.recall(Query(problem="p", prompt=prompt, similar=3, **NEW))
    assert keys(found) == ["k2", "k4"]


async def test_similar_problems_come_ranked_after_the_own_lessons(opened: Open) -> None:
    memory = opened()
    await memory.add(lesson(1, problem="near", prompt="Count the vowels in a sentence, capital letters too"))
    await memory.add(lesson(2, problem="nearest", prompt="Count the vowels in a word"))
    await memory.add(lesson(3, problem="far", prompt="Multiply matrices quickly using Strassen"))
    await memory.add(lesson(4, prompt="Count the vowels in one word"))
    query = Query(problem="p", prompt="Count the vowels in one word", similar=5, **NEW)
    assert keys(await memory.recall(query)) == ["k4", "k2", "k1"]
    assert keys(await memory.recall(query.model_copy(update={"similar": 1}))) == ["k4", "k2"]
    assert keys(await memory.recall(query.model_copy(update={"similar": 0}))) == ["k4"]


async def test_rare_words_count_for_more(opened: Open) -> None:
    memory = opened()
    for number in range(20):
        await memory.add(lesson(number, problem=f"x{number}", prompt=f"Write a Python function about topic{number}"))
    await memory.add(lesson(50, problem="rare", prompt="Palindrome"))
    await memory.add(lesson(51, problem="common", prompt="Write a Python function about topic99"))
    found = await memory.recall(Query(problem="p", prompt="Write a palindrome tester", similar=1, **NEW))
    assert keys(found) == ["k50"]


async def test_each_similar_problem_gives_its_most_useful_lesson_first(opened: Open) -> None:
    memory = opened()
    for number, problem in ((1, "a"), (2, "a"), (3, "b")):
        await memory.add(
            lesson(number, problem=problem, prompt="sort the list of names" + " by length" * (problem == "b"))
        )
    await memory.credit(["k1"], passed=True, by="t1")
    await memory.credit(["k2"], passed=False, by="t1")
    found = await memory.recall(Query(problem="p", prompt="sort the list of names", similar=3, **NEW))
    assert keys(found) == ["k1", "k3", "k2"]


@pytest.mark.parametrize("prompt", ["", "…?!", "'\" OR * NEAR( -", "select"])
async def test_any_text_can_be_asked_about(opened: Open, prompt: str) -> None:
    memory = opened()
    await memory.add(lesson(1, problem="q", prompt=prompt))
    found = await memory.recall(Query(problem="p", prompt=prompt, similar=2, **NEW))
    assert keys(found) == (["k1"] if any(c.isalnum() for c in prompt) else [])


async def test_a_prompt_that_comes_later_is_found(opened: Open) -> None:
    memory = opened()
    await memory.add(lesson(1, problem="q"))
    await memory.add(lesson(2, problem="q", prompt="reverse the words"))
    found = await memory.recall(Query(problem="p", prompt="reverse the words", similar=2, **NEW))
    assert keys(found) == ["k2", "k1"]


async def test_a_trial_counts_once_for_each_lesson(opened: Open) -> None:
    memory = opened()
    await memory.add(lesson(1))
    await memory.add(lesson(2))
    for _ in range(3):
        await memory.credit(["k1", "k2", "k1", "unknown"], passed=True, by="run/p/0/2")
    await memory.credit(["k1"], passed=False, by="run/p/0/3")
    assert [(x.uses, x.wins) for x in await memory.lessons("p")] == [(2, 1), (1, 1)]


async def test_the_oldest_go_first(opened: Open) -> None:
    memory = opened(entries=3)
    for number in (5, 1, 4, 3, 2):
        await memory.add(lesson(number, problem=f"p{number}"))
    # 1 and 3 were the oldest when 3 and 2 came; a lesson just added is never the one that goes.
    assert await kept(memory) == ["k2", "k4", "k5"]
    stats = await memory.stats()
    assert (stats.entries, stats.problems, stats.evicted) == (3, 3, 2)


async def test_the_least_used_go_first(opened: Open) -> None:
    memory = opened(entries=3, eviction="least_used")
    for number in (1, 2, 3):
        await memory.add(lesson(number, problem=f"p{number}"))
    await memory.credit(["k1", "k3"], passed=False, by="a")
    await memory.credit(["k1"], passed=False, by="b")
    await memory.add(lesson(4, problem="p4"))
    assert await kept(memory) == ["k1", "k3", "k4"]
    await memory.add(lesson(5, problem="p5"))
    assert await kept(memory) == ["k1", "k3", "k5"]


async def test_the_least_useful_go_first(opened: Open) -> None:
    memory = opened(entries=3, eviction="least_useful")
    for number in (1, 2, 3):
        await memory.add(lesson(number, problem=f"p{number}"))
    await memory.credit(["k1", "k3"], passed=True, by="a")
    await memory.credit(["k3"], passed=False, by="b")
    await memory.credit(["k3"], passed=False, by="c")
    await memory.add(lesson(4, problem="p4"))
    assert await kept(memory) == ["k1", "k2", "k4"]


@pytest.mark.parametrize("eviction", ["oldest", "least_used", "least_useful"])
async def test_a_problem_keeps_its_omega(opened: Open, eviction: str) -> None:
    memory = opened(per_problem=2, eviction=eviction)
    await memory.add(lesson(1))
    await memory.add(lesson(2))
    await memory.credit(["k1"], passed=True, by="a")
    await memory.add(lesson(3))
    await memory.add(lesson(9, problem="other"))
    expected = ["k2", "k3"] if eviction == "oldest" else ["k1", "k3"]
    assert keys(await memory.lessons("p")) == expected
    assert keys(await memory.lessons("other")) == ["k9"]


async def test_a_young_lesson_is_kept_among_well_used_ones(opened: Open) -> None:
    memory = opened(entries=1, eviction="least_useful")
    await memory.add(lesson(1))
    await memory.credit(["k1"], passed=True, by="a")
    assert await memory.add(lesson(2))
    assert await kept(memory) == ["k2"]


async def test_bytes_are_bounded(opened: Open) -> None:
    memory = opened(bytes=3000)
    for number in range(20):
        assert await memory.add(lesson(number, problem=f"p{number}", text="ü" * 400))
        assert (await memory.stats()).bytes <= 3000
    assert await kept(memory) == ["k17", "k18", "k19"]
    assert not await memory.add(lesson(99, text="x" * 4000))
    assert len(await kept(memory)) == 3


async def test_expired_lessons_are_not_seen_and_go_with_a_cleanup(opened: Open, clock: Clock) -> None:
    memory = opened(max_age=100.0)
    for number in range(5):
        await memory.add(lesson(number, problem=f"p{number}", prompt="count vowels"))
    clock.now += 102.0
    assert await memory.recall(Query(problem="p1", **NEW)) == []
    assert len(await memory.recall(Query(problem="x", prompt="count vowels", similar=9, **NEW))) == 2
    assert await kept(memory) == ["k3", "k4"]
    assert await memory.cleanup(budget=2) == 2
    assert await memory.cleanup(budget=2) == 1
    assert await memory.cleanup() == 0
    stats = await memory.stats()
    assert (stats.entries, stats.expired, stats.evicted) == (2, 3, 0)


async def test_adding_cleans_up_on_the_side(opened: Open, clock: Clock) -> None:
    memory = opened(max_age=100.0)
    for number in range(20):
        await memory.add(lesson(number, problem=f"p{number}"))
    clock.now += 1000.0
    for number in range(20, 90):
        await memory.add(lesson(number, problem=f"p{number}", created=clock.now))
    stats = await memory.stats()
    assert (stats.entries, stats.expired) == (70, 20)


async def test_an_expired_lesson_can_be_added(opened: Open, clock: Clock) -> None:
    memory = opened(max_age=10.0, per_problem=1)
    for number in range(70):
        await memory.add(lesson(number, created=clock.now - 1000))
    assert (await memory.stats()).entries == 1
    assert await kept(memory) == []


async def test_export_pages_through_everything_in_order(opened: Open) -> None:
    memory = opened()
    for number in range(600):
        # Many share a time, more than fit a page.
        await memory.add(lesson(number, problem=f"p{number}", created=1_700_000_000.0 + number // 300))
    found = [x async for x in memory.export()]
    assert len(found) == 600 == len({x.key for x in found})
    assert [x.created for x in found] == sorted(x.created for x in found)
    assert len(await memory.lessons()) == 600


async def test_lessons_are_found_by_the_start_of_the_digest(opened: Open) -> None:
    memory = opened()
    for number, problem in enumerate(["abc1", "abd2", "abc3", "a*c"]):
        await memory.add(lesson(number, problem=problem))
    assert keys(await memory.lessons("abc")) == ["k0", "k2"]
    assert keys(await memory.lessons("ab")) == ["k0", "k1", "k2"]
    assert keys(await memory.lessons("a*")) == ["k3"]
    assert await memory.lessons("abc1x") == []


async def test_clear_leaves_nothing_and_the_memory_usable(opened: Open) -> None:
    memory = opened()
    for number in range(300):
        await memory.add(lesson(number, problem=f"p{number}", prompt="count vowels"))
    assert await memory.clear() == 300
    stats = await memory.stats()
    assert (stats.entries, stats.problems, stats.bytes) == (0, 0, 0)
    assert await memory.recall(Query(problem="x", prompt="count vowels", similar=3, **NEW)) == []
    assert await memory.add(lesson(1))


async def test_dropped_problems_leave_the_index(opened: Open) -> None:
    memory = opened(entries=2)
    for number in range(6):
        await memory.add(lesson(number, problem=f"p{number}", prompt=f"count vowels number{number}"))
    found = await memory.recall(Query(problem="x", prompt="count vowels number0", similar=9, **NEW))
    assert keys(found) == ["k5", "k4"]


async def test_closing_twice_does_no_harm(opened: Open) -> None:
    memory = opened()
    await memory.aclose()
    await memory.aclose()
