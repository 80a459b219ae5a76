"""`maintenance`: expired lessons and cache entries dropped a little at a time, on a schedule."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal, TypeVar

import prefect.runtime.flow_run
from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import ConfigDict, Field

from reflexion.errors import StorageError
from reflexion.flows.artifacts import best_effort
from reflexion.flows.runnable import runnable_flow
from reflexion.memory.episodic_memory import MemoryLimits
from reflexion.run.parameters import Url
from reflexion.tasks.prefect_settings import aload_settings
from reflexion.types import Frozen

__all__ = ["MaintenanceParameters", "MaintenanceResult", "maintenance"]

T = TypeVar("T")


class MaintenanceParameters(Frozen):
    """What is cleaned, and by what measure."""

    # A URL with a password is refused, and the refusal must not show it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    cache: Url | None = Field(
        default=None,
        title="Cache",
        description="URL without a password; empty: REFLEXION_CACHE of the worker, or local.",
    )
    memory: Url | None = Field(
        default=None,
        title="Memory",
        description="URL without a password; empty: REFLEXION_MEMORY of the worker, and without that no memory.",
    )
    per_problem: int = Field(default=3, ge=1, title="Lessons kept of a problem", description="The paper's Ω.")
    entries: int = Field(default=100_000, ge=1, title="Lessons kept in all")
    bytes: int = Field(default=256 * 2**20, ge=1, title="Bytes of lessons kept in all")
    max_age_days: float | None = Field(
        default=None, gt=0, title="Age of lessons in days", description="Empty: they do not expire."
    )
    eviction: Literal["oldest", "least_used", "least_useful"] = Field(
        default="oldest", title="Eviction", description="Which lesson goes when the memory is full."
    )
    step: int = Field(default=256, ge=1, le=10_000, title="Lessons dropped at once")
    seconds: float = Field(
        default=300.0, gt=0, le=86_400, title="Seconds at most", description="What is left is done the next time."
    )


class MaintenanceResult(Frozen):
    """What was done. It can be awaited, which gives itself: see `reflexion.flows.runnable`."""

    cache_entries_dropped: int | None = None
    """None: the cache was away."""
    lessons_dropped: int | None = None
    """None: the memory was away, or there is none."""
    complete: bool = True
    """Whether the memory was gone through; else the time was up."""
    away: tuple[str, ...] = ()
    """Why a store was left alone."""

    def __await__(self) -> Iterator[None]:
        yield from ()
        return self


def run_name() -> str:
    """Which stores are cleaned."""
    given = prefect.runtime.flow_run.parameters.get("parameters")
    p = given if isinstance(given, MaintenanceParameters) else MaintenanceParameters.model_validate(given or {})
    return f"cache: {p.cache or 'as configured'} · memory: {p.memory or 'as configured'}"


@runnable_flow(
    name="maintenance",
    flow_run_name=run_name,
    description="Drop expired and surplus lessons from the memory, and expired entries from the cache.",
    persist_result=False,
    validate_parameters=True,
)
async def maintenance(parameters: MaintenanceParameters | None = None) -> MaintenanceResult:
    """Clean up what long use leaves behind. Runs may use the stores meanwhile.

    A store that is away is reported and left for the next time: it never fails this flow, nor a run.

    Returns:
        Counts, and the stores that were away.

    Raises:
        ConfigurationError: a URL is of no known form.
    """
    p, settings = parameters or MaintenanceParameters(), await aload_settings()
    away: list[str] = []
    dropped = await _unless_away(lambda: prune_cache(p.cache or settings.cache), away)
    memory = p.memory or settings.memory
    cleaned = await _unless_away(lambda: clean_memory(memory, p), away) if memory is not None else None
    result = MaintenanceResult(
        cache_entries_dropped=dropped,
        lessons_dropped=cleaned[0] if cleaned is not None else None,
        complete=cleaned[1] if cleaned is not None else True,
        away=tuple(away),
    )
    get_run_logger().info("%s", result)
    await best_effort(lambda: acreate_markdown_artifact(_page(result), key="reflexion-maintenance"))
    return result


def _page(result: MaintenanceResult) -> str:
    """What was done, for people."""

    def shown(count: int | None, what: str, gone: str) -> str:
        return f"- {what}: {gone if count is None else f'{count} dropped'}"

    lines = [
        shown(result.cache_entries_dropped, "expired cache entries", "the cache was away"),
        shown(result.lessons_dropped, "expired and surplus lessons", "no memory, or it was away"),
        *([] if result.complete else ["- the time was up: the rest is done the next time"]),
        *(f"- away: {reason}" for reason in result.away),
    ]
    return "\n".join(lines) + "\n"


async def _unless_away(work: Callable[[], Awaitable[T]], away: list[str]) -> T | None:
    try:
        return await work()
    except StorageError as exc:
        away.append(str(exc))
        return None


# The settings' URLs may hold passwords, and Prefect shows what a task is given: the task runs below are
# given nothing, and only what they found is on record.
async def prune_cache(url: str | None) -> int:
    """Drop expired entries; returns how many.

    Raises:
        StorageError: the cache is away.
    """
    from reflexion.cache import open_cache

    cache = open_cache(url)
    try:

        @task(name="prune-cache", cache_policy=NO_CACHE, persist_result=False)
        async def prune() -> int:
            return await cache.prune()

        dropped = await prune()
        if getattr(getattr(cache, "link", None), "lost", False):
            raise StorageError(f"cache: {cache.location} cannot be reached")
        return dropped
    finally:
        await cache.aclose()


async def clean_memory(url: str, p: MaintenanceParameters) -> tuple[int, bool]:
    """Drop expired and surplus lessons; returns how many, and whether that was all.

    Raises:
        StorageError: the memory is away.
    """
    from reflexion.memory import open_memory

    limits = MemoryLimits(
        per_problem=p.per_problem,
        entries=p.entries,
        bytes=p.bytes,
        max_age=p.max_age_days * 86_400 if p.max_age_days is not None else None,
        eviction=p.eviction,
    )
    memory = open_memory(url, limits)
    try:

        @task(name="clean-memory", cache_policy=NO_CACHE, persist_result=False)
        async def clean() -> tuple[int, bool]:
            dropped, deadline = 0, time.monotonic() + p.seconds
            while time.monotonic() < deadline:
                # Each step is short: whoever uses the memory meanwhile waits for one step at most.
                gone = await memory.cleanup(p.step)
                dropped += gone
                if gone < p.step:
                    return dropped, True
            return dropped, False

        done = await clean()
        await memory.stats()  # cleaning is best effort and says nothing of a store that went away
        return done
    finally:
        await memory.aclose()
