"""Locks of keys: a first-come queue within the process, and in front of it one lock between processes.

Only the first waiter of each process contends with other processes, and nobody needs a thread to
wait. The queues are the process's own, so tasks of several event loops and threads can share them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = ["FileKeyLocks", "FileLocks", "KeyLocks", "OuterLocks", "locks_of_folder", "poll_until"]

logger = logging.getLogger("reflexion.cache")

POLL_SECONDS = (0.01, 0.2)
"""Shortest and longest pause between two looks at a lock that another process holds."""

ORPHAN_SECONDS = 2.0
"""Pause between two looks whether the holder's event loop was closed under it."""


class OuterLocks(Protocol):
    """Locks between processes. Within a process `KeyLocks` sees to it that one caller asks for a key."""

    async def lock(self, key: str, wait: float | None) -> bool:
        """Take it, waiting up to `wait` seconds (None: without limit)."""
        ...

    async def unlock(self, key: str) -> None:
        """Give it back."""
        ...


@dataclass(slots=True, eq=False)
class _Waiter:
    holder: str
    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]


@dataclass(slots=True)
class _Slot:
    """Who holds a key in this process, and who waits for it, first come first."""

    holder: str
    loop: asyncio.AbstractEventLoop
    waiters: deque[_Waiter] = field(default_factory=deque[_Waiter])


class KeyLocks:
    """Locks of keys for the tasks of this process, backed by locks between processes.

    Args:
        outer: locks between processes; None for a store of this process alone.
    """

    def __init__(self, outer: OuterLocks | None = None) -> None:
        self._outer = outer
        self._mutex = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._pid = os.getpid()

    def holds(self, key: str, holder: str) -> bool:
        """Whether `holder`, of this process, holds the key."""
        slot = self._slots.get(key)
        return slot is not None and slot.holder == holder

    def locked(self, key: str) -> bool:
        """Whether somebody of this process holds the key."""
        return key in self._slots

    async def acquire(self, key: str, holder: str, wait: float | None = None) -> bool:
        """Take a key's lock; True at once for whoever holds it already.

        Args:
            key: what to lock.
            holder: who asks; to be named again when it is released.
            wait: seconds to wait at most; None: without limit, 0: not at all.
        """
        deadline = None if wait is None else time.monotonic() + wait
        if self.holds(key, holder):
            return True
        if not await self._enter(key, holder, wait):
            return False
        if self._outer is None:
            return True
        taken = False
        try:
            taken = await self._outer.lock(key, None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            if not taken:
                self._leave(key, holder)
        return taken

    async def release(self, key: str, holder: str) -> None:
        """Give a key's lock to the next one; harmless when it is not held by `holder`."""
        if not self.holds(key, holder):
            return
        try:
            if self._outer is not None:
                await self._outer.unlock(key)
        finally:
            self._leave(key, holder)

    async def _enter(self, key: str, holder: str, wait: float | None) -> bool:
        loop = asyncio.get_running_loop()
        with self._mutex:
            self._forget_parent_process()
            slot = self._slots.get(key)
            if slot is None:
                self._slots[key] = _Slot(holder, loop)
                return True
            if slot.loop.is_closed():
                # Its holder died with its event loop and cannot let go any more.
                slot.holder, slot.loop = holder, loop
                return True
            if wait is not None and wait <= 0:
                return False
            waiter = _Waiter(holder, loop, loop.create_future())
            slot.waiters.append(waiter)
        deadline = None if wait is None else time.monotonic() + wait
        try:
            while not waiter.turn.done():
                left = ORPHAN_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return self._give_up(key, waiter)
                await asyncio.wait((waiter.turn,), timeout=min(left, ORPHAN_SECONDS))
                self._succeed_orphan(key)
        except asyncio.CancelledError:
            if self._give_up(key, waiter):
                self._leave(key, holder)
            raise
        return True

    def _succeed_orphan(self, key: str) -> None:
        """Pass a key on whose holder's event loop was closed under it."""
        slot = self._slots.get(key)
        if slot is not None and slot.loop.is_closed():
            self._leave(key, slot.holder)

    def _give_up(self, key: str, waiter: _Waiter) -> bool:
        """Take a waiter out of the queue; True when its turn had come in the very same moment."""
        with self._mutex:
            slot = self._slots.get(key)
            if slot is None:
                return False
            if waiter in slot.waiters:
                slot.waiters.remove(waiter)
                return False
            return slot.holder == waiter.holder

    def _leave(self, key: str, holder: str) -> None:
        with self._mutex:
            slot = self._slots.get(key)
            if slot is None or slot.holder != holder:
                return
            while slot.waiters:
                waiter = slot.waiters.popleft()
                # First it holds the key, then it is told: it may run in another thread at once.
                slot.holder, slot.loop = waiter.holder, waiter.loop
                try:
                    waiter.loop.call_soon_threadsafe(_wake, waiter.turn)
                except RuntimeError:
                    continue  # its event loop is closed: nobody waits there any more
                return
            del self._slots[key]

    def _forget_parent_process(self) -> None:
        if self._pid != os.getpid():
            # After a fork: what the parent's tasks hold is none of ours.
            self._slots, self._pid = {}, os.getpid()


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


async def poll_until(attempt: Callable[[], bool], wait: float | None) -> bool:
    """Try again and again, with growing pauses of uneven length, until it works or the time is over."""
    deadline = None if wait is None else time.monotonic() + wait
    shortest, longest = POLL_SECONDS
    pause = shortest
    while not attempt():
        if deadline is not None and time.monotonic() >= deadline:
            return False
        left = longest if deadline is None else max(0.0, deadline - time.monotonic())
        await asyncio.sleep(min(left, pause * random.uniform(0.5, 1.0)))
        pause = min(longest, pause * 1.5)
    return True


class FileLocks:
    """Locks between the processes of a machine: one byte of one file for each key.

    The kernel drops a process's locks when it ends in whatever way, so a dead holder is succeeded at
    once, and there are no lock files to clean up. Record locks belong to processes, not to descriptors:
    `KeyLocks` keeps the callers of one process apart, and the file stays open while the process lives,
    since closing any descriptor of it would drop every lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._threads = threading.Lock()
        self._descriptor: int | None = None
        self._warned = False

    def _file(self) -> int:
        with self._mutex:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            return self._descriptor

    def try_lock(self, key: str) -> bool:
        """Take a key's lock if no other process has it; granted, with one warning, where files cannot be locked."""
        import fcntl

        try:
            fcntl.lockf(self._file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
        except OSError as exc:
            if exc.errno in (errno.EACCES, errno.EAGAIN) and self._descriptor is not None:
                return False
            if not self._warned:
                self._warned = True
                logger.warning(
                    "cache: %s cannot be locked (%s); other processes may compute the same steps",
                    self._path,
                    exc.strerror,
                )
        return True

    @contextmanager
    def exclusive(self, key: str) -> Generator[None]:
        """Keep other processes and threads away for moments; blocks, so not for an event loop's thread.

        All callers use keys that are no entry's.
        """
        with self._threads:
            while not self.try_lock(key):
                time.sleep(random.uniform(0.001, 0.005))
            try:
                yield
            finally:
                self.unlock_now(key)

    async def lock(self, key: str, wait: float | None) -> bool:
        """Take a key's lock, waiting up to `wait` seconds."""
        return await poll_until(lambda: self.try_lock(key), wait)

    async def unlock(self, key: str) -> None:
        """Give a key's lock back."""
        self.unlock_now(key)

    def unlock_now(self, key: str) -> None:
        """Give a key's lock back, without an event loop."""
        import fcntl

        # A lock that cannot be given back is one that could not be taken, which was told.
        with suppress(OSError):
            fcntl.lockf(self._file(), fcntl.LOCK_UN, 1, _offset(key))


def _offset(key: str) -> int:
    """The byte that stands for a key: 60 bits of it, so that two keys practically never share one."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) >> 4


class FileKeyLocks(KeyLocks):
    """The locks of one folder; all caches of this process on that folder share them."""

    def __init__(self, path: Path) -> None:
        self.files = FileLocks(path)
        super().__init__(self.files)


_folders: dict[str, FileKeyLocks] = {}
_folders_mutex = threading.Lock()


def locks_of_folder(path: Path) -> FileKeyLocks:
    """The locks of the file `path`, the same object for everybody in this process."""
    resolved = str(path.resolve())
    with _folders_mutex:
        locks = _folders.get(resolved)
        if locks is None:
            locks = _folders[resolved] = FileKeyLocks(Path(resolved))
        return locks
