"""What is made sure of before a run's first call: every problem can be tried, and judged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reflexion.errors import ConfigurationError, DatasetError
from reflexion.types import Problem

if TYPE_CHECKING:
    from reflexion.datasets.unused_fields import VerdictTally
    from reflexion.evaluators.evaluator import Evaluator
    from reflexion.evaluators.proof import Refusal
    from reflexion.loop.steps import Runtime

__all__ = ["Checked", "check_problems"]

_TOLD = 10
"""Problems that cannot be judged named at most."""


@dataclass(frozen=True)
class Checked:
    """What checking a run's problems found.

    Attributes:
        tally: who judges how many of them.
        notes: what else a user should know of their verdicts, a line each.
    """

    tally: VerdictTally
    notes: tuple[str, ...] = ()


def check_problems(dataset: Iterable[Problem], runtime: Runtime, name: str = "dataset") -> Checked:
    """Make sure that every problem can be tried and judged, before the first call is made; count who judges them.

    Tests are proved able to judge by running them, within a budget: see `evaluators/proof.py`.

    Raises:
        DatasetError: names each problem that cannot be judged, and why.
        ConfigurationError: there is no such evaluator.
    """
    from reflexion.datasets.unused_fields import VerdictTally
    from reflexion.evaluators.proof import Proofs, Refusal
    from reflexion.evaluators.python import PythonTests

    tally = VerdictTally(asked=runtime.options.evaluator is not None)
    proofs = Proofs(len(dataset) if isinstance(dataset, Sized) else 0, workers=os.cpu_count() or 1)
    numbered = getattr(dataset, "numbered", None)
    rows: Iterable[tuple[int | None, Problem]] = numbered() if numbered else ((None, p) for p in dataset)
    refused: list[Refusal] = []
    try:
        for row, problem in rows:
            where = name if row is None else f"{name}:{row}"
            _check_acting(problem, runtime, where)
            judge = _judge(problem, runtime, where)
            provable = isinstance(judge, PythonTests) and judge.runs_tests(problem)
            reason = judge.glance(problem) if isinstance(judge, PythonTests) and provable else judge.check(problem)
            if reason is not None:
                refused.append(Refusal(where, problem, judge.name, reason))
            elif provable and isinstance(judge, PythonTests):
                proofs.add(where, problem, judge)
            if len(refused) + len(proofs.refused) > _TOLD:
                break
            tally.add(row, problem, judge.name)
    finally:
        proofs.finish()
    refused += proofs.refused
    if refused:
        raise DatasetError(_told(refused))
    return Checked(tally, () if proofs.note is None else (proofs.note,))


def _check_acting(problem: Problem, runtime: Runtime, where: str) -> None:
    acts = runtime.options.actor == "react"
    if problem.environment is not None and not acts:
        raise ConfigurationError(
            f"{where}: problem {problem.id!r} is acted in turn by turn (it has an environment): use --actor react"
        )
    if acts and problem.environment is None and not runtime.tools(problem):
        raise ConfigurationError(
            f"{where}: no tool suits problem {problem.id!r}, and the actor react needs one; name some by --tools"
        )


def _judge(problem: Problem, runtime: Runtime, where: str) -> Evaluator:
    try:
        return runtime.evaluator(problem)
    except ConfigurationError as exc:
        if problem.evaluator is None or runtime.options.evaluator is not None:
            raise
        raise DatasetError(f"{where}: problem {problem.id!r}, field 'evaluator': {exc}") from exc


def _told(refused: list[Refusal]) -> str:
    """A line for each problem, and how to do without them."""
    lines = [f"{r.where}: problem {r.problem.id!r} cannot be judged by {r.evaluator!r}: {r.reason}" for r in refused]
    if len(refused) > _TOLD:
        return "\n".join([*lines[:_TOLD], "more problems cannot be judged; the first are named"])
    if len(refused) > 1:
        lines.append("to leave them out: " + " ".join(f"--where 'id!={r.problem.id}'" for r in refused))
    return "\n".join(lines)
