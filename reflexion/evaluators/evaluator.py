"""What judges an answer."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from reflexion.types import Evaluation, Problem, Trial

__all__ = ["Evaluator"]


@runtime_checkable
class Evaluator(Protocol):
    """Judges one trial of a problem.

    A wrong answer, one that cannot be parsed, or one that crashes its tests is a failed
    `Evaluation` with feedback, never an exception. Exceptions mean that judging itself was
    impossible (the judge's endpoint is down, the reference is missing).
    """

    @property
    def name(self) -> str:
        """Name as given to `--evaluator`."""
        ...

    @property
    def expensive(self) -> bool:
        """Whether verdicts are worth caching (sandboxed tests, judges); comparisons are not."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """What changes its verdicts: part of the step's cache key. JSON-safe."""
        ...

    def check(self, problem: Problem) -> str | None:
        """Why this problem cannot be judged by it (a field that is missing), or None.

        Called before a run starts, so that a bad line is reported before the first LLM call.
        """
        ...

    async def evaluate(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge one trial."""
        ...
