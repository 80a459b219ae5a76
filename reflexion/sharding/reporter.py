"""A shard's side of the channel: it sends episodes on, gives signs of life, and hears what to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from reflexion.errors import StorageError
from reflexion.run.run_folder import RunFolder
from reflexion.sharding.channel import Channel, EndNote
from reflexion.sharding.shard_parameters import Shard
from reflexion.types import Episode

__all__ = ["SEND_SECONDS", "Reporter"]

logger = logging.getLogger("reflexion.shards")

BEAT_SECONDS = 1.0
"""Seconds between two signs of life, and until an order is heard."""

LEAVE_SECONDS = 2.0
"""How long the end waits for a request to the channel that is under way."""

SEND_SECONDS = 60.0
"""How long the end of an attempt waits for a channel that is away."""


class Reporter:
    """Tells the run how its shard goes on; a `Progress`.

    Args:
        stop: called once, with the reason, when the shard is told to end.
    """

    def __init__(self, channel: Channel, shard: Shard, stop: Callable[[str], object]) -> None:
        self._channel, self._shard, self._stop = channel, shard, stop
        self._folder: RunFolder | None = None
        self._unsent: list[bytes] = []
        self._sent = self._beats = 0
        self._sign = uuid.uuid4().hex[:8]
        self._wake = asyncio.Event()
        self._over = False
        self.told: str | None = None
        """Why it was told to end."""

    # -- Progress -------------------------------------------------------------------------------------

    def started(self, folder: RunFolder, total: int, done: int) -> None:
        """The shard begins: what is on record already is sent too, for it may never have arrived."""
        self._folder = folder
        if done and not self._channel.keeps_folders:
            self._unsent += [line for _, line in folder.lines()]
            self._wake.set()

    def finished(self, episode: Episode) -> None:
        """An episode came to its end."""
        if not self._channel.keeps_folders:
            self._unsent.append(episode.model_dump_json(exclude_defaults=True).encode() + b"\n")
            self._wake.set()

    # -- beside the work ------------------------------------------------------------------------------

    @asynccontextmanager
    async def reporting(self) -> AsyncGenerator[None]:
        """Report while the shard works."""
        task = asyncio.create_task(self._keep_up())
        try:
            yield
        finally:
            # A flag, since a client of Redis may take a cancellation for a lost connection.
            self._over = True
            self._wake.set()
            await asyncio.wait([task], timeout=LEAVE_SECONDS)
            task.cancel()

    async def _keep_up(self) -> None:
        heard = 0.0
        while not self._over:
            self._wake.clear()
            try:
                # At once: what a process that is killed next has not sent must be done again elsewhere.
                await self._send()
                if time.monotonic() - heard >= BEAT_SECONDS:
                    heard = time.monotonic()
                    await self._listen()
            except StorageError as exc:
                logger.warning("%s; the shard goes on and tries again", exc)
                await asyncio.sleep(BEAT_SECONDS / 4)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), BEAT_SECONDS)

    async def _listen(self) -> None:
        self._beats += 1
        orders = await self._channel.beat(self._shard.name, f"{self._shard.attempt} {self._sign} {self._beats}")
        parent = self._shard.parent
        if orders.attempt > self._shard.attempt:
            self._end("a later attempt has taken over the shard")
        elif orders.stop:
            self._end("the run was stopped")
        elif parent is not None and os.getppid() != parent:
            self._end(f"the process the shard belongs to (pid {parent}) has ended")

    def _end(self, reason: str) -> None:
        if self.told is None:
            self.told = reason
            self._stop(reason)

    async def _send(self) -> None:
        if self._channel.keeps_folders:
            return
        lines, self._unsent = self._unsent, []
        try:
            there = await self._channel.send(self._shard.name, lines)
        except BaseException:
            self._unsent = lines + self._unsent
            raise
        self._sent += len(lines)
        if there < self._sent and self._folder is not None:
            # The list is shorter than what was sent: it was lost, with all that was in it.
            record = await asyncio.to_thread(RunFolder.open, self._folder.path)
            self._unsent = [line for _, line in record.lines()]
            self._sent = there

    async def close(self, note: EndNote, seconds: float = SEND_SECONDS) -> None:
        """Send what is left, and how the attempt ended. A channel that is away for `seconds` is given up."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                await self._send()
                if not self._unsent:
                    await self._channel.end(self._shard.name, note)
                    return
            except StorageError as exc:
                if time.monotonic() > deadline:
                    logger.error("%s; the results of the shard stay in its own folder", exc)
                    return
                await asyncio.sleep(0.5)
