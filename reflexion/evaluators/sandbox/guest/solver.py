"""The process of the untrusted solution: loads it, and does what the tests ask of its objects.

Nothing here is a barrier against the code it runs; it shares its interpreter. It needs to be none, since all
it can do is to answer.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import os
import sys
from typing import Any

from .crossing.link import Link
from .pipe import Channel, MessageTooLargeError
from .test_running import SOLUTION, describe_failure

__all__ = ["solve"]

_OWN_MODULES = frozenset({"solution", "__main__"})
_OUTPUT = 8 << 20
"""Characters of output kept for the tests between two calls."""


def solve(code: str, program: bool, channel: Channel) -> None:
    """Load the solution and serve the checker until it hangs up.

    Args:
        code: the solution.
        program: it is a whole program, which is run anew for each input and not loaded before.
        channel: to the checker.
    """
    # The namespace is a real module, since dataclasses and pickles look theirs up by name.
    module = type(sys)("solution")
    sys.modules["solution"] = module
    try:
        compiled = compile(code, SOLUTION, "exec", dont_inherit=True)
        if not program:
            exec(compiled, module.__dict__)  # noqa: S102 - what this process is for
    except BaseException as exc:  # noqa: BLE001 - whatever the solution raises
        channel.send({"load": describe_failure(exc, "load", code)})
        return
    channel.send({"load": None})
    link = _SolverLink(channel, code, compiled, module.__dict__)
    while True:
        link.serve(channel.receive())


class _SolverLink(Link):
    modules_by_name = False

    def __init__(self, channel: Channel, code: str, compiled: Any, namespace: dict[str, Any]) -> None:
        super().__init__(channel, 1, _OWN_MODULES)
        self._code = code
        self._compiled = compiled
        self._namespace = namespace
        self._watched: dict[str, Any] = {}
        self._surroundings = _Surroundings(self)
        self._replaced: dict[tuple[int, str], Any] = {}
        self.operations |= {"names": self._names, "program": self._program, "module": self._module}
        self.operations |= {"set": self._set, "restore": self._restore}

    def serve(self, request: dict[str, Any]) -> None:
        try:
            super().serve(request)
        except MessageTooLargeError as exc:
            self.channel.send(self._failure(exc))

    def before_sending(self, message: dict[str, Any]) -> None:
        self._surroundings.tell(message)
        changed = {
            name: self._namespace.get(name, _MISSING)
            for name, last in self._watched.items()
            if self._namespace.get(name, _MISSING) is not last
        }
        if changed:
            self._watched |= changed
            message["g"] = {n: self.encode(v) for n, v in changed.items() if v is not _MISSING}

    def after_receiving(self, message: dict[str, Any]) -> None:
        self._surroundings.hear(message)

    def describe_failure(self, exc: BaseException) -> Any:
        return describe_failure(exc, "solution", self._code)

    def _set(self, thing: Any, name: str, value: Any) -> None:
        if isinstance(thing, type):
            self._replaced.setdefault((id(thing), name), vars(thing).get(name, _MISSING))
        setattr(thing, name, value)

    def _restore(self, thing: type, name: str) -> None:
        """Undo what tests replaced of a class; they never held what was there themselves."""
        original = self._replaced.get((id(thing), name), _MISSING)
        if original is not _MISSING:
            setattr(thing, name, original)

    def _names(self, names: list[str], flags: dict[str, Any]) -> dict[str, Any]:
        self._surroundings.prepare(flags)
        found = {name: self._namespace[name] for name in names if name in self._namespace}
        self._watched = dict(found)
        return found

    def _module(self) -> Any:
        return sys.modules["solution"]

    def _program(self, given: str) -> str:
        """Run the whole program with an input; what it wrote to its output."""
        return _run_program(self._compiled, given)


_MISSING = object()


def _run_program(compiled: Any, given: str) -> str:
    """Run a program as `python program.py` would, with real descriptors for its input and output."""
    import threading

    inside, outside = os.memfd_create("input"), os.memfd_create("output")
    os.write(inside, given.encode(errors="surrogateescape"))
    os.lseek(inside, 0, os.SEEK_SET)
    os.dup2(inside, 0)
    os.dup2(outside, 1)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8", line_buffering=False
    )
    module = type(sys)("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    try:
        exec(compiled, module.__dict__)  # noqa: S102 - what this process is for
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    except SystemExit as exc:
        if exc.code not in (None, 0):
            raise RuntimeError(f"the program ended with exit code {exc.code!r}") from None
    finally:
        sys.stdout.flush()
    os.lseek(outside, 0, os.SEEK_SET)
    with os.fdopen(outside, "rb") as file:
        written = file.read()
    os.close(inside)
    return written.decode("utf-8", errors="replace")


class _Surroundings:
    """What tests set up around a solution: its input and output, environment, random numbers, replaced functions."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._flags: dict[str, Any] = {}
        self._written: list[list[Any]] = []
        self._size = 0
        self._warned: list[list[Any]] = []
        self._logged: list[list[Any]] = []
        self._random: Any = None
        self._originals: dict[tuple[str, str], Any] = {}

    def prepare(self, flags: dict[str, Any]) -> None:
        """Get ready for what the tests use of it."""
        self._flags = flags
        if flags.get("output"):
            sys.stdout, sys.stderr = _Output(self, 1), _Output(self, 2)
        if flags.get("input"):
            builtins.input = lambda prompt="", /: self._link.ask("input", str(prompt))
            sys.stdin = _Input(self._link)  # type: ignore[assignment]
        if flags.get("warnings"):
            import warnings

            warnings.simplefilter("always")
            warnings.showwarning = self._warn
        if flags.get("logging"):
            import logging

            handler = logging.Handler()
            handler.emit = self._log
            logging.getLogger().addHandler(handler)
            logging.getLogger().setLevel(1)

    def write(self, stream: int, text: str) -> None:
        """Note what was written."""
        if self._size < _OUTPUT:
            self._size += len(text)
            self._written.append([stream, text[:_OUTPUT]])

    def _warn(self, message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
        self._warned.append([category.__module__, category.__qualname__, str(message)])

    def _log(self, record: Any) -> None:
        self._logged.append([record.name, record.levelno, record.getMessage()])

    def tell(self, message: dict[str, Any]) -> None:
        """Add to a message what happened."""
        if self._written:
            message["out"], self._written, self._size = self._written, [], 0
        if self._warned:
            message["warned"], self._warned = self._warned, []
        if self._logged:
            message["logged"], self._logged = self._logged, []
        if self._flags.get("random"):
            import random

            state = random.getstate()
            if state != self._random:
                self._random = state
                message["random"] = [state[0], list(state[1]), state[2]]

    def hear(self, message: dict[str, Any]) -> None:
        """Take over what the tests set up."""
        if "random" in message:
            import random

            version, numbers, gauss = message["random"]
            random.setstate((version, tuple(numbers), gauss))
            self._random = random.getstate()
        for name, value in message.get("environ", ()):
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if message.get("folder"):
            with contextlib.suppress(OSError):
                os.chdir(message["folder"])
        for module_name, name, node in message.get("patch", ()):
            module = importlib.import_module(module_name)
            key = (module_name, name)
            if key not in self._originals:
                self._originals[key] = getattr(module, name, _MISSING)
            value = self._originals[key] if node == ["original"] else self._link.decode(node)
            if value is _MISSING:
                delattr(module, name)
            else:
                setattr(module, name, value)


class _Output(io.TextIOBase):
    """The solution's output, on its way to the tests."""

    def __init__(self, surroundings: _Surroundings, stream: int) -> None:
        self._surroundings = surroundings
        self._stream = stream

    def write(self, text: str, /) -> int:
        self._surroundings.write(self._stream, "" + text)
        return len(text)

    def writable(self) -> bool:
        return True


class _Input(io.TextIOBase):
    """The input that the tests give."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def read(self, size: int | None = -1, /) -> str:
        return self._link.ask("stdin", "read", -1 if size is None else size)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        return self._link.ask("stdin", "readline", size)

    def readable(self) -> bool:
        return True
