"""Performance reports from Prefect's records alone.

Whoever can reach the Prefect server can ask, about runs of any machine: nothing is read but flow runs and
task runs. The report is the one `PerformanceMonitor` gives, counted by the same code, plus what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound, PrefectException
from pydantic import Field

from reflexion.errors import ConfigurationError, RunFailedError
from reflexion.tasks.draining import FINAL_STATES, wait_until_recorded
from reflexion.tasks.step_records import FlowNote, StepRecord, read_task_run, step_of
from reflexion.telemetry.collector import Collector
from reflexion.telemetry.deciders import Stopper
from reflexion.telemetry.performance import Memory, PerformanceReport
from reflexion.telemetry.targets import Targets
from reflexion.types import Frozen, Outcome

__all__ = ["RunReport", "Scope", "report_from_records"]

PAGE = 200
"""Records in one page: what Prefect's API gives at most."""

WAIT_SECONDS = 30.0
"""Seconds without a further record after which waiting for the server ends."""

SETTLED_AFTER = timedelta(minutes=10)
"""A flow run that ended longer ago is taken to be recorded: nobody waits for it."""

_UNFINISHED = [s.value for s in StateType if s.value not in FINAL_STATES]
_CLOCKS = 60.0
"""Seconds by which a step may lie outside its flow run before the clocks are said to disagree."""

_FATAL = frozenset({"AuthenticationError", "ModelNotFoundError", "ConfigurationError", "BudgetExceededError"})


class Scope(Frozen):
    """Which runs a report is of: a flow run, a deployment, a time, or a deployment within a time."""

    flow_run: UUID | None = None
    deployment: str | None = Field(default=None, description="NAME or FLOW/NAME.")
    since: float | None = Field(default=None, description="Unix time in seconds; steps that ended later.")

    def __str__(self) -> str:
        parts: list[str] = []
        if self.flow_run is not None:
            parts.append(f"flow run {self.flow_run}")
        if self.deployment is not None:
            parts.append(f"deployment {self.deployment}")
        if self.since is not None:
            parts.append(f"since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M:%S} UTC")
        return ", ".join(parts) or "all runs"


class RunReport(PerformanceReport):
    """A performance report from Prefect's records, and how complete they are."""

    scope: str
    flow_runs: int = Field(description="Flow runs the steps belong to.")
    running: int = Field(description="Of them, those that have not ended.")
    task_runs: int = Field(description="Task runs that were read.")
    missing: int = Field(description="Task runs that were made and are not recorded.")
    granularity: tuple[int, ...] = Field(description="Steps that shared a task run at most, as the runs tell.")
    notes: tuple[str, ...] = Field(description="What is missing or doubtful, in words.")

    def __await__(self) -> Iterator[None]:
        """A report can be awaited, which gives itself: see `reflexion.flows.runnable`."""
        yield from ()
        return self

    def to_markdown(self) -> str:
        """The report as Markdown, with what it was drawn from."""
        shared = ", ".join(str(n) for n in self.granularity) or "unknown"
        lines = [f"# {self.scope}", "", super().to_markdown(), "## Records", ""]
        lines.append(
            f"{self.task_runs} task runs of {self.flow_runs} flow runs ({self.running} still running); "
            f"steps per task run: {shared}; missing: {self.missing}."
        )
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"


@dataclass
class _FlowRun:
    """What a flow run's record tells."""

    id: UUID
    state: str
    begun: float | None
    ended: float | None
    max_trials: int | None
    note: FlowNote | None
    task_runs: int = 0
    episodes: dict[str, _Episode] = field(default_factory=dict[str, "_Episode"])

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(slots=True)
class _Episode:
    """How far the steps on record took an episode."""

    rank: tuple[int, int] = (0, 0)
    """Trial and position of its last step."""
    passed: bool | None = None
    stopper: Stopper | None = None
    error: str | None = None
    at: float = 0.0


_ORDER = {"trial": 0, "evaluate": 1, "reflect": 2, "memorize": 3}


async def report_from_records(
    scope: Scope, *, targets: Targets | None = None, wait: float = WAIT_SECONDS, window: int = 60
) -> RunReport:
    """The performance report of the runs in scope.

    Waits until the server has recorded all that was run, and says in the report what is missing.

    Args:
        wait: seconds without progress after which waiting for records ends; 0: no waiting.
        window: seconds of the sliding throughput.

    Raises:
        ConfigurationError: there is no such flow run or deployment.
        RunFailedError: the server cannot be reached, or refuses.
    """
    async with _server() as client:
        return await _Reader(client, scope, Collector(window), wait).report(targets or Targets())


@asynccontextmanager
async def _server() -> AsyncGenerator[PrefectClient]:
    """A client whose failures are one clear message."""
    where = "the Prefect server"
    try:
        async with get_client() as client:
            where = f"the Prefect server at {client.api_url}"
            yield client
    except httpx.TimeoutException:
        raise RunFailedError(f"{where} gave no answer in time; is it busy?") from None
    except httpx.HTTPStatusError as exc:
        raise RunFailedError(f"{where} refused {exc.request.url.path}: {exc.response.status_code}") from None
    except httpx.HTTPError as exc:
        raise RunFailedError(
            f"{where} cannot be reached ({type(exc).__name__}): start one with `reflexion server`, "
            "or set PREFECT_API_URL to one that runs"
        ) from None
    except PrefectException as exc:
        raise RunFailedError(f"{where} failed: {exc}") from None


class _Reader:
    """Reads what is in scope, page by page, and counts it."""

    def __init__(self, client: PrefectClient, scope: Scope, collector: Collector, wait: float) -> None:
        self._client, self._scope, self._collector, self._wait = client, scope, collector, wait
        self._runs: dict[UUID, _FlowRun] = {}
        self._peak: float | None = None
        self._read = self._backwards = self._bare = 0
        self._notes: list[str] = []

    async def report(self, targets: Targets) -> RunReport:
        chosen = await self._choose()
        if chosen is None:
            await self._read_task_runs(None)
        else:
            for begin in range(0, len(chosen), PAGE):
                part = chosen[begin : begin + PAGE]
                if self._wait > 0:
                    for run in part:
                        await self._wait_for(run)
                await self._read_task_runs([run.id for run in part])
        missing = self._missing()
        saved = self._count_episodes()
        await self._note_unfinished()
        runs = [run for run in self._runs.values() if chosen is not None or run.task_runs]
        running = sum(not run.final for run in runs)
        told = [run.note.peak_rss_mb for run in runs if run.note is not None]
        peaks = [peak for peak in (self._peak, *told) if peak is not None]
        peak = max(peaks) if peaks else None
        base = self._collector.report(targets, memory=Memory(peak_rss_mb=peak), now=time.time() if running else None)
        self._remark(runs, running, missing)
        values = {name: getattr(base, name) for name in PerformanceReport.model_fields}
        values["steps"] = {name: base.steps[name] for name in _ORDER if name in base.steps}
        if saved is not None:
            values["tokens"] = base.tokens.model_copy(update={"saved": saved})
        return RunReport(
            **values,
            scope=str(self._scope),
            flow_runs=len(runs),
            running=running,
            task_runs=self._read,
            missing=missing,
            granularity=tuple(sorted({run.note.granularity for run in runs if run.note is not None})),
            notes=tuple(self._notes),
        )

    # -- which flow runs ------------------------------------------------------------------------------

    async def _choose(self) -> list[_FlowRun] | None:
        """The flow runs the scope names; None: whichever have steps in its time."""
        scope = self._scope
        if scope.flow_run is not None:
            try:
                await self._client.read_flow_run(scope.flow_run)
            except ObjectNotFound:
                raise ConfigurationError(
                    f"there is no flow run {scope.flow_run} on {self._client.api_url}: it was deleted, "
                    "or belongs to another server (PREFECT_API_URL)"
                ) from None
            return await self._read_flow_runs({"flow_runs": {"id": {"any_": [str(scope.flow_run)]}}})
        if scope.deployment is None:
            return None
        flow, _, name = scope.deployment.rpartition("/")
        where: dict[str, Any] = {"deployments": {"name": {"any_": [name]}}}
        if flow:
            where["flows"] = {"name": {"any_": [flow]}}
        if not await self._post("/deployments/filter", where | {"limit": 1}):
            known = [d["name"] for d in await self._post("/deployments/filter", {"limit": 10})]
            raise ConfigurationError(
                f"there is no deployment {scope.deployment!r} on {self._client.api_url}; "
                + (f"it has {', '.join(known)}" if known else "it has none")
            )
        return await self._read_flow_runs(where)

    async def _read_flow_runs(self, where: Mapping[str, Any]) -> list[_FlowRun]:
        found: list[_FlowRun] = []
        since = self._scope.since
        offset = 0
        while True:
            page = await self._post(
                "/flow_runs/filter", {**where, "sort": "START_TIME_DESC", "limit": PAGE, "offset": offset}
            )
            for row in page:
                run = _flow_run(row)
                if since is None or run.ended is None or run.ended >= since:
                    found.append(self._runs.setdefault(run.id, run))
            offset += PAGE
            if len(page) < PAGE:
                return found

    async def _wait_for(self, run: _FlowRun) -> None:
        recent = run.ended is not None and time.time() - run.ended < SETTLED_AFTER.total_seconds()
        if run.final and recent and run.note is not None:
            await wait_until_recorded(run.id, run.note.task_runs, stalled=self._wait)

    # -- task runs ------------------------------------------------------------------------------------

    async def _read_task_runs(self, flow_runs: Sequence[UUID] | None) -> None:
        where: dict[str, Any] = {}
        if flow_runs is not None:
            where["flow_runs"] = {"id": {"any_": [str(i) for i in flow_runs]}}
        async for page in self._pages(where):
            unknown = {UUID(r["flow_run_id"]) for r in page if r["flow_run_id"]} - self._runs.keys()
            if unknown:
                await self._read_named(unknown)
            for row in page:
                self._count(row)

    async def _read_named(self, ids: set[UUID]) -> None:
        wanted = [str(i) for i in ids]
        for row in await self._post("/flow_runs/filter", {"flow_runs": {"id": {"any_": wanted}}, "limit": PAGE}):
            run = _flow_run(row)
            self._runs[run.id] = run
            if self._wait > 0:
                await self._wait_for(run)

    async def _pages(self, where: Mapping[str, Any]) -> AsyncGenerator[list[dict[str, Any]]]:
        """Ended task runs, newest first. Each page begins where the last one ended in time, not by number:
        an offset would make the server sort all it skips, again for each page."""
        before: str | None = None
        offset, seen = 0, set[str]()
        while True:
            times: dict[str, str] = {}
            if before is not None:
                times["before_"] = before
            if self._scope.since is not None:
                times["after_"] = datetime.fromtimestamp(self._scope.since, UTC).isoformat()
            ended: dict[str, Any] = {"state": {"type": {"any_": FINAL_STATES}}}
            if times:
                ended["end_time"] = times
            page = await self._page(
                {**where, "task_runs": ended, "sort": "END_TIME_DESC", "limit": PAGE, "offset": offset}
            )
            yield [row for row in page if row["id"] not in seen]
            if len(page) < PAGE:
                return
            last: str | None = page[-1]["end_time"]
            if last is None or last == before:
                offset += PAGE
                seen.update(row["id"] for row in page)
            else:
                before, offset = last, 0
                seen = {row["id"] for row in page if row["end_time"] == last}

    async def _page(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A page of task runs with their states, which the server commits a moment after the rows that name them."""
        deadline = time.monotonic() + self._wait
        while True:
            page: list[dict[str, Any]] = await self._post("/task_runs/filter", wanted)
            if all(row["state"] is not None for row in page):
                return page
            if time.monotonic() >= deadline:
                self._wait = 0.0  # it will not come for the pages that follow either
                return page
            await asyncio.sleep(0.1)

    def _count(self, row: Mapping[str, Any]) -> None:
        run = self._runs.get(UUID(row["flow_run_id"])) if row["flow_run_id"] else None
        if run is not None:
            run.task_runs += 1
        if step_of(row["name"]) is None:
            return
        self._read += 1
        records, rss = read_task_run(row)
        if rss is not None:
            self._peak = rss if self._peak is None else max(self._peak, rss)
        for record in records:
            self._count_step(record, run)

    def _count_step(self, record: StepRecord, run: _FlowRun | None) -> None:
        step = step_of(record.name)
        assert step is not None
        at = record.start + record.waited
        self._backwards += record.waited < 0
        self._bare += not record.complete
        if record.error is not None:
            self._collector.error(step, record.error, at=at)
        else:
            self._collector.step(step, record.output, waited=max(record.waited, 0.0), at=at)
        if run is None:
            return
        name, _, index = record.name.partition(":")[2].rpartition("#")
        episode = run.episodes.setdefault(name, _Episode())
        rank = (int(index) if index.isdecimal() else 0, _ORDER[step])
        if rank >= episode.rank:
            episode.rank, episode.at, episode.error = rank, at, record.error
            passed = getattr(record.output, "passed", None)
            episode.passed = passed if step == "evaluate" and record.complete else None
            episode.stopper = record.stopper

    # -- what it adds up to ---------------------------------------------------------------------------

    def _missing(self) -> int:
        """Task runs that were made and are not on record, of the flow runs that tell how many they made."""
        since = self._scope.since
        whole = [
            run
            for run in self._runs.values()
            if run.note is not None and (since is None or (run.begun is not None and run.begun >= since))
        ]
        return sum(max(0, run.note.task_runs - run.task_runs) for run in whole if run.note is not None)

    def _count_episodes(self) -> int | None:
        """Count finished episodes; the tokens the cache saved, where every flow run tells them itself."""
        saved: int | None = 0
        for run in self._runs.values():
            ended: list[tuple[Outcome, float, Stopper | None]] = []
            unsure: list[float] = []
            for episode in run.episodes.values():
                outcome = _outcome(episode, run)
                if outcome is not None:
                    ended.append((outcome, episode.at, episode.stopper))
                elif _is_unsure(episode, run):
                    unsure.append(episode.at)
            # A verdict from the cache tells Prefect nothing of itself; the flow run's note settles it.
            told = Counter(run.note.outcomes) if run.note is not None else Counter[str]()
            rest = list((told - Counter(outcome.value for outcome, *_ in ended)).elements())
            ended += [(Outcome(value), at, None) for value, at in zip(rest, unsure, strict=False)]
            if len(unsure) > len(rest):
                self._notes.append(f"{len(unsure) - len(rest)} episodes ended in a way the records do not tell")
            for outcome, at, stopper in ended:
                judged = outcome in (Outcome.SOLVED, Outcome.FAILED)
                self._collector.episode(outcome, at=at, stopped=(stopper or "not_on_record") if judged else None)
            whole = run.note is not None and (self._scope.since is None or (run.begun or 0) >= self._scope.since)
            if run.task_runs and (saved is None or not whole):
                saved = None
            elif run.note is not None and saved is not None:
                saved += run.note.saved
        return saved

    async def _note_unfinished(self) -> None:
        """Say how many task runs never came to an end although their flow runs did."""
        ended = [str(run.id) for run in self._runs.values() if run.final]
        left = 0
        for begin in range(0, len(ended), PAGE):
            left += await self._post(
                "/task_runs/count",
                {
                    "flow_runs": {"id": {"any_": ended[begin : begin + PAGE]}},
                    "task_runs": {"state": {"type": {"any_": _UNFINISHED}}},
                },
            )
        if left:
            self._notes.append(f"{left} task runs never ended although their flow runs did; they are not counted")

    def _remark(self, runs: Sequence[_FlowRun], running: int, missing: int) -> None:
        if not self._read:
            self._notes.append("no steps are on record: nothing was run, or it was deleted")
        if running:
            self._notes.append(f"{running} flow runs have not ended: these are the figures so far")
        if missing:
            self._notes.append(f"{missing} task runs were made and are not recorded: the figures are too low")
        silent = sum(run.final and run.note is None and run.task_runs > 0 for run in runs)
        if silent:
            self._notes.append(
                f"{silent} flow runs do not tell how many task runs they made (stopped, failed or not a batch): "
                "whether records are missing is not known"
            )
        if self._bare:
            self._notes.append(
                f"{self._bare} steps are known by Prefect's own fields only (cached, failed, or not written by "
                "these steps): what they cost or saved is not in them"
            )
        if self._backwards or any(_clocks_differ(run) for run in runs):
            self._notes.append(
                f"clocks disagree: {self._backwards} steps ended before they began, or lie outside their flow "
                "runs; response times are the steps' own, but elapsed time and throughput are doubtful"
            )

    async def _post(self, route: str, body: Mapping[str, Any]) -> Any:
        # The client's methods build a model of every record, which costs more than all the rest; its own
        # transport carries authentication and retries.
        response = await self._client._client.post(route, json=body)  # pyright: ignore[reportPrivateUsage]
        response.raise_for_status()
        return response.json()


def _flow_run(row: Mapping[str, Any]) -> _FlowRun:
    state = cast("dict[str, Any]", row.get("state") or {})
    parameters = cast("dict[str, Any]", row.get("parameters") or {})
    given = parameters.get("parameters")
    trials = cast("dict[str, Any]", given).get("max_trials") if isinstance(given, dict) else None
    return _FlowRun(
        id=UUID(row["id"]),
        state=str(state.get("type") or "UNKNOWN"),
        begun=_seconds(row.get("start_time")),
        ended=_seconds(row.get("end_time")),
        max_trials=trials if isinstance(trials, int) else None,
        note=FlowNote.from_message(state.get("message")),
    )


def _outcome(episode: _Episode, run: _FlowRun) -> Outcome | None:
    """How an episode ended by its last step on record; None: it has not, or its record does not tell."""
    if episode.error is not None:
        return None if episode.error in _FATAL else Outcome.ERROR
    trial, position = episode.rank
    if position != _ORDER["evaluate"]:
        return None
    last = trial >= run.max_trials if run.max_trials is not None else run.final
    if episode.passed is None:
        # No trial follows although one could: then this one passed.
        return Outcome.SOLVED if run.state == "COMPLETED" and run.max_trials is not None and not last else None
    return Outcome.SOLVED if episode.passed else Outcome.FAILED if last else None


def _is_unsure(episode: _Episode, run: _FlowRun) -> bool:
    return episode.error is None and episode.rank[1] == _ORDER["evaluate"] and episode.passed is None and run.final


def _clocks_differ(run: _FlowRun) -> bool:
    if run.begun is None or run.ended is None:
        return False
    return run.ended < run.begun or any(
        e.at > run.ended + _CLOCKS or e.at < run.begun - _CLOCKS for e in run.episodes.values()
    )


def _seconds(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
