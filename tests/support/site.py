"""The containers of `deployments/compose.yaml` as processes of this machine, with their commands and variables.

What differs is what a container brings: addresses, ports and where secrets are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import yaml

from tests.redis_server import RedisServer, free_port
from tests.support.postgres import PostgresServer

__all__ = ["DEPLOYMENTS", "Site"]

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"

START_SECONDS = 240.0


class Site:
    """PostgreSQL and Redis with passwords, the Prefect server and its services behind credentials, workers.

    Attributes:
        home: where logs, secrets and folders are.
        api: address of the server.
        secrets: every password, by the name of its file.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="site-"))
        self.home.chmod(0o755)
        self.secrets = {
            "postgres_password": "marked-postgres-51c8f0",
            "redis_password": "marked-redis-7be2d4",
            "prefect_auth": "reflexion:marked-prefect-90aa31",
        }
        (self.home / "secrets").mkdir()
        for name, value in self.secrets.items():
            (self.home / "secrets" / name).write_text(value)
        self.compose: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())["services"]
        self.redis = RedisServer(self.secrets["redis_password"])
        self.port, self.postgres_port, self.worker_port = free_port(), free_port(), free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.runs = self.home / "runs"
        (self.home / "postgres").mkdir()
        self.postgres = LockedPostgres(self.home / "postgres", self.postgres_port, self.secrets["postgres_password"])
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    # -- what compose.yaml says ------------------------------------------------------------------------

    def environment(self, service: str) -> dict[str, str]:
        """The variables of a service."""
        named: dict[str, str] = {}
        for file in self.compose[service].get("env_file", ()):
            lines = (DEPLOYMENTS / file).read_text().splitlines()
            named |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        named |= {k: self._here(str(v)) for k, v in self.compose[service]["environment"].items()}
        if "PREFECT_SERVER_DATABASE_HOST" in named:
            named |= {
                "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
                "PREFECT_SERVER_DATABASE_PORT": str(self.postgres_port),
            }
        if "REDIS_HOST" in named:
            named |= {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.redis.port)}
        named.setdefault("PREFECT_HOME", str(self.home / "prefect"))
        # What the image sets, and what makes a test wait less.
        named |= {
            "REFLEXION_RUNS": str(self.runs),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.worker_port),
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PYTHONUNBUFFERED": "1",
        }
        return _foreign_free() | named

    def command(self, service: str) -> list[str]:
        """The command of a service, under the image's entrypoint."""
        words = [self._here(word) for word in self.compose[service]["command"]]
        if words[0] == "prefect":
            words[:1] = [sys.executable, "-m", "prefect"]
        return [str(DEPLOYMENTS / "entrypoint.sh"), *words]

    def _here(self, text: str) -> str:
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")
        text = text.replace("/run/secrets", str(self.home / "secrets")).replace(
            "/tmp/prefect", str(self.home / "prefect")
        )
        text = text.replace("/opt/reflexion", str(DEPLOYMENTS)).replace("0.0.0.0", "127.0.0.1")
        text = re.sub(r"(server|127\.0\.0\.1):4200", f"127.0.0.1:{self.port}", text)
        return str(self.port) if text == "4200" else text

    # -- processes ---------------------------------------------------------------------------------------

    def start(self, service: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a service; its log is in `home`."""
        with self.log_file(service).open("ab") as log:
            process = subprocess.Popen(
                self.command(service),
                env=self.environment(service) | variables,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[service] = process
        return process

    def run(self, service: str) -> None:
        """Run a service that ends by itself."""
        code = self.start(service).wait(START_SECONDS)
        assert code == 0, self.log(service)[-4000:]

    def launch(self) -> None:
        """Start the databases, then the server and its services; returns when the server answers."""
        self.postgres.launch()
        self.redis.launch()
        self.run("migrate")
        self.start("server")
        self.start("services")
        self.wait_for(f"{self.api}/ready", "server")

    def wait_for(self, url: str, service: str) -> None:
        """Return when an address answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._processes[service].poll() is None:
            with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5):
                return
            time.sleep(0.1)
        raise AssertionError(f"{service} does not answer at {url}:\n{self.log(service)[-4000:]}")

    def log_file(self, service: str) -> Path:
        return self.home / f"{service}.log"

    def log(self, service: str) -> str:
        """What a service printed."""
        path = self.log_file(service)
        return path.read_text(errors="replace") if path.exists() else ""

    def processes_of(self, service: str) -> list[psutil.Process]:
        """The processes of a service, those it started first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._processes[service].pid)
            return [*root.children(recursive=True), root]
        return []

    def stop(self, service: str) -> None:
        """End a service and what it started."""
        for process in self.processes_of(service):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self._processes.pop(service).wait(20)

    def close(self) -> None:
        """End everything by its process id."""
        for service in list(self._processes):
            self.stop(service)
        self.redis.close()
        self.postgres.close()
        shutil.rmtree(self.home, ignore_errors=True)

    # -- clients -----------------------------------------------------------------------------------------

    @property
    def auth(self) -> tuple[str, str]:
        """User and password of the Prefect server."""
        user, _, password = self.secrets["prefect_auth"].partition(":")
        return user, password

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """A request to the server's API, with credentials."""
        answer = httpx.post(f"{self.api}/{path}", json=body, timeout=30, auth=self.auth)
        answer.raise_for_status()
        return answer.json()

    def get(self, path: str) -> Any:
        """What the server's API tells, with credentials."""
        answer = httpx.get(f"{self.api}/{path}", timeout=30, auth=self.auth)
        answer.raise_for_status()
        return answer.json()

    def client_environment(self) -> dict[str, str]:
        """Variables of somebody who may use the server."""
        return _foreign_free() | {
            "PREFECT_HOME": str(self.home / "client"),
            "PREFECT_API_URL": self.api,
            "PREFECT_API_AUTH_STRING": self.secrets["prefect_auth"],
            "REFLEXION_RUNS": str(self.runs),
        }

    def dump(self) -> str:
        """Everything the database holds."""
        return asyncio.run(self._dump())

    async def _dump(self) -> str:
        connection = await self.postgres.connect("prefect")
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            rows = [str(await connection.fetch(f'SELECT t::text FROM "{table[0]}" t')) for table in tables]
            return "\n".join(rows)
        finally:
            await connection.close()

    def database_bytes(self) -> float:
        """What the server's database takes on disk."""
        return float(
            sum(p.stat().st_size for p in (self.home / "postgres" / "data" / "base").rglob("*") if p.is_file())
        )


def _foreign_free() -> dict[str, str]:
    """This process's variables without those of Prefect and of the project."""
    root = str(DEPLOYMENTS.parent)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "REFLEXION_", "OPENAI_"))}
    return kept | {"PYTHONPATH": root, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}


class LockedPostgres(PostgresServer):
    """A server on loopback that asks everybody for a password, with the role and the database `prefect`."""

    def __init__(self, home: Path, port: int, password: str) -> None:
        super().__init__(home)
        self.port, self._password = port, password

    @property
    def pid(self) -> int:
        """Its first process."""
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Make its database and start it; returns when it takes connections."""
        words, data = self.home / "password", self.home / "data"
        words.write_text(self._password)
        words.chmod(0o644)
        command = [*self._program("initdb"), "-D", str(data), "-U", "prefect", "--pwfile", str(words), "-E", "UTF8"]
        self._run([*command, "--auth=scram-sha-256", "--no-sync", "--locale=C"])
        command = [*self._program("postgres"), "-D", str(data), "-k", str(self.home), "-p", str(self.port)]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-c", "listen_addresses=127.0.0.1"], stdout=log, stderr=log, **self._common()
            )
        asyncio.run(self._make_database())

    async def connect(self, database: str) -> Any:
        """A connection of the role."""
        return await asyncpg.connect(
            host="127.0.0.1", port=self.port, user="prefect", password=self._password, database=database
        )

    async def _make_database(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                connection = await self.connect("postgres")
                break
            except (OSError, asyncpg.PostgresError):
                assert time.monotonic() < deadline, (self.home / "log").read_text()[-2000:]
                await asyncio.sleep(0.05)
        await connection.execute("CREATE DATABASE prefect")
        await connection.close()
