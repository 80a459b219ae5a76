"""Batches handed to a deployment from Python, a nightly schedule, and shards without a pool."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType

from reflexion.errors import ConfigurationError, DatasetError, RunFailedError
from reflexion.flows.batch import batch_evaluation
from reflexion.flows.sharded import sharded_evaluation
from reflexion.flows.submitted import SubmittedRun
from reflexion.run.parameters import BatchParameters
from reflexion.sharding.shard_parameters import ShardedParameters
from reflexion.testing import ScriptedEndpoint
from tests.support.evals import CALLS, cli, write_problems
from tests.support.prefect_server import PrefectServer
from tests.support.topology import POOL, Topology
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.timeout(300),
    # Prefect never closes some of its clients.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture
def deployed(topology: Topology, openai_endpoint: ScriptedEndpoint) -> Iterator[str]:
    """A deployment of the batch on the topology's pool, with this test's endpoint."""
    variables = {"OPENAI_BASE_URL": openai_endpoint.url, "OPENAI_API_KEY": "test-key"}
    with temporary_settings({PREFECT_API_URL: topology.api}):
        made = RunnerDeployment.from_flow(
            batch_evaluation,
            name="nightly",
            work_pool_name=POOL,
            entrypoint_type=EntrypointType.MODULE_PATH,
            job_variables={"env": variables},
        )
        made.apply()
        yield "nightly"


# -- submit --------------------------------------------------------------------------------------------


def test_a_submitted_batch_is_waited_for_and_its_result_taken(
    deployed: str, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 2)
    submitted = batch_evaluation.submit(BatchParameters(dataset=dataset, llm="mock"), deployment=deployed)
    assert str(submitted.id) in submitted.url
    result = submitted.result(timeout=120)
    assert result.summary.solved_by_trial == (0, 2, 2)
    assert result.folder == submitted.folder and result.folder.is_dir()
    assert openai_endpoint.stats.calls == 2 * CALLS


async def test_another_flow_submits_one_and_it_is_linked_and_its_error_is_raised(
    deployed: str, topology: Topology, tmp_path: Path
) -> None:
    @flow(name="comparison")
    async def comparison() -> list[SubmittedRun]:
        good = BatchParameters(dataset=write_problems(tmp_path / "good.jsonl", 1), llm="mock")
        bad = BatchParameters(dataset=str(tmp_path / "absent.jsonl"), llm="mock")
        return [await batch_evaluation.submit(good, deployment=deployed), await batch_evaluation.asubmit(bad)]

    good, bad = await comparison()
    assert (await good.result(timeout=120)).summary.solved == 1
    with pytest.raises(DatasetError, match="no such file"):
        await bad.result(timeout=120)
    (parent,) = topology.flow_runs("comparison", 1)
    stand_ins = topology.post("task_runs/filter", {"flow_runs": {"id": {"any_": [parent["id"]]}}})
    assert len(stand_ins) == 2
    with pytest.raises(ConfigurationError, match=r"no batch-evaluation/absent .* there are: batch-evaluation/nightly"):
        await batch_evaluation.submit(BatchParameters(dataset="starter"), deployment="absent")


async def test_a_submitted_batch_is_cancelled(deployed: str, openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    openai_endpoint.latency = 0.3
    dataset = write_problems(tmp_path / "problems.jsonl", 200)
    submitted = await batch_evaluation.submit(BatchParameters(dataset=dataset, llm="mock", concurrency=2), deployed)
    record = submitted.folder / "episodes.jsonl"
    await wait_until(lambda: record.exists() and record.read_bytes().count(b"\n") >= 2, 60)
    await submitted.cancel()
    asked = time.monotonic()
    with pytest.raises(RunFailedError, match="was cancelled"):
        await submitted.result(timeout=60)
    calls = openai_endpoint.stats.calls
    # Two calls of 0.3 s are under way at a time; had it gone on for 5 s, there were 33 more.
    assert calls < 200 * CALLS / 2 and time.monotonic() - asked < 30
    outcomes = [json.loads(line)["outcome"] for line in record.read_text().splitlines()]
    assert len(outcomes) == 200 and 2 <= outcomes.count("solved") < 200
    assert set(outcomes) == {"solved", "not_run"}


# -- a schedule ----------------------------------------------------------------------------------------


async def test_a_schedule_runs_by_itself_and_reports(
    deployed: str, topology: Topology, openai_endpoint: ScriptedEndpoint, tmp_path: Path, isolated: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 1)
    parameters: dict[str, Any] = {"dataset": dataset, "llm": "mock", "name": "by-itself", "runs": str(isolated)}
    minute = (datetime.now(UTC) + timedelta(seconds=75)).replace(second=0)
    cron = CronSchedule(cron=f"{minute.minute} {minute.hour} * * *", timezone="UTC")
    async with get_client() as client:
        found = await client.read_deployment_by_name(f"batch-evaluation/{deployed}")
        await client.create_deployment_schedules(
            found.id, [DeploymentScheduleCreate(schedule=cron, parameters={"parameters": parameters})]
        )

    def due() -> list[dict[str, Any]]:
        body = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "limit": 200}
        return [run for run in topology.post("flow_runs/filter", body) if run["auto_scheduled"]]

    await wait_until(lambda: bool(due()), 150)
    (run,) = due()
    assert run["expected_start_time"].startswith(f"{minute:%Y-%m-%dT%H:%M}:00")
    summary = json.loads((isolated / "by-itself" / "summary.json").read_text())
    assert (summary["solved"], openai_endpoint.stats.calls) == (1, CALLS)
    assert (isolated / "by-itself" / "report.html").exists()


# -- shards without a pool -----------------------------------------------------------------------------


async def test_shards_are_processes_of_this_machine_where_there_is_no_pool(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 3, copies=2)
    parameters = ShardedParameters(dataset=dataset, llm="mock", shards=2, steps_per_task_run=8, name="halves")
    result = await sharded_evaluation.arun(parameters)
    assert (result.summary.problems, result.summary.solved) == (6, 6)
    assert openai_endpoint.stats.calls == 3 * CALLS
    assert not list((result.folder / "shards").glob("0*")), "what is merged is not kept twice"
    again = await sharded_evaluation.arun(parameters)
    assert again.summary.solved == 6 and openai_endpoint.stats.calls == 3 * CALLS


def test_options_of_shards_without_shards_are_refused(tmp_path: Path) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 3)
    code, _, err = cli("eval", dataset, "--llm", "mock", "--pool", "p")
    assert (code, "--pool: needs --shards" in err) == (2, True), err
    assert asyncio.run(_refused(ShardedParameters(dataset=dataset, shards=4, llm="mock"))) == (
        "shards: 4 is more than the 3 problems; use at most 3"
    )


async def _refused(parameters: ShardedParameters) -> str:
    with pytest.raises(ConfigurationError) as caught:
        await sharded_evaluation.fn(parameters)
    return str(caught.value)
