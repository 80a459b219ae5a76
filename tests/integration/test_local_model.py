"""The embedded model: a real language model in this process, with no key, no server and no network."""

from __future__ import annotations

import json

import pytest

from reflexion import Problem, ReflexionAgent, Sampling
from tests.support.evals import cli

pytestmark = pytest.mark.model

SQUARE = Problem(
    id="square",
    prompt="Write a Python function square(x) that returns x times x.",
    entry_point="square",
    tests="assert square(3) == 9\nassert square(-2) == 4",
)


def test_it_is_the_default_and_writes_python_that_passes_tests() -> None:
    with ReflexionAgent(max_trials=2, sampling=Sampling(max_tokens=128)) as agent:
        episode = agent.run(SQUARE)
    assert episode.outcome.value in ("solved", "failed")
    trial = episode.trials[0]
    assert trial.evaluation is not None and trial.evaluation.evaluator == "python"
    assert "square" in trial.answer
    assert episode.usage.calls >= 1 and episode.usage.completion > 0 and episode.usage.unknown == 0


def test_the_same_seed_gives_the_same_answer() -> None:
    answers = []
    for _ in range(2):
        with ReflexionAgent(cache=False, max_trials=1, sampling=Sampling(seed=1, max_tokens=48)) as agent:
            answers.append(agent.run(SQUARE).answer)
    assert answers[0] == answers[1]


def test_the_guide_s_example_task_is_judged_by_the_same_model() -> None:
    with ReflexionAgent(max_trials=1, sampling=Sampling(max_tokens=40)) as agent:
        episode = agent.run("example task")
    assert episode.error is None
    assert episode.trials[0].evaluation is not None and episode.trials[0].evaluation.evaluator == "judge"


def test_a_second_evaluation_asks_the_model_nothing() -> None:
    arguments = ("eval", "starter", "--limit", "2", "--max-trials", "2", "--direct", "--json")
    arguments += ("--max-completion-tokens", "64")
    code, out, err = cli(*arguments)
    assert code == 0, err
    first = json.loads(out)
    assert first["llm"] == "local" and first["llm_calls"] >= 2 and first["errors"] == 0
    code, out, err = cli(*arguments)
    assert code == 0, err
    second = json.loads(out)
    # Another process and another port of the server, the same weights: the same keys.
    assert (second["llm_calls"], second["cache_hit_rate"]) == (0, 1.0)
    assert second["solved_by_trial"] == first["solved_by_trial"]
