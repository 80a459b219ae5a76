"""Strategies held against each other: the same problems, one run for each, first trials shared.

    runs/NAME/              what the comparison is, and its report
        ablation.json
        report.html
    runs/NAME-none/         a run like any other, for each strategy
    runs/NAME-reflexion/    …

A first trial sees nothing of the past, whatever the strategy, so all runs have it from the step cache and
start equal: the curves differ by what the strategies make of a failure, not by the luck of a first answer.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from reflexion.errors import ConfigurationError
from reflexion.report.strategy_table import Ablation, gather, planned_strategies, run_name, write_plan
from reflexion.run.batch_run import REPORTED_EPISODES, BatchResult, check_batch, dataset_of
from reflexion.run.parameters import BatchParameters
from reflexion.run.run_folder import ABLATION, EPISODES, check_run_name, default_run_name
from reflexion.run.wiring import spec_of
from reflexion.settings import Settings
from reflexion.types import Frozen, Strategy

__all__ = ["AblationResult", "RunOne", "check_ablation", "execute_ablation", "named", "parse_strategies"]

RunOne = Callable[[BatchParameters], Awaitable[BatchResult]]
"""Carries out the run of one strategy: direct, or as a flow."""


class AblationResult(Frozen):
    """A finished comparison of strategies. It can be awaited, which gives itself, like a `BatchResult`."""

    folder: Path
    ablation: Ablation
    stopped: str | None = None
    """Why it ended before its end (a budget ran out), or None."""

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self


def parse_strategies(text: str) -> tuple[Strategy, ...]:
    """Strategies from their names with commas between them; `all` stands for the paper's four.

    Raises:
        ConfigurationError: there is no such strategy, one is named twice, or only one is named.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return tuple(Strategy)
    for name in names:
        if name not in tuple(Strategy):
            raise ConfigurationError(f"--strategies: there is no {name!r}; there are {', '.join(Strategy)}, or: all")
    if len(set(names)) != len(names):
        raise ConfigurationError(f"--strategies: {text!r} names a strategy twice")
    if len(names) < 2:
        raise ConfigurationError(f"--strategies: {text!r} leaves nothing to compare; use --strategy for a single one")
    return tuple(Strategy(name) for name in names)


def check_ablation(parameters: BatchParameters, strategies: Sequence[Strategy], settings: Settings) -> None:
    """Find what is wrong before anything is started.

    Raises:
        InputError: as `execute_ablation` would raise it.
    """
    check_batch(parameters, settings)
    if not strategies:
        raise ConfigurationError("strategies: name at least one")
    if parameters.memory or settings.memory:
        raise ConfigurationError(
            "memory: strategies are compared from an empty memory, each run with its own; "
            "leave out --memory and REFLEXION_MEMORY"
        )
    if parameters.name is not None:
        for strategy in strategies:
            check_run_name(run_name(parameters.name, strategy))
        if (_root(parameters, settings) / parameters.name / EPISODES).exists():
            raise ConfigurationError(f"name: {parameters.name!r} is a run of one strategy; choose another name")


async def execute_ablation(
    parameters: BatchParameters,
    strategies: Sequence[Strategy],
    run_one: RunOne,
    *,
    settings: Settings | None = None,
) -> AblationResult:
    """Run a dataset by each strategy in turn, or carry on where that was stopped.

    The name is that of the comparison; each run is `NAME-STRATEGY` and can be looked at, resumed and
    compared like any other. Budgets are those of all runs together.

    Args:
        parameters: of every run; `strategy` is left aside.
        run_one: carries one run out.

    Raises:
        InputError, RunFailedError, StorageError: as `execute_batch` does; what is finished is kept.
    """
    settings = settings or Settings()
    check_ablation(parameters, strategies, settings)
    parameters = named(parameters, settings)
    name = parameters.name or ""
    folder = _root(parameters, settings) / name
    planned = tuple(dict.fromkeys((*planned_strategies(folder), *strategies)))
    shared = _shared(parameters, folder)
    stopped: str | None = None
    try:
        write_plan(folder, planned)
        for strategy in strategies:
            others = gather(folder, [s for s in planned if s is not strategy])
            left, stopped = _left(shared, others)
            if stopped is None:
                one = left.model_copy(update={"strategy": strategy, "name": run_name(name, strategy)})
                stopped = (await run_one(one)).stopped
            if stopped is not None:
                break
    finally:
        # Whatever came between: what is finished is shown, and nothing is left where nothing was run.
        ablation = _finish(folder)
    return AblationResult(folder=folder, ablation=ablation, stopped=stopped)


def named(parameters: BatchParameters, settings: Settings) -> BatchParameters:
    """The parameters with a name of the comparison: the one asked for, or one that is free."""
    if parameters.name is not None:
        return parameters
    return parameters.model_copy(update={"name": _free_name(_root(parameters, settings), parameters, settings)})


def _root(parameters: BatchParameters, settings: Settings) -> Path:
    return Path(parameters.runs) if parameters.runs else settings.runs


def _free_name(root: Path, parameters: BatchParameters, settings: Settings) -> str:
    dataset, spec = dataset_of(parameters).name, spec_of(parameters, settings)
    usual = default_run_name(dataset, spec, "strategies", datetime.now())
    name, number = usual, 1
    while (root / name).exists():
        number += 1
        name = f"{usual}-{number}"
    return name


def _shared(parameters: BatchParameters, folder: Path) -> BatchParameters:
    """What all runs have in common: above all a cache, through which they share first trials."""
    if not parameters.use_cache:
        # A cache of their own keeps the promise of --no-cache and still lets them share.
        return parameters.model_copy(update={"use_cache": True, "cache": str(folder / "steps")})
    if parameters.refresh and parameters.refresh_since is None:
        return parameters.model_copy(update={"refresh_since": time.time()})
    return parameters


def _left(parameters: BatchParameters, others: Ablation) -> tuple[BatchParameters, str | None]:
    """The parameters with what the other runs left of the budgets, or why nothing is left."""
    done = [run.summary for run in others.runs]
    update: dict[str, Any] = {}
    if parameters.max_cost is not None:
        update["max_cost"] = parameters.max_cost - sum(s.cost_usd or 0.0 for s in done)
    if parameters.max_tokens is not None:
        update["max_tokens"] = parameters.max_tokens - sum(s.tokens.prompt + s.tokens.completion for s in done)
    for budget, left in update.items():
        if left <= 0:
            return parameters, f"{budget}: the runs of the other strategies have used it up"
    return parameters.model_copy(update=update), None


def _finish(folder: Path) -> Ablation:
    """Put the figures on record and draw the report; leave nothing where nothing was run."""
    ablation = gather(folder)
    if not ablation.runs:
        with suppress(OSError):
            (folder / ABLATION).unlink(missing_ok=True)
            folder.rmdir()
        return ablation
    write_plan(folder, ablation.strategies, ablation.runs)
    if sum(run.summary.episodes for run in ablation.runs) <= REPORTED_EPISODES:
        from reflexion.report import write_report

        write_report(folder)
    return ablation
