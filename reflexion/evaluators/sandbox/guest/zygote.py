"""The process that forks solvers and checkers.

It is started with a socket to the host. For each job the host sends a header, the seconds allowed, and two
messages. The zygote reads the header only. The solver reads the first message, the solution; the checker reads
the second, the tests, and answers the verdict. So neither tests nor other solutions ever are in the memory a
solver is forked from. When both are gone the zygote tells how they ended, and is ready for the next job.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from .checker import check
from .jail import isolation
from .jail.isolation import Plan
from .pipe import Channel, ChannelClosedError
from .solver import solve

__all__ = ["GONE", "main"]

HEADER = struct.Struct("!d?")
"""Seconds allowed, and whether tests and solution share a folder."""
GONE = 3
"""Exit code of a checker that found the solver gone."""
_PATIENCE = 1.0
"""Seconds a checker has for its verdict once the solver was stopped."""
_PRELOADED = (
    "bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "hashlib", "heapq", "itertools",
    "json", "math", "operator", "random", "re", "string", "typing",
)  # fmt: skip
"""What solutions import most. More would make every fork dearer."""


def main(fd: int, plan: Plan) -> None:
    """Isolate this process, then serve until the host hangs up."""
    host = socket.socket(fileno=fd)
    try:
        zygote = _start(host, plan)
    except OSError as exc:
        with contextlib.suppress(ChannelClosedError):
            Channel(host, 1 << 20).send({"error": str(exc)})
        return
    if zygote is not None:
        zygote.serve()


def _start(host: socket.socket, plan: Plan) -> _Zygote | None:
    if not plan.namespaced:
        return _Zygote(host, plan, None)
    assert isolation.kernel is not None
    isolation.enter_namespaces(plan)
    pid = os.fork()
    if pid:  # the launcher only waits: a namespace's first process takes all others with it
        host.close()
        os.waitpid(pid, 0)
        return None
    isolation.kernel.die_with_parent()
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    isolation.build_root(plan)
    return _Zygote(host, plan, own)


class _LetIn:
    """Finds the packages that are let in, and no others that lie beside them."""

    def __init__(self, plan: Plan) -> None:
        self._path = list(plan.package_path)
        self._names = {os.path.basename(file).partition(".")[0] for file in plan.package_files}  # noqa: PTH119

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """As the import system asks for it."""
        from importlib.machinery import PathFinder

        if path is not None or name.partition(".")[0] not in self._names:
            return None
        return PathFinder.find_spec(name, self._path, target)


class _Zygote:
    def __init__(self, host: socket.socket, plan: Plan, own_namespace: int | None) -> None:
        self._host = host
        self._plan = plan
        self._own_namespace = own_namespace
        self._scratch = None if plan.namespaced else _new_folder(None)
        if not plan.namespaced and isolation.kernel is not None:
            isolation.kernel.reap_orphans_here()
        for name in _PRELOADED:
            with contextlib.suppress(ImportError):
                __import__(name)
        if plan.packages:
            sys.meta_path.append(_LetIn(plan))
        for name in plan.packages:
            with contextlib.suppress(Exception):  # it will be missed where it is used
                __import__(name)
        os.environ.clear()
        random = sys.modules.get("random")
        self._reseed: Callable[[int], None] | None = getattr(random, "seed", None)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        isolation.prepare(plan)
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Serve jobs one after another until the host hangs up."""
        try:
            Channel(self._host, 1 << 20).send({"ready": True, "scratch": self._scratch})
            while True:
                wall, shared = HEADER.unpack(Channel(self._host, 0).read(HEADER.size))
                self._serve_one(wall, shared)
        except ChannelClosedError:
            return
        finally:
            if self._scratch is not None:
                _remove(self._scratch)

    def _serve_one(self, wall: float, shared: bool) -> None:
        near, far = socket.socketpair()
        ready, told = os.pipe()
        alive, life = os.pipe()
        deadline = time.monotonic() + wall
        scratch = self._new_scratch()
        solver = self._fork(
            lambda: self._solver(far, told, wall, scratch), (near, ready, alive, life), own_processes=True
        )
        far.close()
        os.close(told)
        told_all = os.read(ready, 1)
        os.close(ready)
        checker = 0
        if told_all:
            folder = (scratch or self._plan.scratch) if shared else None
            checker = self._fork(lambda: self._checker(near, wall, folder), (alive,))
        near.close()
        os.close(life)
        end = self._wait(alive, solver, checker, deadline)
        os.close(alive)
        if scratch is not None:
            _remove(scratch)
        Channel(self._host, 1 << 20).send({"done": True, "started": bool(told_all), **end})

    def _fork(self, child: Callable[[], None], close: tuple[Any, ...], *, own_processes: bool = False) -> int:
        """Fork a child that runs a function and ends; `own_processes` puts it in a namespace of its own."""
        kernel, own = isolation.kernel, self._own_namespace
        nested = own_processes and own is not None
        if nested:
            assert kernel is not None
            kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for item in close:
                    item.close() if isinstance(item, socket.socket) else os.close(item)
                child()
                code = 0
            except SystemExit as exc:
                code = exc.code if isinstance(exc.code, int) else 1
            finally:
                os._exit(code)
        if nested:
            assert kernel is not None and own is not None
            kernel.setns(own, kernel.CLONE_NEWPID)
        return pid

    def _new_scratch(self) -> str | None:
        if self._scratch is None:
            isolation.renew_scratch(self._plan)
            return None
        folder = _new_folder(self._scratch)
        if self._plan.user is not None:
            os.chmod(self._scratch, 0o711)  # noqa: PTH101, S103 - only to pass through
            os.chown(folder, self._plan.user, self._plan.user)
        return folder

    def _solver(self, sock: socket.socket, told: int, wall: float, scratch: str | None) -> None:
        os.setsid()
        job = Channel(self._host, 1 << 30).receive()
        self._host.close()
        if self._own_namespace is not None:
            os.close(self._own_namespace)
        layers = isolation.confine(self._plan, wall, scratch or self._plan.scratch, untrusted=True)
        channel = Channel(sock, self._plan.message, private=True)
        channel.send(layers.as_message())
        os.write(told, b"1")
        os.close(told)
        if self._reseed is not None:
            self._reseed(0)
        solve(job["code"], job["program"], channel)

    def _checker(self, sock: socket.socket, wall: float, folder: str | None) -> None:
        host = Channel(self._host, 1 << 30)
        job = host.receive()
        isolation.confine(self._plan, wall + _PATIENCE, folder, untrusted=False)
        channel = Channel(sock, self._plan.message, private=True)
        layers = channel.receive()
        verdict = check(job, channel)
        Channel(self._host, 1 << 26).send({**verdict, "layers": layers})
        if "gone" in verdict:
            raise SystemExit(GONE)

    def _wait(self, alive: int, solver: int, checker: int, deadline: float) -> dict[str, Any]:
        """Wait for the checker to end, kill what is left, and tell how both ended."""
        timeout = False
        while checker and not self._readable(alive, deadline):
            if timeout:
                os.kill(checker, signal.SIGKILL)
                break
            timeout = True
            _kill(solver)
            deadline = time.monotonic() + _PATIENCE
        checked, cpu = 0, 0.0
        if checker:
            _, status, usage = os.wait4(checker, 0)
            checked = os.waitstatus_to_exitcode(status)
            cpu += usage.ru_utime + usage.ru_stime
        by_itself = not timeout and (checked == GONE or not checker) and _ended(solver)
        _kill(solver)
        _, status, usage = os.wait4(solver, 0)
        cpu += usage.ru_utime + usage.ru_stime
        self._sweep()
        return {
            "timeout": timeout,
            "solver": os.waitstatus_to_exitcode(status) if by_itself else None,
            "checker": checked,
            "cpu": cpu,
            "memory": usage.ru_maxrss * (1024 if sys.platform == "linux" else 1),
        }

    def _readable(self, alive: int, deadline: float) -> bool:
        """Whether the checker has ended; the host hanging up ends everything."""
        while (left := deadline - time.monotonic()) > 0:
            found, _, _ = select.select([alive], [], [], min(left, 1.0))
            if found:
                return True
            with contextlib.suppress(BlockingIOError):
                # The checker has read its message by now or reads it at once; the host sends nothing more.
                if not self._host.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    raise ChannelClosedError
        return False

    def _sweep(self) -> None:
        """Without a namespace that takes them along, end what the solver has left behind."""
        if self._plan.namespaced:
            return
        for _ in range(100):
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


# These two need modules that would make every fork dearer; with namespaces nothing is written to the disk.


def _new_folder(parent: str | None) -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="reflexion-sandbox-", dir=parent)


def _remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123 - no pathlib in here
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    for target in (-pid, pid):  # its group as well, unless it is too young to have one
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(target, signal.SIGKILL)


def _ended(pid: int, patience: float = 0.5) -> bool:
    """Whether a child ends by itself within a moment; it is not reaped."""
    end = time.monotonic() + patience
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True
