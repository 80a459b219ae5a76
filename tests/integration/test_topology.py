"""A batch in shards on the whole topology: PostgreSQL, Redis, a Prefect server on both, and two process workers.

Whatever is cut short meanwhile, each problem is in the record once, and no step that had finished is carried
out again.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reflexion.memory import open_memory
from reflexion.testing import ScriptedEndpoint
from tests.support.evals import CALLS, episodes, evaluate, write_problems
from tests.support.topology import POOL, Topology, kill_tree
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]


@dataclass
class Batch:
    """A sharded batch of the command line, under way."""

    process: subprocess.Popen[str]
    folder: Path

    @property
    def merged(self) -> int:
        """Episodes in the run's own record so far."""
        record = self.folder / "episodes.jsonl"
        return record.read_bytes().count(b"\n") if record.exists() else 0

    async def until(self, count: int) -> None:
        """Wait until so many episodes are in the run's record."""
        await wait_until(lambda: self.merged >= count or self.process.poll() is not None, 240)
        assert self.process.poll() is None, self.process.communicate()

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Exit code, summary and stderr."""
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, json.loads(out) if out.strip() else {}, err


Start = Callable[..., Batch]


@pytest.fixture
def start(topology: Topology, openai_endpoint: ScriptedEndpoint, isolated: Path) -> Iterator[Start]:
    """Start `reflexion eval` on the topology's pool, with cache, memory and results in Redis."""
    topology.redis.flush()
    begun: list[Batch] = []

    def begin(dataset: str, name: str, *more: str, pool: str = POOL) -> Batch:
        arguments = ["eval", dataset, "--llm", "mock", "--json", "--name", name, "--pool", pool]
        arguments += ["--base-url", openai_endpoint.url, "--cache", topology.redis.url_with(None, 0)]
        arguments += ["--steps-per-task-run", "8", "--results", topology.redis.url_with(None, 1)]
        more = more or ("--shards", "2", "--concurrency", str(2 * AT_A_TIME))
        process = topology.start_cli(*arguments, *more, REFLEXION_RUNS=str(isolated / "runs"))
        begun.append(Batch(process, isolated / "runs" / name))
        return begun[-1]

    yield begin
    for batch in begun:
        if batch.process.poll() is None:
            kill_tree(batch.process)


def ids(folder: Path) -> list[str]:
    """Problems of the record in its order."""
    return [json.loads(line)["problem_id"] for line in (folder / "episodes.jsonl").read_text().splitlines()]


# -- the whole topology --------------------------------------------------------------------------------


def test_every_problem_is_there_once_for_the_calls_of_one_process(
    topology: Topology, start: Start, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    # 100 contents, four times each and far apart: the copies lie in other shards than their originals.
    dataset = write_problems(tmp_path / "problems.jsonl", 100, copies=4)
    alone = evaluate("direct", dataset, name="alone", cache=str(tmp_path / "alone"))
    calls = openai_endpoint.stats.calls

    batch = start(dataset, "sharded", "--shards", "4", "--concurrency", "8")
    code, summary, err = batch.end()

    assert code == 0, err
    assert (summary["problems"], summary["solved"], summary["not_run"]) == (400, 400, 0)
    assert openai_endpoint.stats.calls - calls == calls == 100 * CALLS
    assert openai_endpoint.stats.duplicates_in_flight == 0
    assert ids(batch.folder) == ids(alone.folder)
    assert episodes(batch.folder, ["usage"]) == episodes(alone.folder, ["usage"])
    shards = topology.flow_runs("evaluation-shard", 4)
    assert {run["state_type"] for run in shards} == {"COMPLETED"}
    workers = {run["infrastructure_pid"].partition(":")[0] for run in shards if run["infrastructure_pid"]}
    assert workers, "workers tell which process carries a flow run out"
    # The batch's page leads to its shards, and theirs to it.
    (parent,) = topology.flow_runs("sharded-evaluation", 1)
    children = {"parent_task_run_id": {"any_": [run["parent_task_run_id"] for run in shards]}}
    assert len(topology.post("flow_runs/filter", {"flow_runs": children})) == 4
    stand_ins = topology.post("task_runs/filter", {"flow_runs": {"id": {"any_": [parent["id"]]}}})
    assert {run["parent_task_run_id"] for run in shards} == {run["id"] for run in stand_ins}
    (artifact,) = topology.post("artifacts/latest/filter", {"artifacts": {"key": {"any_": ["reflexion-shards"]}}})
    assert all(run["id"] in artifact["data"] for run in shards)
    # One memory: of each content's lessons the newest three are kept, whichever shard drew them.
    token = json.loads((batch.folder / "shards.json").read_text())["token"]
    memory = open_memory(f"{topology.redis.url_with(None, 1)}?prefix=reflexion-memory-{token}")
    assert asyncio.run(memory.stats()).entries == 100 * 3
    asyncio.run(memory.aclose())
    # Nothing of an episode went through the database.
    assert "PLAN-OK" not in json.dumps(shards) + json.dumps(parent)


# -- chaos ---------------------------------------------------------------------------------------------

PROBLEMS, AT_A_TIME = 60, 4


def check(batch: Batch, endpoint: ScriptedEndpoint, problems: int = PROBLEMS) -> None:
    """The batch ended well, with nothing done twice but what was in flight."""
    code, summary, err = batch.end()
    assert code == 0, err
    assert (summary["problems"], summary["solved"], summary["not_run"]) == (problems, problems, 0)
    assert ids(batch.folder) == [f"p{n}.0" for n in range(problems)]
    assert len(endpoint.stats.distinct) == problems * CALLS
    assert endpoint.stats.calls - problems * CALLS <= 2 * AT_A_TIME


async def test_a_worker_that_is_killed(
    topology: Topology, start: Start, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    openai_endpoint.latency = 0.3
    dataset = write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    batch = start(dataset, "worker-killed", "--shards", "2", "--concurrency", str(2 * AT_A_TIME), "--lost-after", "10")
    await batch.until(6)
    victim = next(name for name in ("w1", "w2") if topology.runs_of(name))
    topology.kill_worker(victim)
    topology.start_worker(victim)
    await asyncio.to_thread(check, batch, openai_endpoint)
    kept = json.loads((batch.folder / "shards.json").read_text())["shards"]
    assert max(len(shard["flow_runs"]) for shard in kept) == 2
    assert "no sign of life" in json.dumps(kept)


async def test_a_server_that_is_killed_and_redis_emptied_and_postgres_restarted(
    topology: Topology, start: Start, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    openai_endpoint.latency = 0.4
    dataset = write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    batch = start(dataset, "servers-killed")
    await batch.until(4)
    topology.kill_server()
    topology.launch_server()
    await batch.until(12)
    topology.redis.restart()
    await batch.until(20)
    await asyncio.to_thread(topology.postgres.restart)
    await asyncio.to_thread(check, batch, openai_endpoint)
    await asyncio.to_thread(topology.wait)


async def test_a_shard_that_fails_for_ever(
    topology: Topology, start: Start, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 20)
    poison = ("--evaluator", "tests.support.poison:passed", "--shards", "2", "--concurrency", "2")
    batch = start(dataset, "poisoned", *poison, "--shard-retries", "1")
    code, _, err = batch.end()
    assert code == 1
    assert "shard 2 (p10.0 … p19.0;" in err and "1 of 2 shards did not finish" in err, err
    summary = json.loads((batch.folder / "summary.json").read_text())
    assert (summary["solved"], summary["not_run"]) == (15, 5)  # all before the one that kills
    assert ids(batch.folder) == [f"p{n}.0" for n in range(20)]
    assert len(openai_endpoint.stats.distinct) >= openai_endpoint.stats.calls - 2 * 2
    (artifact,) = topology.post("artifacts/latest/filter", {"artifacts": {"key": {"any_": ["reflexion-unfinished"]}}})
    assert "p10.0 … p19.0" in artifact["data"]
    (parent,) = topology.flow_runs("sharded-evaluation", 1)
    assert parent["state_type"] == "FAILED" and "shard 2" in parent["state"]["message"]


# -- stopping ------------------------------------------------------------------------------------------


async def test_cancelled_from_the_ui_it_makes_no_further_call(
    topology: Topology, start: Start, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    openai_endpoint.latency = 0.3
    batch = start(write_problems(tmp_path / "problems.jsonl", 400), "cancelled")
    await batch.until(4)
    (parent,) = topology.flow_runs("sharded-evaluation", 1)
    topology.post(f"flow_runs/{parent['id']}/set_state", {"state": {"type": "CANCELLING"}})
    asked = time.monotonic()
    await wait_until(lambda: quiet_for(openai_endpoint, 1.5), 30)
    assert time.monotonic() - asked - 1.5 < 5, "calls go on"
    code, _, err = batch.end()
    assert code == 130, err
    assert "Resume with" in err
    summary = json.loads((batch.folder / "summary.json").read_text())
    assert summary["solved"] >= 4 and summary["not_run"] == 400 - summary["solved"]
    assert ids(batch.folder) == [f"p{n}.0" for n in range(400)]

    async def ended() -> bool:
        runs = [*topology.flow_runs("sharded-evaluation", 1), *topology.flow_runs("evaluation-shard", 2)]
        return all(run["state_type"] == "CANCELLED" for run in runs)

    await wait_until(ended, 30)


_counts: dict[int, tuple[int, float]] = {}


def quiet_for(endpoint: ScriptedEndpoint, seconds: float) -> bool:
    """Whether the endpoint was asked nothing for so long."""
    now, calls = time.monotonic(), endpoint.stats.calls
    before, since = _counts.get(id(endpoint), (-1, now))
    if calls != before:
        since = now
    _counts[id(endpoint)] = (calls, since)
    return now - since >= seconds


# -- what is wrong is said -----------------------------------------------------------------------------


def test_no_worker_a_paused_pool_and_too_many_shards_are_told(
    topology: Topology, start: Start, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    topology.make_pool("idle")
    topology.make_pool("resting", paused=True)
    dataset = write_problems(tmp_path / "problems.jsonl", 3)
    begun = time.monotonic()
    batches = {
        "idle": start(dataset, "idle", "--shards", "2", "--wait-for-worker", "3", pool="idle"),
        "resting": start(dataset, "resting", "--shards", "2", pool="resting"),
        "absent": start(dataset, "absent", "--shards", "2", pool="absent"),
        "many": start(dataset, "many", "--shards", "4"),
    }
    told = {name: batch.end() for name, batch in batches.items()}
    assert time.monotonic() - begun < 120
    assert "prefect worker start --pool idle" in told["idle"][2] and told["idle"][0] == 1
    assert "is paused" in told["resting"][2] and "prefect work-pool resume resting" in told["resting"][2]
    assert "prefect work-pool create absent --type process" in told["absent"][2]
    assert "4 is more than the 3 problems" in told["many"][2]
    assert [told[name][0] for name in ("resting", "absent", "many")] == [2, 2, 2]
    assert openai_endpoint.stats.calls == 0
    messages = [run["state"]["message"] for run in topology.flow_runs("sharded-evaluation", 4)]
    assert any("prefect worker start --pool idle" in message for message in messages)
    assert any("is paused" in message for message in messages)
    waiting = [run for run in topology.flow_runs("evaluation-shard", 10) if run["state_type"] == "SCHEDULED"]
    assert waiting == [], "shards that nobody took up must not begin later"


async def test_a_dataset_that_a_worker_cannot_read_and_a_deployment_of_another_version_are_told(
    topology: Topology, start: Start, tmp_path: Path
) -> None:
    # The command has read it; where a worker starts a process later, it is not there.
    dataset = Path(write_problems(tmp_path / "problems.jsonl", 4))
    before = {run["id"] for run in topology.flow_runs("evaluation-shard")}
    batch = start(str(dataset), "unreachable")
    await wait_until(lambda: {run["id"] for run in topology.flow_runs("evaluation-shard")} > before, 120)
    away = dataset.rename(tmp_path / "away.jsonl")

    def failed() -> list[str]:
        runs = topology.flow_runs("evaluation-shard", 2)
        return [run["state"]["message"] for run in runs if run["state_type"] == "FAILED"]

    await wait_until(lambda: bool(failed()), 120)
    away.rename(dataset)
    code, _, err = await asyncio.to_thread(batch.end)
    assert code == 2, err
    assert str(dataset) in err
    assert all("no such file" in message and str(dataset) in message for message in failed())
    (deployment,) = [d for d in topology.post("deployments/filter", {"limit": 50}) if d["name"] == POOL]
    schema = deployment["parameter_openapi_schema"]
    model = next(m for name, m in schema["definitions"].items() if name.endswith("BatchParameters"))
    del model["properties"]["results"]
    old = {"name": "old", "flow_id": deployment["flow_id"], "entrypoint": deployment["entrypoint"]}
    topology.post("deployments/", {**old, "work_pool_name": POOL, "parameter_openapi_schema": schema})
    arguments = ("eval", "starter", "--shards", "2", "--deployment", "old", "--llm", "mock")
    code, _, err = await asyncio.to_thread(topology.cli, *arguments)
    assert code == 2
    assert "older version" in err and "results" in err and "prefect deploy" in err
