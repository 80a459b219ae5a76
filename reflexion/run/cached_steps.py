"""Runners without Prefect: steps carried out in this process, answered from the step cache."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Mapping

from pydantic import ValidationError

from reflexion.cache.flight import compute_once
from reflexion.cache.step_cache import CachedStep, StepCache
from reflexion.loop.steps import Runner, StepCall, perform
from reflexion.types import Evaluation, Reflection, StepName, StepOutput, Trial

__all__ = ["CachedSteps", "cached_runner", "entry_for", "restore"]

logger = logging.getLogger("reflexion.cache")


def entry_for(call: StepCall, output: StepOutput, ttl: float | None) -> CachedStep:
    """The cache entry of a computed step; `ttl` in seconds, None: it never expires."""
    now = time.time()
    if (isinstance(output, Trial | Reflection) and output.error is not None) or (
        isinstance(output, Evaluation) and output.uncertain
    ):
        ttl = 0.0  # a reply that could not be used serves those who wait for it now, and nobody later
    return CachedStep(
        key=call.key,
        step=call.step,
        value=output.model_dump(mode="json", exclude_defaults=True, exclude={"cached", "key"}),
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


def cached_runner(cache: StepCache, ttl: Mapping[StepName, float]) -> Runner:
    """A runner that looks expensive steps up before it computes them.

    Identical steps under way at once are computed once, also across processes that share the cache.

    Args:
        ttl: seconds an entry of each step lives.
    """
    steps = CachedSteps(cache, ttl)

    async def run(call: StepCall) -> StepOutput | None:
        return await steps.output(call) if call.cacheable else await perform(call)

    return run


class CachedSteps:
    """Steps answered from one cache, or computed once and kept there; every look-up is counted.

    Args:
        ttl: seconds an entry of each step lives.
    """

    def __init__(self, cache: StepCache, ttl: Mapping[StepName, float]) -> None:
        self._cache, self._ttl = cache, ttl
        self._holder = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"

    async def look_up(self, call: StepCall) -> StepOutput | None:
        """The output, if the cache has it. A miss is not counted: the step is computed next."""
        entry = await self._cache.get(call.key)
        output = restore(call, entry) if entry is not None else None
        if entry is not None and output is not None:
            await self._cache.record((entry,), ())
        return output

    async def output(self, call: StepCall, *, looked_up: bool = False) -> StepOutput:
        """The output from the cache, from whoever computes the same step right now, or computed.

        Args:
            looked_up: whether the caller just found it missing, so that the first look can be left out.

        Raises:
            RetryableError, PermanentError: as the step raises them.
        """
        if not looked_up and (known := await self.look_up(call)) is not None:
            return known
        computed: StepOutput | None = None

        async def compute() -> CachedStep:
            nonlocal computed
            computed = await perform(call)
            assert computed is not None
            return entry_for(call, computed, self._ttl.get(call.step))

        entry, _ = await compute_once(self._cache, call.key, self._holder, compute, looked_up=True)
        if computed is None and (found := restore(call, entry)) is not None:
            await self._cache.record((entry,), ())
            return found
        if computed is None:
            # What lies under the key is no such step: it is replaced, by one of those who met it.
            entry, _ = await compute_once(self._cache, call.key, self._holder, compute, refresh=True)
        output = computed or restore(call, entry) or await perform(call)
        assert output is not None
        await self._cache.record((), ((call.step, output.model),))
        return output
