"""The stores all cache tests run against; Redis is a real server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reflexion.cache import CachedStep, StepCache, open_cache
from reflexion.keys import digest
from reflexion.types import Usage
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer.start() as server:
        yield server


@pytest.fixture(params=["memory", "local", "redis"])
def cache_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "local":
        return str(tmp_path / "steps")
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture
def cache_options(cache_url: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A namespace of each test's own."""
    return {"namespace": f"test:{digest(request.node.nodeid)[:12]}"} if cache_url.startswith("redis") else {}


@pytest.fixture
async def cache(cache_url: str, cache_options: dict[str, Any]) -> AsyncIterator[StepCache]:
    opened = open_cache(cache_url, **cache_options)
    yield opened
    await opened.aclose()


@pytest.fixture
def make_entry() -> Callable[..., CachedStep]:
    """Entries that differ in what a test names."""

    def make(name: str = "a", **more: Any) -> CachedStep:
        given: dict[str, Any] = {
            "key": digest(name),
            "step": "trial",
            "value": {"answer": name, "index": 1},
            "fields": {"prompt": "p", "temperature": 0.5},
            "model": "m",
            "dataset": "d",
            "run": "r",
            "problem": f"p-{name}",
            "usage": Usage(prompt=10, completion=5, calls=1, cost_usd=0.25),
            "created": time.time(),
        }
        return CachedStep.model_validate(given | more)

    return make
