"""Locks of keys between the processes that share a Redis, each a lease that its holder renews."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import uuid
from weakref import WeakKeyDictionary

from reflexion.cache.locks import POLL_SECONDS
from reflexion.redis.redis_client import Command, RedisLink, RedisUnavailableError

__all__ = ["LEASE_SECONDS", "RedisLocks"]

LEASE_SECONDS = 10.0
"""Seconds after which a holder that died is succeeded."""

_RENEW = """
local holder = redis.call('get', KEYS[1])
if holder == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end
if holder then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return 1
"""
"""Renews the lease; takes it anew when the server lost it, as after a restart."""

_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class _Renewal:
    """The keys an event loop's tasks hold, and the task that renews their leases."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.task: asyncio.Task[None] | None = None


class RedisLocks:
    """Locks between processes.

    The token that is stored stands for the process, not for the task: `KeyLocks` keeps the tasks of
    one process apart. While the server is away every lock is granted, so that a run goes on; at worst
    two processes compute the same step.

    Args:
        link: the server.
        prefix: in front of every lock's name.
        lease: seconds a lock outlives its holder.
    """

    def __init__(self, link: RedisLink, prefix: str, lease: float = LEASE_SECONDS) -> None:
        self._link = link
        self._prefix = prefix
        self._lease = lease
        self._pid = os.getpid()
        self._token = uuid.uuid4().hex
        self._mutex = threading.Lock()
        self._renewals: WeakKeyDictionary[asyncio.AbstractEventLoop, _Renewal] = WeakKeyDictionary()

    async def lock(self, key: str, wait: float | None) -> bool:
        """Take a key's lock, waiting up to `wait` seconds (None: until its holder lets go or dies)."""
        deadline = None if wait is None else time.monotonic() + wait
        shortest, longest = POLL_SECONDS
        pause = shortest
        while True:
            if await self._try(key):
                self._held(key)
                return True
            left = longest if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(min(left, pause * random.uniform(0.5, 1.0)))
            pause = min(longest, pause * 1.5)

    async def _try(self, key: str) -> bool:
        name, token = self._prefix + key, self._own_token()
        try:
            taken, holder = await self._link.send(
                ("SET", name, token, "NX", "PX", self._milliseconds()),
                # A command that was sent twice finds its own token the second time.
                ("GET", name),
            )
        except RedisUnavailableError:
            return True
        except asyncio.CancelledError:
            # The server may have granted it already, and nobody is left to give it back.
            self._link.post(("EVAL", _RELEASE, 1, name, token))
            raise
        return bool(taken) or holder == token.encode()

    async def unlock(self, key: str) -> None:
        """Give a key's lock back; left to expire when the server is away."""
        with self._mutex:
            for renewal in list(self._renewals.values()):
                renewal.keys.discard(key)
        try:
            await self._link.send(("EVAL", _RELEASE, 1, self._prefix + key, self._own_token()))
        except RedisUnavailableError:
            return

    def _held(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        with self._mutex:
            renewal = self._renewals.get(loop)
            if renewal is None:
                renewal = self._renewals[loop] = _Renewal()
            renewal.keys.add(key)
        if renewal.task is None or renewal.task.done():
            renewal.task = loop.create_task(self._renew(renewal))

    async def _renew(self, renewal: _Renewal) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            with self._mutex:
                keys = sorted(renewal.keys)
            if not keys:
                return
            token, lease = self._own_token(), self._milliseconds()
            commands: list[Command] = [("EVAL", _RENEW, 1, self._prefix + key, token, lease) for key in keys]
            try:
                await self._link.send(*commands)
            except RedisUnavailableError:
                continue  # the link has told it; the next round takes the lease anew

    async def aclose(self) -> None:
        """End the running event loop's renewals."""
        with self._mutex:
            renewal = self._renewals.pop(asyncio.get_running_loop(), None)
        if renewal is not None and renewal.task is not None:
            renewal.task.cancel()
            await asyncio.wait((renewal.task,))

    def _milliseconds(self) -> int:
        return max(1, round(self._lease * 1000))

    def _own_token(self) -> str:
        if self._pid != os.getpid():
            # After a fork: the parent holds the parent's locks.
            self._pid, self._token = os.getpid(), uuid.uuid4().hex
        return self._token
