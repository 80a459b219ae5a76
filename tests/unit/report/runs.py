"""Runs made up for the tests of reports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reflexion.run.run_folder import RunFolder
from reflexion.types import Decider, Episode, EpisodeError, Evaluation, Outcome, Reflection, Strategy, Trial, Usage

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def episode(
    problem: str,
    outcome: Outcome = Outcome.SOLVED,
    *,
    trials: int = 1,
    repeat: int = 0,
    answer: str = "def f(x):\n    return x + {n}\n",
    feedback: str = "AssertionError: f(2) gave 3, not 4",
    cached: bool = False,
    cost: float | None = 0.001,
    decided_by: Decider | None = "hidden_tests",
) -> Episode:
    """An episode whose last trial decides: it passes if the outcome is `solved`."""
    usage = Usage(prompt=120, completion=30, calls=1, cost_usd=cost)
    made: list[Trial] = []
    for n in range(1, trials + 1):
        passed = outcome is Outcome.SOLVED and n == trials
        made.append(
            Trial(
                index=n,
                answer=answer.replace("{n}", str(n)),
                model="small-model",
                usage=usage,
                seconds=0.4 * n,
                cached=cached,
                lessons=("Multiply, do not add.",) if n > 1 else (),
                evaluation=Evaluation(
                    evaluator="python",
                    passed=passed,
                    score=float(passed),
                    feedback="" if passed else feedback,
                    failure_class=None if passed else "AssertionError",
                    visible_passed=passed or n == 2,
                    decided_by=decided_by,
                ),
                reflection=None
                if n == trials
                else Reflection(trial=n, text="Multiply, do not add.", model="small-model", usage=usage, seconds=0.3),
            )
        )
    return Episode(
        problem_id=problem,
        repeat=repeat,
        strategy=Strategy.REFLEXION,
        outcome=outcome,
        solved_at=trials if outcome is Outcome.SOLVED else None,
        trials=tuple(made) if outcome is not Outcome.NOT_RUN else (),
        error=EpisodeError(step="trial", kind="EndpointError", message="the endpoint answered 500")
        if outcome is Outcome.ERROR
        else None,
        seconds=1.5,
    )


def make_run(root: Path, name: str, episodes: Iterable[Episode], *, finish: bool = True, **parameters: object) -> Path:
    """A run's folder with these episodes in their order."""
    settings = {"dataset": "demo", "llm": "small-model", "strategy": "reflexion", "max_trials": 3, **parameters}
    with RunFolder.create(root, name, parameters=settings) as run:
        order: list[tuple[str, int]] = []
        for each in episodes:
            run.append(each)
            order.append((each.problem_id, each.repeat))
        if finish:
            run.finish(order, wall_seconds=60.0, peak_rss_mb=123.0)
        return run.path
