"""How Prefect caches a step: our key, our store, our locks, JSON only.

Prefect asks a task's cache policy for a key, its result storage for the record under it, and its lock
manager for the right to compute it. All three end in one `StepCache`, which direct runs and bulk task
runs use too: whoever computes a step first, and in which way, serves all the others.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import orjson
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.filesystems import WritableFileSystem
from prefect.serializers import JSONSerializer
from pydantic import PrivateAttr

from reflexion.cache.step_cache import StepCache
from reflexion.loop.steps import StepCall
from reflexion.run.cached_steps import entry_for, restore
from reflexion.types import StepOutput

__all__ = ["SERIALIZER", "StepKeyPolicy", "StepLocks", "StepStorage"]

logger = logging.getLogger("reflexion.cache")

# Neither encoder nor decoder: Prefect's own would import whatever class a record names.
SERIALIZER = JSONSerializer(jsonlib="orjson", object_encoder=None, object_decoder=None)


@dataclass
class StepKeyPolicy(CachePolicy):
    """The key of a task run is the key of its step; cheap steps have none and are never stored."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The step's own cache key, or None for a step that is not cached."""
        call = inputs["call"]
        assert isinstance(call, StepCall)
        return call.key if call.cacheable else None


def current_call() -> StepCall | None:
    """The step the running task run carries out."""
    context = TaskRunContext.get()
    call = context.parameters.get("call") if context is not None else None
    return call if isinstance(call, StepCall) else None


class StepStorage(WritableFileSystem):
    """Result storage over the step cache.

    Records are kept in the cache's own format, so that their expiry is the store's expiry, figures can
    be drawn from them, and a record written by someone else can at worst be unreadable.
    """

    _block_type_name: ClassVar[str | None] = "Reflexion step cache"
    _block_type_slug: ClassVar[str | None] = "reflexion-step-cache"
    _description: ClassVar[str | None] = "Where the results of Reflexion's steps are cached."

    location: str = ""
    """URL of the cache without passwords, for people who look at the block."""

    _cache: StepCache | None = PrivateAttr(default=None)

    def bind(self, cache: StepCache) -> None:
        """Use this cache; a block loaded from the server knows only where it is."""
        self._cache = cache

    def _resolve_path(self, path: str) -> str:
        return path

    async def read_path(self, path: str) -> bytes:
        """A record in Prefect's format.

        Raises:
            FileNotFoundError: there is none, it is expired, or it does not fit its step; Prefect takes
                each for a miss.
        """
        call = current_call()
        if call is not None and call.found is not None and call.found.key == path:
            # Prefect reads a record once to see whether it is there and once for its content.
            entry = call.found
        else:
            entry = await (await self._store()).get(path)
            if entry is None:
                raise FileNotFoundError(path)
            if call is not None:
                call.restored = restore(call, entry)
                if call.restored is None:
                    raise FileNotFoundError(path)
                call.found = entry
                await (await self._store()).record((entry,), ())
        expires = datetime.fromtimestamp(entry.expires, UTC).isoformat() if entry.expires is not None else None
        return orjson.dumps(
            {
                "metadata": {"storage_key": path, "expiration": expires, "serializer": SERIALIZER.model_dump()},
                "result": orjson.dumps(entry.value).decode(),
            }
        )

    async def write_path(self, path: str, content: bytes) -> None:
        """Keep the record of the running step; `content` is Prefect's record of it."""
        call = current_call()
        if call is None or call.output is None or call.key != path:
            return
        expiration = orjson.loads(content)["metadata"].get("expiration")
        now = datetime.now(UTC)
        ttl = (datetime.fromisoformat(expiration) - now).total_seconds() if expiration else None
        await (await self._store()).put(entry_for(call, call.output, ttl))
        await (await self._store()).record((), ((call.step, call.output.model),))

    async def _store(self) -> StepCache:
        if self._cache is None:
            from reflexion.cache import open_cache
            from reflexion.tasks.prefect_settings import aload_settings

            self._cache = open_cache((await aload_settings()).cache)
        return self._cache


class StepLocks:
    """Prefect's lock manager over the step cache's locks.

    Leases, renewal and what happens to the lock of a process that died are the cache's business.
    """

    def __init__(self, cache: StepCache) -> None:
        self._cache = cache
        self._held: dict[str, str] = {}
        self._releasing: set[asyncio.Task[None]] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> StepLocks:
        # Prefect copies policies, and a copy must not lose sight of the locks that are held.
        return self

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Wait for the lock of a key and take it."""
        if self._held.get(key) == holder:
            return True
        if not await self._cache.acquire(key, holder, acquire_timeout):
            return False
        self._held[key] = holder
        return True

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Steps are async; a synchronous caller would block the loop that releases the lock."""
        raise RuntimeError("the steps' locks are taken by async tasks only")

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back; Prefect calls this without awaiting, so the release runs on its own."""
        if self._held.get(key) != holder:
            return
        del self._held[key]
        task = asyncio.get_running_loop().create_task(self._cache.release(key, holder))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    def is_locked(self, key: str) -> bool:
        """Whether this process holds the lock of a key."""
        return key in self._held

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether `holder` holds the lock of a key."""
        return self._held.get(key) == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Whether the lock of a key is free; a synchronous caller never waits."""
        return not self.is_locked(key)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as Prefect calls it
        """Whether the lock of a key is free. Entries appear whole, so readers need not wait."""
        return not self.is_locked(key)

    async def drain(self) -> None:
        """Wait until every release under way is done."""
        if self._releasing:
            await asyncio.gather(*self._releasing)


def adopt(call: StepCall, output: StepOutput | None) -> dict[str, Any] | None:
    """What a task returns to Prefect: JSON for a step that is stored, nothing for one that is not.

    Prefect keeps what tasks return for as long as their flow runs; returning nothing keeps nothing.
    """
    call.output = output
    return {"key": call.key} if call.cacheable else None
