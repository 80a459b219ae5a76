"""The production set-up as processes: who is refused, what is deployed, and that no secret is left anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
import redis
import yaml

from reflexion.testing import ScriptedEndpoint
from tests.support.evals import write_problems
from tests.support.site import DEPLOYMENTS, Site
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]

KEY = "sk-marked-block-6e21b7"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Databases, server and services; the deployments of prefect.yaml are made as compose.yaml does it."""
    running = Site()
    try:
        running.launch()
        running.run("deploy")
        # What is due while the tests run would get in their way.
        for deployment in running.post("deployments/filter", {"limit": 100}):
            httpx.post(f"{running.api}/deployments/{deployment['id']}/pause_deployment", auth=running.auth)
        yield running
    finally:
        running.close()


@pytest.fixture
def worker(site: Site, endpoint: ScriptedEndpoint) -> Iterator[Site]:
    """A worker whose key is a Secret block on the server."""
    endpoint.api_key = KEY
    save_secret(site, "llm-key", KEY)
    site.start("worker", OPENAI_BASE_URL=endpoint.url, OPENAI_API_KEY="secret:llm-key")
    yield site
    site.stop("worker")


def reflexion(site: Site, *arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and output of `reflexion …` as a client of the site."""
    command = [sys.executable, "-c", "from reflexion.cli.main import main; main()", *arguments]
    environment = site.client_environment() | variables
    done = subprocess.run(
        command, env=environment, cwd=site.home, check=False, capture_output=True, text=True, timeout=200
    )
    return done.returncode, done.stdout + done.stderr


def save_secret(site: Site, name: str, value: str) -> None:
    """A Secret block, made over the API as the UI does it; one that is there stays."""
    kind = site.get("block_types/slug/secret")
    schema = site.post("block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}})[0]
    body = {"name": name, "data": {"value": value}, "block_type_id": kind["id"], "block_schema_id": schema["id"]}
    answer = httpx.post(f"{site.api}/block_documents/", json=body, auth=site.auth, timeout=30)
    assert answer.status_code in (201, 409), answer.text


def delete_secret(site: Site, name: str) -> None:
    """Take a Secret block away."""
    found = site.get(f"block_types/slug/secret/block_documents/name/{name}")
    httpx.delete(f"{site.api}/block_documents/{found['id']}", auth=site.auth, timeout=30).raise_for_status()


async def ended(site: Site, run: str, seconds: float = 120) -> dict[str, Any]:
    """A flow run, once it came to its end."""
    found: dict[str, Any] = {}

    def over() -> bool:
        found.update(site.get(f"flow_runs/{run}"))
        return found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    await wait_until(over, seconds)
    return found


def start_run(site: Site, deployment: str, parameters: dict[str, Any]) -> str:
    """A flow run of a deployment, as the UI makes it."""
    found = site.get(f"deployments/name/{deployment}")
    return site.post(f"deployments/{found['id']}/create_flow_run", {"parameters": {"parameters": parameters}})["id"]


# -- who is let in ----------------------------------------------------------------------------------------


def test_the_prefect_server_refuses_strangers(site: Site) -> None:
    body = {"limit": 1}
    for auth in (None, ("reflexion", "wrong"), ("", "")):
        for path in ("flow_runs/filter", "block_documents/filter", "artifacts/filter"):
            assert httpx.post(f"{site.api}/{path}", json=body, auth=auth).status_code == 401
    assert httpx.post(f"{site.api}/flow_runs/filter", json=body, auth=site.auth).status_code == 200
    assert httpx.get(f"{site.api}/health").status_code == 200, "whoever checks its health needs no credentials"


def test_a_client_without_credentials_is_told_so(site: Site, tmp_path: Path) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 1)
    for given in ("", "reflexion:wrong-4f"):
        code, said = reflexion(site, "eval", dataset, "--llm", "mock", PREFECT_API_AUTH_STRING=given)
        assert code == 2 and "Traceback" not in said
        assert f"error: the Prefect server at {site.api} refuses" in said and "PREFECT_API_AUTH_STRING" in said
        assert "wrong-4f" not in said
    code, said = reflexion(site, "doctor", "--json", PREFECT_API_AUTH_STRING="")
    checks = {check["name"]: check for check in json.loads(said)["checks"]}
    assert (
        checks["Prefect server"]["state"] == "broken" and "refuses requests without" in checks["Prefect server"]["text"]
    )
    code, said = reflexion(site, "doctor", "--json")
    assert {c["name"]: c for c in json.loads(said)["checks"]}["Prefect server"]["state"] == "ok"


def test_redis_refuses_strangers(site: Site) -> None:
    for password in (None, "wrong"):
        with redis.Redis.from_url(site.redis.url_with(password)) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
    with redis.Redis.from_url(site.redis.url) as client:
        assert client.ping()


async def test_postgresql_refuses_strangers(site: Site) -> None:
    where: dict[str, Any] = {"host": "127.0.0.1", "port": site.postgres_port, "database": "prefect"}
    for user, password in (("prefect", None), ("prefect", "wrong"), ("postgres", None), ("postgres", "postgres")):
        with pytest.raises(asyncpg.PostgresError, match="password"):
            await asyncpg.connect(user=user, password=password or "", **where)
    connection = await asyncpg.connect(user="prefect", password=site.secrets["postgres_password"], **where)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


def test_a_secret_that_is_missing_or_empty_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    for path, said in ((tmp_path / "none", "cannot be read"), (tmp_path / "empty", "is empty")):
        command = [str(DEPLOYMENTS / "entrypoint.sh"), "true"]
        environment = {**os.environ, "REDIS_PASSWORD_FILE": str(path)}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=30)
        assert done.returncode == 2 and said in done.stderr and str(path) in done.stderr


# -- what is deployed -------------------------------------------------------------------------------------


def test_every_deployment_of_the_file_is_there(site: Site) -> None:
    wanted = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
    made = {
        (d["entrypoint"], d["name"]): d
        for d in site.post("deployments/filter", {"limit": 100})
        if "reflexion" in d["tags"]
    }
    assert len(made) == len(wanted)
    for want in wanted:
        got = made[want["entrypoint"], want["name"]]
        assert got["work_pool_name"] == want["work_pool"]["name"]
        assert got["global_concurrency_limit"]["limit"] == want["concurrency_limit"]["limit"]
        assert got["concurrency_options"]["collision_strategy"] == want["concurrency_limit"]["collision_strategy"]
        assert got["description"] and got["enforce_parameter_schema"]
        assert got["parameters"] == want.get("parameters", {})
        assert {s["schedule"]["timezone"] for s in got["schedules"]} == {
            s["timezone"] for s in want.get("schedules", ())
        }
        assert got["parameter_openapi_schema"]["properties"]
    form = made["reflexion.flows.batch.batch_evaluation", "process"]["parameter_openapi_schema"]["definitions"][
        "BatchParameters"
    ]
    # A reference to a choice has the title of the choice.
    untitled = [n for n, p in form["properties"].items() if not p.keys() & {"title", "$ref", "allOf"}]
    assert untitled == [], "each field of the form has a title"
    assert form["properties"]["max_trials"] | {"minimum": 1, "maximum": 100} == form["properties"]["max_trials"]


# -- what is left behind -------------------------------------------------------------------------------------


async def test_a_worker_runs_a_deployment_and_no_secret_is_left_anywhere(
    worker: Site, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    site = worker
    dataset = write_problems(tmp_path / "problems.jsonl", 3)
    asked = {"dataset": dataset, "llm": "mock"}
    delete_secret(site, "llm-key")
    failed = await ended(site, start_run(site, "batch-evaluation/process", asked))
    assert failed["state_type"] == "FAILED"
    said = "OPENAI_API_KEY stands for Prefect's Secret block 'llm-key', which is not on the server"
    assert said in failed["state"]["message"]

    save_secret(site, "llm-key", KEY)
    run = await ended(site, start_run(site, "batch-evaluation/process", asked | {"steps_per_task_run": 8}))
    assert run["state_type"] == "COMPLETED", run["state"]["message"] + site.log("worker")
    assert run["name"] == f"{dataset} · mock · reflexion"
    (summary,) = site.runs.glob("*/summary.json")
    assert json.loads(summary.read_text())["solved"] == 3
    artifacts = site.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert "reflexion-summary" in {a["key"] for a in artifacts}
    # Nothing shows in what is on record, stored, logged or told; the processes may know them.
    hidden = [KEY, *site.secrets.values(), site.auth[1]]
    with redis.Redis.from_url(site.redis.url_with(site.secrets["redis_password"], 1)) as client:
        stored = b"".join(client.dump(name) or b"" for name in client.scan_iter())
    assert len(stored) > 500, "the cache and the memory are in Redis"
    places = {
        "the artifacts": str(artifacts),
        "Redis": stored.decode(errors="replace"),
        **{f"the log of {name}": site.log(name) for name in ("migrate", "server", "services", "deploy", "worker")},
        **{str(p): p.read_text(errors="replace") for p in site.runs.rglob("*") if p.is_file()},
    }
    # The Secret block is in the database, encrypted.
    places["the database"] = await asyncio.to_thread(site.dump)
    assert len(places["the database"]) > 10_000
    assert [(place, s) for place, text in places.items() for s in hidden if s in text] == []


async def test_a_worker_tells_its_health(worker: Site) -> None:
    await asyncio.to_thread(worker.wait_for, f"http://127.0.0.1:{worker.worker_port}/health", "worker")
    for url, code in ((f"http://127.0.0.1:{worker.worker_port}/health", 0), ("http://127.0.0.1:9/health", 1)):
        environment = {**os.environ, "REFLEXION_HEALTH_URL": url}
        command = [sys.executable, str(DEPLOYMENTS / "healthcheck.py")]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, check=False, capture_output=True, timeout=30
        )
        assert done.returncode == code


# -- automations ----------------------------------------------------------------------------------------------


def create_automations(site: Site, folder: Path, **changes: str) -> None:
    """Create the automations of the file as its first lines say."""
    text = (DEPLOYMENTS / "automations.yaml").read_text()
    for old, new in changes.items():
        text = text.replace({"webhook": "00000000-0000-0000-0000-000000000000"}[old], new)
    path = folder / "automations.yaml"
    path.write_text(text)
    command = [sys.executable, "-m", "prefect", "automation", "create", "--from-file", str(path)]
    done = subprocess.run(
        command, env=site.client_environment(), check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def webhook_block(site: Site, url: str) -> str:
    """A notification block that posts subject and body to an address; gives its id."""
    kind = site.get("block_types/slug/custom-webhook")
    schema = site.post("block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}})[0]
    data = {"name": "test", "url": url, "json_data": {"subject": "{{subject}}", "body": "{{body}}"}}
    body = {"name": "people", "data": data, "block_type_id": kind["id"], "block_schema_id": schema["id"]}
    return site.post("block_documents/", body)["id"]


async def test_people_are_told_of_missed_targets_and_a_crashed_batch_goes_on(
    worker: Site, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    site = worker
    told: list[dict[str, str]] = []
    with listening(told) as url:
        create_automations(site, tmp_path, webhook=webhook_block(site, url))
        # A batch whose process is killed: the automation has it scheduled again.
        endpoint.latency = 0.3
        dataset = write_problems(tmp_path / "problems.jsonl", 12)
        before = set(site.runs.glob("*"))
        run = start_run(site, "batch-evaluation/process", {"dataset": dataset, "llm": "mock", "concurrency": 1})
        await wait_until(lambda: lines(site.runs, before) >= 3, 120)
        kill_flow_run(site, run)
        finished = await completed(site, run, 150)
        assert finished["run_count"] == 2, finished
        (folder,) = set(site.runs.glob("*")) - before
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["solved"], summary["errors"]) == (12, 0)
        assert endpoint.stats.calls <= 12 * 3 + 2, "finished steps were not asked for again"

        # Steps that fail, and a target nobody can reach: people are told of both, once.
        endpoint.faults.extend(["400"] * 3)
        asked = {"dataset": write_problems(tmp_path / "others.jsonl", 4), "llm": "mock", "use_cache": False}
        await completed(site, start_run(site, "batch-evaluation/process", asked), 120)
        targets = {"response_time_p95": 0.001, "requests_per_minute": None, "reflection_hit_rate": None}
        watch = {"since": "1h", "error_rate": 0.01, "targets": targets}
        for _ in range(2):
            looked = await completed(site, start_run(site, "monitoring/hourly", watch), 120)
        assert looked["name"] == "all runs · last 1h"
        await wait_until(lambda: len(told) >= 2, 60)
    by_subject = {t["subject"]: t["body"] for t in told}
    assert len(told) == 2 and set(by_subject) == {
        "Reflexion: response_time_p95 was missed", "Reflexion: error_rate was missed",
    }  # fmt: skip
    assert "beyond < 0.01 of steps" in by_subject["Reflexion: error_rate was missed"]


async def completed(site: Site, run: str, seconds: float) -> dict[str, Any]:
    """A flow run, once it is completed; it may have crashed before."""
    await wait_until(lambda: site.get(f"flow_runs/{run}")["state_type"] == "COMPLETED", seconds)
    return site.get(f"flow_runs/{run}")


def lines(runs: Path, before: set[Path]) -> int:
    """Episodes on record of the runs that are new."""
    return sum(len(p.read_text().splitlines()) for f in set(runs.glob("*")) - before for p in f.glob("episodes.jsonl"))


def kill_flow_run(site: Site, run: str) -> None:
    """kill -9 of the process that carries a flow run out, and of what it started."""
    for process in site.processes_of("worker"):
        with contextlib.suppress(psutil.Error):
            if run in process.environ().get("PREFECT__FLOW_RUN_ID", ""):
                process.kill()


@contextlib.contextmanager
def listening(told: list[dict[str, str]]) -> Iterator[str]:
    """An address that notes what is posted to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
