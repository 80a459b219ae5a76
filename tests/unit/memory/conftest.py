"""The three backends, each real, behind one fixture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from reflexion.memory import Memory, MemoryLimits, open_memory
from tests.redis_server import RedisServer
from tests.unit.memory.lessons import Clock

_names = itertools.count()


@pytest.fixture(scope="session")
def memory_redis() -> Iterator[RedisServer]:
    with RedisServer.start() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def memory_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite:{tmp_path / 'lessons.sqlite'}"
        case _:
            server: RedisServer = request.getfixturevalue("memory_redis")
            return f"{server.url}?prefix=test{next(_names)}"


@pytest.fixture
async def opened(memory_url: str, clock: Clock):
    """Opens the backend with the limits given; closes what it opened."""
    memories: list[Memory] = []

    def build(**limits: object) -> Memory:
        memory = open_memory(memory_url, MemoryLimits.model_validate(limits), clock=clock)
        memories.append(memory)
        return memory

    yield build
    for memory in memories:
        await memory.aclose()
