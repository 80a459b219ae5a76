"""A batch does not run so far ahead of its server that the server drops records."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest

from reflexion.tasks.draining import Pace


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int | Exception]:
    """What a server says it has recorded, one answer after another; the last one for ever."""
    answers: list[int | Exception] = []

    @asynccontextmanager
    async def client():
        yield None

    async def count(client, flow_run) -> int:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    context = SimpleNamespace(flow_run=SimpleNamespace(id=uuid4()))
    monkeypatch.setattr("reflexion.tasks.draining.get_client", client)
    monkeypatch.setattr("reflexion.tasks.draining.count_task_runs", count)
    monkeypatch.setattr("reflexion.tasks.draining.FlowRunContext", SimpleNamespace(get=lambda: context))
    return answers


async def test_a_server_that_keeps_up_is_asked_seldom_and_never_waited_for(recorded: list[int | Exception]) -> None:
    pace = Pace(backlog=3)
    for number in range(1, 10):
        recorded[:] = [number]
        pace.ended()
        await asyncio.wait_for(pace.wait(), 5)
        assert not pace.behind


async def test_one_that_is_behind_is_waited_for_until_it_caught_up(recorded: list[int | Exception]) -> None:
    pace = Pace(backlog=3)
    for _ in range(6):
        pace.ended()
    recorded[:] = [0, 2, 4, 4]
    await asyncio.wait_for(asyncio.gather(*(pace.wait() for _ in range(5))), 10)
    assert not pace.behind and recorded == [4]


@pytest.mark.parametrize("answer", [0, httpx.ConnectError("gone")])
async def test_one_that_records_nothing_does_not_stop_the_batch(
    answer: int | Exception, recorded: list[int | Exception], caplog: pytest.LogCaptureFixture
) -> None:
    pace = Pace(backlog=1, stalled=0.0)
    pace.ended()
    recorded[:] = [answer]
    await asyncio.wait_for(pace.wait(), 5)
    assert not pace.behind and "records may be lost" in caplog.text
