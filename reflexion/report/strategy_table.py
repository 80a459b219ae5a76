"""Runs of several strategies on the same problems, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
from pydantic import Field

from reflexion._files import json_bytes, storage_errors, write_atomic
from reflexion.errors import StorageError
from reflexion.report import phrases
from reflexion.report.compare import compare_runs, summary_of
from reflexion.run.run_folder import ABLATION, EPISODES, RunFolder
from reflexion.telemetry.summary import Summary
from reflexion.types import Frozen, Strategy

__all__ = [
    "Ablation",
    "Against",
    "StrategyRun",
    "gather",
    "is_ablation",
    "planned_strategies",
    "run_name",
    "write_plan",
]


class Against(Frozen):
    """A run held against the comparison's first one, over the episodes both have."""

    episodes: int
    only_this: int = Field(description="Solved by this run and not by the first.")
    only_first: int = Field(description="Solved by the first run and not by this one.")
    p_value: float = Field(description="Exact two-sided McNemar test.")


class StrategyRun(Frozen):
    """The run of one strategy."""

    strategy: Strategy
    run: str
    summary: Summary
    against_first: Against | None = Field(default=None, description="None for the first one.")

    @property
    def tokens(self) -> int:
        """What the strategy takes by itself: tokens spent, and those of steps that the cache answered."""
        tokens = self.summary.tokens
        return tokens.prompt + tokens.completion + tokens.saved

    @property
    def cost_usd(self) -> float | None:
        """The same in US dollars; None: a model's price is unknown."""
        s = self.summary
        return None if s.cost_usd is None or s.cost_saved_usd is None else s.cost_usd + s.cost_saved_usd

    @property
    def cost_at_least_usd(self) -> float | None:
        """What is known of it where the whole is not; None: nothing is, or the whole is."""
        return phrases.whole_at_least(self.summary)


class Ablation(Frozen):
    """`ablation.json`: strategies compared on the same problems."""

    ablation: str = Field(description="Name of the comparison.")
    strategies: tuple[Strategy, ...]
    runs: tuple[StrategyRun, ...] = Field(description="Those on record, in the order of the strategies.")


def run_name(ablation: str, strategy: Strategy) -> str:
    """Name of the run of one strategy."""
    return f"{ablation}-{strategy}"


def is_ablation(folder: Path | str) -> bool:
    """Whether a folder is that of a comparison of strategies."""
    return (Path(folder) / ABLATION).is_file()


def planned_strategies(folder: Path) -> tuple[Strategy, ...]:
    """The strategies a comparison covers; none if the folder is that of no comparison.

    Raises:
        StorageError: its file cannot be read.
    """
    path = folder / ABLATION
    if not path.is_file():
        return ()
    with storage_errors(path):
        data = path.read_bytes()
    try:
        return tuple(Strategy(name) for name in orjson.loads(data)["strategies"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise StorageError(f"{path}: is no list of strategies ({exc}); remove it and resume the comparison") from exc


def write_plan(folder: Path, strategies: Sequence[Strategy], runs: Sequence[StrategyRun] = ()) -> None:
    """Put a comparison on record, with its figures as far as there are any.

    Raises:
        StorageError: it cannot be written.
    """
    ablation = Ablation(ablation=folder.name, strategies=tuple(strategies), runs=tuple(runs))
    with storage_errors(folder / ABLATION):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / ABLATION, [json_bytes(ablation.model_dump(mode="json"))])


def gather(folder: Path, strategies: Sequence[Strategy] | None = None) -> Ablation:
    """A comparison out of the runs beside its folder, those that exist.

    Raises:
        ConfigurationError: two of the runs have no episode in common.
        StorageError: a record cannot be read.
    """
    folder = folder.resolve()
    planned = planned_strategies(folder) if strategies is None else tuple(strategies)
    found: list[StrategyRun] = []
    first: Path | None = None
    for strategy in planned:
        path = folder.parent / run_name(folder.name, strategy)
        if not (path / EPISODES).is_file():
            continue
        run = RunFolder.open(path)
        if not len(run):
            continue
        found.append(
            StrategyRun(
                strategy=strategy,
                run=run.name,
                summary=summary_of(run),
                against_first=_against(first, path) if first is not None else None,
            )
        )
        first = first or path
    return Ablation(ablation=folder.name, strategies=planned, runs=tuple(found))


def _against(first: Path, path: Path) -> Against:
    comparison = compare_runs(first, path)
    return Against(
        episodes=comparison.shared,
        only_this=len(comparison.only_b),
        only_first=len(comparison.only_a),
        p_value=comparison.p_value,
    )
