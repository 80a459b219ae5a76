"""A run as one HTML file that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from reflexion._files import storage_errors, write_atomic
from reflexion.errors import StorageError
from reflexion.report.charts import Chart, charts_of, concurrency_chart, learning_curve
from reflexion.report.compare import summary_of
from reflexion.report.statistics import wilson
from reflexion.report.tally import Tally, detail_of, row_of
from reflexion.runs import RunFolder
from reflexion.telemetry.summary import Summary

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"


def write_report(run_dir: Path | str, *, others: Sequence[Path | str] = ()) -> Path:
    """Write `report.html` into a run's folder, from its record and its figures.

    Whatever a model wrote is shown as text: it is carried as JSON, set as text, and the page's content
    security policy lets no script run but the report's own. Memory does not grow with the number of
    episodes. A run that is still going can be reported as far as it is.

    Args:
        run_dir: the run's folder.
        others: folders of runs whose learning curves are drawn beside this one's, as in an ablation.

    Returns:
        The file's path.

    Raises:
        ConfigurationError: a folder is not a run's folder.
        StorageError: a record cannot be read, or the report not be written.
    """
    run = RunFolder.open(run_dir)
    summary = summary_of(run)
    tally = Tally()
    for episode in run.episodes():
        tally.add(episode)
    charts = [learning_curve([summary, *(summary_of(RunFolder.open(other)) for other in others)])]
    charts += charts_of(summary, tally)
    if (chart := concurrency_chart(_changes(run))) is not None:
        charts.append(chart)
    path = run.path / REPORT
    with storage_errors(path):
        write_atomic(path, (piece.encode() for piece in _page(run, summary, tally, charts)))
    return path


def _page(run: RunFolder, summary: Summary, tally: Tally, charts: Sequence[Chart]) -> Iterator[str]:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    assets = files("reflexion.report") / "assets"
    style, script, template = (
        assets.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js", "page.html")
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template)
    stream = page.stream(
        summary=summary,
        finished=run.summary() is not None,
        tiles=_tiles(summary),
        pass_at=tally.pass_at(),
        charts=[(chart, Markup(chart.svg)) for chart in charts],  # noqa: S704 - pygal escapes every text
        parameters=[(name, _shown(value)) for name, value in run.parameters.items() if value not in (None, {}, [])],
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        lines=(Markup(line) for line in _lines(run)),  # noqa: S704 - JSON without `<`, inert in a data block
    )
    stream.enable_buffering(64)
    yield from stream


def _lines(run: RunFolder) -> Iterator[str]:
    """A line for each episode: its row, a tab, and all of it. JSON has no raw tabs or line breaks."""
    for episode in run.episodes():
        line = orjson.dumps(row_of(episode)) + b"\t" + orjson.dumps(detail_of(episode))
        yield line.decode().replace("<", "\\u003c")


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
    rate = wilson(s.solved, s.episodes) if s.episodes else None
    p = s.response_time
    return [
        (
            "Pass rate",
            _percent(s.pass_rate),
            f"{s.solved} of {s.episodes}; 95 % interval {rate.low:.1%} to {rate.high:.1%}" if rate else "no episodes",
        ),
        ("Response time, p95", _seconds(p.p95), f"p50 {_seconds(p.p50)}, p99 {_seconds(p.p99)}"),
        ("LLM calls", f"{s.llm_calls:,}", f"{sum(s.retries_by_class.values()):,} requests were retried"),
        (
            "Tokens",
            f"{s.tokens.prompt + s.tokens.completion:,}",
            f"{s.tokens.saved:,} saved"
            + (f", {s.tokens_per_solved:,.0f} per solved" if s.tokens_per_solved is not None else ""),
        ),
        (
            "Cost",
            "unknown" if s.cost_usd is None else f"${s.cost_usd:,.4f}",
            "a model's price is not known" if s.cost_usd is None else "US dollars",
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


def _percent(value: float | None) -> str:
    return "no data" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return "no data" if value is None else f"{value:.3g} s"
