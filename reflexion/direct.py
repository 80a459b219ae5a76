"""Runners without Prefect: steps carried out in this process, answered from the step cache."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Mapping

from pydantic import ValidationError

from reflexion.cache.base import CachedStep, StepCache
from reflexion.cache.flight import compute_once
from reflexion.steps import Runner, StepCall, perform
from reflexion.types import StepName, StepOutput

__all__ = ["cached_runner", "entry_for", "restore"]

logger = logging.getLogger("reflexion.cache")


def entry_for(call: StepCall, output: StepOutput, ttl: float | None) -> CachedStep:
    """The cache entry of a computed step; `ttl` in seconds, None: it never expires."""
    now = time.time()
    return CachedStep(
        key=call.key,
        step=call.step,
        value=output.model_dump(mode="json", exclude_defaults=True, exclude={"cached"}),
        fields=call.fields,
        model=output.model,
        dataset=call.runtime.dataset,
        run=call.runtime.run,
        problem=call.attempt.problem.id,
        usage=output.usage,
        created=now,
        expires=None if ttl is None else now + ttl,
    )


def restore(call: StepCall, entry: CachedStep) -> StepOutput | None:
    """The output an entry holds, or None when it does not fit: a reported miss, never a crash."""
    try:
        return call.restore(entry.value)
    except ValidationError as exc:
        logger.warning(
            "cache entry %s of step %s does not fit and counts as a miss: %s", call.key[:12], call.step, exc.errors()[0]
        )
        return None


def cached_runner(cache: StepCache, ttl: Mapping[StepName, float], *, refresh: bool = False) -> Runner:
    """A runner that looks expensive steps up before it computes them.

    Identical steps under way at once are computed once, also across processes that share the cache.

    Args:
        ttl: seconds an entry of each step lives.
        refresh: compute again what is cached, and replace it.
    """
    process = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"

    async def run(call: StepCall) -> StepOutput | None:
        if not call.cacheable:
            return await perform(call)
        computed: StepOutput | None = None

        async def compute() -> CachedStep:
            nonlocal computed
            computed = await perform(call)
            assert computed is not None
            return entry_for(call, computed, ttl.get(call.step))

        holder = f"{process}-{uuid.uuid4().hex[:8]}"
        entry, _ = await compute_once(cache, call.key, holder, compute, refresh=refresh)
        if computed is not None:
            return computed
        found = restore(call, entry)
        if found is not None:
            return found
        await compute_once(cache, call.key, holder, compute, refresh=True)
        return computed

    return run
