"""Episodes the cache answers whole, found in bulk before anything is started.

The loop itself is run over the cache: where it has everything, an episode is done when the look-ups are,
and those of a few hundred episodes share round trips. Where something is missing nothing has been asked of
a model, and the episode is run like any other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, Protocol, runtime_checkable

from reflexion.cache.step_cache import CachedStep, StepCache
from reflexion.loop.algorithm import run_episode
from reflexion.loop.steps import StepCall, build_steps, perform
from reflexion.run.cached_steps import restore
from reflexion.run.wiring import Session
from reflexion.types import Episode, Outcome, Problem, StepOutput

__all__ = ["EPISODES", "DoneStep", "TakesDoneSteps", "episodes_from_cache"]

EPISODES = 256
"""Episodes looked up together."""


class _MissingError(Exception):
    """The cache lacks a step."""


class DoneStep(NamedTuple):
    """A step that needs no carrying out any more."""

    call: StepCall
    output: StepOutput | None
    started: float
    """Unix time in seconds."""
    seconds: float


@runtime_checkable
class TakesDoneSteps(Protocol):
    """A runner that puts steps on record it did not carry out itself."""

    def note(self, steps: Sequence[DoneStep]) -> None:
        """Put these steps on record."""
        ...


@dataclass
class _Replay:
    """One episode's steps out of the cache; steps that are never cached are carried out, they are cheap."""

    cache: StepCache
    steps: list[DoneStep]
    hits: list[CachedStep]

    async def __call__(self, call: StepCall) -> StepOutput | None:
        started = time.time()
        if call.cacheable:
            entry = await self.cache.get(call.key)
            output = restore(call, entry) if entry is not None else None
            if entry is None or output is None:
                raise _MissingError
            self.hits.append(entry)
        else:
            output = await perform(call)
        self.steps.append(DoneStep(call, output, started, time.time() - started))
        return output


async def episodes_from_cache(
    left: Iterable[tuple[Problem, int]], session: Session
) -> AsyncGenerator[tuple[Episode, list[DoneStep]]]:
    """The episodes the cache answers whole, with their steps; the session's observers are told of these.

    Ends at the first few hundred episodes of which the cache answers none: a batch that is new is not
    looked up to its end before its first call.

    Args:
        left: problems and repeat indices.
    """
    cache, observers = session.cache, session.runtime.observers
    if cache is None:
        return
    runtime = replace(session.runtime, observers=())
    options = runtime.options

    async def attempt(problem: Problem, repeat: int) -> tuple[Episode, _Replay] | None:
        replay = _Replay(cache, [], [])
        try:
            episode = await run_episode(
                problem,
                build_steps(runtime, replay),
                max_trials=options.max_trials,
                strategy=options.strategy,
                repeat=repeat,
                omega=options.omega,
            )
        except _MissingError:
            return None
        return (episode, replay) if episode.outcome in (Outcome.SOLVED, Outcome.FAILED) else None

    left = iter(left)
    while chunk := list(islice(left, EPISODES)):
        ends = await asyncio.gather(*(attempt(problem, repeat) for problem, repeat in chunk))
        found = [end for end in ends if end is not None]
        if not found:
            return
        await cache.record([hit for _, replay in found for hit in replay.hits], ())
        for episode, replay in found:
            for step in replay.steps:
                for observer in observers:
                    observer.record_step(step.call.step, step.output, step.seconds)
            yield episode, replay.steps
