"""A run that its budget stopped, carried on with: what it paid for is paid for once, and counted once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reflexion.run.batch_run import BatchResult
from reflexion.testing import ScriptedEndpoint
from reflexion.types import Episode
from tests.support.evals import CALLS, episodes, evaluate, write_problems

PROBLEMS = 4


def spent(result: BatchResult) -> int:
    tokens = result.summary.tokens
    return tokens.prompt + tokens.completion


def run(dataset: str, **parameters: Any) -> BatchResult:
    return evaluate("direct", dataset, name="stopped", concurrency=1, **parameters)


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    return write_problems(tmp_path / "problems.jsonl", PROBLEMS)


def test_partial_trials_count_as_spent_and_not_as_saved(
    openai_endpoint: ScriptedEndpoint, dataset: str, tmp_path: Path
) -> None:
    undisturbed = evaluate("direct", dataset, cache=str(tmp_path / "other"))
    of_one = spent(undisturbed) // PROBLEMS
    openai_endpoint.stats.calls = 0

    # Enough for the first problem and one call of the second, then a little more, then for all.
    stopped = run(dataset, max_tokens=of_one + of_one // 4)
    assert stopped.stopped is not None
    assert PROBLEMS * CALLS > openai_endpoint.stats.calls > CALLS
    assert openai_endpoint.stats.calls % CALLS != 0, "it was to be stopped within an episode"
    again = run(dataset, max_tokens=2 * of_one + of_one // 4)
    assert again.stopped is not None
    assert again.summary.llm_calls == openai_endpoint.stats.calls
    finished = run(dataset)

    assert openai_endpoint.stats.calls == PROBLEMS * CALLS
    figures = finished.summary
    assert (figures.solved, figures.llm_calls, figures.cached_steps) == (PROBLEMS, PROBLEMS * CALLS, 0)
    assert (spent(finished), figures.tokens.saved) == (spent(undisturbed), 0)
    assert episodes(finished.folder) == episodes(undisturbed.folder)


def test_what_is_computed_again_counts_twice(openai_endpoint: ScriptedEndpoint, dataset: str) -> None:
    of_one = spent(evaluate("direct", dataset, use_cache=False, limit=1))
    openai_endpoint.stats.calls = 0
    stopped = run(dataset, use_cache=False, max_tokens=of_one + of_one // 4)
    begun = openai_endpoint.stats.calls - CALLS
    assert begun > 0
    assert stopped.summary.llm_calls == openai_endpoint.stats.calls

    finished = run(dataset, use_cache=False)

    assert openai_endpoint.stats.calls == PROBLEMS * CALLS + begun
    assert finished.summary.llm_calls == openai_endpoint.stats.calls
    lines = (finished.folder / "episodes.jsonl").read_text().splitlines()
    lost = [Episode.model_validate(json.loads(line)).lost.calls for line in lines]
    assert lost == [0, begun, 0, 0]


def test_a_killed_run_remembers_what_it_spent(openai_endpoint: ScriptedEndpoint, dataset: str, tmp_path: Path) -> None:
    budget = spent(evaluate("direct", dataset, cache=str(tmp_path / "other"), limit=2))
    first = run(dataset, max_tokens=budget)
    assert first.summary.solved == 2
    # What a kill leaves behind: the record, and no figures.
    (first.folder / "summary.json").unlink()
    calls = openai_endpoint.stats.calls

    assert run(dataset, max_tokens=budget).stopped is not None
    assert openai_endpoint.stats.calls == calls
