"""`strategy_ablation`: one flow run, and in it a run of the dataset for each strategy."""

from __future__ import annotations

from collections.abc import Sequence

import prefect.runtime.flow_run
from prefect.artifacts import acreate_markdown_artifact

from reflexion.flows.artifacts import best_effort
from reflexion.flows.batch import batch_evaluation
from reflexion.flows.runnable import runnable_flow
from reflexion.report.strategy_table import Ablation
from reflexion.run.parameters import BatchParameters
from reflexion.run.strategy_runs import AblationResult, execute_ablation
from reflexion.types import Strategy

__all__ = ["strategy_ablation"]


def run_name() -> str:
    """Dataset and model: what tells comparisons apart in the UI."""
    given = prefect.runtime.flow_run.parameters.get("parameters")
    p = given if isinstance(given, BatchParameters) else BatchParameters.model_validate(given)
    return p.name or f"{p.dataset} · {p.llm or 'default model'} · strategies"


@runnable_flow(
    name="strategy-ablation",
    description="Run a dataset by several strategies, sharing first trials, and hold the results side by side.",
    flow_run_name=run_name,
    persist_result=False,
    validate_parameters=True,
)
async def strategy_ablation(
    parameters: BatchParameters, strategies: Sequence[Strategy] = tuple(Strategy)
) -> AblationResult:
    """Run a dataset by each strategy in turn, each as a flow run within this one.

    Args:
        parameters: of every run; `strategy` is left aside.
        strategies: the strategies; the paper's four if none are named.

    Returns:
        The comparison's folder and its figures.

    Raises:
        InputError: the dataset or a parameter is wrong.
        RunFailedError: the endpoint refuses, or was never reached.
    """
    result = await execute_ablation(parameters, strategies, batch_evaluation.arun)
    await best_effort(
        lambda: acreate_markdown_artifact(
            as_markdown(result.ablation), key="reflexion-strategies", description=f"`{result.folder}`"
        )
    )
    return result


def as_markdown(ablation: Ablation) -> str:
    """The comparison as a table for Prefect's UI."""
    trials = max((run.summary.max_trials for run in ablation.runs), default=1)
    head = ["strategy", *(f"trial {n}" for n in range(1, trials + 1)), "pass rate", "tokens", "McNemar p"]
    lines = [f"## {ablation.ablation}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for run in ablation.runs:
        s = run.summary
        rate = "no data" if s.pass_rate is None else f"{s.pass_rate:.1%}"
        p = "" if run.against_first is None else f"{run.against_first.p_value:.3g}"
        cells = [f"`{run.strategy}`", *map(str, s.solved_by_trial), rate, f"{run.tokens:,}", p]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
