"""How the sandbox is started: in bubblewrap, in namespaces of our own, or with limits alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import sysconfig
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

from reflexion.evaluators.sandbox.guest.jail.isolation import SCRATCH, Plan
from reflexion.evaluators.sandbox.jobs import Limits

__all__ = ["BACKENDS", "ENVIRONMENT", "Backend", "command", "make_plan", "package_files"]

Backend = Literal["bubblewrap", "namespaces", "limits"]

BACKENDS: tuple[Backend, ...] = ("bubblewrap", "namespaces", "limits")
"""Strongest first."""

_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
_BOOT = (
    "import sys, json; sys.path.insert(0, sys.argv[1]); "
    "from guest.jail.isolation import SCRATCH, Plan; from guest.zygote import main; del sys.path[0]; "
    "main(int(sys.argv[2]), Plan(**json.loads(sys.argv[3])))"
)
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Of solvers and checkers: sets have one order wherever and whenever an answer is judged."""
_FIRST_USER, _USERS = 61184, 4336
"""The range systemd gives to services without a user of their own; nothing else owns files there."""


def _interpreter() -> Path:
    """The real interpreter, outside any virtual environment: the sandbox has the standard library only."""
    return Path(getattr(sys, "_base_executable", sys.executable) or sys.executable).resolve()


def _readable() -> list[Path]:
    guest = Path(__file__).parent / "guest"
    paths = [Path(p) for p in _SYSTEM]
    paths += [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    library = sysconfig.get_config_var("LIBDIR")
    if library and sysconfig.get_config_var("LDLIBRARY"):
        paths += sorted(Path(library).glob("libpython3*.so*"))
    paths += [_interpreter(), guest.resolve()]
    existing = [p for p in dict.fromkeys(paths) if p.exists()]
    # What lies within another is there already, unless a link leads to it.
    return [p for p in existing if not any(q in p.parents for q in existing if not q.is_symlink())]


def _hidden(readable: list[Path]) -> list[Path]:
    """Installed packages: data sets with their answers could be among them."""
    found: list[Path] = []
    for folder in readable:
        if folder.is_dir() and not folder.is_symlink():
            found += [folder / name for name in ("site-packages", "dist-packages")]
            found += [d / name for d in folder.glob("python*") for name in ("site-packages", "dist-packages")]
    return [p for p in found if p.is_dir()]


def package_files(packages: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Folders and files of installed packages and of all they need, and where Python looks for them.

    Raises:
        OSError: one is not installed.
    """
    owners = metadata.packages_distributions()
    files: dict[Path, None] = {}
    path: dict[str, None] = {}
    wanted: list[str] = []
    for package in packages:
        found = owners.get(package) or ([package] if _distribution(package) else [])
        if not found:
            raise OSError(f"the package {package!r} is not installed, which the sandbox shall be let see")
        wanted += found
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        distribution = _distribution(name)
        if distribution is None or name.lower() in seen:
            continue
        seen.add(name.lower())
        base = Path(str(distribution.locate_file("")))
        path.setdefault(str(base))
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not top.endswith((".pth", ".data")):
                files.setdefault(base / top)
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                wanted.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return [p for p in files if p.exists()], list(path)


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _open_to_all(path: Path) -> bool:
    """Whether any user may reach a folder."""
    return all(p.stat().st_mode & stat.S_IXOTH for p in (path, *path.parents))


def _user(backend: Backend, slot: int) -> int | None:
    """A user id of its own for each slot, where we may change to it; else None."""
    if os.name != "posix" or os.getuid() != 0:
        return None
    if backend == "limits" and not all(_open_to_all(p) for p in _readable() if p.is_dir()):
        return None  # the library could not be read any more
    return _FIRST_USER + 2 * ((os.getpid() * 8 + slot) % (_USERS // 2))


def make_plan(backend: Backend, limits: Limits, slot: int, packages: Sequence[str] = ()) -> Plan:
    """The plan of one zygote; `slot` tells those of one process apart.

    Raises:
        OSError: a package is not installed.
    """
    readable = _readable()
    files, path = package_files(packages)
    return Plan(
        backend=backend,
        readable=[str(p) for p in readable],
        hidden=[str(p) for p in _hidden(readable)],
        user=_user(backend, slot),
        memory=limits.memory,
        processes=limits.processes,
        threads=limits.threads,
        file_size=limits.file_size,
        open_files=limits.open_files,
        message=limits.message,
        scratch=_scratch(readable + files),
        packages=list(packages),
        package_files=[str(p) for p in files],
        package_path=path,
    )


def _scratch(readable: list[Path]) -> str:
    """The folder a solver may write to; it must hide nothing that has to be read, wherever Python lies."""
    taken = any(Path(SCRATCH) in p.parents for p in readable)
    return "/scratch" if taken else SCRATCH


def command(plan: Plan, fd: int) -> list[str]:
    """The command that starts a zygote on a socket it inherits as `fd`.

    Raises:
        OSError: bubblewrap is asked for and not installed.
    """
    package = str(Path(__file__).parent.resolve())
    # Not -I, which would ignore the hash seed as well.
    python = [str(_interpreter()), "-P", "-s", "-S", "-B", "-c", _BOOT, package, str(fd), json.dumps(plan._asdict())]
    if plan.backend != "bubblewrap":
        return python
    program = shutil.which("bwrap")
    if program is None:
        raise FileNotFoundError("bubblewrap is not installed")
    options = ["--die-with-parent", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    # As root, a user namespace would only get in the way of changing to another user.
    options += ["--cap-add", "ALL"] if plan.user is not None else ["--unshare-user"]
    # Folders bubblewrap makes on the way to another are open to its own user only.
    for parent in sorted({str(q) for path in plan.readable for q in Path(path).parents} - {"/"}):
        options += ["--perms", "0755", "--dir", parent]
    for path in plan.readable:
        if Path(path).is_symlink():
            options += ["--symlink", str(Path(path).readlink()), path]
        else:
            options += ["--ro-bind", path, path]
    for path in plan.hidden:
        options += ["--tmpfs", path]
    for path in plan.package_files:
        options += ["--ro-bind", path, path]
    for path in plan.hidden:
        options += ["--remount-ro", path]
    for name in ("null", "zero", "random", "urandom"):
        options += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    options += ["--proc", "/proc", "--perms", "0755", "--dir", plan.scratch]
    options += ["--remount-ro", "/", "--chdir", "/", "--clearenv"]
    options += [word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)]
    return [program, *options, "--", *python]
