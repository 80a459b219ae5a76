"""A production set-up as processes of this machine: PostgreSQL, Redis, a Prefect server on both, workers."""

from __future__ import annotations

import contextlib
import os
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

import httpx
import psutil

from reflexion.tasks.server_defaults import DEFAULTS
from tests.redis_server import RedisServer, free_port
from tests.support.postgres import PostgresServer

__all__ = ["POOL", "Topology", "kill_tree"]

POOL = "shards"

START_SECONDS = 240.0


class Topology:
    """PostgreSQL, Redis, and a Prefect server that keeps its records in one and its messages in the other.

    Attributes:
        home: PREFECT_HOME of everything, and where logs are.
        api: address of the server.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="topology-"))
        self.home.chmod(0o755)
        folder = self.home / "postgres"
        folder.mkdir()
        self.postgres = PostgresServer(folder)
        self.redis = RedisServer()
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self._server: subprocess.Popen[bytes] | None = None
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    # -- environment ----------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """Variables of clients and workers."""
        # Of this test session, not of the test that happens to start a worker.
        own = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "REFLEXION_", "PREFECT_"))}
        return {
            **own,
            **DEFAULTS,
            "OPENAI_API_KEY": "test-key",
            "REFLEXION_RUNS": str(self.home / "worker"),
            "REFLEXION_CACHE": str(self.home / "steps"),
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    @property
    def _server_environment(self) -> dict[str, str]:
        return {
            **self.environment,
            "PREFECT_API_DATABASE_CONNECTION_URL": self.postgres.url,
            "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_SERVER_DOCKET_URL": self.redis.url_with(None, 3),
            "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
            "PREFECT_REDIS_MESSAGING_PORT": str(self.redis.port),
            "PREFECT_REDIS_MESSAGING_DB": "2",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
        }

    # -- PostgreSQL and Redis -------------------------------------------------------------------------

    def launch(self) -> None:
        """Start PostgreSQL and Redis, and the Prefect server without waiting for it."""
        self.postgres.launch()
        self.redis.launch()
        self.launch_server()

    # -- the Prefect server ---------------------------------------------------------------------------

    def launch_server(self) -> None:
        """Start the server (again) on its port."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        self._server = self._start("server", command, self._server_environment)

    def kill_server(self) -> None:
        """kill -9."""
        assert self._server is not None
        kill_tree(self._server)

    def wait(self) -> None:
        """Return when the server answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._server is not None and self._server.poll() is None, self.log("server")[-4000:]
            with (
                contextlib.suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(f"{self.api}/health", timeout=5),
            ):
                return
            time.sleep(0.1)
        raise AssertionError(f"the Prefect server did not start:\n{self.log('server')[-4000:]}")

    def make_pool(self, name: str, paused: bool = False) -> None:
        """A process work pool."""
        self.post("work_pools/", {"name": name, "type": "process", "is_paused": paused})

    # -- workers --------------------------------------------------------------------------------------

    def start_worker(self, name: str, pool: str = POOL, limit: int = 2) -> None:
        """A process worker of a pool."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", name]
        command += ["--type", "process", "--limit", str(limit)]
        self._workers[name] = self._start(name, command, self.environment)

    def kill_worker(self, name: str) -> None:
        """kill -9 of a worker and all it runs, as when its machine fails."""
        kill_tree(self._workers.pop(name))

    def runs_of(self, name: str) -> int:
        """Flow runs in processes of a worker."""
        worker = psutil.Process(self._workers[name].pid)
        return sum(_carries_out_a_run(p) for p in worker.children(recursive=True))

    # -- commands -------------------------------------------------------------------------------------

    def start_cli(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """`reflexion …` as a client of this server, its output in pipes."""
        command = [sys.executable, "-c", "from reflexion.cli.main import main; main()", *arguments]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environment, **variables},
        )

    def cli(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `reflexion …`."""
        with self.start_cli(*arguments, **variables) as process:
            try:
                out, err = process.communicate(timeout=240)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, out, err

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """A request to the server's API."""
        answer = httpx.post(f"{self.api}/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def flow_runs(self, flow: str, limit: int = 50) -> list[dict[str, Any]]:
        """The newest flow runs of a flow."""
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": limit}
        return self.post("flow_runs/filter", body)

    def log(self, name: str) -> str:
        """What a process printed."""
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def close(self) -> None:
        """End everything by its process id."""
        for name in list(self._workers):
            self.kill_worker(name)
        if self._server is not None:
            kill_tree(self._server)
        self.redis.close()
        self.postgres.close()
        shutil.rmtree(self.home, ignore_errors=True)


def kill_tree(process: subprocess.Popen[Any]) -> None:
    """kill -9 of a process and those below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        for child in [*root.children(recursive=True), root]:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
    process.wait(20)


def _carries_out_a_run(process: psutil.Process) -> bool:
    try:
        return "PREFECT__FLOW_RUN_ID" in process.environ()
    except psutil.Error:
        return False
