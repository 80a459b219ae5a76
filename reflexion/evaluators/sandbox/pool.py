"""The host's side of the sandbox: a pool of zygotes, each working on one job at a time."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import weakref
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reflexion.evaluators.sandbox.backends import BACKENDS, ENVIRONMENT, Backend, command, make_plan
from reflexion.evaluators.sandbox.guest.pipe import Channel, ChannelClosedError, MessageTooLargeError
from reflexion.evaluators.sandbox.guest.zygote import HEADER
from reflexion.evaluators.sandbox.jobs import Failure, Job, Limits, Report, TestOutcome

__all__ = ["Sandbox", "SandboxError"]

_GRACE = 10.0
"""Seconds beyond the time allowed after which a zygote that does not answer is given up."""
_START = 20.0
_MESSAGE = 1 << 30
_PROBE = Job(code="def one():\n    return 1\n", tests="assert one() == 1\n", entry_point="one")


class SandboxError(OSError):
    """The sandbox cannot be started, or ended by itself."""


class Sandbox:
    """Judges untrusted Python code by trusted tests, in isolated processes that are forked and not started anew.

    Processes are started on first use. They end with `close`, and by themselves when this process ends, however
    it ends.

    Args:
        limits: of each evaluation.
        backend: None takes the strongest that works here.
        size: evaluations at a time; None takes one for each processor.
        packages: installed packages that tests and solutions may import, read-only.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        backend: Backend | None = None,
        size: int | None = None,
        packages: Sequence[str] = (),
    ) -> None:
        self._limits = limits or Limits()
        self._wanted: Backend | None = backend
        self._packages = tuple(packages)
        self._size = size or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0])
        self._lock = threading.Lock()
        # Of its own, since starting takes a while and the event loop takes the other.
        self._choosing = threading.Lock()
        self._chosen: Backend | None = None
        self._layers: dict[str, Any] = {}
        self._free: list[_Zygote] = []
        self._slots = list(range(self._size))[::-1]
        self._executor: ThreadPoolExecutor | None = None
        self._starter: ThreadPoolExecutor | None = None
        self._closed = False
        self._turns = _Turns()
        atexit.register(_close, weakref.ref(self))

    @property
    def limits(self) -> Limits:
        """What each evaluation may use."""
        return self._limits

    async def run(self, job: Job, *, wall: float | None = None, alone: bool = False) -> Report:
        """Judge one job; it waits its turn when all processes are busy.

        Args:
            job: what to judge.
            wall: seconds allowed, if not those of the limits. Waiting for its turn does not count.
            alone: wait until no other job of this sandbox is under way, and let none begin meanwhile.

        Raises:
            SandboxError: the sandbox cannot be started.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads(), self.run_blocking, job, wall, alone)

    def run_blocking(self, job: Job, wall: float | None = None, alone: bool = False) -> Report:
        """As `run`, for code without an event loop."""
        allowed = self._limits.wall if wall is None else wall
        with self._turns.alone() if alone else self._turns.beside_others():
            return self._attempt(job, allowed)

    def choose(self) -> Backend:
        """The backend in use; the first call starts it and tries it out.

        Raises:
            SandboxError: none works.
        """
        with self._choosing:
            if self._chosen is not None:
                return self._chosen
            if self._closed:
                raise SandboxError("the sandbox is closed")
            candidates: tuple[Backend, ...] = BACKENDS if self._wanted is None else (self._wanted,)
            reasons: list[str] = []
            for backend in candidates:
                try:
                    zygote, self._layers = self._try(backend)
                except OSError as exc:
                    reasons.append(f"{backend}: {exc}")
                    continue
                with self._lock:
                    self._slots.remove(zygote.slot)
                    self._free.append(zygote)
                self._chosen = backend
                return backend
            raise SandboxError("no sandbox works here: " + "; ".join(reasons))

    def _try(self, backend: Backend) -> tuple[_Zygote, dict[str, Any]]:
        """Start a zygote and give it a first job; also which layers held."""
        zygote = self._start(backend, self._slots[-1])
        try:
            answer = zygote.run(_PROBE, 10.0)
            if not (answer.get("hidden") or {}).get("passed"):
                raise SandboxError(f"a first evaluation failed: {answer}")
        except BaseException:
            zygote.close()
            raise
        return zygote, answer.get("layers") or {}

    def describe(self) -> str:
        """Which isolation is used, what it stops, and what it does not.

        Raises:
            SandboxError: none works.
        """
        backend = self.choose()
        limits = "time, memory, file size and output are limited"
        if self._layers.get("seccomp"):
            limits += ", system calls filtered (no network, no new processes)"
        if backend != "limits":
            text = f"{backend}: no network, no files but Python's own, no other process in sight; {limits}"
            gaps = (
                [] if self._layers.get("seccomp") else ["attacks on the kernel itself: system calls are not filtered"]
            )
            gaps.append("use of memory by several evaluations together")
        else:
            text, gaps = f"limits only: {limits}", []
            if self._layers.get("landlock"):
                text += ", and no files but Python's own"
                gaps.append("filling the disk through many files in its temporary folder")
            else:
                gaps.append("reading files this user may read, and filling the disk")
            if not self._layers.get("seccomp"):
                gaps.append("network, new processes and signals to this user's processes")
            gaps.append("seeing that other processes exist" if not self._layers.get("landlock") else "")
        return f"{text}. Not stopped: {'; '.join(g for g in gaps if g)}."

    def close(self) -> None:
        """End all processes; harmless when called twice."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)
        with self._lock:
            free += self._free
            self._free = []
            starter, self._starter = self._starter, None
        for zygote in free:
            zygote.close()
        if starter is not None:
            starter.shutdown(wait=True)

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._size, thread_name_prefix="sandbox")
            return self._executor

    def _attempt(self, job: Job, wall: float) -> Report:
        """One evaluation; a dead zygote is replaced once."""
        for last in (False, True):
            zygote = self._take(fresh=last)
            try:
                answer = zygote.run(job, wall)
            except SandboxError:
                self._discard(zygote)
                if last:
                    raise
                continue
            except BaseException:
                self._discard(zygote)
                raise
            with self._lock:
                self._free.append(zygote)
            return _report(answer, wall)
        raise AssertionError("unreachable")

    def _take(self, *, fresh: bool) -> _Zygote:
        """A zygote that is free; `fresh` starts one, since what killed one may have killed all that wait."""
        backend = self.choose()
        with self._lock:
            if self._free and not fresh:
                return self._free.pop()
            slot = self._slots.pop() if self._slots else self._size
        return self._start(backend, slot)

    def _start(self, backend: Backend, slot: int) -> _Zygote:
        """Start a zygote from a thread that lives as long as the sandbox: it ends with the thread that started it."""
        with self._lock:
            if self._starter is None:
                self._starter = ThreadPoolExecutor(1, thread_name_prefix="sandbox-start")
            starter = self._starter
        return starter.submit(_Zygote, backend, self._limits, self._packages, slot).result()

    def _discard(self, zygote: _Zygote) -> None:
        zygote.close()
        with self._lock:
            self._slots.append(zygote.slot)


class _Turns:
    """Lets jobs run side by side, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._waiting = 0

    @contextlib.contextmanager
    def beside_others(self) -> Generator[None]:
        """Run with whatever else runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
            self._running += 1
        try:
            yield
        finally:
            self._ended()

    @contextlib.contextmanager
    def alone(self) -> Generator[None]:
        """Run when nothing else does."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._running)
            self._running += 1
        try:
            yield
        finally:
            self._waiting -= 1
            self._ended()

    def _ended(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()


def _close(reference: weakref.ref[Sandbox]) -> None:
    sandbox = reference()
    if sandbox is not None:
        sandbox.close()


class _Zygote:
    """One zygote process and the socket to it."""

    def __init__(self, backend: Backend, limits: Limits, packages: Sequence[str], slot: int) -> None:
        self.slot = slot
        self._scratch: str | None = None
        ours, theirs = socket.socketpair()
        with theirs:
            self._socket = ours
            try:
                self._process = subprocess.Popen(
                    command(make_plan(backend, limits, slot, packages), theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=dict(ENVIRONMENT),
                    cwd="/",
                    start_new_session=True,  # an interrupt is for us to handle
                )
            except OSError:
                ours.close()
                raise
        self._channel = Channel(ours, _MESSAGE)
        ours.settimeout(_START)
        try:
            hello = self._channel.receive()
        except (ChannelClosedError, TimeoutError) as exc:
            self.close()
            raise SandboxError(f"it ended at once (exit code {self._process.returncode})") from exc
        if "error" in hello:
            self.close()
            raise SandboxError(hello["error"])
        self._scratch = hello["scratch"]

    def run(self, job: Job, wall: float) -> dict[str, Any]:
        """The verdict and how the processes ended, in one.

        Raises:
            SandboxError: the zygote ended or hangs.
        """
        self._socket.settimeout(wall + _GRACE)
        try:
            plan = job.plan
            self._socket.sendall(HEADER.pack(wall, plan.files))
            self._channel.send({"code": job.code, "program": plan.program})
            self._channel.send({"tests": plan.tests, "prelude": job.prelude, "plan": plan.message()})
            verdict: dict[str, Any] = {}
            while True:
                message = self._channel.receive()
                verdict |= message
                if message.get("done"):
                    break
        except (ChannelClosedError, TimeoutError, BrokenPipeError, ConnectionError, MessageTooLargeError) as exc:
            raise SandboxError(f"the sandbox's process ended: {exc}") from exc
        if not verdict["started"]:
            raise SandboxError("the solution's process could not be isolated")
        return verdict

    def close(self) -> None:
        """End it and all it started."""
        self._socket.close()  # which it takes as the end
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _report(answer: dict[str, Any], wall: float) -> Report:
    hidden = answer.get("hidden")
    return Report(
        load=_failure(answer.get("load")),
        hidden=None if hidden is None else _outcome(hidden),
        visible=tuple(_outcome(o) for o in answer.get("visible") or ()),
        ended=_ended(answer, wall),
        cpu_seconds=answer["cpu"],
    )


def _ended(answer: dict[str, Any], wall: float) -> Failure | None:
    """Why a process ended before its time, or None."""
    code = answer["solver"]
    if answer["timeout"] or code in (-signal.SIGXCPU, -signal.SIGKILL):
        return Failure("Timeout", f"not finished within {wall:g} s", origin="sandbox")
    if "load" in answer and "gone" not in answer:
        return None
    gone = answer.get("gone") or []
    if len(gone) == 2:
        return Failure(gone[0], gone[1], origin="sandbox")
    if code is None:
        return Failure("Exited", "its process ended", origin="sandbox")
    if code < 0:
        return Failure("Killed", f"its process was ended by {signal.Signals(-code).name}", origin="sandbox")
    return Failure("Exited", f"its process ended with exit code {code}", origin="sandbox")


def _failure(fields: dict[str, Any] | None) -> Failure | None:
    return None if fields is None else Failure(**fields)


def _outcome(fields: dict[str, Any]) -> TestOutcome:
    return TestOutcome(
        passed=fields["passed"] is True,
        failure=_failure(fields.get("failure")),
        got=fields.get("got"),
        wanted=fields.get("wanted"),
    )
