"""The reward of an environment as the verdict."""

from __future__ import annotations

import time
from typing import Any

from reflexion.evaluators.common import BaseEvaluator, quoted
from reflexion.types import Evaluation, Problem, Trial

__all__ = ["EnvironmentReward"]


class EnvironmentReward(BaseEvaluator):
    """The last reward of a trial that acted in an environment; passed from a threshold on.

    The trial itself holds it, in the last turn of its trajectory: a world is never run twice.
    """

    decider = "environment"

    def __init__(self, name: str = "environment", *, threshold: float = 1.0) -> None:
        super().__init__(name)
        self._threshold = threshold

    @property
    def config(self) -> dict[str, Any]:
        """Includes the threshold."""
        return {**super().config, "threshold": self._threshold}

    def check(self, problem: Problem) -> str | None:
        """There must be an environment, and it must be possible to open it."""
        from reflexion.actors.environments import check_environment
        from reflexion.errors import InputError

        if problem.environment is None:
            return f"field 'environment' is missing, whose reward the evaluator {self.name!r} takes"
        try:
            check_environment(problem)
        except InputError as exc:
            return str(exc)
        return None

    async def evaluate(self, problem: Problem, trial: Trial) -> Evaluation:
        """The verdict of the world, also on a trial that ended without having done anything."""
        started = time.perf_counter()
        verdict = await self.judge(problem, trial)
        return verdict.model_copy(update={"seconds": time.perf_counter() - started})

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by the last reward."""
        turns = [t for t in trial.trajectory if "reward" in t]
        if not turns:
            return self.failed(trial.error or "Nothing was done in the environment.", "NoAction")
        last = turns[-1]
        given = last.get("reward")
        reward = float(given) if isinstance(given, int | float) else 0.0
        done = len(turns) - 1
        details: dict[str, Any] = {"reward": reward, "actions": done}
        if reward >= self._threshold:
            return self.passed(reward, details=details)
        end = "The world ended" if last.get("done") else "The turns were used up"
        if trial.error is not None:
            end = f"{trial.error} It ended"
        feedback = (
            f"{end} after {done} actions with the reward {reward:g}; {self._threshold:g} is needed. "
            f"The last observation: {quoted(str(last.get('observation', '')), 300)}"
        )
        return self.failed(feedback, "GoalMissed", reward, details=details)
