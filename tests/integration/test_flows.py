"""Flows against a real Prefect server: how they are called, what is recorded, and what is retried."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import get_client
from prefect.exceptions import ParameterTypeError
from prefect.flows import load_flow_from_entrypoint

from reflexion.errors import RunFailedError
from reflexion.flows.batch import batch_evaluation
from reflexion.flows.episode import episode
from reflexion.flows.runnable import RunnableFlow
from reflexion.run.batch_run import BatchResult
from reflexion.run.parameters import BatchParameters, EpisodeParameters
from reflexion.testing import ScriptedEndpoint
from reflexion.types import Episode
from tests.support.evals import CALLS, write_problems
from tests.support.prefect_server import PrefectServer
from tests.support.records import flow_run_of, state_names, task_runs

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def problems(tmp_path: Path) -> str:
    return write_problems(tmp_path / "problems.jsonl", 2)


def parameters(dataset: str, **more: Any) -> BatchParameters:
    return BatchParameters(dataset=dataset, llm="mock", **more)


# -- four ways to call a flow --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["call", "run"])
def test_plain_code_blocks_until_the_result_is_there(
    way: str, openai_endpoint: ScriptedEndpoint, problems: str
) -> None:
    flow = batch_evaluation.run if way == "run" else batch_evaluation
    result = flow(parameters(problems))
    assert isinstance(result, BatchResult)
    assert result.summary.solved_by_trial == (0, 2, 2)
    assert openai_endpoint.stats.calls == 2 * CALLS


@pytest.mark.parametrize("way", ["call", "run", "arun"])
async def test_async_code_awaits_the_same_result(way: str, openai_endpoint: ScriptedEndpoint, problems: str) -> None:
    flow = {"call": batch_evaluation, "run": batch_evaluation.run, "arun": batch_evaluation.arun}[way]
    result = await flow(parameters(problems))  # type: ignore[misc]
    assert result.summary.solved_by_trial == (0, 2, 2)
    assert openai_endpoint.stats.calls == 2 * CALLS


async def test_a_result_can_be_awaited_again(openai_endpoint: ScriptedEndpoint, problems: str) -> None:
    result = await batch_evaluation.arun(parameters(problems))
    assert await result is result


def test_a_flow_with_other_options_is_called_in_the_same_ways(openai_endpoint: ScriptedEndpoint, problems: str) -> None:
    renamed = batch_evaluation.with_options(name="nightly")
    assert isinstance(renamed, RunnableFlow) and renamed.name == "nightly"
    assert renamed.run(parameters(problems)).summary.solved == 2


def test_one_problem_is_a_flow_too(openai_endpoint: ScriptedEndpoint) -> None:
    ended = episode.run(EpisodeParameters(problem="What is six times seven?", answer="42", llm="mock"))
    assert isinstance(ended, Episode)
    assert (ended.solved, ended.solved_at, ended.answer) == (True, 2, "42")


def test_without_a_reference_the_model_judges(openai_endpoint: ScriptedEndpoint) -> None:
    openai_endpoint.answer = lambda prompt: '{"passed": true, "reason": "It is right."}'
    ended = episode.run(EpisodeParameters(problem="Name a prime number.", llm="mock"))
    assert ended.trials[0].evaluation is not None
    assert ended.trials[0].evaluation.evaluator == "judge"


# -- as a deployment runs them -------------------------------------------------------------------------


def test_a_form_s_parameters_are_plain_json(openai_endpoint: ScriptedEndpoint, problems: str) -> None:
    form = {"dataset": problems, "llm": "mock", "reflector": "", "name": "", "limit": 1}
    result = batch_evaluation.run(form)  # type: ignore[arg-type]  # what a server sends is JSON
    assert result.summary.solved_by_trial == (0, 1, 1)


def test_wrong_parameters_are_named_and_nothing_is_run(openai_endpoint: ScriptedEndpoint, problems: str) -> None:
    with pytest.raises((ParameterTypeError, ValueError), match="max_trials"):
        batch_evaluation.run({"dataset": problems, "llm": "mock", "max_trials": 0})  # type: ignore[arg-type]
    assert openai_endpoint.stats.calls == 0


@pytest.mark.parametrize("flow", [batch_evaluation, episode])
def test_the_form_has_titles_bounds_and_choices(flow: RunnableFlow[..., Any]) -> None:
    schema = flow.parameters.model_dump()
    (model,) = (d for n, d in schema["definitions"].items() if n.endswith("Parameters"))
    fields = model["properties"]
    assert all(field.get("title") or "$ref" in field for field in fields.values())
    assert schema["definitions"]["Strategy"]["title"]
    assert (fields["max_trials"]["minimum"], fields["max_trials"]["maximum"]) == (1, 100)
    assert fields["actor"]["enum"] == ["direct", "cot", "react"]
    assert "reflexion" in json.dumps(schema["definitions"]["Strategy"])
    assert not {"api_key", "key", "password"} & fields.keys()


def test_a_module_path_names_the_flow() -> None:
    found = load_flow_from_entrypoint("reflexion.flows.batch.batch_evaluation")
    assert isinstance(found, RunnableFlow) and found.name == "batch-evaluation"
    assert inspect.iscoroutinefunction(found.fn)


async def test_a_flow_run_made_by_the_server_is_carried_out_by_a_runner_s_process(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, problems: str
) -> None:
    async with get_client() as client:
        made = await client.create_flow_run(batch_evaluation, parameters={"parameters": {"dataset": problems}})
    started = {"PREFECT__FLOW_RUN_ID": str(made.id), "REFLEXION_LLM": "mock"}
    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "prefect.flow_engine", "reflexion.flows.batch.batch_evaluation"],
        env={**os.environ, **started},
        check=True,
        capture_output=True,
        timeout=120,
    )
    run = httpx.get(f"{prefect_server.url}/flow_runs/{made.id}").json()
    assert run["state_name"] == "Completed", run["state"]
    assert openai_endpoint.stats.calls == 2 * CALLS


# -- what is recorded ----------------------------------------------------------------------------------


async def test_every_step_is_a_task_run_and_a_cached_one_says_so(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, problems: str
) -> None:
    await batch_evaluation.arun(parameters(problems, ttl="1h"))
    first = await task_runs(prefect_server, flow_run_of(prefect_server, problems)["id"], 12)
    assert state_names(first) == {
        ("trial", "Completed"): 4,
        ("evaluate", "Completed"): 4,
        ("reflect", "Completed"): 2,
        ("memorize", "Completed"): 2,
    }
    assert {run["name"] for run in first} >= {"trial:p0.0#1", "reflect:p0.0#1", "memorize:p0.0#1", "trial:p0.0#2"}

    again = await batch_evaluation.arun(parameters(problems, ttl="1h"))
    second = await task_runs(prefect_server, flow_run_of(prefect_server, problems)["id"], 12)
    assert {r["id"] for r in first}.isdisjoint({r["id"] for r in second})
    assert state_names(second) == {
        ("trial", "Cached"): 4,
        ("evaluate", "Completed"): 4,  # comparing two texts costs less than looking it up
        ("reflect", "Cached"): 2,
        ("memorize", "Completed"): 2,  # idempotent, never cached
    }
    assert (again.summary.llm_calls, again.summary.cached_steps) == (0, 6)
    assert openai_endpoint.stats.calls == 2 * CALLS


def test_the_store_holds_json_and_nothing_that_runs_code(
    openai_endpoint: ScriptedEndpoint, problems: str, isolated: Path
) -> None:
    batch_evaluation.run(parameters(problems))
    entries = [p for p in (isolated / "steps").rglob("*") if p.is_file() and p.stat().st_size > 0]
    contents = b"".join(p.read_bytes() for p in entries)
    assert len(entries) >= 6
    # A pickle of protocol 2 or later begins with these bytes; Prefect's own pickles are base64 of them.
    assert not any(mark in contents for mark in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"gAS", b"gAW"))


# -- failures ------------------------------------------------------------------------------------------


@pytest.fixture
def single_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gives up at once, so that what is seen is the task's own retrying."""
    monkeypatch.setenv("REFLEXION_MAX_ATTEMPTS", "1")


@pytest.mark.usefixtures("single_attempts")
async def test_a_retryable_error_is_retried_by_the_task(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, problems: str
) -> None:
    openai_endpoint.faults.append("500")
    result = await batch_evaluation.arun(parameters(problems, limit=1))
    runs = await task_runs(prefect_server, flow_run_of(prefect_server, problems)["id"], 6)
    assert result.summary.solved == 1
    assert sorted(r["run_count"] for r in runs if r["name"].startswith("trial:")) == [1, 2]


@pytest.mark.usefixtures("single_attempts")
@pytest.mark.parametrize("size", [1, 8])
async def test_a_permanent_error_fails_its_problem_at_once_and_no_other(
    size: int, prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 3)
    openai_endpoint.faults.append("400")
    result = await batch_evaluation.arun(parameters(dataset, concurrency=1, steps_per_task_run=size))
    s = result.summary
    assert (s.solved, s.errors, s.errors_by_class) == (2, 1, {"RequestRejectedError": 1})
    assert openai_endpoint.stats.calls == 1 + 2 * CALLS
    run = flow_run_of(prefect_server, dataset)
    assert run["state_type"] == "COMPLETED"


async def test_an_endpoint_that_refuses_every_call_fails_the_flow_run(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, problems: str
) -> None:
    openai_endpoint.api_key = "another-key"
    with pytest.raises(RunFailedError, match="401"):
        await batch_evaluation.arun(parameters(problems))
    run = flow_run_of(prefect_server, problems)
    assert run["state_type"] == "FAILED"
    assert "test-key" not in json.dumps(run)


# -- identical steps under way at once -----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 16])
async def test_identical_problems_at_once_make_one_call(
    size: int, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 1, copies=20)
    openai_endpoint.latency = 0.2
    result = await batch_evaluation.arun(parameters(dataset, concurrency=20, steps_per_task_run=size))
    assert result.summary.solved_by_trial == (0, 20, 20)
    assert openai_endpoint.stats.calls == CALLS
    assert openai_endpoint.stats.duplicates_in_flight == 0


async def test_batches_that_run_at_once_share_their_work(openai_endpoint: ScriptedEndpoint, problems: str) -> None:
    openai_endpoint.latency = 0.2
    results = await asyncio.gather(*(batch_evaluation.arun(parameters(problems, name=f"run-{n}")) for n in range(3)))
    assert [r.summary.solved for r in results] == [2, 2, 2]
    assert openai_endpoint.stats.calls == 2 * CALLS
