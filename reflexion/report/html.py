"""A run as one HTML file that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from reflexion._files import storage_errors, write_atomic
from reflexion.errors import ConfigurationError, StorageError
from reflexion.report import phrases
from reflexion.report.charts import Chart, charts_of, concurrency_chart, learning_curve
from reflexion.report.compare import summary_of
from reflexion.report.strategy_report import combined_charts, combined_rows, combined_table
from reflexion.report.strategy_table import gather, is_ablation
from reflexion.report.tally import Tally, detail_of, row_of
from reflexion.run.run_folder import RunFolder
from reflexion.telemetry.deciders import VerdictCount
from reflexion.telemetry.summary import Summary

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"


def write_report(run_dir: Path | str, *, others: Sequence[Path | str] = ()) -> Path:
    """Write `report.html` into a run's folder, from its record and its figures.

    Whatever a model wrote is shown as text: it is carried as JSON, set as text, and the page's content
    security policy lets no script run but the report's own. Memory does not grow with the number of
    episodes. A run that is still going can be reported as far as it is.

    Args:
        run_dir: the run's folder, or that of a comparison of strategies.
        others: folders of runs whose learning curves are drawn beside this one's, as in an ablation.

    Returns:
        The file's path.

    Raises:
        ConfigurationError: a folder is not a run's folder.
        StorageError: a record cannot be read, or the report not be written.
    """
    if is_ablation(run_dir):
        return _write(Path(run_dir) / REPORT, _combined(Path(run_dir)))
    run = RunFolder.open(run_dir)
    summary = summary_of(run)
    tally = Tally()
    for episode in run.episodes():
        tally.add(episode)
    charts = [learning_curve([summary, *(summary_of(RunFolder.open(other)) for other in others)])]
    charts += charts_of(summary, tally)
    if (chart := concurrency_chart(_changes(run))) is not None:
        charts.append(chart)
    page = _page(
        title=summary.run,
        summary=summary,
        strategies=[summary.strategy],
        finished=run.summary() is not None,
        tiles=_tiles(summary),
        judging=_judging(summary),
        verdicts=summary.verdicts,
        notes=summary.notes,
        errors=phrases.errors_told([summary]),
        replies=summary.replies.lines(),
        charts=charts,
        parameters=run.parameters,
        episodes=((row_of(episode), detail_of(episode)) for episode in run.episodes()),
    )
    return _write(run.path / REPORT, page)


def _write(path: Path, page: Iterator[str]) -> Path:
    with storage_errors(path):
        write_atomic(path, (piece.encode() for piece in page))
    return path


def _combined(folder: Path) -> Iterator[str]:
    """The page of a comparison of strategies.

    Raises:
        ConfigurationError: none of its runs is on record.
    """
    ablation = gather(folder)
    if not ablation.runs:
        raise ConfigurationError(f"{folder}: none of its runs is on record; resume it with --strategies")
    runs = [(run.strategy.value, RunFolder.open(folder.resolve().parent / run.run)) for run in ablation.runs]
    first = ablation.runs[0].summary
    varies = ("strategy", "max_cost", "max_tokens")
    return _page(
        title=ablation.ablation,
        summary=first,
        strategies=[strategy.value for strategy in ablation.strategies],
        finished=len(runs) == len(ablation.strategies) and all(run.summary() is not None for _, run in runs),
        comparison=combined_table(ablation),
        judging=phrases.stopped_by_each([(run.strategy, run.summary) for run in ablation.runs]),
        notes=tuple(dict.fromkeys(note for run in ablation.runs for note in run.summary.notes)),
        errors=phrases.errors_told(run.summary for run in ablation.runs),
        replies=phrases.replies_each([(run.strategy, run.summary) for run in ablation.runs]),
        runs=[run.run for run in ablation.runs],
        charts=combined_charts(ablation),
        parameters={name: value for name, value in runs[0][1].parameters.items() if name not in varies},
        episodes=combined_rows(runs),
    )


def _page(
    *,
    title: str,
    summary: Summary,
    strategies: Sequence[str],
    finished: bool,
    charts: Sequence[Chart],
    parameters: Mapping[str, Any],
    episodes: Iterable[tuple[list[Any], dict[str, Any]]],
    tiles: Sequence[tuple[str, str, str]] = (),
    comparison: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None,
    runs: Sequence[str] = (),
    judging: Sequence[tuple[str, str]] = (),
    verdicts: Sequence[VerdictCount] = (),
    notes: Sequence[str] = (),
    errors: Sequence[tuple[str, str]] = (),
    replies: Sequence[tuple[str, str]] = (),
) -> Iterator[str]:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    assets = files("reflexion.report") / "assets"
    style, script, template = (
        assets.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js", "page.html")
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template)
    stream = page.stream(
        title=title,
        summary=summary,
        strategies=strategies,
        finished=finished,
        tiles=tiles,
        comparison=comparison,
        runs=runs,
        judging=judging,
        verdicts=[(phrases.judged_by(row), row) for row in verdicts] if len(verdicts) > 1 else [],
        notes=notes,
        errors=errors,
        replies=replies,
        captions=(phrases.STOPPED_BY, phrases.HANDED_IN),
        pass_at=summary.pass_at_k if comparison is None else {},
        charts=[(chart, Markup(chart.svg)) for chart in charts],  # noqa: S704 - pygal escapes every text
        parameters=[(name, _shown(value)) for name, value in parameters.items() if value not in (None, {}, [])],
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        lines=(Markup(line) for line in _lines(episodes)),  # noqa: S704 - JSON without `<`, inert in a data block
    )
    stream.enable_buffering(64)
    yield from stream


def _lines(episodes: Iterable[tuple[list[Any], dict[str, Any]]]) -> Iterator[str]:
    """A line for each episode: its row, a tab, and all of it. JSON has no raw tabs or line breaks."""
    for row, detail in episodes:
        yield (orjson.dumps(row) + b"\t" + orjson.dumps(detail)).decode().replace("<", "\\u003c")


def _changes(run: RunFolder) -> list[dict[str, Any]]:
    path = run.path / "concurrency.json"
    if not path.is_file():
        return []
    with storage_errors(path):
        data = path.read_bytes()
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise StorageError(f"{path}: line {exc.lineno}: {exc.msg}; remove the file or write it anew") from exc
    return [change for change in found if isinstance(change, dict)] if isinstance(found, list) else []


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _tiles(s: Summary) -> list[tuple[str, str, str]]:
    """Name, figure and remark of the most important figures."""
    rate = s.pass_rate_interval
    p = s.response_time
    return [
        (
            "Pass rate",
            _percent(s.pass_rate),
            f"{s.solved} of {s.episodes}; 95 % interval {rate.low:.1%} to {rate.high:.1%}" if rate else "no episodes",
        ),
        _handed_in(s),
        ("Response time, p95", _seconds(p.p95), f"p50 {_seconds(p.p50)}, p99 {_seconds(p.p99)}"),
        ("LLM calls", f"{s.llm_calls:,}", f"{sum(s.retries_by_class.values()):,} requests were retried"),
        (
            "Tokens",
            f"{s.tokens.prompt + s.tokens.completion:,}",
            f"{s.tokens.saved:,} saved"
            + (f", {s.tokens.cached_prompt:,} prompt tokens cached by the endpoint" if s.tokens.cached_prompt else "")
            + (f", {s.tokens_per_solved:,.0f} per solved" if s.tokens_per_solved is not None else ""),
        ),
        (
            "Cost",
            phrases.amount(s.cost_usd, s.cost_at_least_usd),
            phrases.cost_unknown_because([s]) or "US dollars",
        ),
        ("Cache hits", _percent(s.cache_hit_rate), f"{s.cached_steps:,} cached, {s.executed_steps:,} executed"),
        ("Error rate", f"{s.error_rate:.1%}", f"{s.errors} episodes ended in an error, {s.not_run} did not run"),
        (
            "Speed",
            "no data" if s.episodes_per_minute is None else f"{s.episodes_per_minute:,.1f}/min",
            f"episodes; {s.wall_seconds:,.1f} s in all, {s.granularity} step(s) to a task run",
        ),
        (
            "Memory, peak",
            "no data" if s.peak_rss_mb is None else f"{s.peak_rss_mb:,.0f} MB",
            "process and its children",
        ),
        (
            "Reflections",
            f"{s.lessons.fresh.episodes + s.lessons.reused.episodes:,}",
            f"episodes; solved {s.lessons.fresh.solved} of {s.lessons.fresh.episodes} with fresh ones"
            + (
                f", {s.lessons.reused.solved} of {s.lessons.reused.episodes} with reused ones"
                if s.lessons.reused.episodes
                else ""
            ),
        ),
    ]


def _handed_in(s: Summary) -> tuple[str, str, str]:
    """What would have been handed in, to stand beside the pass rate."""
    found = s.handed_in
    if found is None or found.rate is None or found.interval is None:
        return ("Handed-in pass rate", "not on record" if s.episodes else "no data", "without the oracle")
    told = f"{found.solved} of {s.episodes}; 95 % interval {phrases.interval(found.interval)}"
    return ("Handed-in pass rate", _percent(found.rate), told)


def _judging(s: Summary) -> list[tuple[str, str]]:
    """What decided, by whom answers were judged, and what speaks against it."""
    return [
        ("Stopped by", phrases.stopped_by(s.stopped_by, s.max_trials)),
        *(phrases.verdict_rows(s) if len(s.verdicts) == 1 else ()),
        *phrases.judging(s),
        *((phrases.FALLIBLE[name], phrases.agreement(rates)) for name, rates in s.agreement.items()),
    ]


def _percent(value: float | None) -> str:
    return "no data" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return "no data" if value is None else f"{value:.3g} s"
