"""`reflexion …` carried out in a test's own process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from reflexion.cli.main import execute

__all__ = ["Command", "Ended", "command_in", "one_message"]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


def command_in(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """What carries commands out in a folder."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["reflexion", *arguments])
        code = execute(arguments)
        return Ended(code, *capsys.readouterr())

    return run


def one_message(ended: Ended) -> str:
    """The error on stderr, made sure that it is one line for people."""
    assert "Traceback" not in ended.err + ended.out
    lines = [line for line in ended.err.splitlines() if line.startswith("reflexion: error:")]
    assert len(lines) == 1, ended.err
    assert ended.out == ""
    return lines[0]
