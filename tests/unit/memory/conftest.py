"""The three backends, each real, behind one fixture."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reflexion.memory import Memory, MemoryLimits, open_memory
from reflexion.types import Lesson
from tests.redis_server import RedisServer

_names = itertools.count()


@pytest.fixture(scope="session")
def memory_redis() -> Iterator[RedisServer]:
    with RedisServer.start() as server:
        yield server


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


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


Open = Callable[..., Memory]


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


def lesson(number: int, problem: str = "p", **fields: object) -> Lesson:
    """A lesson; higher numbers are younger."""
    values: dict[str, object] = {
        "key": f"k{number}",
        "problem": problem,
        "episode": f"old/{problem}/{number}",
        "run": "old",
        "trial": 1,
        "text": f"lesson {number}",
        "created": 1_700_000_000.0 + number,
    }
    return Lesson.model_validate(values | fields)
