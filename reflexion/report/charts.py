"""The report's plots: inline SVG by pygal, each with its figures as a table.

pygal is pure Python, has no dependencies to speak of and draws SVG with the page's own colours, so one
plot serves light, dark and paper; and it needs no script and no network in the page.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reflexion.report import phrases
from reflexion.report.statistics import wilson
from reflexion.report.tally import BOUNDS, Tally
from reflexion.telemetry.agreement import Agreement, Fallible
from reflexion.telemetry.summary import Summary

__all__ = ["Chart", "bars", "charts_of", "concurrency_chart", "learning_curve", "solved_by_each", "stacked_bars"]

_COLOURS = 6
_FEW = 6
_CLASSES_SHOWN = 8

OUTCOMES = {
    "solved": "var(--plot-good)",
    "failed": "var(--plot-bad)",
    "error": "var(--plot-warn)",
    "not run": "var(--plot-none)",
}
"""Colours that mean the same in every plot."""


@dataclass(frozen=True)
class Chart:
    """A plot, and the same figures for those who do not see it."""

    id: str
    title: str
    text: str
    """One sentence that says what is seen."""
    svg: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=list[Sequence[str]])


_FALLIBLE: dict[Fallible, str] = {
    "visible_tests": "Visible tests against hidden tests",
    "generated_tests": "The model's own tests against hidden tests",
    "judge": "Judge against reference answers",
}


def _draw(
    kind: str,
    id: str,
    series: Mapping[str, Sequence[Any]],
    labels: Iterable[str] = (),
    *,
    colours: Sequence[str] = (),
    width: int = 640,
    **options: Any,
) -> str:
    pygal, Style = _pygal()
    colours = colours or tuple(f"var(--plot-{n})" for n in range(_COLOURS))
    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--text)",
        foreground_strong="var(--text)",
        foreground_subtle="var(--line)",
        guide_stroke_color="var(--line)",
        major_guide_stroke_color="var(--line)",
        guide_stroke_dasharray="0",
        major_guide_stroke_dasharray="0",
        font_family="system-ui, sans-serif",
        label_font_size=13,
        major_label_font_size=13,
        legend_font_size=13,
        value_font_size=12,
        no_data_font_size=16,
        title_font_size=13,
        opacity="1",
        stroke_opacity="1",
        stroke_width="2",
        transition="0s",
        colors=tuple(colours),
        value_colors=("var(--text)",) * max(len(colours), _COLOURS),
    )
    several = len(series) > 1
    options = {"height": 340 if several else 300} | options
    chart = getattr(pygal, kind)(
        style=style,
        js=[],
        width=width,
        show_legend=several,
        legend_at_bottom=True,
        legend_at_bottom_columns=min(len(series), 4),
        disable_xml_declaration=True,
        no_data_text="no data",
        margin=8,
        margin_bottom=30 if several and "x_title" in options else 8,
        **options,
    )
    if kind in ("Bar", "StackedBar") and (top := _highest(kind, series)) <= _FEW:
        chart.y_labels = range(top + 1)  # counts: pygal would divide one into tenths
    chart.uuid = id  # pygal would draw a new random one each time
    if labels:
        chart.x_labels = list(labels)
    for name, values in series.items():
        chart.add(name, list(values))
    chart.add_xml_filter(_without_scripts)
    return chart.render(is_unicode=True)


def _highest(kind: str, series: Mapping[str, Sequence[Any]]) -> int:
    columns = list(zip(*series.values(), strict=True))
    sums = [sum(column) if kind == "StackedBar" else max(column) for column in columns]
    return max(1, math.ceil(max(sums, default=1)))


def _pygal() -> tuple[Any, Any]:
    import pygal
    from pygal.style import Style

    # It leaves a finder for its map plugins behind, of a form that makes later imports of anything warn.
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]
    return pygal, Style


def _without_scripts(root: Any) -> Any:
    """pygal's tooltips want a script, which the page does not allow: the table beside it has the figures."""
    for parent in root.iter():
        for child in [c for c in parent if c.tag in ("script", "desc")]:
            parent.remove(child)
    return root


def learning_curve(summaries: Sequence[Summary]) -> Chart:
    """Episodes solved by trial, one curve for each run (Shinn et al. 2023, figure 3 and following)."""
    trials = max((s.max_trials for s in summaries), default=1)
    names = _names(summaries)
    curves = {name: _curve(s, len(summaries) == 1) for name, s in zip(names, summaries, strict=True)}
    labels = [str(n) for n in range(1, trials + 1)]
    svg = _draw(
        "Line",
        "learning-curve",
        curves,
        labels,
        range=(0, 100),
        y_labels=[0, 20, 40, 60, 80, 100],
        x_title="trial",
        dots_size=4,
        value_formatter="{:.0f} %".format,
        width=1100,
        height=340 if len(curves) == 1 else 370,
    )
    rows = [
        [name, *(_share(n, s) for n in solved_by_each(s, trials)), phrases.handed_in(s.handed_in)]
        for name, s in zip(names, summaries, strict=True)
    ]
    first, last = (summaries[0].solved_by_trial[0], summaries[0].solved_by_trial[-1])
    text = f"Trial 1 solved {first} of {summaries[0].episodes} episodes, all trials together {last}."
    header = ["run", *(f"trial {n}" for n in labels), "handed-in pass rate"]
    return Chart("learning-curve", "Learning curve", text, svg, header, rows)


def solved_by_each(s: Summary, trials: int) -> list[int]:
    """Solved by each trial, as many as the longest run has."""
    return [*s.solved_by_trial, *[s.solved] * (trials - len(s.solved_by_trial))]


def _share(number: int, s: Summary) -> str:
    return f"{number} ({100 * number / s.episodes:.1f} %)" if s.episodes else "no data"


def _curve(s: Summary, intervals: bool) -> list[Any]:
    """Percent solved by each trial; with Wilson's interval unless repeats make episodes depend on each other."""
    if not s.episodes:
        return []
    if not intervals or s.pass_at_k:
        return [100 * n / s.episodes for n in s.solved_by_trial]
    points: list[Any] = []
    for n in s.solved_by_trial:
        share = wilson(n, s.episodes)
        points.append({"value": 100 * share.value, "ci": {"low": 100 * share.low, "high": 100 * share.high}})
    return points


def _names(summaries: Sequence[Summary]) -> list[str]:
    """What tells the runs apart: the strategy where that does, else the run's name."""
    strategies = [s.strategy for s in summaries]
    return strategies if len(set(strategies)) == len(strategies) > 1 else [s.run for s in summaries]


def charts_of(summary: Summary, tally: Tally) -> list[Chart]:
    """Outcomes, failures, response times, tokens, money and cache hits, where there are any."""
    charts = [_outcomes(summary)]
    if tally.failures:
        charts.append(_failures(tally.failures))
    if any(tally.times):
        charts.append(_response_times(summary, tally.times))
    if summary.usage:
        charts.append(_tokens(summary))
    if summary.cost_usd or summary.cost_at_least_usd:
        charts.append(_money(summary))
    if summary.steps:
        charts.append(_cache(summary))
    for name, title in _FALLIBLE.items():
        if (agreement := tally.agreements.get(name)) is not None:
            charts.append(_agreement(name.replace("_", "-"), title, agreement))
    return charts


def bars(
    id: str,
    title: str,
    text: str,
    counts: Mapping[str, float],
    *,
    what: str = "kind",
    form: str = "{:,.0f}",
    colours: Mapping[str, str] | None = None,
) -> Chart:
    """A horizontal bar for each count, in their order from the top; `what` names what they are of."""
    plain = "var(--plot-0)"
    # Horizontal bars are drawn from the bottom up; the largest belongs on top.
    names = list(counts)
    svg = _draw(
        "HorizontalBar",
        id,
        {"": [{"value": counts[n], "color": (colours or {}).get(n, plain)} for n in reversed(names)]},
        list(reversed(names)),
        print_values=True,
        print_values_position="top",
        range=(0, 1.15 * max(counts.values(), default=1) or 1),  # room for the longest bar's value
        height=60 + 44 * max(len(names), 2),
        value_formatter=form.format,
        show_x_labels=False,
        show_y_guides=False,
        truncate_label=30,
    )
    rows = [[name, form.format(number)] for name, number in counts.items()]
    return Chart(id, title, text, svg, [what, "number"], rows)


def stacked_bars(
    id: str,
    title: str,
    text: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    what: str = "kind",
    colours: Sequence[str] = (),
) -> Chart:
    """A bar for each name, made of the parts of each series; `what` says what the names are of."""
    form = "{:,.0f}".format
    svg = _draw("StackedBar", id, series, names, value_formatter=form, truncate_label=30, colours=colours)
    rows = [[name, *(f"{values[n]:,.0f}" for values in series.values())] for n, name in enumerate(names)]
    return Chart(id, title, text, svg, [what, *series], rows)


def _outcomes(s: Summary) -> Chart:
    counts = {"solved": s.solved, "failed": s.failed, "error": s.errors, "not run": s.not_run}
    text = f"{s.solved} of {s.episodes} episodes were solved."
    return bars("outcomes", "Outcomes", text, counts, what="outcome", colours=OUTCOMES)


def _failures(failures: Mapping[str, int]) -> Chart:
    ranked = sorted(failures.items(), key=lambda item: (-item[1], item[0]))
    shown = dict(ranked[:_CLASSES_SHOWN])
    if rest := sum(number for _, number in ranked[_CLASSES_SHOWN:]):
        shown["others"] = rest
    text = f"The most frequent reason was {ranked[0][0]}, in {ranked[0][1]} of {sum(failures.values())} episodes."
    return bars("failures", "Why episodes were not solved", text, shown, what="reason")


def _response_times(s: Summary, times: Sequence[int]) -> Chart:
    used = [n for n, count in enumerate(times) if count]
    span = range(used[0], used[-1] + 1)
    labels = [f"≤ {BOUNDS[n]:g} s" if n < len(BOUNDS) else f"> {BOUNDS[-1]:g} s" for n in span]
    values = [times[n] for n in span]
    svg = _draw(
        "Bar",
        "response-times",
        {"": values},
        labels,
        print_values=True,
        print_values_position="top",
        value_formatter="{:,.0f}".format,
    )
    p = s.response_time
    text = "Executed steps that asked a model; cached ones are not among them."
    if p.p50 is not None:
        text += f" p50 {p.p50:.3g} s, p95 {p.p95:.3g} s, p99 {p.p99:.3g} s."
    rows = [[label, f"{value:,}"] for label, value in zip(labels, values, strict=True)]
    return Chart("response-times", "Response times", text, svg, ["response time", "steps"], rows)


def _tokens(s: Summary) -> Chart:
    names = [f"{u.role}: {u.model}" for u in s.usage]
    series = {"prompt": [u.usage.prompt for u in s.usage], "completion": [u.usage.completion for u in s.usage]}
    svg = _draw("StackedBar", "tokens", series, names, value_formatter="{:,.0f}".format, truncate_label=30)
    text = f"{s.tokens.prompt + s.tokens.completion:,} tokens were spent, {s.tokens.saved:,} saved by the cache."
    rows = [
        [name, f"{u.usage.prompt:,}", f"{u.usage.completion:,}", f"{u.usage.calls:,}"]
        for name, u in zip(names, s.usage, strict=True)
    ]
    return Chart(
        "tokens", "Tokens by role and model", text, svg, ["role and model", "prompt", "completion", "calls"], rows
    )


def _money(s: Summary) -> Chart:
    known = {f"{u.role}: {u.model}": u.usage.at_least_usd for u in s.usage}
    costs = {name: cost for name, cost in known.items() if cost is not None}
    saved = phrases.amount(s.cost_saved_usd, s.cost_saved_at_least_usd)
    text = f"Spent: {phrases.cost(s)}. Saved by the cache: {saved}."
    return bars("money", "US dollars by role and model", text, costs, what="role and model", form="{:.3g}")


def _cache(s: Summary) -> Chart:
    names = list(s.steps)
    series = {"cached": [s.steps[n].cached for n in names], "executed": [s.steps[n].executed for n in names]}
    svg = _draw("StackedBar", "cache", series, names, value_formatter="{:,.0f}".format)
    text = f"The cache answered {s.cached_steps:,} of {s.cached_steps + s.executed_steps:,} cacheable steps."
    rows = [[n, f"{s.steps[n].cached:,}", f"{s.steps[n].executed:,}", _percent(s.steps[n].hit_rate)] for n in names]
    return Chart("cache", "Cache hits by step", text, svg, ["step", "cached", "executed", "hit rate"], rows)


def _agreement(id: str, title: str, found: Agreement) -> Chart:
    counts = {
        "passed, rightly": found.counts[True, True],
        "passed, wrongly": found.counts[True, False],
        "rejected, rightly": found.counts[False, False],
        "rejected, wrongly": found.counts[False, True],
    }
    text = f"They are {phrases.agreement(found.rates)}. {phrases.AGREEMENT}"
    right, wrong = OUTCOMES["solved"], OUTCOMES["failed"]
    colours = dict(zip(counts, (right, wrong, right, wrong), strict=True))
    return bars(id, title, text, counts, what="verdict", colours=colours)


def concurrency_chart(changes: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The adaptive number of requests at a time, from `concurrency.json`; None without changes."""
    known = [c for c in changes if {"time", "old", "new"} <= c.keys()]
    if not known:
        return None
    start = min(float(c["time"]) for c in known)
    series: dict[str, list[tuple[float, int]]] = {}
    for change in sorted(known, key=lambda c: float(c["time"])):
        points = series.setdefault(str(change.get("endpoint") or "endpoint"), [])
        at = float(change["time"]) - start
        points += [(at, int(change["old"])), (at, int(change["new"]))]
    svg = _draw(
        "XY",
        "concurrency",
        series,
        show_dots=False,
        x_title="seconds since the first change",
        min_scale=2,
        x_value_formatter="{:.0f}".format,
        value_formatter="{:.0f}".format,
    )
    rows = [[f"{float(c['time']) - start:.1f}", str(c["old"]), str(c["new"]), str(c.get("why", ""))] for c in known]
    text = f"The limit changed {len(known)} times, from {known[0]['old']} to {known[-1]['new']} requests."
    header = ["seconds", "from", "to", "why"]
    return Chart("concurrency", "Requests at a time", text, svg, header, rows)


def _percent(value: float | None) -> str:
    return "no data" if value is None else f"{value:.1%}"
