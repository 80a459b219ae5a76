"""The maintenance flow: what it drops, and what it does when a store is away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from reflexion.cache import CachedStep, open_cache
from reflexion.errors import ConfigurationError
from reflexion.flows.maintenance import MaintenanceParameters, maintenance
from reflexion.keys import digest
from reflexion.memory import MemoryLimits, open_memory
from reflexion.types import Lesson
from tests.redis_server import RedisServer

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's own clients are still open when the event loop of a flow run ends.
    pytest.mark.filterwarnings("ignore:unclosed (<socket|transport):ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]


async def fill(cache_url: str, memory_url: str) -> None:
    """Two entries of which one is expired, and nine lessons of three problems, three of them old."""
    cache, memory = open_cache(cache_url), open_memory(memory_url, MemoryLimits(per_problem=100))
    now = time.time()
    try:
        for number, expires in ((1, now + 0.05), (2, now + 3600)):
            await cache.put(
                CachedStep(key=digest(number), step="trial", value={"n": number}, created=now, expires=expires)
            )
        for n in range(9):
            age = 90 * 86_400 if n < 3 else 0
            await memory.add(
                Lesson(
                    key=f"k{n}", problem=digest(n % 3), episode=f"r/p{n % 3}/0", trial=1, text=f"lesson {n}",
                    created=now - age,
                )
            )  # fmt: skip
    finally:
        await cache.aclose()
        await memory.aclose()


def test_what_is_expired_or_surplus_goes(tmp_path: Path) -> None:
    cache, memory = str(tmp_path / "cache"), f"sqlite:{tmp_path / 'memory.sqlite'}"
    asyncio.run(fill(cache, memory))
    time_is_up = time.time() + 0.1
    while time.time() < time_is_up:
        time.sleep(0.01)

    result = maintenance.run(MaintenanceParameters(cache=cache, memory=memory, max_age_days=30, per_problem=1, step=2))

    assert (result.cache_entries_dropped, result.lessons_dropped, result.complete) == (1, 6, True)
    assert result.away == ()
    again = maintenance.run(MaintenanceParameters(cache=cache, memory=memory, max_age_days=30, per_problem=1))
    assert (again.cache_entries_dropped, again.lessons_dropped) == (0, 0)


def test_stores_that_are_away_are_reported_and_fail_nothing(redis_server: RedisServer, tmp_path: Path) -> None:
    gone = "redis://127.0.0.1:9/0"
    result = maintenance.run(MaintenanceParameters(cache=gone, memory=gone))
    assert (result.cache_entries_dropped, result.lessons_dropped, len(result.away)) == (None, None, 2)

    # One that is away keeps nothing from the other.
    asyncio.run(fill(str(tmp_path / "cache"), redis_server.url_with(None, db=7)))
    result = maintenance.run(
        MaintenanceParameters(cache=gone, memory=redis_server.url_with(None, db=7), max_age_days=30)
    )
    assert (result.cache_entries_dropped, result.lessons_dropped, len(result.away)) == (None, 3, 1)


def test_a_wrong_url_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="mongodb"):
        maintenance.run(MaintenanceParameters(cache=str(tmp_path), memory="mongodb://127.0.0.1/0"))
