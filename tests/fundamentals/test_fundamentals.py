"""The ideas of this project, one test each, to be read from top to bottom.

Everything here is real: the language model (a small one in this process), the HTTP endpoint, the Prefect
server, the SQLite memory and the files. Where a test must know what a model answers, the scripted endpoint
stands in: it answers 41 until the prompt carries its own reflection, and 42 from then on.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reflexion import Outcome, Problem, ReflexionAgent, Sampling, Strategy
from reflexion.flows.batch import batch_evaluation
from reflexion.run.parameters import BatchParameters
from reflexion.telemetry import PerformanceMonitor
from reflexion.testing import ScriptedEndpoint
from tests.support.prefect_server import PrefectServer
from tests.support.records import flow_run_of, state_names, task_runs

SEVEN = Problem(id="seven", prompt="What is six times seven? Answer with the number only.", answer="42")


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Three problems, one JSON object a line."""
    path = tmp_path / "problems.jsonl"
    lines = [{"id": f"t{n}", "prompt": f"[{n}] {SEVEN.prompt}", "answer": "42"} for n in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.model
def test_1_an_agent_works_with_no_key_no_server_and_no_network() -> None:
    with ReflexionAgent(max_trials=2, sampling=Sampling(max_tokens=32)) as agent:
        episode = agent.run(Problem(id="hello", prompt="Say hello.", answer="hello", evaluator="contains"))

    # A small model may or may not be right; what it did is on record in any case.
    assert episode.outcome in (Outcome.SOLVED, Outcome.FAILED)
    assert episode.trials[0].answer
    assert episode.usage.calls >= 1


def test_2_a_trial_that_fails_is_reflected_upon_and_the_next_one_sees_the_reflection(
    openai_endpoint: ScriptedEndpoint,
) -> None:
    with ReflexionAgent(llm="mock", max_trials=3) as agent:
        episode = agent.run(SEVEN)

    first, second = episode.trials
    assert (first.answer, second.answer) == ("41", "42")
    assert first.evaluation is not None and not first.evaluation.passed
    assert first.reflection is not None and "count again" in first.reflection.text
    assert second.lessons == (first.reflection.text,)
    assert episode.solved_at == 2


def test_3_without_reflections_the_same_mistake_is_made_again(openai_endpoint: ScriptedEndpoint) -> None:
    with ReflexionAgent(llm="mock", max_trials=3, strategy=Strategy.NONE) as agent:
        episode = agent.run(SEVEN)

    assert [trial.answer for trial in episode.trials] == ["41", "41", "41"]
    assert episode.outcome is Outcome.FAILED


def test_4_you_decide_what_is_right(openai_endpoint: ScriptedEndpoint) -> None:
    def odd(problem: Problem, answer: str) -> bool | str:
        return True if int(answer) % 2 else f"{answer} is even"

    with ReflexionAgent(llm="mock", evaluator=odd) as agent:
        assert agent.run("Name an odd number.").solved_at == 1


def test_5_a_memory_that_lasts_spares_the_next_agent_the_mistake(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    lessons = f"sqlite:{tmp_path / 'lessons.sqlite'}"
    with ReflexionAgent(llm="mock", memory=lessons) as novice:
        assert novice.run(SEVEN).solved_at == 2
    with ReflexionAgent(llm="mock", memory=lessons) as veteran:
        assert veteran.run(SEVEN).solved_at == 1


def test_6_what_was_asked_once_is_not_asked_again(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    cache = str(tmp_path / "steps")
    monitor = PerformanceMonitor()
    for _ in range(2):
        with ReflexionAgent(llm="mock", cache=cache, performance_monitor=monitor) as agent:
            episode = agent.run(SEVEN)

    assert openai_endpoint.stats.calls == 3  # two trials and a reflection, once
    assert (episode.usage.calls, episode.saved.calls) == (0, 3)
    assert "cache" in monitor.report().to_markdown()


@pytest.mark.prefect
async def test_7_a_dataset_is_a_flow_and_every_step_a_task_run(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, dataset: str
) -> None:
    result = await batch_evaluation.arun(BatchParameters(dataset=dataset, llm="mock"))
    assert result.summary.solved_by_trial == (0, 3, 3)

    runs = await task_runs(prefect_server, flow_run_of(prefect_server, dataset)["id"], 18)
    assert state_names(runs)["trial", "Completed"] == 6
    assert state_names(runs)["reflect", "Completed"] == 3


@pytest.mark.prefect
async def test_8_a_second_run_is_answered_from_the_cache_and_prefect_says_so(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, dataset: str
) -> None:
    await batch_evaluation.arun(BatchParameters(dataset=dataset, llm="mock"))
    again = await batch_evaluation.arun(BatchParameters(dataset=dataset, llm="mock"))

    assert (again.summary.llm_calls, again.summary.cache_hit_rate) == (0, 1.0)
    runs = await task_runs(prefect_server, flow_run_of(prefect_server, dataset)["id"], 18)
    assert state_names(runs)["trial", "Cached"] == 6


@pytest.mark.prefect
def test_9_a_run_that_was_cut_short_goes_on_where_it_stopped(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, dataset: str
) -> None:
    parameters = BatchParameters(dataset=dataset, llm="mock", name="evening", use_cache=False)
    finished = batch_evaluation.run(parameters)
    record = finished.folder / "episodes.jsonl"
    first, second, third = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(first + second + third[:20])  # as a process killed in the middle of a line leaves it

    resumed = batch_evaluation.run(parameters)
    assert resumed.folder == finished.folder
    assert resumed.summary.solved == 3
    assert openai_endpoint.stats.calls == 9 + 3  # only the third problem was worked on again


@pytest.mark.prefect
def test_10_one_problem_that_fails_never_fails_the_others(
    prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, dataset: str
) -> None:
    openai_endpoint.faults.append("400")  # the first call is refused for good
    result = batch_evaluation.run(BatchParameters(dataset=dataset, llm="mock", concurrency=1))
    assert (result.summary.solved, result.summary.errors) == (2, 1)
