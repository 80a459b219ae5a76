"""A batch in shards on the whole topology: PostgreSQL, Redis, a Prefect server on both, and two process workers.

Whatever is cut short meanwhile, each problem is in the record once, and no step that had finished is carried
out again.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
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

    def begin(dataset: str, name: str, *more: str) -> Batch:
        arguments = ["eval", dataset, "--llm", "mock", "--json", "--name", name, "--pool", POOL]
        arguments += ["--base-url", openai_endpoint.url, "--cache", topology.redis.url_with(None, 0)]
        arguments += ["--steps-per-task-run", "8", "--results", topology.redis.url_with(None, 1)]
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


async def test_a_server_that_is_killed_and_redis_emptied_and_postgres_restarted(
    topology: Topology, start: Start, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    openai_endpoint.latency = 0.4
    dataset = write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    batch = start(dataset, "servers-killed", "--shards", "2", "--concurrency", str(2 * AT_A_TIME))
    await batch.until(4)
    topology.kill_server()
    topology.launch_server()
    await batch.until(12)
    topology.redis.restart()
    await batch.until(20)
    await asyncio.to_thread(topology.postgres.restart)

    code, summary, err = await asyncio.to_thread(batch.end)

    assert code == 0, err
    assert (summary["problems"], summary["solved"], summary["not_run"]) == (PROBLEMS, PROBLEMS, 0)
    assert ids(batch.folder) == [f"p{n}.0" for n in range(PROBLEMS)]
    assert len(openai_endpoint.stats.distinct) == PROBLEMS * CALLS
    assert openai_endpoint.stats.calls - PROBLEMS * CALLS <= 2 * AT_A_TIME  # what was in flight
    await asyncio.to_thread(topology.wait)
