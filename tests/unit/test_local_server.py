"""What is sent to a server at the end of a command: all of it, or nothing when there is no server."""

from __future__ import annotations

import queue
import time

import pytest
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from reflexion.tasks import local_server
from tests.redis_server import free_port


class _Stuck:
    """A worker whose server takes nothing."""

    def __init__(self, events: int) -> None:
        self._queue: queue.Queue[int] = queue.Queue()
        for n in range(events):
            self._queue.put(n)


def test_events_for_a_server_that_is_gone_are_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = _Stuck(5)
    monkeypatch.setattr(EventsWorker, "_instances", {1: worker})
    begun = time.monotonic()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        assert local_server.finish_sending(gone=0.3) == 5
    assert time.monotonic() - begun > 0.3 and worker._queue.empty()
    assert "5 events" in caplog.text


def test_nothing_is_waited_for_when_all_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventsWorker, "_instances", {1: _Stuck(0)})
    assert local_server.finish_sending() == 0
