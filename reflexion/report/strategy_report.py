"""The report on a comparison of strategies: its table, its plots, and every episode of every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reflexion.report import phrases
from reflexion.report.charts import Chart, bars, learning_curve, solved_by_each, stacked_bars
from reflexion.report.statistics import Estimate
from reflexion.report.strategy_table import Ablation, StrategyRun
from reflexion.report.tally import detail_of, row_of
from reflexion.run.run_folder import RunFolder
from reflexion.types import Episode

__all__ = ["combined_charts", "combined_rows", "combined_table"]


_COLOURS = ("var(--plot-good)", "var(--plot-better)", "var(--plot-bad)", "var(--plot-none)")


def combined_table(ablation: Ablation) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of strategies."""
    trials = max((run.summary.max_trials for run in ablation.runs), default=1)
    ks = sorted({k for run in ablation.runs for k in run.summary.pass_at_k} - {1})
    header = ["strategy", *(f"trial\u00a0{n}" for n in range(1, trials + 1)), "pass rate", "95 % interval", "handed in"]
    header += [f"pass@{k}" for k in ks]
    header += ["against the first", "McNemar p", "calls made", "tokens", "US dollars", "p95, s"]
    return header, [_row(run, trials, ks) for run in ablation.runs]


def _row(run: StrategyRun, trials: int, ks: Sequence[int]) -> list[str]:
    s, against = run.summary, run.against_first
    interval = s.pass_rate_interval
    return [
        run.strategy.value,
        *(f"{n:,}" for n in solved_by_each(s, trials)),
        "no data" if s.pass_rate is None else f"{s.pass_rate:.1%}",
        "no data" if interval is None else f"{interval.low:.1%} to {interval.high:.1%}",
        "not on record" if s.handed_in is None or s.handed_in.rate is None else f"{s.handed_in.rate:.1%}",
        *(_estimate(s.pass_at_k.get(k)) for k in ks),
        "" if against is None else f"+{against.only_this} -{against.only_first}",
        "" if against is None else f"{against.p_value:.3g}",
        f"{s.llm_calls:,}",
        f"{run.tokens:,}",
        phrases.amount(run.cost_usd, run.cost_at_least_usd, sign=""),
        "no data" if s.response_time.p95 is None else f"{s.response_time.p95:.3g}",
    ]


def _estimate(value: Estimate | None) -> str:
    return "no data" if value is None else str(value)


def combined_charts(ablation: Ablation) -> list[Chart]:
    """Learning curves together, outcomes, and what each strategy takes."""
    runs = ablation.runs
    charts = [learning_curve([run.summary for run in runs])]
    if not runs:
        return charts
    names = [run.strategy.value for run in runs]
    outcomes = {
        "solved at once": [run.summary.solved_by_trial[0] for run in runs],
        "solved later": [run.summary.solved - run.summary.solved_by_trial[0] for run in runs],
        "failed": [run.summary.failed for run in runs],
        "error or not run": [run.summary.errors + run.summary.not_run for run in runs],
    }
    best = max(runs, key=lambda run: run.summary.solved)
    text = f"{best.strategy} solved most: {best.summary.solved} of {best.summary.episodes} episodes."
    charts.append(
        stacked_bars("outcomes", "Outcomes by strategy", text, names, outcomes, what="strategy", colours=_COLOURS)
    )
    tokens = {run.strategy.value: float(run.tokens) for run in runs}
    text = "What each strategy takes by itself: steps that the cache answered are counted as if they were not."
    charts.append(bars("tokens", "Tokens by strategy", text, tokens, what="strategy"))
    known = {run.strategy.value: run.cost_at_least_usd if run.cost_usd is None else run.cost_usd for run in runs}
    if any(known.values()):
        if any(run.cost_usd is None for run in runs):
            text += " Where a cost is not known in whole, the part that is."
        costs = {name: cost for name, cost in known.items() if cost is not None}
        charts.append(bars("money", "US dollars by strategy", text, costs, what="strategy", form="{:.3g}"))
    return charts


def combined_rows(runs: Sequence[tuple[str, RunFolder]]) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Row and detail of each episode, those of one problem one after another.

    To what a single run's row has, each adds the strategy and whether the strategies fared differently.
    """
    order = list(dict.fromkeys(key for _, run in runs for key in run.by_problem()))
    streams = [(name, run, run.episodes(order)) for name, run in runs]
    for key in order:
        met: list[tuple[str, Episode]] = [
            (name, next(episodes)) for name, run, episodes in streams if run.recorded(*key)
        ]
        differs = len({episode.solved for _, episode in met}) > 1
        for name, episode in met:
            yield [*row_of(episode), name, differs], detail_of(episode)
