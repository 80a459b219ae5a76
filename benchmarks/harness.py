"""Processes that are measured: a Prefect server, the drivers, and the environments of the peers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from reflexion.tasks.server_defaults import SERVER_SETTINGS

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers"

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "asyncio": ("openai>=2,<4",),
    "langgraph": ("langgraph>=1,<2", "langchain-openai>=1,<2"),
    "inspect": ("inspect-ai>=0.3.100", "openai>=2,<4"),
    "prefect": ("prefect>=3.8,<4", "fastapi<0.151", "openai>=2,<4"),
}
"""What each peer's environment holds."""

START_SECONDS = 240.0


def clean_environment() -> dict[str, str]:
    """The environment without what would steer a run or a server."""
    foreign = ("PREFECT_", "REFLEXION_", "OPENAI_")
    return {k: v for k, v in os.environ.items() if not k.startswith(foreign)}


@dataclass
class Server:
    """A running Prefect server with a database of its own."""

    url: str
    process: psutil.Process
    home: Path

    def cpu(self) -> float:
        """Seconds of processor time it and its children took so far."""
        return sum(_cpu(process) for process in _tree(self.process))


@contextmanager
def prefect_server(settings: Mapping[str, str] | None = None, *, tuned: bool = False) -> Iterator[Server]:
    """Start a server with Prefect's own settings, this project's, or these; stop it at the end."""
    chosen = settings if settings is not None else SERVER_SETTINGS if tuned else {}
    with tempfile.TemporaryDirectory(prefix="bench-server-") as home, (Path(home) / "log").open("wb") as log:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env={**clean_environment(), **chosen, "PREFECT_HOME": home},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}/api"
        try:
            _wait_for(f"{url}/health", process)
            yield Server(url, psutil.Process(process.pid), Path(home))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the Prefect server did not start (exit code {process.poll()})")


@dataclass
class Watch:
    """Peak memory of several process trees together."""

    roots: list[psutil.Process]
    peak_mb: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Sample until stopped."""
        while not self._stop.wait(0.2):
            self.peak_mb = max(self.peak_mb, sum(_rss(p) for root in self.roots for p in _tree(root)) / 1e6)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sample meanwhile."""
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def drive(python: Path, script: str, arguments: list[str], *, server: Server | None = None) -> dict[str, Any]:
    """Run a driver and give its figures, with the server's processor time and the peak memory of both.

    Raises:
        RuntimeError: the driver failed; shows the end of what it printed.
    """
    environment = (
        clean_environment() | {"PYTHONPATH": str(ROOT)} if script.startswith("reflexion") else clean_environment()
    )
    with tempfile.TemporaryDirectory(prefix="bench-home-") as home:
        environment |= {"PREFECT_HOME": home, "HOME": home, "PREFECT_LOGGING_LEVEL": "ERROR"}
        if server is not None:
            environment["PREFECT_API_URL"] = server.url
        before = server.cpu() if server is not None else 0.0
        with (Path(home) / "errors").open("w+") as errors:
            process = subprocess.Popen(
                [str(python), str(PEERS / script), *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=home,
            )
            roots = [psutil.Process(process.pid), *([server.process] if server is not None else [])]
            watch = Watch(roots)
            with watch.watching():
                out, _ = process.communicate()
            if process.returncode != 0:
                errors.seek(0)
                raise RuntimeError(f"{script} failed ({process.returncode}):\n{errors.read()[-3000:]}")
    figures: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    figures["client_peak_mb"] = figures.pop("peak_mb")
    figures["peak_mb"] = watch.peak_mb
    figures["server_cpu_seconds"] = server.cpu() - before if server is not None else 0.0
    return figures


def environment_of(peer: str, given: Mapping[str, Path], folder: Path) -> Path:
    """The interpreter of a peer: the one given, or one in an environment made by pip when first needed."""
    if peer in given:
        return given[peer]
    wanted = REQUIREMENTS[peer]
    name = f"{peer}-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:8]}"
    home = folder / name
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        print(f"making an environment for {peer} in {home} …", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        (home / "ready").touch()
    return python


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def _rss(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0
