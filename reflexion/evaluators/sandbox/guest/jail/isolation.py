"""Takes rights away from a process, by as many layers as the machine has."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

try:
    from . import kernel
except (ImportError, OSError, AttributeError):  # no ctypes, or not Linux
    kernel = None

__all__ = ["SCRATCH", "Layers", "Plan", "build_root", "confine", "enter_namespaces", "prepare", "renew_scratch"]

SCRATCH = "/tmp"  # noqa: S108 - inside, where each solver has an empty one of its own
"""The one folder a solver may write to, where it has a root of its own."""


class Plan(NamedTuple):
    """How this sandbox is built; see `sandbox/backends.py`, which makes it.

    Attributes:
        backend: `bubblewrap`, `namespaces` or `limits`.
        readable: folders and files the solution may read.
        hidden: folders below `readable` that it may not.
        user: user id for the solver, one above it for the checker; None: the user's own.
        memory, processes, threads, file_size, open_files, message: see `Limits`.
        scratch: the one folder a solver may write to, where it has a root of its own.
        packages: names of packages that solutions and tests may import.
        package_files: their folders and files.
        package_path: where they are looked for.
    """

    backend: str
    readable: Sequence[str]
    hidden: Sequence[str]
    user: int | None
    memory: int
    processes: int
    threads: int
    file_size: int
    open_files: int
    message: int
    scratch: str = SCRATCH
    packages: Sequence[str] = ()
    package_files: Sequence[str] = ()
    package_path: Sequence[str] = ()

    @property
    def namespaced(self) -> bool:
        """Whether each solver gets namespaces of its own."""
        return self.backend != "limits"


class Layers(NamedTuple):
    """Which layers hold, as the host tells the user; `landlock` is its version, 0 without."""

    seccomp: bool = False
    landlock: int = 0

    def as_message(self) -> dict[str, Any]:
        """For the channel."""
        return self._asdict()


def enter_namespaces(plan: Plan) -> None:
    """Leave the host's users (unless they are needed), mounts, processes and, outside bubblewrap, network.

    Children of this process, not itself, are in the new process namespace.

    Raises:
        OSError: the kernel refuses.
    """
    if kernel is None:
        raise OSError("this machine has no Linux namespaces")
    user, group = os.getuid(), os.getgid()
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID
    if plan.backend == "namespaces":
        flags |= kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    if plan.user is None:
        kernel.unshare(flags | kernel.CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - no pathlib in here
                file.write(text)
    else:
        kernel.unshare(flags)


def build_root(plan: Plan) -> None:
    """Make a root that holds nothing but what the plan shows, and no /proc.

    Raises:
        OSError: the kernel refuses.
    """
    assert kernel is not None
    kernel.make_private()
    if plan.backend == "bubblewrap":  # which has built the root
        kernel.mount_tmpfs("/proc", "size=4k,mode=555")
        return
    root = "/proc"  # exists everywhere, and nothing of it is shown
    kernel.mount_tmpfs(root, "size=1m,mode=755")
    for path in plan.readable:
        _show(root, path)
    for path in plan.hidden:
        if os.path.isdir(root + path):  # noqa: PTH112 - no pathlib in here
            kernel.mount_tmpfs(root + path, "size=1m,mode=755")
    for path in plan.package_files:
        _show(root, path)
    for path in plan.hidden:
        if os.path.isdir(root + path):  # noqa: PTH112 - no pathlib in here
            kernel.remount_read_only(root + path)
    os.makedirs(root + "/dev")  # noqa: PTH103
    for name in ("null", "zero", "random", "urandom"):
        os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_WRONLY))
        kernel.bind_read_only(f"/dev/{name}", f"{root}/dev/{name}", device=True)
    os.makedirs(root + plan.scratch, exist_ok=True)  # noqa: PTH103
    kernel.pivot_root(root)
    kernel.remount_read_only("/")


def _show(root: str, path: str) -> None:
    assert kernel is not None
    target = root + path
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
    if os.path.islink(path):  # noqa: PTH114
        os.symlink(os.readlink(path), target)  # noqa: PTH115, PTH211
    elif os.path.isdir(path):  # noqa: PTH112
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
        kernel.bind_read_only(path, target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        kernel.bind_read_only(path, target)


def confine(plan: Plan, wall: float, scratch: str | None, *, untrusted: bool) -> Layers:
    """Confine this process for good.

    Args:
        plan: how.
        wall: seconds the evaluation may take; the CPU limit follows from it.
        scratch: the only folder it may write to; None: none. The tests' process has it as well where tests and
            solution share files, and then is the same user.
        untrusted: whether it will run the solution; the tests' process keeps to limits and filters.
    """
    filtered, landlock = False, 0
    if scratch is not None:
        os.chdir(scratch)
        if not untrusted:
            os.environ["TMPDIR"] = scratch  # another folder would not be open to the solution
    if plan.user is not None:
        number = plan.user + (scratch is None)
        os.setgroups([])
        os.setresgid(number, number, number)
        os.setresuid(number, number, number)
    _limit(plan, wall)
    if kernel is None:
        return Layers()
    with contextlib.suppress(OSError):
        kernel.undumpable()
    with contextlib.suppress(OSError):
        kernel.drop_capabilities()
    with contextlib.suppress(OSError):
        kernel.no_new_privileges()
    if untrusted and not plan.namespaced:
        with contextlib.suppress(OSError):
            landlock = kernel.landlock(plan.readable, [scratch] if scratch else [])
    with contextlib.suppress(OSError):
        kernel.seccomp(processes=_may_fork(plan), own_pid=None if plan.namespaced else os.getpid())
        filtered = True
    return Layers(filtered, landlock)


def _may_fork(plan: Plan) -> bool:
    # Without a namespace that takes them along, processes could be left behind.
    return plan.processes > 0 and plan.namespaced


def renew_scratch(plan: Plan) -> None:
    """Empty the folder that the next solver may write to, where it lies in memory."""
    assert kernel is not None
    with contextlib.suppress(OSError):
        kernel.unmount(plan.scratch)
    kernel.mount_tmpfs(plan.scratch, f"size={plan.file_size},nr_inodes=4096,mode=1777")


def prepare(plan: Plan) -> None:
    """Do once, before forking, what every `confine` would do again."""
    if kernel is not None and plan.namespaced:
        with contextlib.suppress(OSError):
            kernel.seccomp_program(processes=_may_fork(plan), own_pid=None)


def _limit(plan: Plan, wall: float) -> None:
    cpu = int(wall) + 2
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, plan.file_size),
        (resource.RLIMIT_NOFILE, plan.open_files),
    ]
    if sys.platform == "linux":
        limits += [(resource.RLIMIT_AS, plan.memory), (resource.RLIMIT_MSGQUEUE, 0)]
        # Elsewhere the limit would count every process the user has.
        if plan.namespaced or plan.user is not None:
            limits.append((resource.RLIMIT_NPROC, plan.threads))
    for kind, value in limits:
        with contextlib.suppress(ValueError, OSError):  # a lower limit is in force already
            resource.setrlimit(kind, (value, value))
