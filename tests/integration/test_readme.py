"""Everything a reader of README.md may type is carried out here.

What names the embedded model uses it; what names a model of an endpoint gets the scripted one. Commands
over a whole dataset are given a small `--limit`, and the embedded model short replies; nothing else is
changed.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.redis_server import free_port
from tests.support.evals import start_cli
from tests.support.prefect_server import PrefectServer
from tests.unit.llm.batch_fake import BatchEndpoint

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

pytestmark = [pytest.mark.prefect, pytest.mark.model, pytest.mark.timeout(1200)]

SECONDS = 600
WHOLE = ("humaneval", "starter")
"""Datasets that are cut short here when the README does not do so itself."""

INSTALLATION = ("make ", "pip ")
"""Commands the tests of the wheel and of the Makefile carry out."""


class Block(NamedTuple):
    """A fenced block."""

    line: int
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield Block(README[: found.start()].count("\n") + 1, found[1], found[2])


def commands(block: Block) -> list[str]:
    """The commands of a block, comments left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", raw).strip() for raw in lines) if line]


SHELL = [b for b in blocks() if any(c.startswith("reflexion ") for c in commands(b))]
PYTHON = [b for b in blocks() if b.language == "python"]
EXAMPLE = next(b for b in blocks() if b.language == "json")


@pytest.fixture
def batch_endpoint() -> Iterator[BatchEndpoint]:
    with BatchEndpoint() as scripted:
        yield scripted


@pytest.fixture
def reader(
    prefect_server: PrefectServer, batch_endpoint: BatchEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BatchEndpoint:
    """A reader's folder with the example's problems in it, and an endpoint to be named."""
    (tmp_path / "problems.jsonl").write_text(EXAMPLE.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REFLEXION_RUNS", "runs")
    return batch_endpoint


def carry_out(command: str) -> str:
    """Run one `reflexion …` to its end; its output."""
    arguments = shlex.split(command)[1:]
    if arguments[0] == "eval" and arguments[1] in WHOLE:
        arguments = [*arguments, "--limit", "2"] if "--limit" not in arguments else _limited(arguments)
    if "local" in arguments:
        arguments += ["--max-completion-tokens", "48"]
    process = start_cli(*arguments)
    if arguments[0] in ("server", "serve") or "--watch" in arguments:
        return until_interrupted(process, arguments)
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, f"{command}\n{out}\n{err}"
    assert "Traceback" not in err
    return out


def _limited(arguments: list[str]) -> list[str]:
    at = arguments.index("--limit") + 1
    return [*arguments[:at], str(min(2, int(arguments[at]))), *arguments[at + 1 :]]


def until_interrupted(process: subprocess.Popen[str], arguments: list[str]) -> str:
    """What runs until it is stopped: wait until it does its work, then press Ctrl-C."""
    url = f"{os.environ['PREFECT_API_URL']}/health"
    if "--prometheus-port" in arguments:
        url = f"http://127.0.0.1:{arguments[arguments.index('--prometheus-port') + 1]}/metrics"
    deadline = time.monotonic() + SECONDS
    try:
        while not (_serves() if arguments[0] == "serve" else _answers(url)):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return out


def _serves() -> bool:
    """Whether the deployments are on the server, which is when `serve` has begun."""
    counted = httpx.post(f"{os.environ['PREFECT_API_URL']}/deployments/count", json={}, timeout=5)
    return counted.status_code == 200 and counted.json() >= 5


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("block", SHELL, ids=lambda b: f"line {b.line}")
def test_every_command_works(block: Block, reader: BatchEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(mark in block.text for mark in ("--llm local", "reflexion server")):
        monkeypatch.setenv("OPENAI_BASE_URL", reader.url)
        monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    for command in commands(block):
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            assert name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"), command
            assert value
        elif command.startswith("reflexion server"):
            with monkeypatch.context() as own:
                port = free_port()
                own.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
                carry_out(f"{command} --port {port}")
        else:
            carry_out(command)


@pytest.mark.parametrize("block", PYTHON, ids=lambda b: f"line {b.line}")
def test_every_snippet_works(block: Block, reader: BatchEndpoint) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", block.text],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | {"REFLEXION_CACHE": "steps"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_nothing_a_reader_may_type_is_left_out() -> None:
    for block in blocks():
        if block in SHELL:
            assert all(c.startswith(("reflexion ", "export ")) for c in commands(block)), block
        elif block.language in ("console", "shell", "bash"):
            assert all(c.startswith(INSTALLATION) for c in commands(block)), block
        else:
            assert block.language in ("python", "json", ""), block


def test_make_carries_out_what_the_readme_says() -> None:
    def recipe(target: str) -> str:
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True, text=True)
        return done.stdout

    assert "reflexion eval starter --llm local --max-trials 3" in recipe("demo")
    assert "-m pytest" in recipe("test")


def test_the_files_and_variables_it_names_exist() -> None:
    named = set(re.findall(r"`((?:deployments|benchmarks|reflexion|tasks|flows|tests)/[\w./]+)`", README))
    assert {name for name in named if not (ROOT / name).exists()} == set()
    from reflexion.settings import Settings

    known = {f"REFLEXION_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"`(REFLEXION_\w+)`", README)) <= known
