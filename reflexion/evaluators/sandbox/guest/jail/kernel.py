"""System calls the standard library does not offer: namespaces, mounts, capabilities, Landlock, seccomp.

Linux only; every function raises `OSError` where the kernel refuses or does not know the call.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from functools import lru_cache

__all__ = [
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "bind_read_only",
    "die_with_parent",
    "drop_capabilities",
    "landlock",
    "make_private",
    "mount_tmpfs",
    "no_new_privileges",
    "pivot_root",
    "reap_orphans_here",
    "remount_read_only",
    "seccomp",
    "seccomp_program",
    "setns",
    "undumpable",
    "unmount",
    "unshare",
]

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MS_NOATIME, _MS_NODIRATIME, _MS_RELATIME = 1024, 2048, 1 << 21
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_SIGKILL = 9

_libc = ctypes.CDLL(None, use_errno=True)
_MACHINE = os.uname().machine
_X86 = _MACHINE == "x86_64"


def _check(result: int, call: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def _syscall(call: str, x86: int, arm: int, *args: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(x86 if _X86 else arm), *args), call)


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), "prctl")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, flag: int) -> None:
    """Enter the namespace of a descriptor."""
    _check(_libc.setns(fd, flag), "setns")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    def raw(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    _check(_libc.mount(raw(source), raw(target), raw(kind), ctypes.c_ulong(flags), raw(data)), f"mount {target}")


def make_private() -> None:
    """Keep mounts made here from showing elsewhere."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def mount_tmpfs(target: str, options: str) -> None:
    """Mount an empty file system in memory."""
    _mount("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NODEV, options)


def unmount(target: str) -> None:
    """Take a mount away, as soon as nobody uses it."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), "umount2")


def bind_read_only(source: str, target: str, *, device: bool = False) -> None:
    """Show a folder or file at another place, without the right to write."""
    _mount(source, target, None, _MS_BIND | _MS_REC)
    remount_read_only(target, device=device)


def remount_read_only(target: str, *, device: bool = False) -> None:
    """Take the right to write from a mount, keeping the flags it was given by others."""
    kept = 0
    have = os.statvfs(target).f_flag
    # The flags of statvfs(3) and mount(2) differ from 4096 on.
    for flag in (_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_NOATIME, _MS_NODIRATIME):
        kept |= have & flag
    if have & 4096:
        kept |= _MS_RELATIME
    extra = 0 if device else _MS_NODEV
    _mount(None, target, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | extra | kept)


def pivot_root(folder: str) -> None:
    """Make a mounted folder the root and let go of the old one."""
    os.chdir(folder)
    _syscall("pivot_root", 155, 41, b".", b".")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def die_with_parent() -> None:
    """Be killed when the parent ends."""
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def reap_orphans_here() -> None:
    """Become the parent of descendants whose parents end."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def undumpable() -> None:
    """Let no process of the same user trace this one or read its memory."""
    _prctl(_PR_SET_DUMPABLE, 0)


def no_new_privileges() -> None:
    """Let no program started from here gain rights."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up every right of the superuser."""
    header = struct.pack("II", 0x20080522, 0)
    _syscall("capset", 126, 91, header, bytes(24))


class _Fprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Numbers on x86-64 and on arm64; -1 where a machine has no such call.
_ALWAYS: dict[str, tuple[int, int]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430), "fsmount": (432, 432),
    "open_tree": (428, 428), "move_mount": (429, 429), "mount_setattr": (442, 442), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "acct": (163, 89), "syslog": (103, 116),
    "quotactl": (179, 60), "personality": (135, 92), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}  # fmt: skip
_NEW_PROCESSES: dict[str, tuple[int, int]] = {
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281),
}  # fmt: skip
_CLONE, _CLONE3, _KILL, _TKILL, _TGKILL = (56, 220), (435, 435), (62, 129), (200, 130), (234, 131)
_SOCKETPAIR, _PRLIMIT, _FCNTL = (53, 199), (302, 261), (72, 25)
_CLONE_THREAD = 0x00010000
_OWNER_COMMANDS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals by another way


def seccomp(*, processes: bool, own_pid: int | None) -> None:
    """Forbid for good what no solution needs: sockets, tracing, namespaces, mounts, shared memory, kernel keys.

    Args:
        processes: whether new processes and programs may be started; threads always may.
        own_pid: forbid signals to any process but this one; None where others cannot be seen anyway.

    Raises:
        OSError: the kernel has no such filter, or the machine's call numbers are not known.
    """
    raw = seccomp_program(processes=processes, own_pid=own_pid)
    program = _Fprog(len(raw) // 8, raw)
    no_new_privileges()
    _check(_libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(program), 0, 0), "seccomp")


@lru_cache(maxsize=1)
def seccomp_program(*, processes: bool, own_pid: int | None) -> bytes:
    """The filter's code. Made once before forking where it does not depend on the process.

    Raises:
        OSError: the machine's call numbers are not known.
    """
    arch = _ARCH.get(_MACHINE)
    if arch is None:
        raise OSError(f"no system call numbers for {_MACHINE}")
    code: list[tuple[int, int, int, int]] = [
        (_LD, 0, 0, 4),
        (_JEQ, 1, 0, arch),
        (_RET, 0, 0, _EPERM),
        (_LD, 0, 0, 0),
    ]
    if _X86:
        code += [(_JGE, 0, 1, 0x40000000), (_RET, 0, 0, _EPERM)]  # the x32 numbers
    index = 0 if _X86 else 1

    def deny(numbers: Sequence[tuple[int, int]], answer: int = _EPERM) -> None:
        for pair in numbers:
            if pair[index] >= 0:
                code.extend([(_JEQ, 0, 1, pair[index]), (_RET, 0, 0, answer)])

    def restrict(pair: tuple[int, int], argument: int, test: tuple[int, int], *, allow_if: bool) -> None:
        """Decide a call by the low half of one argument; `test` is an operation and its operand."""
        yes, no = (_ALLOW, _EPERM) if allow_if else (_EPERM, _ALLOW)
        body = [(_LD, 0, 0, 16 + 8 * argument), (test[0], 0, 1, test[1]), (_RET, 0, 0, yes), (_RET, 0, 0, no)]
        code.extend([(_JEQ, 0, len(body), pair[index]), *body])

    deny(list(_ALWAYS.values()))
    deny([_CLONE3], _ENOSYS)  # its flags lie in memory, where no filter sees them; libc falls back to clone
    restrict(_PRLIMIT, 0, (_JEQ, 0), allow_if=True)
    restrict(_SOCKETPAIR, 1, (_JSET, 2), allow_if=False)  # datagrams could be sent to any address
    if not processes:
        deny(list(_NEW_PROCESSES.values()))
        restrict(_CLONE, 0, (_JSET, _CLONE_THREAD), allow_if=True)
    if own_pid is not None:
        deny([_TKILL])
        restrict(_KILL, 0, (_JEQ, own_pid), allow_if=True)
        restrict(_TGKILL, 0, (_JEQ, own_pid), allow_if=True)
        for command in _OWNER_COMMANDS:
            body = [(_LD, 0, 0, 24), (_JEQ, 0, 1, command), (_RET, 0, 0, _EPERM), (_LD, 0, 0, 0)]
            code.extend([(_JEQ, 0, len(body), _FCNTL[index]), *body])
    code.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *line) for line in code)


_FS_READ = 0b1101  # execute, read a file, read a folder


def landlock(readable: Sequence[str], writable: Sequence[str]) -> int:
    """Forbid for good every file outside these folders; returns the version of the kernel's interface.

    From version 4 on it also forbids TCP, from version 6 on signals to processes outside.

    Raises:
        OSError: the kernel has no Landlock.
    """
    null = ctypes.c_void_p(None)
    version = _syscall("landlock", 444, 444, null, ctypes.c_size_t(0), ctypes.c_uint32(1))
    rights = (1 << (13 + min(version - 1, 2) + (version >= 5))) - 1
    attributes = struct.pack("QQQ", rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _syscall("landlock", 444, 444, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for paths, allowed in ((readable, _FS_READ), (writable, rights)):
            for path in paths:
                folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
                try:
                    granted = allowed if os.path.isdir(path) else allowed & 0b101  # noqa: PTH112 - no pathlib in here
                    rule = struct.pack("=Qi", granted & rights, folder)
                    _syscall("landlock", 445, 445, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint32(0))
                finally:
                    os.close(folder)
        no_new_privileges()
        _syscall("landlock", 446, 446, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return version
