"""The Prefect server a command starts for itself, and the end of what is sent to any server."""

from __future__ import annotations

import contextlib
import logging
import queue
import subprocess
import time
from functools import partial
from typing import Any
from unittest.mock import patch

import httpx
from prefect.events.worker import EventsWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL

__all__ = ["finish_sending", "is_needed", "start"]

logger = logging.getLogger("reflexion.prefect")

GONE_SECONDS = 30.0
"""Seconds a server does not answer after which nothing more is sent to it: a restart takes less."""


def is_needed() -> bool:
    """Whether no environment variable, profile or file names a server."""
    return not PREFECT_API_URL.value()


def start() -> None:
    """Start Prefect's local server so that what stops the command does not stop the server before it.

    A terminal sends Ctrl-C to every process of a command's group, as `timeout` sends SIGTERM: with its server
    gone, a run could not even say that it was stopped, and would try to for minutes. Prefect ends the server
    when this process ends.

    Raises:
        RuntimeError: it does not start; Prefect's message says why.
    """
    _GroupedServer().start()


class _GroupedServer(SubprocessASGIServer):
    """Prefect's local server, which exists once in a process, in a process group of its own."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        with patch("subprocess.Popen", partial(subprocess.Popen, process_group=0)):
            return super()._run_uvicorn_command()


def finish_sending(gone: float = GONE_SECONDS) -> int:
    """Wait until Prefect's client has sent its events; give them up when there is no server any more.

    At its end the process would otherwise try each of thousands of events for ten seconds.

    Args:
        gone: seconds a server does not answer after which it is taken to be gone; a local one that has
            ended does not come back, and is not waited for.

    Returns:
        Events given up.
    """
    lost = 0
    for worker in list(EventsWorker._instances.values()):  # pyright: ignore[reportPrivateUsage]
        waiting = worker._queue  # pyright: ignore[reportPrivateUsage]
        answered = time.monotonic()
        while waiting.qsize():
            time.sleep(0.5)
            if _answers():
                answered = time.monotonic()
            elif time.monotonic() - answered > (0 if is_needed() else gone):
                break
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.get_nowait()
                waiting.task_done()
                lost += 1
    if lost:
        logger.warning("the Prefect server is gone: %d events about task runs were not sent", lost)
    return lost


def _answers() -> bool:
    url = SubprocessASGIServer().api_url if is_needed() else PREFECT_API_URL.value()
    try:
        return httpx.get(f"{url}/health", timeout=5.0).is_success
    except httpx.TimeoutException:
        return True  # busy: whoever is gone refuses
    except httpx.HTTPError:
        return False
