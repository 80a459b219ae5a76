"""Bulk granularity: up to n ready steps of one kind share a task run.

Recording a task run costs more than most steps. Sharing one takes that price off each step and gives
nothing up: every item has its own cache entry (the same key and store as a step with a task run of its
own), its own retries, and its own line in the task run's record, which Prefect keeps in the state's
message. No step waits for others: a task run takes in steps while it is under way, each begins as it
comes, and its result is there as soon as it is done.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import prefect.runtime.task_run
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from reflexion.errors import ReflexionError, RetryableError
from reflexion.loop.steps import Runner, StepCall, perform
from reflexion.run.cached_steps import CachedSteps
from reflexion.run.lookahead import DoneStep
from reflexion.run.wiring import Session
from reflexion.tasks.draining import MadeRuns, Pace, begin_at_once, flush_local_server, forget_results
from reflexion.tasks.step_records import CACHED, COMPLETED, MESSAGE_LIMIT, StepRecord, item_size, write_message
from reflexion.types import StepName, StepOutput

__all__ = ["CACHED_PER_TASK_RUN", "BulkRunner", "Item", "bulk_runs"]

OPEN_SECONDS = 0.5
"""Seconds a task run takes in steps of its kind. Only its record waits for it, no step does."""

CACHED_OPEN_SECONDS = 5.0
"""As long for steps answered from the cache: they are on record there too, so theirs can wait longer."""

CACHED_PER_TASK_RUN = 256
"""Steps answered from the cache that share a record."""

RETRIES, RETRY_DELAYS = 2, (1.0, 5.0)
"""As for a step with a task run of its own, see `reflexion.tasks.step_tasks`."""


class Item:
    """One step in a shared task run, and what became of it; without a future it is done already."""

    __slots__ = ("call", "error", "future", "output", "runs", "seconds", "started")

    def __init__(self, call: StepCall, future: asyncio.Future[StepOutput | None] | None = None) -> None:
        self.call, self.future = call, future
        # From here on its caller waits, so its time is counted from here.
        self.started, self.seconds, self.runs = time.time(), 0.0, 0
        self.error: str | None = None
        self.output: StepOutput | None = None

    def record(self) -> StepRecord:
        """Its line in the task run's record."""
        output = self.output
        cached = output is not None and output.cached
        outcome = self.error or (CACHED if cached else COMPLETED)
        return StepRecord(self.call.name, outcome, self.started, self.seconds, self.runs, output)


class Wave:
    """The steps that share one task run. A plain object, which Prefect does not walk through."""

    def __init__(self, runner: BulkRunner, step: StepName, *, cached: bool) -> None:
        self.runner, self.cached = runner, cached
        self.step: StepName = step
        self.items: list[Item] = []
        self._begun: contextvars.Context | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = asyncio.Event()

    def join(self, item: Item) -> None:
        """Take in a step; it begins at once, or with the task run if that has not begun."""
        self.items.append(item)
        if self._begun is not None:
            self._launch(item, self._begun)

    def close(self) -> None:
        """Take in no more: the task run ends with the last step it has."""
        self._closed.set()

    def _launch(self, item: Item, context: contextvars.Context) -> None:
        if item.future is None:
            return  # it is done already
        # Inside the task run, as far as Prefect and its loggers can tell.
        step = asyncio.get_running_loop().create_task(self.runner.carry_out(item), context=context.copy())
        self._tasks.append(step)

    async def carry_out(self) -> bool:
        """Carry out the steps until the wave is closed and the last of them is done; whether it went well."""
        self._begun = contextvars.copy_context()
        for item in self.items:
            self._launch(item, self._begun)
        try:
            await self._closed.wait()
            ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        except asyncio.CancelledError:
            for step in self._tasks:
                step.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            raise
        return all(end is None for end in ends) and not all(item.error for item in self.items)


def wave_name() -> str:
    """Name of a shared task run: step, first problem and the most steps it may have."""
    wave = prefect.runtime.task_run.parameters["wave"]
    assert isinstance(wave, Wave)
    most = CACHED_PER_TASK_RUN if wave.cached else wave.runner.size
    return f"{wave.step}:{wave.items[0].call.attempt.problem.id} x{most}"


def _bulk(name: StepName) -> Task[[Wave], Any]:
    @task(
        name=name,
        task_run_name=wave_name,
        cache_policy=NO_CACHE,
        persist_result=False,
        cache_result_in_memory=False,
        tags=["reflexion-bulk"],
    )
    async def wave_task(wave: Wave) -> State[None]:
        base = time.time()
        well = await wave.carry_out()
        message = write_message([item.record() for item in wave.items], base)
        if not well:
            return Failed(message=message)
        return Completed(name=CACHED if wave.cached else COMPLETED, message=message)

    return wave_task


BULK_TASKS: dict[StepName, Task[[Wave], Any]] = {
    "trial": _bulk("trial"),
    "evaluate": _bulk("evaluate"),
    "reflect": _bulk("reflect"),
    "memorize": _bulk("memorize"),
}


class BulkRunner:
    """Puts ready steps of one kind into shared task runs.

    Args:
        size: steps that share a task run at most.
        made: counts the task runs made.
    """

    def __init__(self, session: Session, size: int, made: MadeRuns | None = None) -> None:
        self._cached = CachedSteps(session.cache, session.ttl) if session.cache is not None else None
        self.size = size
        self._waves: dict[tuple[StepName, bool], tuple[Wave, asyncio.TimerHandle]] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self.made = made or MadeRuns()
        self._pace = Pace()

    async def __call__(self, call: StepCall) -> StepOutput | None:
        """Carry out one step in a task run it shares with others of its kind."""
        if self._cached is not None and call.cacheable:
            item = Item(call)
            item.output = await self._cached.look_up(call)
            if item.output is not None:
                item.seconds = time.time() - item.started
                self._join(item, cached=True)
                return item.output
        await self._pace.wait()
        future: asyncio.Future[StepOutput | None] = asyncio.get_running_loop().create_future()
        self._join(Item(call, future), cached=False)
        return await future

    def note(self, steps: Sequence[DoneStep]) -> None:
        """Put steps on record that are done already."""
        for step in steps:
            item = Item(step.call)
            item.output, item.started, item.seconds = step.output, step.started, step.seconds
            cached = step.output is not None and step.output.cached
            item.runs = 0 if cached else 1
            self._join(item, cached=cached)

    async def carry_out(self, item: Item) -> None:
        """Carry out one item, with retries of its own; its waiter is told at once."""
        assert item.future is not None
        try:
            while True:
                item.runs += 1
                try:
                    output = await self._compute(item.call)
                    break
                except RetryableError:
                    if item.runs > RETRIES:
                        raise
                    await asyncio.sleep(RETRY_DELAYS[item.runs - 1] * random.uniform(0.5, 1.5))
        except ReflexionError as exc:
            item.error = type(exc).__name__
            _settle(item.future, exc)
        except BaseException as exc:
            # A bug or a cancellation: the waiter must hear of it too, or it would wait for ever.
            item.error = type(exc).__name__
            _settle(item.future, exc)
            raise
        else:
            item.output = output
            if not item.future.done():
                item.future.set_result(output)
        finally:
            item.seconds = time.time() - item.started

    async def _compute(self, call: StepCall) -> StepOutput | None:
        if self._cached is None or not call.cacheable:
            return await perform(call)
        return await self._cached.output(call, looked_up=True)

    def _join(self, item: Item, *, cached: bool) -> None:
        kind = (item.call.step, cached)
        if kind not in self._waves:
            wave = Wave(self, item.call.step, cached=cached)
            seconds = CACHED_OPEN_SECONDS if cached else OPEN_SECONDS
            timer = asyncio.get_running_loop().call_later(seconds, self._close, kind)
            self._waves[kind] = wave, timer
            wave.join(item)
            self._start(wave)
        else:
            wave = self._waves[kind][0]
            wave.join(item)
        if _is_full(wave.items, CACHED_PER_TASK_RUN if cached else self.size):
            self._close(kind)

    def _close(self, kind: tuple[StepName, bool]) -> None:
        wave, timer = self._waves.pop(kind)
        timer.cancel()
        wave.close()

    def _start(self, wave: Wave) -> None:
        self.made.task_runs += 1
        run = asyncio.ensure_future(begin_at_once(BULK_TASKS[wave.step], wave=wave))
        self._under_way.add(run)
        run.add_done_callback(partial(self._ended, wave))

    def _ended(self, wave: Wave, run: asyncio.Task[Any]) -> None:
        self._under_way.discard(run)
        self._pace.ended()
        kind = (wave.step, wave.cached)
        if kind in self._waves and self._waves[kind][0] is wave:
            self._close(kind)  # Prefect could not begin it: nobody may join it any more
        error = None if run.cancelled() else run.exception()
        for item in wave.items:
            # Steps tell of their own ends; these were never begun, since their task run was not.
            if item.future is not None and not item.future.done():
                _settle(item.future, error or asyncio.CancelledError())
        forget_results()

    async def drain(self) -> None:
        """Record what is left, and wait for the task runs under way."""
        for kind in list(self._waves):
            self._close(kind)
        while self._under_way:
            await asyncio.wait(self._under_way)

    def cancel(self) -> None:
        """Stop the task runs under way and those not begun: nobody waits for them any more."""
        for kind in list(self._waves):
            self._close(kind)
        for run in self._under_way:
            run.cancel()


def _is_full(items: list[Item], size: int) -> bool:
    """Whether no further item may share a task run with these: their number, or their record's length."""
    return len(items) >= size or len(items) * item_size(items[-1].call.name) > MESSAGE_LIMIT


def _settle(future: asyncio.Future[Any], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    else:
        future.set_exception(error)


@asynccontextmanager
async def bulk_runs(session: Session, size: int, made: MadeRuns | None = None) -> AsyncGenerator[Runner]:
    """A runner that lets up to `size` ready steps of one kind share a task run of the current flow run."""
    runner = BulkRunner(session, size, made)
    try:
        yield runner
    except BaseException:
        runner.cancel()
        raise
    finally:
        await runner.drain()
        context = FlowRunContext.get()
        if context is not None and context.flow_run is not None:
            await flush_local_server(context.flow_run.id, runner.made.task_runs)
