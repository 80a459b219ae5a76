"""What a Prefect server has on record, asked over its API like the UI does."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.support.prefect_server import PrefectServer
from tests.waiting import wait_until

__all__ = ["delete_deployments", "flow_run_of", "state_names", "task_runs"]

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def _post(server: PrefectServer, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = httpx.post(f"{server.url}/{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def flow_run_of(server: PrefectServer, dataset: str | Path) -> dict[str, Any]:
    """The newest flow run whose parameters name this dataset."""
    runs = _post(server, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 200})
    found = [r for r in runs if (r["parameters"].get("parameters") or {}).get("dataset") == str(dataset)]
    assert found, f"no flow run of {dataset} among {len(runs)}"
    return found[0]


async def task_runs(server: PrefectServer, flow_run: str, count: int) -> list[dict[str, Any]]:
    """The task runs of a flow run, once the server has recorded the end of `count` of them."""
    found: list[dict[str, Any]] = []

    def recorded() -> bool:
        body = {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200}
        found[:] = [r for r in _post(server, "task_runs/filter", body) if r["state_type"] in FINAL]
        return len(found) >= count

    await wait_until(recorded, 60)
    return found


def state_names(runs: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """How many task runs of each step ended in which state, by name: `Cached`, `Completed` …"""
    return Counter((run["name"].partition(":")[0], run["state_name"]) for run in runs)


def delete_deployments(server: PrefectServer) -> None:
    """Take every deployment away, and with it the runs it has scheduled, which would crowd out others' runs."""
    for deployment in _post(server, "deployments/filter", {}):
        for _ in range(60):
            answer = httpx.delete(f"{server.url}/deployments/{deployment['id']}", timeout=30)
            # A server on SQLite whose services are writing says 503, and asks to be asked again.
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(float(answer.headers.get("Retry-After", "0.5")))
        answer.raise_for_status()
