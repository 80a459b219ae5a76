"""A real Prefect server for tests: its own home and database, a loopback port, stopped by its process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from reflexion.tasks.server_defaults import DEFAULTS

__all__ = ["PrefectServer"]

START_SECONDS = 240.0
"""Making the database takes 20 s on two idle cores, and the test machine may be busy."""


class PrefectServer:
    """One server with the settings this project recommends.

    Attributes:
        home: its PREFECT_HOME, where the SQLite database is.
        url: what PREFECT_API_URL is set to.
        ui: address of its pages.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="prefect-test-"))
        # Bound until the server starts, so that nobody else is given the port meanwhile.
        self._reserved: socket.socket | None = socket.socket()
        self._reserved.bind(("127.0.0.1", 0))
        self.port = int(self._reserved.getsockname()[1])
        self.ui = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.ui}/api"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables for this process and those it starts, set before Prefect is imported."""
        return {**DEFAULTS, "PREFECT_HOME": str(self.home), "PREFECT_API_URL": self.url}

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.home / "prefect.db"

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.home / "server.log"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def launch(self) -> None:
        """Start it without waiting; harmless when it runs."""
        if self._process is not None:
            return
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return when it answers.

        Raises:
            AssertionError: it ended, or does not answer in time; shows its log.
        """
        self.launch()
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with (
                contextlib.suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(f"{self.url}/health", timeout=5),
            ):
                return
            time.sleep(0.1)
        raise AssertionError(f"the Prefect server did not start:\n{self.log.read_text()[-4000:]}")

    def close(self) -> None:
        """End it and remove its home."""
        if self._reserved is not None:
            self._reserved.close()
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        shutil.rmtree(self.home, ignore_errors=True)
