"""Carries out the shards of a run: so many at a time, followed, and started again when they crash."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectException, PrefectHTTPStatusError
from prefect.states import Crashed
from prefect.utilities.urls import url_for

from reflexion import errors
from reflexion.errors import ConfigurationError, InputError, RunFailedError, StorageError
from reflexion.flows.artifacts import best_effort
from reflexion.flows.shards.launching import Launched, Launcher, insist
from reflexion.run.parameters import BatchParameters
from reflexion.sharding.channel import Channel, EndNote, Orders
from reflexion.sharding.merge import ShardedRun
from reflexion.sharding.shard_parameters import Shard, ShardedParameters

__all__ = ["Conductor", "ShardStatus"]

logger = logging.getLogger("reflexion.shards")

TICK_SECONDS = 1.0
"""Seconds between two looks at the shards."""

PATIENCE_SECONDS = 600.0
"""How long a Prefect server may be away before a shard that is due cannot be started any more."""

START_SECONDS = 180.0
"""From the time a worker takes a shard up, how long until its first sign of life."""

SHOWN_SECONDS = 10.0
"""Seconds between two versions of the artifact that lists the shards."""

STOP_SECONDS = 8.0
"""How long shards that are told to end may take to send what they have finished."""

_NOT_RETRIED = ("Cancelled", "RunFailedError", "AuthenticationError", "ModelNotFoundError")


@dataclass
class ShardStatus:
    """A shard, its flow runs, and what became of it."""

    index: int
    problems: str
    state: str = "waiting"
    flow_runs: list[UUID] = field(default_factory=list[UUID])
    reasons: list[str] = field(default_factory=list[str])
    """Why each attempt that did not finish ended."""
    missing: int = 0
    stopped: str | None = None
    """Why it ended before its end without having failed: a budget ran out."""

    def row(self) -> dict[str, Any]:
        """For the run's folder."""
        return {
            "shard": self.index + 1,
            "problems": self.problems,
            "state": self.state,
            "flow_runs": [str(run) for run in self.flow_runs],
            "reasons": self.reasons,
            "missing": self.missing,
        }


class Conductor:
    """The shards of one run.

    Args:
        run: what the episodes are merged into.
        asked: what each shard is told, by its index.
        at_a_time: shards under way at once.
    """

    def __init__(
        self,
        client: PrefectClient,
        launcher: Launcher,
        channel: Channel,
        run: ShardedRun,
        *,
        parameters: ShardedParameters,
        asked: dict[int, tuple[Shard, BatchParameters]],
        at_a_time: int,
    ) -> None:
        self._client, self._launcher, self._channel, self._run = client, launcher, channel, run
        self._parameters, self._asked = parameters, asked
        self._slots = asyncio.Semaphore(at_a_time)
        self._tick = asyncio.Condition()
        self._following: dict[int, Launched] = {}
        self._states: dict[UUID, State[Any]] = {}
        self._signs: dict[int, tuple[str | None, float, EndNote | None]] = {}
        self._idle_since: float | None = None
        self._said = False
        self._shown = 0.0
        self.shards = {index: ShardStatus(index, run.describe(index)) for index in asked}
        self._over = False
        self.attempts = 0
        self._born = time.monotonic()
        self.began_after: float | None = None
        """Seconds until the first shard gave a sign of life: what starting took."""

    # -- the whole ------------------------------------------------------------------------------------

    async def carry_out(self) -> None:
        """Carry all shards out; those that cannot be finished say so in their status.

        Raises:
            InputError: a shard says that what the user gave is wrong.
            RunFailedError: nobody takes the shards up.
        """
        watcher = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for index in self._asked:
                    group.create_task(self._carry(index))
                group.create_task(self._until_done(watcher, len(self._asked)))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            # A flag, since a client of Redis may take a cancellation for a lost connection.
            self._over = True
            await asyncio.wait([watcher], timeout=2 * TICK_SECONDS)
            watcher.cancel()
            if self._following:
                await self._stop_all()
            await self._launcher.aclose()
            await self._show(now=True)

    async def _until_done(self, watcher: asyncio.Task[None], total: int) -> None:
        """Let an error of the watcher end the shards that wait for it."""
        while any(s.state in ("waiting", "running") for s in self.shards.values()):
            if watcher.done():
                await watcher
            await asyncio.sleep(TICK_SECONDS)

    async def _stop_all(self) -> None:
        """Tell every shard to end, and take what they finished."""
        following = dict(self._following)

        async def stop(index: int, launched: Launched) -> None:
            name = self._asked[index][0].name
            with contextlib.suppress(StorageError):
                await self._channel.order(name, Orders(attempt=1, stop=True))
            with contextlib.suppress(httpx.HTTPError, PrefectException):
                await self._launcher.stop(launched)

        await asyncio.gather(*(stop(*item) for item in following.items()))
        deadline = time.monotonic() + STOP_SECONDS
        open_ = set(following)
        while open_ and time.monotonic() < deadline:
            for index in list(open_):
                await self._read(index)
                note = self._signs[index][2]
                if note is not None or following[index].died or not self._signs[index][0]:
                    await self._read(index)
                    open_.discard(index)
            await asyncio.sleep(0.25)
        for index in following:
            self.shards[index].state = "stopped"

    # -- one shard ------------------------------------------------------------------------------------

    async def _carry(self, index: int) -> None:
        status = self.shards[index]
        async with self._slots:
            status.state = "running"
            for attempt in range(1, self._parameters.shard_retries + 2):
                note, reason = await self._attempt(index, attempt)
                if not self._run.missing(index):
                    status.state = "completed"
                    break
                if note is not None and note.outcome == "stopped":
                    status.state, status.stopped = "stopped", note.message
                    break
                status.reasons.append(reason)
                logger.warning("shard %d: attempt %d did not finish: %s", index + 1, attempt, reason)
                kind = getattr(errors, note.kind, None) if note is not None else None
                if note is not None and isinstance(kind, type) and issubclass(kind, InputError):
                    status.state = "failed"
                    raise kind(f"shard {index + 1}: {note.message}")
                if note is not None and note.kind in _NOT_RETRIED:
                    break
            status.missing = len(self._run.missing(index))
            if status.state == "running":
                status.state = "failed"

    async def _attempt(self, index: int, attempt: int) -> tuple[EndNote | None, str]:
        """Start a shard and follow it until this attempt has ended; why, if it did not finish."""
        shard, parameters = self._asked[index]
        shard = shard.model_copy(update={"attempt": attempt})
        await self._insist(lambda: self._channel.order(shard.name, Orders(attempt=attempt)))
        if attempt == 1 and not self._channel.keeps_folders and (lines := self._run.done_lines(index)):
            await self._insist(lambda: self._channel.send(shard.name, lines))
        self._signs[index] = (None, time.monotonic(), None)
        launched: Launched = await self._insist(lambda: self._launcher.start(shard, parameters))
        self.attempts += 1
        self.shards[index].flow_runs.append(launched.run)
        self._following[index] = launched
        self._shown = 0.0
        try:
            return await self._follow(index, attempt, launched)
        finally:
            if (task := asyncio.current_task()) is not None and not task.cancelling():
                del self._following[index]

    async def _follow(self, index: int, attempt: int, launched: Launched) -> tuple[EndNote | None, str]:
        taken_up: float | None = None
        while True:
            async with self._tick:
                await self._tick.wait()
            sign, moved, note = self._signs[index]
            if note is not None and note.attempt == attempt:
                await self._read(index)
                return note, f"{note.kind}: {note.message}"
            state = self._states.get(launched.run)
            if launched.died or (state is not None and state.is_final()):
                await self._read(index)
                note = self._signs[index][2]
                ended = note if note is not None and note.attempt == attempt else None
                said = f"{state.name}: {state.message}" if state is not None and state.is_final() else ""
                if state is not None and state.type in (StateType.CANCELLED,) and ended is None:
                    ended = EndNote(attempt=attempt, outcome="failed", kind="Cancelled", message="it was cancelled")
                return ended, "; ".join(filter(None, (launched.died, said)))
            now = time.monotonic()
            begun = sign is not None and sign.partition(" ")[0] == str(attempt)
            if state is not None and state.type in (StateType.PENDING, StateType.RUNNING):
                taken_up = taken_up or now
            silent = now - moved if begun else now - taken_up if taken_up is not None else 0.0
            if silent > (self._parameters.lost_after if begun else START_SECONDS):
                reason = f"it gave no sign of life for {silent:.0f} s; its machine or its worker is gone"
                await self._give_up(launched, reason)
                return None, reason

    async def _give_up(self, launched: Launched, reason: str) -> None:
        if launched.process is not None and launched.process.returncode is None:
            launched.process.kill()
        with contextlib.suppress(httpx.HTTPError, PrefectException):
            await self._client.set_flow_run_state(launched.run, Crashed(message=reason), force=True)

    # -- what is going on -----------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Look at the shards once in a while, and wake those who follow."""
        server = asyncio.create_task(self._watch_server())
        try:
            while not self._over:
                await asyncio.gather(*(self._read(index) for index in list(self._following)))
                if server.done():
                    await server
                async with self._tick:
                    self._tick.notify_all()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            server.cancel()

    async def _watch_server(self) -> None:
        """Ask the server for states: apart from the shards, since it may be away while they work."""
        while True:
            await self._ask_states()
            await self._check_served()
            await self._show()
            await asyncio.sleep(TICK_SECONDS)

    async def _read(self, index: int) -> None:
        name = self._asked[index][0].name
        try:
            # The note first: what was sent before it is then among the lines.
            sign, note = await self._channel.sign(name)
            self._run.take(await self._channel.read(name))
        except StorageError as exc:
            logger.warning("%s; the run goes on and looks again", exc)
            # Silence of the channel is not silence of the shard.
            sign, moved, note = self._signs[index]
            self._signs[index] = (sign, time.monotonic(), note)
            return
        before, moved, _ = self._signs[index]
        if sign is not None and self.began_after is None:
            self.began_after = time.monotonic() - self._born
        if note is not None and note.peak_rss_mb is not None:
            self._run.peak_rss_mb = max(self._run.peak_rss_mb or 0.0, note.peak_rss_mb)
        self._signs[index] = (sign, time.monotonic() if sign != before else moved, note)

    async def _ask_states(self) -> None:
        ids = [launched.run for launched in self._following.values()]
        for begin in range(0, len(ids), 200):
            part = ids[begin : begin + 200]
            try:
                runs = await self._client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=part)),
                    sort=FlowRunSort.ID_DESC,
                    limit=200,
                )
            except Exception as exc:
                if not transient(exc):
                    raise
                if not self._said:
                    logger.warning("the Prefect server does not answer (%s); the shards go on", type(exc).__name__)
                self._said = True
                return
            self._said = False
            self._states |= {run.id: run.state for run in runs if run.state is not None}

    async def _check_served(self) -> None:
        """Whether anybody takes the shards up, while some wait for that."""
        waiting = [
            launched
            for launched in self._following.values()
            if (state := self._states.get(launched.run)) is not None and state.type is StateType.SCHEDULED
        ]
        try:
            reason = await self._launcher.idle_reason() if waiting else None
        except ConfigurationError:
            raise
        except Exception as exc:
            if not transient(exc):
                raise
            return
        if reason is None:
            self._idle_since = None
            return
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
            logger.warning("%s", reason)
        elif now - self._idle_since > self._parameters.wait_for_worker:
            raise RunFailedError(f"{len(waiting)} shards wait in vain: {reason}")

    async def _insist(self, call: Any) -> Any:
        return await insist(call, transient, PATIENCE_SECONDS)

    async def _show(self, *, now: bool = False) -> None:
        """The artifact that lists the shards, each with a link to its flow runs."""
        if not now and time.monotonic() - self._shown < SHOWN_SECONDS:
            return
        self._shown = time.monotonic()
        lines = [f"## Shards of {self._run.folder.name}", ""]
        lines += ["| shard | problems | state | flow runs | |", "|---|---|---|---|---|"]
        for s in self.shards.values():
            links = " ".join(
                f"[attempt {n}]({url_for('flow-run', obj_id=run)})" for n, run in enumerate(s.flow_runs, 1)
            )
            lines.append(f"| {s.index + 1} | {s.problems} | {s.state} | {links} | {'; '.join(s.reasons)} |")
        await best_effort(lambda: acreate_markdown_artifact("\n".join(lines) + "\n", key="reflexion-shards"))


def transient(error: BaseException) -> bool:
    """Whether a server or a channel is only away for a while."""
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError | StorageError)
