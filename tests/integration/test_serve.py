"""`reflexion serve`: flows run when they are due or asked for, from one process, never more than its limit."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from reflexion.cli.commands.serve import SERVED
from reflexion.testing import ScriptedEndpoint
from tests.support.evals import cli, start_cli, write_problems
from tests.support.prefect_server import PrefectServer
from tests.support.records import delete_deployments
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(400)]


@pytest.fixture
def serving(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    """A process that serves all flows, two at a time, with a batch that is due each minute."""
    openai_endpoint.latency = 0.1
    dataset = write_problems(tmp_path / "nightly.jsonl", 3)
    schedule = ("--nightly", dataset, "--llm", "mock", "--cron", "* * * * *", "--timezone", "Europe/Berlin")
    with start_cli("serve", "--limit", "2", *schedule) as process:
        yield process
        if process.poll() is None:
            process.kill()
        process.communicate()
    delete_deployments(prefect_server)


def flow_runs(server: PrefectServer, deployment: str) -> list[dict[str, Any]]:
    """The flow runs of a deployment."""
    body = {"deployments": {"name": {"any_": [deployment]}}, "limit": 200}
    return httpx.post(f"{server.url}/flow_runs/filter", json=body, timeout=30).json()


def running(process: subprocess.Popen[str]) -> int:
    """Flow runs under way in processes of the one that serves."""
    found: set[str] = set()
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found.add(child.environ().get("PREFECT__FLOW_RUN_ID", ""))
    return len(found - {""})


async def ask(url: str, parameters: dict[str, Any]) -> None:
    """Ask for a run; a server on SQLite that is busy says so by 503, and clients come again."""

    def taken() -> bool:
        answer = httpx.post(url, json={"parameters": {"parameters": parameters}}, timeout=30)
        assert answer.status_code in (201, 503), answer.text
        return answer.status_code == 201

    await wait_until(taken, 30)


async def test_due_and_asked_for_flows_run_within_the_limit(
    serving: subprocess.Popen[str], prefect_server: PrefectServer, tmp_path: Path, isolated: Path
) -> None:
    known: dict[str, dict[str, Any]] = {}

    def made() -> bool:
        found = httpx.post(f"{prefect_server.url}/deployments/filter", json={}, timeout=30).json()
        known.update({f"{d['entrypoint']}/{d['name']}": d for d in found})
        return len(known) > len(SERVED)

    await wait_until(made, 90)
    for served in SERVED:
        deployment = known[f"{served.entrypoint}/default"]
        assert deployment["global_concurrency_limit"]["limit"] == served.limit
        assert deployment["concurrency_options"]["collision_strategy"] == served.strategy
        assert deployment["enforce_parameter_schema"] and deployment["description"]
    (schedule,) = known["reflexion.flows.batch.batch_evaluation/nightly"]["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("* * * * *", "Europe/Berlin")

    # Three are asked for at once, and one is due within a minute: two run at a time.
    dataset = write_problems(tmp_path / "asked.jsonl", 4)
    batch = known["reflexion.flows.batch.batch_evaluation/default"]["id"]
    url = f"{prefect_server.url}/deployments/{batch}/create_flow_run"
    for n in range(3):
        await ask(url, {"dataset": dataset, "llm": "mock", "name": f"asked-{n}", "use_cache": False})
    wrong = httpx.post(url, json={"parameters": {"parameters": {"dataset": dataset, "max_trials": 101}}}, timeout=30)
    assert wrong.status_code == 409 and "101" in wrong.text, "the form's bounds are the server's too"
    most = 0

    def all_ended() -> bool:
        nonlocal most
        most = max(most, running(serving))
        states = [r["state_type"] for r in flow_runs(prefect_server, "default")]
        nightly = [r["state_type"] for r in flow_runs(prefect_server, "nightly")]
        return states.count("COMPLETED") >= 3 and "COMPLETED" in nightly

    await wait_until(all_ended, 200)
    assert most == 2
    summaries = [json.loads(p.read_text()) for p in (isolated / "runs").glob("*/summary.json")]
    assert {s["run"] for s in summaries} > {"asked-0", "asked-1", "asked-2"}
    assert all((s["problems"], s["errors"]) in ((4, 0), (3, 0)) for s in summaries)
    due = next(r for r in flow_runs(prefect_server, "nightly") if r["state_type"] == "COMPLETED")
    assert due["auto_scheduled"] and due["name"] == f"{tmp_path / 'nightly.jsonl'} · mock · reflexion"

    serving.send_signal(signal.SIGINT)
    await wait_until(lambda: serving.poll() is not None, 40)
    found = httpx.get(f"{prefect_server.url}/deployments/name/batch-evaluation/nightly", timeout=30).json()
    assert found["paused"], "nobody would carry out what is due"


def test_serving_needs_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    code, _, err = cli("serve")
    assert code == 2 and "start one with `reflexion server`" in err and "Traceback" not in err
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    code, _, err = cli("serve", "--timezone", "Europe/Berln")
    assert code == 2 and "did you mean Europe/Berlin" in err
    code, _, err = cli("serve")
    assert code == 1 and "http://127.0.0.1:9/api cannot be reached" in err and "Traceback" not in err
