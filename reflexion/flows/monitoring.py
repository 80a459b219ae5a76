"""`monitoring`: a flow to schedule, which holds what was run against the targets and keeps the history."""

from __future__ import annotations

import json
import time
from typing import Any

import prefect.runtime.flow_run
from prefect import get_client
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.events import emit_event
from pydantic import Field

from reflexion.cache.ttl import parse_duration
from reflexion.flows.artifacts import best_effort, sparkline
from reflexion.flows.runnable import runnable_flow
from reflexion.tasks.performance_records import RunReport, Scope, report_from_records
from reflexion.telemetry.targets import TargetResult, Targets, TargetStatus
from reflexion.types import Frozen

__all__ = [
    "TARGET_MISSED",
    "MonitoringParameters",
    "RunReport",
    "Scope",
    "monitoring",
    "report_from_records",
    "scope_of",
]

TARGET_MISSED = "reflexion.target.missed"
"""Event for each missed target: an automation can act on it."""

HISTORY = 40
"""Reports a trend shows."""

FIGURES_KEY, REPORT_KEY = "reflexion-figures", "reflexion-performance"

_TREND = {
    "response time p95, s": "response_time_p95",
    "requests per minute": "requests_per_minute",
    "error rate": "error_rate",
    "cache hit rate": "cache_hit_rate",
    "peak memory, MB": "peak_rss_mb",
}


class MonitoringParameters(Frozen):
    """What is watched, and what it is held against."""

    since: str | None = Field(
        default="1h", title="Time", description="How far back to look: 30m, 1h, 7d. Empty: everything."
    )
    deployment: str | None = Field(default=None, title="Deployment", description="NAME or FLOW/NAME; empty: all.")
    flow_run: str | None = Field(default=None, title="Flow run", description="Id; empty: all.")
    error_rate: float | None = Field(
        default=0.05,
        ge=0,
        lt=1,
        title="Error rate at most",
        description="Share of steps that failed; more is reported like a missed target. Empty: not looked at.",
        examples=[0.05],
    )
    targets: Targets = Field(default_factory=Targets, title="Targets")


def scope_of(*, flow_run: str | None = None, deployment: str | None = None, since: str | None = None) -> Scope:
    """A scope from texts.

    Raises:
        ConfigurationError: the id or the duration cannot be read.
    """
    from uuid import UUID

    from reflexion.errors import ConfigurationError

    try:
        run = UUID(flow_run) if flow_run else None
    except ValueError:
        raise ConfigurationError(
            f"{flow_run!r} is not a flow run's id, which looks like 0b7a2f7e-6a4e-4f0e-9f0e-2f6d3c1b9a55"
        ) from None
    begin = time.time() - parse_duration(since, "since") if since else None
    return Scope(flow_run=run, deployment=deployment or None, since=begin)


def run_name() -> str:
    """What is looked at, and how far back."""
    given = prefect.runtime.flow_run.parameters.get("parameters")
    p = given if isinstance(given, MonitoringParameters) else MonitoringParameters.model_validate(given or {})
    return f"{p.flow_run or p.deployment or 'all runs'} · {f'last {p.since}' if p.since else 'everything'}"


@runnable_flow(
    name="monitoring",
    flow_run_name=run_name,
    description="Hold what was run against the performance targets, from Prefect's records alone.",
    persist_result=False,
    validate_parameters=True,
)
async def monitoring(parameters: MonitoringParameters | None = None) -> RunReport:
    """Report on what was run; a missed target is an event, not a failure.

    Raises:
        ConfigurationError: there is no such flow run or deployment.
        RunFailedError: the server cannot be reached.
    """
    parameters = parameters or MonitoringParameters()
    scope = scope_of(flow_run=parameters.flow_run, deployment=parameters.deployment, since=parameters.since)
    report = await report_from_records(scope, targets=parameters.targets)
    missed = [*report.missed, *_too_many_errors(report, parameters.error_rate)]
    history = [*await _history(parameters), _figures(report, parameters, missed)]
    await best_effort(
        lambda: acreate_table_artifact(history[-HISTORY:], key=FIGURES_KEY, description=f"Performance: {report.scope}")
    )
    await best_effort(lambda: acreate_markdown_artifact(_page(report, history[-HISTORY:], missed), key=REPORT_KEY))
    for target in missed:
        _emit(target, report)
    return report


def _too_many_errors(report: RunReport, limit: float | None) -> list[TargetResult]:
    """The error rate as a missed target, if it is above its limit."""
    rate = report.error_rate
    if limit is None or rate is None or rate <= limit:
        return []
    return [
        TargetResult(
            name="error_rate",
            unit="of steps",
            target=limit,
            higher_is_better=False,
            value=rate,
            status=TargetStatus.MISSED,
            margin=limit - rate,
        )
    ]


def _watched(parameters: MonitoringParameters) -> str:
    """What tells the histories of several schedules apart."""
    return " ".join(part for part in (parameters.deployment, parameters.flow_run, parameters.since) if part) or "all"


def _figures(report: RunReport, parameters: MonitoringParameters, missed: list[TargetResult]) -> dict[str, Any]:
    return {
        "at": round(time.time()),
        "watched": _watched(parameters),
        "response_time_p95": report.response_time.p95,
        "requests_per_minute": report.throughput.requests_per_minute,
        "error_rate": report.error_rate,
        "cache_hit_rate": report.cache_hit_rate,
        "peak_rss_mb": report.memory.peak_rss_mb,
        "requests": report.requests,
        "episodes": report.episodes,
        "missed": ", ".join(target.name for target in missed),
    }


async def _history(parameters: MonitoringParameters) -> list[dict[str, Any]]:
    """Earlier figures of the same watch, oldest first: each table carries those before it."""

    async def newest() -> list[dict[str, Any]]:
        async with get_client() as client:
            # The client's own method sends filters that are not given as null, which its server refuses.
            response = await client._client.post(  # pyright: ignore[reportPrivateUsage]
                "/artifacts/filter",
                json={"artifacts": {"key": {"any_": [FIGURES_KEY]}}, "sort": "UPDATED_DESC", "limit": 20},
            )
        response.raise_for_status()
        for artifact in response.json():
            rows = _rows(artifact["data"])
            if rows and rows[-1].get("watched") == _watched(parameters):
                return rows
        return []

    return await best_effort(newest) or []


def _rows(data: Any) -> list[dict[str, Any]]:
    try:
        value = json.loads(data) if isinstance(data, str) else data
    except json.JSONDecodeError:
        return []
    return value if isinstance(value, list) else []


def _page(report: RunReport, history: list[dict[str, Any]], missed: list[TargetResult]) -> str:
    verdict = (
        "**Missed:** " + "; ".join(f"{t.name} ({t.sentence})" for t in missed) if missed else "No target is missed."
    )
    lines = [verdict, "", report.to_markdown(), "## Trend", "", "| figure | oldest to newest | now |", "|---|---|---|"]
    for title, name in _TREND.items():
        values = [row.get(name) for row in history]
        now = "no data" if values[-1] is None else f"{values[-1]:.4g}"
        lines.append(f"| {title} | {sparkline(values)} | {now} |")
    return "\n".join(lines) + "\n"


def _emit(target: TargetResult, report: RunReport) -> None:
    emit_event(
        event=TARGET_MISSED,
        resource={
            "prefect.resource.id": f"reflexion.target.{target.name}",
            "prefect.resource.name": target.name,
        },
        payload={"scope": report.scope, "text": target.sentence, **target.model_dump(mode="json")},
    )
