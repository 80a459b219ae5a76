"""The only episode loop: trial → evaluate → stop or reflect → memorize → next trial.

The four steps are injected. `ReflexionAgent` gives the plain ones, the flows give Prefect tasks; the
loop cannot tell which (Shinn et al. 2023, algorithm 1).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from reflexion.errors import BudgetExceededError, ReflexionError, is_fatal
from reflexion.loop.strategies import OMEGA, Decision, Past, decide, view_past
from reflexion.types import (
    Episode,
    EpisodeError,
    Evaluation,
    Lesson,
    Outcome,
    Problem,
    Reflection,
    Strategy,
    Trial,
)

__all__ = ["Attempt", "Steps", "run_episode"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """Where an episode stands: what every step is told."""

    problem: Problem
    index: int
    """Of the trial, from 1."""
    repeat: int
    """Of the episode, from 0; keeps repeats of one problem apart."""
    past: Past
    """What the trial sees."""


async def _recall_nothing(problem: Problem, repeat: int) -> Sequence[Lesson]:
    return ()


async def _settle_nothing(attempt: Attempt, trials: Sequence[Trial], passed: bool) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Steps:
    """The four steps, and two plain functions around the memory that are cheap and never cached."""

    trial: Callable[[Attempt], Awaitable[Trial]]
    evaluate: Callable[[Attempt, Trial], Awaitable[Evaluation]]
    reflect: Callable[[Attempt, Trial], Awaitable[Reflection]]
    memorize: Callable[[Attempt, Trial], Awaitable[None]]
    recall: Callable[[Problem, int], Awaitable[Sequence[Lesson]]] = _recall_nothing
    """Lessons of other episodes, read once before the first trial."""
    settle: Callable[[Attempt, Sequence[Trial], bool], Awaitable[None]] = _settle_nothing
    """Told after each verdict which lessons were seen and whether they helped."""


async def run_episode(
    problem: Problem,
    steps: Steps,
    *,
    max_trials: int = 3,
    strategy: Strategy = Strategy.REFLEXION,
    repeat: int = 0,
    omega: int = OMEGA,
) -> Episode:
    """Try a problem until a trial passes or `max_trials` are used up.

    Errors of a step end the episode, not the caller: the episode comes back with outcome `error`
    (`not_run` when a budget ran out), the trials made so far and the reason. Cancellation and errors
    outside `ReflexionError` (bugs) propagate.

    Args:
        max_trials: trials at most, at least 1.
        omega: lessons a trial sees at most, the paper's Ω.
    """
    started = time.perf_counter()
    trials: list[Trial] = []
    outcome, solved_at, error, step = Outcome.FAILED, None, None, "recall"
    try:
        recalled = await steps.recall(problem, repeat) if strategy.reflects else ()
        for index in range(1, max_trials + 1):
            attempt = Attempt(problem, index, repeat, view_past(strategy, trials, recalled, omega=omega))
            step = "trial"
            trial = await steps.trial(attempt)
            trials.append(trial)
            step = "evaluate"
            evaluation = await steps.evaluate(attempt, trial)
            trials[-1] = trial = trial.model_copy(update={"evaluation": evaluation})
            accepted = evaluation.passed if evaluation.accepted is None else evaluation.accepted
            await steps.settle(attempt, trials, accepted)
            decision = decide(accepted, index, max_trials, strategy)
            if decision in (Decision.SOLVED, Decision.EXHAUSTED):
                # What an agent that judges itself hands in last counts, whatever it thinks of it.
                if evaluation.passed:
                    outcome, solved_at = Outcome.SOLVED, index
                break
            if decision is Decision.REFLECT:
                step = "reflect"
                reflection = await steps.reflect(attempt, trial)
                trials[-1] = trial = trial.model_copy(update={"reflection": reflection})
                step = "memorize"
                await steps.memorize(attempt, trial)
    except ReflexionError as exc:
        # A run that stopped for its budget did not fail here: the episode can be run later.
        outcome = Outcome.NOT_RUN if isinstance(exc, BudgetExceededError) else Outcome.ERROR
        error = EpisodeError(step=step, kind=type(exc).__name__, message=str(exc), fatal=is_fatal(exc))
    return Episode(
        problem_id=problem.id,
        repeat=repeat,
        strategy=strategy,
        outcome=outcome,
        solved_at=solved_at,
        trials=tuple(trials),
        error=error,
        seconds=time.perf_counter() - started,
    )
