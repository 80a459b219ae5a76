"""What tests set up around a solution, as the solution's process must have it too.

Tests feed `input()`, look at what was printed, set environment variables, seed random numbers, and replace functions
of modules. All of that happens in the tests' process; here it is told to the other one with each message.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["Surroundings"]

_MISSING = object()


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - no pathlib in here
    except OSError:  # it was removed
        return None


class Surroundings:
    """The tests' side.

    Args:
        flags: what the tests use of it, by their text: `output`, `input`, `environ`, `folder`, `random`, `warnings`,
            `logging`, and `patches`, the modules in which they replace something.
    """

    def __init__(self, flags: dict[str, Any]) -> None:
        self._flags = flags
        self._environ = dict(os.environ) if flags.get("environ") else {}
        self._folder = _folder() if flags.get("folder") else None
        self._input = builtins.input
        self._stdin = sys.stdin
        self._random: Any = None
        self._originals: dict[str, dict[str, Any]] = {}
        self._sent: dict[tuple[str, str], Any] = {}
        if flags.get("random"):
            import random

            self._random = random.getstate()
        for name in flags.get("patches", ()):
            try:
                module = importlib.import_module(name)
            except ImportError:
                continue
            self._originals[name] = dict(vars(module))

    def read_input(self, prompt: str = "") -> str:
        """What `input()` gives here."""
        if builtins.input is self._input and sys.stdin is self._stdin:
            raise EOFError("EOF when reading a line")
        return builtins.input(prompt)

    def read_stdin(self, method: str, size: int = -1) -> Any:
        """What standard input gives here."""
        if sys.stdin is self._stdin or method not in ("read", "readline"):
            return ""
        return getattr(sys.stdin, method)(size)

    def tell(self, message: dict[str, Any], encode: Callable[[Any], Any]) -> None:
        """Add to a message what changed."""
        flags = self._flags
        if flags.get("environ"):
            now = dict(os.environ)
            if now != self._environ:
                changed = [[k, v] for k, v in now.items() if self._environ.get(k) != v]
                message["environ"] = changed + [[k, None] for k in self._environ if k not in now]
                self._environ = now
        if flags.get("folder") and (folder := _folder()) != self._folder:
            message["folder"] = self._folder = folder
        if flags.get("random"):
            import random

            state = random.getstate()
            if state != self._random:
                self._random = state
                message["random"] = [state[0], list(state[1]), state[2]]
        if self._originals:
            patches = [[m, n, self._node(v, encode)] for m, n, v in self._replaced()]
            if patches:
                message["patch"] = patches

    @staticmethod
    def _node(value: Any, encode: Callable[[Any], Any]) -> Any:
        return ["original"] if value is _MISSING else encode(value)

    def _replaced(self) -> list[tuple[str, str, Any]]:
        """What differs from what the other side last heard of: module, name and value; `_MISSING`: as it was."""
        found: list[tuple[str, str, Any]] = []
        for name, originals in self._originals.items():
            for key, value in list(vars(sys.modules[name]).items()):
                place = (name, key)
                if value is not originals.get(key, _MISSING):
                    if self._sent.get(place, _MISSING) is not value and not key.startswith("__"):
                        self._sent[place] = value
                        found.append((name, key, value))
                elif place in self._sent:
                    del self._sent[place]
                    found.append((name, key, _MISSING))
        return found

    def hear(self, message: dict[str, Any]) -> None:
        """Take over what happened around the solution."""
        for stream, text in message.get("out", ()):
            (sys.stderr if stream == 2 else sys.stdout).write(str(text))
        for module, name, text in message.get("warned", ()):
            self._warn(module, name, str(text))
        for logger, level, text in message.get("logged", ()):
            import logging

            logging.getLogger(str(logger)).log(int(level), "%s", text)
        if "random" in message and self._flags.get("random"):
            import random

            version, numbers, gauss = message["random"]
            random.setstate((version, tuple(numbers), gauss))
            self._random = random.getstate()

    @staticmethod
    def _warn(module: str, name: str, text: str) -> None:
        import warnings

        from .crossing.values import library

        category = library(module, name)
        if not (isinstance(category, type) and issubclass(category, Warning)):
            category = UserWarning
        warnings.warn_explicit(text, category, "<solution>", 1, registry={})
