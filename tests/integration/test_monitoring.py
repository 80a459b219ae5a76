"""Figures from Prefect's records alone, against a real server: they agree with a monitor inside the run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow, get_client
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from reflexion.errors import ConfigurationError, RunFailedError
from reflexion.flows.batch import OBSERVERS, batch_evaluation
from reflexion.flows.monitoring import (
    TARGET_MISSED,
    MonitoringParameters,
    Scope,
    monitoring,
    report_from_records,
    scope_of,
)
from reflexion.run.parameters import BatchParameters
from reflexion.tasks import performance_records
from reflexion.tasks.step_records import FlowNote
from reflexion.telemetry import PerformanceMonitor, PerformanceReport, Targets, TargetStatus
from reflexion.testing import ScriptedEndpoint
from tests.support.evals import cli, start_cli, write_problems
from tests.support.prefect_server import PrefectServer
from tests.support.records import flow_run_of, task_runs
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

STEPS = 6
"""Steps of a two-trial episode."""


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint(latency=0.05) as scripted:
        yield scripted


async def watched(parameters: BatchParameters) -> tuple[PerformanceReport, uuid.UUID]:
    """Run a batch with a monitor inside; its report and the flow run's id."""
    with PerformanceMonitor() as monitor:
        token = OBSERVERS.set((monitor,))
        try:
            state: Any = await batch_evaluation.arun(parameters, return_state=True)  # type: ignore[call-arg]
        finally:
            OBSERVERS.reset(token)
        return monitor.report(), state.state_details.flow_run_id


def assert_agree(records: PerformanceReport, inside: PerformanceReport) -> None:
    """Counts are equal, and the response times within five percent."""
    for name in ("requests", "responses", "episodes", "outcomes", "stopped_by", "llm_calls", "tokens", "cost_usd"):
        assert getattr(records, name) == getattr(inside, name), name
    for name in ("errors_by_class", "retries_by_class", "error_rate", "cache_hit_rate"):
        assert getattr(records, name) == getattr(inside, name), name
    assert dict(records.steps) == dict(inside.steps)
    for percentile in ("p50", "p95", "max"):
        ours, theirs = getattr(records.response_time, percentile), getattr(inside.response_time, percentile)
        assert (ours is None) == (theirs is None)
        assert ours is None or ours == pytest.approx(theirs, rel=0.05), percentile


def artifacts_of(flow_run: uuid.UUID) -> dict[str, str]:
    """The artifacts of a flow run, by key."""
    body = {"artifacts": {"flow_run_id": {"any_": [str(flow_run)]}}}
    found = httpx.post(f"{os.environ['PREFECT_API_URL']}/artifacts/filter", json=body, timeout=30).json()
    return {artifact["key"]: str(artifact["data"]) for artifact in found}


@pytest.mark.parametrize("size", [1, 4])
async def test_records_and_monitor_agree_on_computed_and_on_cached_steps(
    size: int, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    problems = write_problems(tmp_path / "problems.jsonl", 12)
    for name, cached in (("fresh", False), ("again", True)):
        inside, flow_run = await watched(
            BatchParameters(dataset=problems, llm="mock", name=name, steps_per_task_run=size, concurrency=6)
        )
        report = await report_from_records(Scope(flow_run=flow_run))
        assert_agree(report, inside)
        assert (report.missing, report.running, report.flow_runs) == (0, 0, 1)
        assert report.granularity == (size,)
        assert report.episodes == 12 and sum(s.cached + s.executed for s in report.steps.values()) == 12 * STEPS
        assert report.memory.peak_rss_mb is not None and report.memory.peak_rss_mb > 10
        assert (report.tokens.saved > 0) == cached
        assert report.task_runs == 12 * STEPS if size == 1 else report.task_runs < 12 * STEPS


@pytest.mark.parametrize("size", [1, 4])
async def test_they_agree_on_errors_and_failures(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A third of the problems is refused for good; the others are never solved.
    def answer(prompt: str) -> str:
        return "41"

    with ScriptedEndpoint(answer, faults=["400", None, None]) as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", "test-key")
        problems = write_problems(tmp_path / "problems.jsonl", 5)
        inside, flow_run = await watched(
            BatchParameters(dataset=problems, llm="mock", steps_per_task_run=size, max_trials=2, concurrency=2)
        )
    report = await report_from_records(Scope(flow_run=flow_run))
    assert report.errors_by_class == {"RequestRejectedError": 1}
    assert report.outcomes == {"error": 1, "failed": 4}
    assert_agree(report, inside)


async def test_a_batch_leaves_its_artifacts(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    _, flow_run = await watched(
        BatchParameters(dataset=write_problems(tmp_path / "p.jsonl", 3), llm="mock", max_trials=1)
    )
    by_key = artifacts_of(flow_run)
    assert set(by_key) == {
        "reflexion-progress",
        "reflexion-summary",
        "reflexion-learning-curve",
        "reflexion-cost",
        "reflexion-slowest",
        "reflexion-failed",
    }
    assert float(by_key["reflexion-progress"]) == 100
    failed = json.loads(by_key["reflexion-failed"])
    assert {row["problem"] for row in failed} == {"p0.0", "p1.0", "p2.0"}
    assert "0 of 3" in by_key["reflexion-learning-curve"]
    assert "Stopped by: nothing, there was one trial each." in by_key["reflexion-learning-curve"]
    assert "exact (reference)" in by_key["reflexion-summary"]


# -- what is missing is said ---------------------------------------------------------------------------


async def test_missing_records_are_counted_and_waited_for_no_longer_than_asked(prefect_server: PrefectServer) -> None:
    @flow(name="told-too-much")
    async def told() -> Any:
        from prefect.states import Completed

        return Completed(message=FlowNote(7, 1, {}, None, 0).to_message())

    state: Any = await told(return_state=True)
    report = await report_from_records(Scope(flow_run=state.state_details.flow_run_id), wait=0.3)
    assert report.missing == 7 and any("7 task runs" in note for note in report.notes)
    assert all(target.status is TargetStatus.NO_DATA for target in report.targets)


async def test_an_empty_window_gives_a_report_that_reaches_nothing() -> None:
    report = await report_from_records(Scope(since=time.time() + 3600))
    assert (report.requests, report.flow_runs, report.error_rate, report.cache_hit_rate) == (0, 0, None, None)
    assert [target.status for target in report.targets] == [TargetStatus.NO_DATA] * 4
    assert "no steps are on record" in report.to_markdown()
    assert report.to_prometheus()


async def test_a_run_still_going_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedEndpoint(latency=0.05, faults=[None, "hang"]) as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", "test-key")
        problems = write_problems(tmp_path / "problems.jsonl", 3)
        run = asyncio.create_task(batch_evaluation.arun(BatchParameters(dataset=problems, llm="mock", concurrency=1)))
        await wait_until(lambda: endpoint.stats.calls >= 2, 60)
        flow_run = uuid.UUID(flow_run_of(PrefectServerUrl(), problems)["id"])
        reports: list[Any] = []

        async def some() -> bool:
            reports[:] = [await report_from_records(Scope(flow_run=flow_run), wait=0)]
            return reports[0].task_runs >= 1

        await wait_until(some, 30)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert reports[0].running == 1 and any("have not ended" in note for note in reports[0].notes)


class PrefectServerUrl:
    """Where the tests' server is, for helpers that take a server."""

    def __init__(self) -> None:
        self.url = os.environ["PREFECT_API_URL"]


async def test_a_deleted_flow_run_and_an_unknown_deployment_are_named(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    _, flow_run = await watched(BatchParameters(dataset=write_problems(tmp_path / "p.jsonl", 1), llm="mock"))
    async with get_client() as client:
        await client.delete_flow_run(flow_run)
    with pytest.raises(ConfigurationError, match=f"{flow_run}.*deleted"):
        await report_from_records(Scope(flow_run=flow_run))
    with pytest.raises(ConfigurationError, match="no deployment 'nightly'"):
        await report_from_records(Scope(deployment="nightly"))


async def test_a_server_that_is_down_is_one_clear_message() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(RunFailedError, match=r"127.0.0.1:9.*cannot be reached.*reflexion server"),
    ):
        await report_from_records(Scope())


async def test_clocks_that_disagree_are_said_to(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    problems = write_problems(tmp_path / "p.jsonl", 2)
    inside, flow_run = await watched(BatchParameters(dataset=problems, llm="mock"))
    found = await task_runs(prefect_server, str(flow_run), 2 * STEPS)
    _set_back(prefect_server.database, found[0]["id"], found[1]["id"])
    report = await report_from_records(Scope(flow_run=flow_run))
    assert any("clocks disagree: 2 steps" in note for note in report.notes)
    assert report.response_time == pytest.approx(inside.response_time) or report.responses == inside.responses
    assert report.throughput.requests_per_minute is None or report.throughput.requests_per_minute > 0


def _set_back(database: Path, *ids: str) -> None:
    """Let task runs end an hour before they began, as on a machine whose clock was set back meanwhile."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        for task_run in ids:
            changed = connection.execute(
                "UPDATE task_run SET end_time = datetime(start_time, '-1 hour') || '.000000' "
                "WHERE replace(id, '-', '') = ?",
                (task_run.replace("-", ""),),
            )
            assert changed.rowcount == 1


@pytest.mark.parametrize("page", [1, 7])
async def test_pages_of_any_size_give_the_same_report(
    page: int, openai_endpoint: ScriptedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, flow_run = await watched(BatchParameters(dataset=write_problems(tmp_path / "p.jsonl", 4), llm="mock"))
    whole = await report_from_records(Scope(flow_run=flow_run))
    monkeypatch.setattr("reflexion.tasks.performance_records.PAGE", page)
    assert await report_from_records(Scope(flow_run=flow_run)) == whole


@contextlib.contextmanager
def slow_pages(api: str, seconds: float) -> Iterator[str]:
    """The same API at another address, which takes its time for each page of task runs."""

    class Slow(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.endswith("/task_runs/filter"):
                time.sleep(seconds)
            kept = {"content-type": self.headers.get("Content-Type", "application/json")}
            answer = httpx.request(self.command, origin + self.path, content=body, headers=kept, timeout=30)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(answer.content)

        do_GET = do_POST = _forward

        def log_message(self, format: str, *args: object) -> None:
            pass

    origin, _, _ = api.rpartition("/api")
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
async def test_an_api_that_pages_slowly_gives_the_whole_report_or_says_why_not(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, flow_run = await watched(BatchParameters(dataset=write_problems(tmp_path / "p.jsonl", 2), llm="mock"))
    whole = await report_from_records(Scope(flow_run=flow_run))
    monkeypatch.setattr("reflexion.tasks.performance_records.PAGE", 4)
    with slow_pages(os.environ["PREFECT_API_URL"], 0.5) as api:
        with temporary_settings({PREFECT_API_URL: api}):
            began = time.monotonic()
            assert await report_from_records(Scope(flow_run=flow_run)) == whole
            assert time.monotonic() - began > 1.5, "three pages and more, each late"
        with (
            temporary_settings({PREFECT_API_URL: api, PREFECT_API_REQUEST_TIMEOUT: 0.2, PREFECT_CLIENT_MAX_RETRIES: 1}),
            pytest.raises(RunFailedError, match=r"gave no answer in time; is it busy\?"),
        ):
            await report_from_records(Scope(flow_run=flow_run))


async def test_states_that_come_after_their_rows_are_waited_for(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server commits a task run's row and its state one after the other."""
    _, flow_run = await watched(BatchParameters(dataset=write_problems(tmp_path / "p.jsonl", 4), llm="mock"))
    whole = await report_from_records(Scope(flow_run=flow_run))
    post, asked = performance_records._Reader._post, 0

    async def early(reader: Any, route: str, body: Any) -> Any:
        nonlocal asked
        answer = await post(reader, route, body)
        if route == "/task_runs/filter":
            asked += 1
            if asked < 3:
                answer[0]["state"] = None
        return answer

    monkeypatch.setattr(performance_records._Reader, "_post", early)
    assert await report_from_records(Scope(flow_run=flow_run)) == whole
    assert asked == 3 and not whole.notes


# -- the flow and the commands ---------------------------------------------------------------------------


async def test_the_monitoring_flow_keeps_history_and_tells_of_missed_targets(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    _, flow_run = await watched(BatchParameters(dataset=write_problems(tmp_path / "p.jsonl", 2), llm="mock"))
    parameters = MonitoringParameters(since=None, flow_run=str(flow_run), targets=Targets(response_time_p95=0.001))
    states = [await monitoring.arun(parameters, return_state=True) for _ in range(2)]  # type: ignore[call-arg]
    for number, state in enumerate(states, 1):
        by_key = artifacts_of(state.state_details.flow_run_id)  # type: ignore[attr-defined]
        assert len(json.loads(by_key["reflexion-figures"])) == number
        assert "## Trend" in by_key["reflexion-performance"]

    def seen() -> bool:
        body = {"filter": {"event": {"name": [TARGET_MISSED]}}}
        events = httpx.post(f"{prefect_server.url}/events/filter", json=body, timeout=30).json()["events"]
        return any(e["resource"]["prefect.resource.id"] == "reflexion.target.response_time_p95" for e in events)

    await wait_until(seen, 60)


def test_the_command_prints_json_and_names_what_is_wrong(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    _, flow_run = asyncio.run(watched(BatchParameters(dataset=write_problems(tmp_path / "p.jsonl", 2), llm="mock")))
    code, out, err = cli("monitor", "--flow-run", str(flow_run), "--json")
    assert code == 0, err
    assert json.loads(out)["episodes"] == 2
    code, out, err = cli("monitor", "--flow-run", "nonsense")
    assert (code, out) == (2, "") and "not a flow run's id" in err


def test_scopes_are_read_from_texts() -> None:
    with pytest.raises(ConfigurationError, match="since"):
        scope_of(since="yesterday")
    assert scope_of(since="1h").since == pytest.approx(time.time() - 3600, abs=60)
    assert str(Scope()) == "all runs"


def test_watching_serves_metrics_until_it_is_interrupted() -> None:
    process = start_cli("monitor", "--since", "1h", "--prometheus-port", "0", "--interval", "0.2")
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        while line and not line.startswith("metrics: "):
            line = process.stderr.readline()
        url = line.removeprefix("metrics: ").strip()
        deadline = time.monotonic() + 60
        while "reflexion_requests_total" not in (text := httpx.get(url, timeout=10).text):
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        assert httpx.get(url.replace("/metrics", "/other"), timeout=10).status_code == 404
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
    finally:
        process.kill()
        process.communicate()
