"""What a person sees of a batch: progress on stderr, and the table at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from reflexion.report import phrases
from reflexion.report.phrases import interval
from reflexion.report.strategy_table import StrategyRun
from reflexion.run.batch_run import BatchResult
from reflexion.run.run_folder import RunFolder
from reflexion.run.strategy_runs import AblationResult
from reflexion.telemetry.summary import Summary
from reflexion.types import Episode, Outcome, Usage

__all__ = ["BatchProgress", "print_ablation", "print_result"]

QUIET_SECONDS = 30.0
"""Seconds without a terminal after which a line says how far the run is, however little was done."""


class _Bars(Progress):
    """A bar for each run, and a line of counts below."""

    def __init__(self, counts: Callable[[], Text], console: Console) -> None:
        self._counts = counts
        name = Column(max_width=28, no_wrap=True, overflow="ellipsis")
        super().__init__(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("[bold]{task.description}", table_column=name),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            expand=True,
            disable=not console.is_terminal,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, then the counts."""
        yield from super().get_renderables()
        yield self._counts()


class BatchProgress:
    """A live bar with solved, failed and cached counts and tokens; a line now and then without a terminal."""

    def __init__(
        self,
        console: Console | None = None,
        resume: Callable[[str], str] | None = None,
        name: str | None = None,
    ) -> None:
        """
        Args:
            console: where to write; None: stderr.
            resume: the command line that carries on with the run of a name.
            name: of the comparison whose runs follow one another; None: there is one run.
        """
        self.console = console or Console(stderr=True)
        self._resume, self._name = resume, name
        self.folder: RunFolder | None = None
        self.solved = self.failed = self.errors = self.cached = 0
        self.spent = Usage()
        self._done = self._total = self._told = 0
        self._told_at = time.monotonic()
        self._task: TaskID | None = None
        self._bar = _Bars(self._counts_line, self.console)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """A line for people."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def started(self, folder: RunFolder, total: int, done: int) -> None:
        """A run begins."""
        first = self.folder is None
        self.folder, self._total, self._done, self._told = folder, total, done, 0
        self.solved = self.failed = self.errors = self.cached = 0
        self.spent = Usage()
        if folder.repaired:
            self.say(folder.repaired)
        if first:
            for note in folder.notes:
                self.say(f"Note: {note}")
        if done:
            self.say(f"Resuming {folder.path}: {done} of {total} episodes are done.")
        elif self._resume is not None and first:
            # Told at the start: a process that is killed says nothing at its end.
            name = self._name or folder.name
            self.say(f"Run {name}. If it is stopped, resume it with: {self._resume(name)}")
        self._task = self._bar.add_task(self._label(), total=total, completed=done)

    def _label(self) -> str:
        """The run's name, or within a comparison what tells it from the others."""
        name = self.folder.name if self.folder is not None else ""
        return name.removeprefix(f"{self._name}-") if self._name is not None else name

    def finished(self, episode: Episode) -> None:
        """An episode came to its end."""
        self._done += 1
        self.solved += episode.outcome is Outcome.SOLVED
        self.failed += episode.outcome is Outcome.FAILED
        self.errors += episode.outcome is Outcome.ERROR
        self.cached += sum(output.cached for _, output in episode.outputs())
        self.spent += episode.usage
        if self._task is not None:
            self._bar.update(self._task, completed=self._done)
        if not self.console.is_terminal:
            self._tell()

    def _tell(self) -> None:
        tenth, now = self._done * 10 // max(self._total, 1), time.monotonic()
        if tenth > self._told or now - self._told_at >= QUIET_SECONDS:
            self._told, self._told_at = tenth, now
            label = f"{self._label()}: " if self._name is not None else ""
            self.say(f"{label}{self._done}/{self._total} episodes, {self.counts()}")

    def counts(self) -> str:
        """Solved, failed, cached and tokens, in words."""
        return self._counts_line().plain.strip()

    def _counts_line(self) -> Text:
        if self.folder is None:
            return Text("  starting …", style="dim")
        parts = [Text(f"{self.solved} solved", style="green"), Text(f"{self.failed} failed", style="red")]
        if self.errors:
            parts.append(Text(f"{self.errors} errors", style="yellow"))
        parts += [Text(f"{self.cached} steps cached", style="dim"), Text(f"{self.spent.total:,} tokens", style="dim")]
        return Text("  ") + Text(", ").join(parts)


def print_result(result: BatchResult, console: Console | None = None) -> None:
    """The table of a finished batch."""
    console = console or Console(file=sys.stdout)
    s = result.summary
    _title(console, s.dataset, s.llm, s.strategy)
    curve = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    curve.add_column("solved by", no_wrap=True)
    curve.add_column("episodes", justify="right", no_wrap=True)
    curve.add_column("share", justify="right", no_wrap=True)
    curve.add_column("newly", justify="right", no_wrap=True)
    curve.add_column("learning curve", no_wrap=True, min_width=30)
    before = 0
    for trial, count in enumerate(s.solved_by_trial, 1):
        share = count / s.episodes if s.episodes else 0.0
        bar = Text("█" * round(30 * share), style="green").append("·" * (30 - round(30 * share)), style="dim")
        curve.add_row(f"trial {trial}", f"{count} of {s.episodes}", f"{share:.1%}", f"+{count - before}", bar)
        before = count
    console.print(curve)
    for name, value in _figures(s):
        _line(console, name, value)
    for note in s.notes:
        _line(console, "Note", note)
    _line(console, "Folder", f"{result.folder}")
    _report_line(console, result)


def _title(console: Console, *parts: str) -> None:
    console.print()
    # The width of the terminal is the title's, and not that of the table below it.
    console.print(Text(" · ".join(parts), style="bold"), highlight=False, soft_wrap=True)


def _line(console: Console, name: str, value: str) -> None:
    console.print(Text.assemble((f"{name}: ", "bold"), value), highlight=False, soft_wrap=True)


def _report_line(console: Console, result: BatchResult | AblationResult) -> None:
    report = result.folder / "report.html"
    if report.exists():
        _line(console, "Report", f"{report}")


def _figures(s: Summary) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    if s.errors or s.not_run:
        kinds = ", ".join(f"{n} {kind}" for kind, n in s.errors_by_class.items())
        lines.append(("Not finished", f"{s.errors} with errors{f' ({kinds})' if kinds else ''}, {s.not_run} not run"))
        lines += phrases.errors_told([s])
    if s.pass_rate is not None and s.pass_rate_interval is not None:
        lines.append(("Pass rate", f"{s.pass_rate:.1%}, 95 % interval {interval(s.pass_rate_interval)}"))
    lines += [(f"pass@{k}", f"{e.value:.1%}, 95 % interval {interval(e)}") for k, e in s.pass_at_k.items() if k > 1]
    lines.append(("Handed-in pass rate", phrases.handed_in(s.handed_in)))
    lines.append(("Stopped by", phrases.stopped_by(s.stopped_by, s.max_trials)))
    lines += [*phrases.verdict_rows(s), *phrases.judging(s)]
    hits = "no cacheable steps" if s.cache_hit_rate is None else f"{s.cache_hit_rate:.0%} cache hits"
    lines.append(("LLM calls", f"{s.llm_calls:,}"))
    lines.append(("Steps", f"{s.executed_steps:,} executed, {s.cached_steps:,} cached ({hits})"))
    lines.append(("Tokens", phrases.tokens(s)))
    lines.append(("Cost", phrases.cost(s)))
    lines += s.replies.lines()
    reused, fresh = s.lessons.reused, s.lessons.fresh
    if reused.episodes:
        lines.append(
            (
                "Reflections",
                f"reused in {reused.episodes} episodes ({reused.solved} solved), "
                f"fresh in {fresh.episodes} ({fresh.solved} solved)",
            )
        )
    for name, rates in s.agreement.items():
        lines.append((phrases.FALLIBLE[name], phrases.agreement(rates)))
    t = s.response_time
    if t.p50 is not None and t.p95 is not None and t.p99 is not None:
        lines.append(("Response time", f"p50 {t.p50:.2f} s, p95 {t.p95:.2f} s, p99 {t.p99:.2f} s"))
    rate = f", {s.episodes_per_minute:.0f} episodes/min" if s.episodes_per_minute is not None else ""
    peak = f", {s.peak_rss_mb:.0f} MB at most" if s.peak_rss_mb is not None else ""
    lines.append(("Wall time", f"{s.wall_seconds:.1f} s{rate}{peak}, error rate {s.error_rate:.1%}"))
    return lines


_TRIALS_SHOWN = 4


def print_ablation(result: AblationResult, console: Console | None = None) -> None:
    """The table of a comparison of strategies."""
    console = console or Console(file=sys.stdout)
    runs = result.ablation.runs
    if not runs:
        return
    first = runs[0].summary
    _title(console, first.dataset, first.llm, f"{len(runs)} strategies", f"{first.episodes} episodes each")
    trials = max(run.summary.max_trials for run in runs)
    shown = [n for n in range(1, trials + 1) if n < _TRIALS_SHOWN or n == trials]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("solved by trial", no_wrap=True)
    for n in shown:
        table.add_column(f"{n}", justify="right", no_wrap=True)
    table.add_column("share, 95 %", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    for run in runs:
        table.add_row(*_strategy_cells(run, shown))
    console.print(table)
    for run in runs:
        for k, estimate in run.summary.pass_at_k.items():
            if k > 1:
                _line(console, f"pass@{k}", f"{estimate.value:.1%} ({interval(estimate)})  {run.strategy}")
    handed = [(run.strategy, run.summary.handed_in) for run in runs]
    rates = [f"{name} {found.rate:.1%}" for name, found in handed if found is not None and found.rate is not None]
    _line(console, "Handed-in pass rate", ", ".join(rates) or "not on record")
    for name, text in phrases.stopped_by_each([(run.strategy, run.summary) for run in runs]):
        _line(console, name, text)
    lines = phrases.errors_told(run.summary for run in runs)
    lines += phrases.replies_each([(run.strategy, run.summary) for run in runs])
    lines += [("Note", note) for note in dict.fromkeys(note for run in runs for note in run.summary.notes)]
    lines += _costs(runs)
    for name, text in lines:
        _line(console, name, text)
    for remark in (
        "Share: of all episodes, in percent, with its 95 % interval. Tokens: what the",
        "strategy takes by itself, cached steps included. p: McNemar, against the first.",
    ):
        console.print(Text(remark, style="dim"), highlight=False)
    _line(console, "Runs", ", ".join(run.run for run in runs))
    _line(console, "Folder", f"{result.folder}")
    _report_line(console, result)


def _costs(runs: Sequence[StrategyRun]) -> list[tuple[str, str]]:
    if not any(run.cost_usd != 0 for run in runs):
        return []
    costs = ", ".join(f"{run.strategy} {phrases.amount(run.cost_usd, run.cost_at_least_usd)}" for run in runs)
    why = phrases.cost_unknown_because(run.summary for run in runs)
    return [("Cost", f"{costs} ({why})" if why else costs)]


def _share(s: Summary) -> str:
    if s.pass_rate is None or (found := s.pass_rate_interval) is None:
        return "no data"
    return f"{s.pass_rate:.0%} ({100 * found.low:.0f} to {100 * found.high:.0f})"


def _strategy_cells(run: StrategyRun, shown: list[int]) -> list[str | Text]:
    s = run.summary
    solved = [s.solved_by_trial[min(n, len(s.solved_by_trial)) - 1] for n in shown]
    return [
        Text(run.strategy.value, style="bold"),
        *map(str, solved),
        _share(s),
        f"{run.tokens:,}",
        "" if run.against_first is None else f"{run.against_first.p_value:.2g}",
    ]
