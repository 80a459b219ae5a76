"""Steps that share a task run: each begins as it comes, and none waits for another."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from reflexion.errors import RequestRejectedError
from reflexion.loop.algorithm import Attempt
from reflexion.loop.steps import EpisodeOptions, Runtime, StepCall
from reflexion.loop.strategies import Past
from reflexion.run.wiring import Session
from reflexion.tasks.shared_runs import BulkRunner, Item, Wave
from reflexion.testing import ScriptedLLM
from reflexion.types import Problem, Trial


def runner_of(size: int) -> BulkRunner:
    llm = ScriptedLLM(lambda prompt: "42")
    runtime = Runtime(options=EpisodeOptions(), actor=lambda index: llm, reflector=llm, evaluator=cast(Any, None))
    return BulkRunner(Session(runtime, None, {}), size)


class Steps:
    """Steps whose ends are in the test's hands."""

    def __init__(self, runner: BulkRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[str] = []
        self.may_end = asyncio.Event()
        self.runner = runner
        monkeypatch.setattr("reflexion.tasks.shared_runs.perform", self.perform)

    async def perform(self, call: StepCall) -> Trial:
        name = call.attempt.problem.id
        self.begun.append(name)
        if name.startswith("slow"):
            await self.may_end.wait()
        if name == "wrong":
            raise RequestRejectedError("no")
        if name == "bug":
            raise RuntimeError("a bug")
        return Trial(index=1, answer=name)

    def item(self, name: str) -> Item:
        attempt = Attempt(Problem(id=name, prompt="?"), 1, 0, Past())
        call = StepCall(cast(Any, None), "trial", attempt)
        return Item(call, asyncio.get_running_loop().create_future())


async def test_a_step_begins_when_it_comes_and_ends_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(8)
    steps = Steps(runner, monkeypatch)
    wave = Wave(runner, "trial", cached=False)
    slow, quick, late = steps.item("slow"), steps.item("quick"), steps.item("late")
    wave.join(slow)
    run = asyncio.create_task(wave.carry_out())
    wave.join(quick)
    assert (await asyncio.wait_for(quick.future, 5)).answer == "quick"
    wave.join(late)  # a task run that is under way takes in more
    assert (await asyncio.wait_for(late.future, 5)).answer == "late"
    assert not slow.future.done() and not run.done()
    wave.close()
    steps.may_end.set()
    assert await asyncio.wait_for(run, 5)
    assert [i.record().outcome for i in wave.items] == ["Completed"] * 3
    assert steps.begun == ["slow", "quick", "late"]


@pytest.mark.parametrize(
    ("names", "well"), [(("good", "wrong"), True), (("wrong", "wrong"), False), (("good", "bug"), False)]
)
async def test_a_task_run_fails_with_all_its_steps_or_with_a_bug(
    names: tuple[str, ...], well: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_of(8)
    steps = Steps(runner, monkeypatch)
    wave = Wave(runner, "trial", cached=False)
    for name in names:
        wave.join(steps.item(name))
    wave.close()
    assert await wave.carry_out() is well
    ends = await asyncio.gather(*(cast(Any, item.future) for item in wave.items), return_exceptions=True)
    kinds = {"wrong": RequestRejectedError, "bug": RuntimeError, "good": Trial}
    assert [type(end) for end in ends] == [kinds[name] for name in names]


async def test_steps_of_a_cancelled_task_run_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(8)
    steps = Steps(runner, monkeypatch)
    wave = Wave(runner, "trial", cached=False)
    item = steps.item("slow")
    wave.join(item)
    run = asyncio.create_task(wave.carry_out())
    while not steps.begun:
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert item.future is not None and item.future.cancelled()
    assert item.error == "CancelledError"


async def test_a_task_run_that_cannot_begin_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(step: object, wave: Wave) -> None:
        raise ConnectionError("no server")

    runner = runner_of(8)
    steps = Steps(runner, monkeypatch)
    monkeypatch.setattr("reflexion.tasks.shared_runs.begin_at_once", broken)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(runner(steps.item("a").call), 5)
    assert runner.made.task_runs == 2
    await runner.drain()


async def test_steps_fill_a_task_run_before_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    waves: list[Wave] = []

    async def carry_out(step: object, wave: Wave) -> None:
        waves.append(wave)
        await wave.carry_out()

    runner = runner_of(4)
    steps = Steps(runner, monkeypatch)
    monkeypatch.setattr("reflexion.tasks.shared_runs.begin_at_once", carry_out)
    outputs = await asyncio.gather(*(runner(steps.item(f"p{n}").call) for n in range(10)))
    await runner.drain()
    assert [o.answer for o in outputs if isinstance(o, Trial)] == [f"p{n}" for n in range(10)]
    assert [len(wave.items) for wave in waves] == [4, 4, 2]
