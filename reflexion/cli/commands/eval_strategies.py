"""`reflexion eval DATASET --strategies …`: several strategies, one table and one report."""

from __future__ import annotations

import asyncio
from pathlib import Path

from reflexion.cli.commands.eval import Outcome, through_prefect, with_progress, write_junit
from reflexion.cli.console import BatchProgress, print_ablation
from reflexion.errors import ConfigurationError
from reflexion.run.batch_run import BatchResult, execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.run.strategy_runs import AblationResult, check_ablation, execute_ablation, named, parse_strategies
from reflexion.settings import Settings
from reflexion.types import Strategy

__all__ = ["compare_strategies"]


def compare_strategies(
    parameters: BatchParameters,
    strategies: str,
    settings: Settings,
    *,
    direct: bool,
    verbose: bool,
    json: bool,
    junit: Path | None,
) -> Outcome:
    """Run each strategy in turn and show them side by side.

    Raises:
        InputError: the strategies, the dataset or a parameter is wrong; nothing was run.
        RunFailedError, StorageError: as a single run.
    """
    if parameters.strategy is not Strategy.REFLEXION:
        raise ConfigurationError("--strategy and --strategies: give one of them")
    chosen = parse_strategies(strategies)
    check_ablation(parameters, chosen, settings)
    parameters = named(parameters, settings)

    def execute(progress: BatchProgress) -> AblationResult:
        if not direct:
            return through_prefect(
                progress, "reflexion.flows.ablation:strategy_ablation", parameters, list(chosen), verbose=verbose
            )

        async def run_one(one: BatchParameters) -> BatchResult:
            return await execute_batch(one, settings=settings, progress=progress)

        return asyncio.run(execute_ablation(parameters, chosen, run_one, settings=settings))

    result = with_progress(execute, parameters.name)
    if junit is not None:
        write_junit([result.folder.parent / run.run for run in result.ablation.runs], junit)
    if json:
        print(result.ablation.model_dump_json())  # noqa: T201
    else:
        print_ablation(result)
    best = max((run.summary.pass_rate or 0.0 for run in result.ablation.runs), default=0.0)
    return Outcome(result.folder.name, best, result.stopped)
