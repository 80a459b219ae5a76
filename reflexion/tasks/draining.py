"""Waiting until a server has recorded what was run: task runs reach it as events, long after a batch returns."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect import Task, get_client
from prefect.client.base import ServerType
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.task_engine import run_task_async

__all__ = [
    "FINAL_STATES",
    "MadeRuns",
    "Pace",
    "begin_at_once",
    "count_task_runs",
    "flush_local_server",
    "forget_results",
    "wait_for_room",
    "wait_until_recorded",
]

logger = logging.getLogger("reflexion.prefect")

FINAL_STATES = [s.value for s in (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)]

STALLED = 30.0
"""Seconds without a further record after which waiting ends."""


UNSENT_EVENTS, ROOM_SECONDS = 2_000, 5.0
"""Events of task runs that may wait to be sent, and how long a step waits for them to become fewer."""

BACKLOG = 1_000
"""Task runs that may have ended and not be recorded yet. A Prefect server holds 10,000 events in its memory,
two of each task run or more, and drops what comes on top."""


async def begin_at_once(step: Task[..., Any], **parameters: Any) -> None:
    """Run a task of this flow run; the first its server hears of it is that it runs.

    Calling the task would first tell that it is pending: a third of all the server had to record, about a
    moment that takes no time.
    """
    run = await step.create_local_run(parameters=parameters)
    await run_task_async(step, task_run=run, parameters=parameters)


def forget_results() -> None:
    """Let go of what Prefect keeps to tell which task's output another task was given.

    Steps pass their outputs on through the loop, never from task to task, so nobody asks for results and
    assets of earlier task runs; kept, they would grow with every step of the run.
    """
    context = FlowRunContext.get()
    if context is not None:
        context.run_results.clear()
        context.task_run_assets.clear()


@dataclass
class MadeRuns:
    """Counts the task runs a flow run made, for those who wait until they are recorded."""

    task_runs: int = 0


async def wait_for_room() -> None:
    """Wait while this process has many events to send, a few seconds at most.

    Prefect keeps them in memory without a limit, each with the context it was made in: a server that takes
    them more slowly than steps are made would let the process grow for as long as the run goes on.
    """
    queue = EventsWorker.instance()._queue  # pyright: ignore[reportPrivateUsage]
    deadline = time.monotonic() + ROOM_SECONDS
    while queue.qsize() > UNSENT_EVENTS and time.monotonic() < deadline:  # noqa: ASYNC110 - a queue of threads
        await asyncio.sleep(0.02)


class Pace:
    """Keeps a flow run from being so far ahead of the server that records would be lost.

    Args:
        backlog: task runs the server may be behind.
        stalled: seconds without a further record after which nothing is waited for any more.
    """

    def __init__(self, backlog: int = BACKLOG, stalled: float = STALLED) -> None:
        self._backlog, self._stalled = backlog, stalled
        self._ended = self._recorded = 0
        self._asking = asyncio.Lock()
        self._off = False

    def ended(self) -> None:
        """A task run ended: its record is on its way."""
        self._ended += 1

    @property
    def behind(self) -> bool:
        """Whether the server is too far behind, as far as is known."""
        return not self._off and self._ended - self._recorded >= self._backlog

    async def wait(self) -> None:
        """Wait while the server is too far behind; to be called before a task run is made."""
        if not self.behind:
            return
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            return
        async with self._asking:
            if self.behind:
                await self._catch_up(context.flow_run.id)

    async def _catch_up(self, flow_run: UUID) -> None:
        moved = time.monotonic()
        try:
            async with get_client() as client:
                while self.behind:
                    recorded = await count_task_runs(client, flow_run)
                    if recorded > self._recorded:
                        self._recorded, moved = recorded, time.monotonic()
                    elif time.monotonic() - moved > self._stalled:
                        self._give_up("it records nothing")
                    if self.behind:
                        await asyncio.sleep(0.25)
        except httpx.HTTPError as exc:
            self._give_up(f"{type(exc).__name__}: {exc}")

    def _give_up(self, reason: str) -> None:
        self._off = True
        logger.warning(
            "the Prefect server is %d task runs behind and is not waited for any more (%s): records may be lost",
            self._ended - self._recorded,
            reason,
        )


async def count_task_runs(client: PrefectClient, flow_run: UUID) -> int:
    """Task runs of a flow run whose end the server has recorded."""
    flow_filter = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    # The client has no method for this route; its own transport carries authentication and retries.
    response = await client._client.post(  # pyright: ignore[reportPrivateUsage]
        "/task_runs/count",
        json={
            "flow_runs": flow_filter.model_dump(mode="json", exclude_unset=True),
            "task_runs": {"state": {"type": {"any_": FINAL_STATES}}},
        },
    )
    response.raise_for_status()
    return int(response.json())


async def wait_until_recorded(flow_run: UUID, made: int, *, stalled: float = STALLED) -> int:
    """Wait until the server has recorded `made` task runs of a flow run.

    Args:
        stalled: seconds without progress after which waiting ends.

    Returns:
        Task runs still missing: 0 when all are recorded.
    """
    best, moved = -1, time.monotonic()
    async with get_client() as client:
        while True:
            count = await count_task_runs(client, flow_run)
            if count >= made:
                return 0
            if count > best:
                best, moved = count, time.monotonic()
            elif time.monotonic() - moved > stalled:
                return made - count
            await asyncio.sleep(0.25)


async def flush_local_server(flow_run: UUID, made: int) -> None:
    """Keep a local server up until it has recorded everything: it ends with this process.

    A server of its own carries on by itself, so nothing is waited for.
    """
    async with get_client() as client:
        if client.server_type is not ServerType.EPHEMERAL:
            return
    try:
        missing = await wait_until_recorded(flow_run, made)
    except httpx.HTTPError as exc:
        logger.warning("the local Prefect server is gone (%s): task runs may not be recorded", type(exc).__name__)
        return
    if missing:
        logger.warning("the local Prefect server has not recorded %d of %d task runs", missing, made)
