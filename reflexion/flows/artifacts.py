"""What a batch leaves in Prefect's artifacts: its progress while it runs, and its figures when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.exceptions import PrefectException

from reflexion.report import phrases
from reflexion.report.statistics import Estimate
from reflexion.run.batch_run import BatchResult, Progress
from reflexion.run.run_folder import RunFolder
from reflexion.tasks.step_records import FlowNote
from reflexion.telemetry.error_words import in_short
from reflexion.telemetry.summary import Summary
from reflexion.types import Episode, Outcome, StepName, StepOutput

__all__ = ["BatchWatch", "best_effort", "learning_curve", "sparkline", "summary_rows", "watched"]

T = TypeVar("T")

logger = logging.getLogger("reflexion.prefect")

PROGRESS_SECONDS = 5.0
"""Seconds between two updates of the progress artifact: each is a request to the server."""

LISTED = 20
"""Slowest and failed problems that are listed."""

_BARS = "▁▂▃▄▅▆▇█"


class BatchWatch:
    """Sees a batch go by: tells the progress further and keeps what the artifacts will show.

    Its memory does not grow with the batch: the slowest problems and the first failed ones are kept.

    Args:
        inner: who else is told of the progress.
    """

    def __init__(self, inner: Progress | None = None) -> None:
        self._inner = inner
        self.total = self.done = 0
        self.outcomes: dict[str, int] = {}
        self.saved = 0
        self._slowest: list[tuple[float, str, int, str]] = []
        self._failed: list[dict[str, Any]] = []

    # -- Progress -------------------------------------------------------------------------------------

    def started(self, folder: RunFolder, total: int, done: int) -> None:
        """The run begins."""
        self.total, self.done = total, done
        for note in folder.notes:
            get_run_logger().warning("%s", note)
        if self._inner is not None:
            self._inner.started(folder, total, done)

    def finished(self, episode: Episode) -> None:
        """An episode came to its end."""
        self.done += 1
        self.outcomes[episode.outcome.value] = self.outcomes.get(episode.outcome.value, 0) + 1
        ended = (episode.seconds, episode.problem_id, episode.repeat, episode.outcome.value)
        if len(self._slowest) < LISTED:
            heapq.heappush(self._slowest, ended)
        else:
            heapq.heappushpop(self._slowest, ended)
        if episode.outcome is not Outcome.SOLVED and len(self._failed) < LISTED:
            self._failed.append(_failed_row(episode))
        if self._inner is not None:
            self._inner.finished(episode)

    # -- StepObserver ---------------------------------------------------------------------------------

    def record_step(self, step: StepName, output: StepOutput | None, wall_seconds: float) -> None:
        """A step came to its end."""
        if output is not None and output.cached:
            self.saved += output.usage.total

    def record_error(self, step: StepName, error: BaseException) -> None:
        """A step failed: its episode tells."""

    # -- what is left ---------------------------------------------------------------------------------

    @property
    def share(self) -> float:
        """Percent of the episodes that are done, 0 to 100."""
        return 100 * self.done / self.total if self.total else 0.0

    def describe(self) -> str:
        """How the batch stands, in words."""
        counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(self.outcomes.items()))
        return f"{self.done} of {self.total} episodes{f': {counts}' if counts else ''}"

    def note(self, task_runs: int, granularity: int, summary: Summary) -> FlowNote:
        """What the flow run's record tells of the batch."""
        return FlowNote(task_runs, granularity, dict(sorted(self.outcomes.items())), summary.peak_rss_mb, self.saved)

    @property
    def slowest(self) -> list[dict[str, Any]]:
        """The slowest episodes of this session, slowest first."""
        return [
            {"problem": problem, "repeat": repeat, "seconds": round(seconds, 2), "outcome": outcome}
            for seconds, problem, repeat, outcome in sorted(self._slowest, reverse=True)
        ]

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The first episodes of this session that were not solved."""
        return self._failed

    async def publish(self, result: BatchResult) -> None:
        """Write the artifacts of a finished batch."""
        summary = result.summary
        await best_effort(
            lambda: acreate_table_artifact(
                summary_rows(summary), key="reflexion-summary", description=f"Run {summary.run}: `{result.folder}`"
            )
        )
        await best_effort(
            lambda: acreate_markdown_artifact(
                learning_curve(summary), key="reflexion-learning-curve", description=f"Run {summary.run}"
            )
        )
        await best_effort(lambda: acreate_table_artifact(_cost_rows(summary), key="reflexion-cost"))
        for key, rows, text in (
            ("reflexion-slowest", self.slowest, "The slowest episodes of this session"),
            ("reflexion-failed", self.failed, f"Episodes that were not solved (the first {LISTED})"),
        ):
            if rows:
                await best_effort(lambda k=key, r=rows, t=text: acreate_table_artifact(r, key=k, description=t))


@asynccontextmanager
async def watched(watch: BatchWatch, seconds: float = PROGRESS_SECONDS) -> AsyncGenerator[None]:
    """Keep a progress artifact while a batch runs, updated at most every `seconds`."""
    artifact = await best_effort(lambda: acreate_progress_artifact(0.0, key="reflexion-progress"))
    if artifact is None:
        yield
        return

    async def update() -> None:
        await best_effort(lambda: aupdate_progress_artifact(artifact, watch.share, watch.describe()))

    async def keep_up() -> None:
        shown = -1
        while True:
            await asyncio.sleep(seconds)
            if watch.done != shown:
                shown = watch.done
                await update()

    task = asyncio.create_task(keep_up())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await update()


async def best_effort(write: Callable[[], Awaitable[T]]) -> T | None:
    """Write to the server; a run never fails for what is only shown. None when it could not be written."""
    try:
        return await write()
    except (httpx.HTTPError, PrefectException) as exc:
        logger.warning("an artifact could not be written: %s: %s", type(exc).__name__, exc)
        return None


def sparkline(values: Sequence[float | None], width: int = 40) -> str:
    """Values as a line of bars from their least to their greatest; `·` where there is none."""
    shown = list(values)[-width:]
    known = [v for v in shown if v is not None]
    if not known:
        return "·" * len(shown)
    low, span = min(known), max(known) - min(known)
    top = len(_BARS) - 1
    return "".join("·" if v is None else _BARS[round(top * (v - low) / span) if span else top // 2] for v in shown)


def learning_curve(summary: Summary) -> str:
    """Episodes solved by each trial, as Markdown."""
    lines = [f"## {summary.dataset} · {summary.llm} · {summary.strategy}", ""]
    lines += ["| solved by | episodes | share | curve |", "|---|---|---|---|"]
    for trial, count in enumerate(summary.solved_by_trial, 1):
        share = count / summary.episodes if summary.episodes else 0.0
        lines.append(f"| trial {trial} | {count} of {summary.episodes} | {share:.1%} | {'█' * round(20 * share)} |")
    lines += ["", f"Handed-in pass rate: {phrases.handed_in(summary.handed_in)}."]
    lines += ["", f"Stopped by: {phrases.stopped_by(summary.stopped_by, summary.max_trials)}."]
    lines += [line for name, text in summary.replies.lines() for line in ("", f"{name}: {text}.")]
    # The words are an endpoint's: as code, they are no Markdown.
    told = [(name, text.replace("`", "'")) for name, text in phrases.errors_told([summary])]
    lines += [line for name, text in told for line in ("", f"> {name}: `{text}`")]
    lines += [line for note in summary.notes for line in ("", f"> {note}")]
    return "\n".join(lines) + "\n"


def summary_rows(summary: Summary) -> list[dict[str, Any]]:
    """The figures of a run, as rows of a table."""
    times = summary.response_time
    rows: dict[str, Any] = {
        "solved": f"{summary.solved} of {summary.episodes}",
        "pass rate": _share(summary.pass_rate, summary.pass_rate_interval),
        "handed-in pass rate": phrases.handed_in(summary.handed_in),
        "stopped by": phrases.stopped_by(summary.stopped_by, summary.max_trials),
        **{f"pass@{k}": _share(e.value, e) for k, e in summary.pass_at_k.items() if k > 1},
        "errors": summary.errors,
        "not run": summary.not_run,
        "LLM calls": summary.llm_calls,
        "tokens": phrases.tokens(summary),
        "cost": phrases.cost(summary),
        "steps executed": summary.executed_steps,
        "steps cached": summary.cached_steps,
        "steps per task run": summary.granularity,
        "episodes per minute": _rounded(summary.episodes_per_minute, 0),
        "response time p50, s": _rounded(times.p50, 3),
        "response time p95, s": _rounded(times.p95, 3),
        "response time p99, s": _rounded(times.p99, 3),
        "error rate": _rounded(summary.error_rate, 4),
        "peak memory, MB": _rounded(summary.peak_rss_mb, 0),
        "wall time, s": _rounded(summary.wall_seconds, 1),
    }
    told = [(name.lower(), text) for name, text in (*phrases.verdict_rows(summary), *phrases.judging(summary))]
    told += [(phrases.FALLIBLE[name].lower(), phrases.agreement(rates)) for name, rates in summary.agreement.items()]
    told += [(name.lower(), text) for name, text in (*summary.replies.lines(), *phrases.errors_told([summary]))]
    told += [("note", note) for note in summary.notes]
    return [{"figure": name, "value": "no data" if value is None else value} for name, value in (*rows.items(), *told)]


def _share(value: float | None, interval: Estimate | None) -> str | None:
    if value is None or interval is None:
        return None
    return f"{value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def _cost_rows(summary: Summary) -> list[dict[str, Any]]:
    rows = [
        {
            "role": spent.role,
            "model": spent.model,
            "calls": spent.usage.calls,
            "prompt tokens": spent.usage.prompt,
            "of them cached": spent.usage.cached_prompt,
            "completion tokens": spent.usage.completion,
            "US dollars": phrases.amount(spent.usage.cost_usd, spent.usage.known_usd, sign=""),
        }
        for spent in summary.usage
    ]
    total = {
        "role": "all",
        "model": "",
        "calls": summary.llm_calls,
        "prompt tokens": summary.tokens.prompt,
        "of them cached": summary.tokens.cached_prompt,
        "completion tokens": summary.tokens.completion,
        "US dollars": phrases.amount(summary.cost_usd, summary.cost_at_least_usd, sign=""),
    }
    return [*rows, total]


def _failed_row(episode: Episode) -> dict[str, Any]:
    last = episode.trials[-1].evaluation if episode.trials else None
    reason = (last.failure_class if last is not None else None) or ""
    if episode.error is not None:
        reason = in_short(f"{episode.error.kind}: {episode.error.message}")
    return {
        "problem": episode.problem_id,
        "repeat": episode.repeat,
        "outcome": episode.outcome.value,
        "trials": len(episode.trials),
        "reason": reason,
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits) if digits else float(round(value))
