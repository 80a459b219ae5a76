"""What a person sees of a batch: progress on stderr, and the table at its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from reflexion.batch import BatchResult
from reflexion.runs import RunFolder
from reflexion.telemetry.summary import Summary
from reflexion.types import Episode, Outcome, Usage

__all__ = ["BatchProgress", "print_result"]


class BatchProgress:
    """A live bar with solved, failed and cached counts and tokens; a line now and then without a terminal."""

    def __init__(self, console: Console | None = None, resume: Callable[[str], str] | None = None) -> None:
        """
        Args:
            console: where to write; None: stderr.
            resume: the command line that carries on with the run of a name.
        """
        self.console = console or Console(stderr=True)
        self._resume = resume
        self.folder: RunFolder | None = None
        self.solved = self.failed = self.errors = self.cached = self.steps = 0
        self.spent = Usage()
        self._done = self._total = self._told = 0
        self._task: TaskID | None = None
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

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
        """The run begins."""
        self.folder, self._total, self._done = folder, total, done
        if folder.repaired:
            self.say(folder.repaired)
        if done:
            self.say(f"Resuming {folder.path}: {done} of {total} episodes are done.")
        elif self._resume is not None:
            # Told at the start: a process that is killed says nothing at its end.
            self.say(f"Run {folder.name}. If it is stopped, resume it with: {self._resume(folder.name)}")
        self._task = self._bar.add_task(folder.name, total=total, completed=done, counts="")

    def finished(self, episode: Episode) -> None:
        """An episode came to its end."""
        self._done += 1
        self.solved += episode.outcome is Outcome.SOLVED
        self.failed += episode.outcome is Outcome.FAILED
        self.errors += episode.outcome is Outcome.ERROR
        outputs = episode.outputs()
        self.cached += sum(output.cached for _, output in outputs)
        self.spent += episode.usage
        if self._task is not None:
            self._bar.update(self._task, completed=self._done, counts=self.counts())
        if not self.console.is_terminal and (self._done * 10 // max(self._total, 1)) > self._told:
            self._told = self._done * 10 // max(self._total, 1)
            self.say(f"{self._done}/{self._total} episodes, {self.counts()}")

    def counts(self) -> str:
        """Solved, failed, cached and tokens, in words."""
        parts = [f"{self.solved} solved", f"{self.failed} failed"]
        if self.errors:
            parts.append(f"{self.errors} errors")
        parts += [f"{self.cached} steps cached", f"{self.spent.total:,} tokens"]
        return ", ".join(parts)


def print_result(result: BatchResult, console: Console | None = None) -> None:
    """The table of a finished batch."""
    console = console or Console(file=sys.stdout)
    s = result.summary
    curve = Table(title=f"{s.dataset} · {s.llm} · {s.strategy}", title_justify="left")
    curve.add_column("solved by")
    curve.add_column("episodes", justify="right")
    curve.add_column("share", justify="right")
    curve.add_column("")
    for trial, count in enumerate(s.solved_by_trial, 1):
        share = count / s.episodes if s.episodes else 0.0
        curve.add_row(f"trial {trial}", f"{count} of {s.episodes}", f"{share:.1%}", "█" * round(30 * share))
    console.print(curve)
    for line in _figures(s):
        console.print(line, highlight=False)
    console.print(f"Folder: {result.folder}", highlight=False, soft_wrap=True)


def _figures(s: Summary) -> list[str]:
    lines: list[str] = []
    if s.errors or s.not_run:
        kinds = ", ".join(f"{n} {kind}" for kind, n in s.errors_by_class.items())
        lines.append(f"Not finished: {s.errors} with errors{f' ({kinds})' if kinds else ''}, {s.not_run} not run")
    hits = "no cacheable steps" if s.cache_hit_rate is None else f"{s.cache_hit_rate:.0%} cache hits"
    lines.append(f"LLM calls: {s.llm_calls}   steps: {s.executed_steps} executed, {s.cached_steps} cached ({hits})")
    cost = "unknown" if s.cost_usd is None else f"${s.cost_usd:.4f}"
    lines.append(
        f"Tokens: {s.tokens.prompt:,} prompt + {s.tokens.completion:,} completion spent, "
        f"{s.tokens.saved:,} saved by the cache   cost: {cost}"
    )
    reused, fresh = s.lessons.reused, s.lessons.fresh
    if reused.episodes:
        lines.append(
            f"Reflections: {reused.episodes} episodes with reused ones, {reused.solved} of them solved; "
            f"{fresh.episodes} with fresh ones, {fresh.solved} solved"
        )
    t = s.response_time
    if t.p50 is not None and t.p95 is not None and t.p99 is not None:
        lines.append(f"Response time: p50 {t.p50:.2f} s, p95 {t.p95:.2f} s, p99 {t.p99:.2f} s")
    rate = f", {s.episodes_per_minute:.0f} episodes/min" if s.episodes_per_minute is not None else ""
    peak = f", peak memory {s.peak_rss_mb:.0f} MB" if s.peak_rss_mb is not None else ""
    lines.append(f"Wall time: {s.wall_seconds:.1f} s{rate}{peak}, error rate {s.error_rate:.1%}")
    return lines
