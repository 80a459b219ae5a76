"""Bulk granularity: up to n ready steps of one kind share a task run.

Recording a task run costs more than most steps. Sharing one takes that price off each step and gives
nothing up: every item has its own cache entry (the same key and store as a step with a task run of its
own), its own retries, and its own line in the task run's record, which Prefect keeps in the state's
message. An item's result is there as soon as that item is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import prefect.runtime.task_run
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from reflexion.direct import CachedSteps
from reflexion.errors import ReflexionError, RetryableError
from reflexion.session import Session
from reflexion.steps import Runner, StepCall, perform
from reflexion.types import StepName, StepOutput
from tasks.recorded import MadeRuns, flush_local_server
from tasks.records import CACHED, COMPLETED, MESSAGE_LIMIT, StepRecord, item_size, write_message

__all__ = ["CACHED_PER_TASK_RUN", "BulkRunner", "Item", "bulk_runs"]

LINGER = 0.02
"""Seconds a ready step waits for others of its kind."""

CACHED_PER_TASK_RUN = 256
"""Steps answered from the cache that share a record; they wait for nothing, so it can be large."""

RETRIES, RETRY_DELAYS = 2, (1.0, 5.0)
"""As for a step with a task run of its own, see `tasks.steps`."""


class Item:
    """One step in a shared task run, and what became of it."""

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

    def __init__(self, runner: BulkRunner, items: list[Item], *, cached: bool) -> None:
        self.runner, self.items, self.cached = runner, items, cached


def wave_name() -> str:
    """Name of a shared task run: step, first problem and number of steps."""
    wave = prefect.runtime.task_run.parameters["wave"]
    assert isinstance(wave, Wave)
    first = wave.items[0].call
    return f"{first.step}:{first.attempt.problem.id} x{len(wave.items)}"


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
        bugs: list[BaseException] = []
        if not wave.cached:
            ends = await asyncio.gather(*(wave.runner.carry_out(item) for item in wave.items), return_exceptions=True)
            bugs = [end for end in ends if end is not None]
        message = write_message([item.record() for item in wave.items], base)
        if bugs or all(item.error for item in wave.items):
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
    """Collects ready steps by kind and carries each collection out as one task run.

    Args:
        size: steps that share a task run at most.
        made: counts the task runs made.
    """

    def __init__(self, session: Session, size: int, made: MadeRuns | None = None) -> None:
        self._cached = CachedSteps(session.cache, session.ttl) if session.cache is not None else None
        self._size = size
        self._waiting: dict[StepName, list[Item]] = {}
        self._timers: dict[StepName, asyncio.TimerHandle] = {}
        self._ledger: dict[StepName, list[Item]] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self.made = made or MadeRuns()

    async def __call__(self, call: StepCall) -> StepOutput | None:
        """Carry out one step together with others of its kind."""
        if self._cached is not None and call.cacheable:
            item = Item(call)
            item.output = await self._cached.look_up(call)
            if item.output is not None:
                self._note_cached(item)
                return item.output
        future: asyncio.Future[StepOutput | None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(call.step, [])
        queue.append(Item(call, future))
        if _is_full(queue, self._size):
            self._send(call.step)
        elif call.step not in self._timers:
            self._timers[call.step] = asyncio.get_running_loop().call_later(LINGER, self._send, call.step)
        return await future

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
        return await perform(call) if self._cached is None or not call.cacheable else await self._cached.output(call)

    def _note_cached(self, item: Item) -> None:
        item.seconds = time.time() - item.started
        step = item.call.step
        ledger = self._ledger.setdefault(step, [])
        ledger.append(item)
        if _is_full(ledger, CACHED_PER_TASK_RUN):
            self._send_cached(step)

    def _send(self, step: StepName) -> None:
        timer = self._timers.pop(step, None)
        if timer is not None:
            timer.cancel()
        items = self._waiting.pop(step, [])
        if items:
            self._start(step, Wave(self, items, cached=False))

    def _send_cached(self, step: StepName) -> None:
        items = self._ledger.pop(step, [])
        if items:
            self._start(step, Wave(self, items, cached=True))

    def _start(self, step: StepName, wave: Wave) -> None:
        self.made.task_runs += 1
        run = asyncio.ensure_future(BULK_TASKS[step](wave))
        self._under_way.add(run)
        run.add_done_callback(self._ended)

    def _ended(self, run: asyncio.Task[Any]) -> None:
        self._under_way.discard(run)
        with contextlib.suppress(asyncio.CancelledError):
            run.exception()  # told to the items' waiters already
        context = FlowRunContext.get()
        if context is not None:
            context.run_results.clear()

    async def drain(self) -> None:
        """Record what is left, and wait for the task runs under way."""
        for step in list(self._ledger):
            self._send_cached(step)
        while self._under_way:
            await asyncio.wait(self._under_way)

    def cancel(self) -> None:
        """Stop the task runs under way and those not begun: nobody waits for them any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
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
