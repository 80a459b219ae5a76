"""Reuse of reflections: when one is taken over, when it is not, and what is on record of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reflexion.errors import ConfigurationError
from reflexion.reuse.reflection_reuse import open_similarity
from reflexion.run.batch_run import BatchResult, execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.run.run_folder import RunFolder
from reflexion.testing import ScriptedEndpoint
from reflexion.types import Episode
from tests.support.evals import write_problems

TOWNS = ("Aachen", "Bergen", "Cork", "Delft")


def alike(path: Path, names: tuple[str, ...] = TOWNS) -> str:
    """Problems that differ in one word of many."""
    lines = [
        f'{{"id": "{n}", "prompt": "How many bridges cross the river in the old town of {n}, '
        f'counting the railway bridge and the ford below the mill?", "answer": "42"}}'
        for n in names
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def run(dataset: str, **parameters: object) -> BatchResult:
    # One after another, so that each finds what the one before it learned.
    settled = {"dataset": dataset, "llm": "mock", "concurrency": 1, "use_cache": False, **parameters}
    return asyncio.run(execute_batch(BatchParameters.model_validate(settled)))


def episodes(result: BatchResult) -> list[Episode]:
    return list(RunFolder.open(result.folder).episodes())


def reused(result: BatchResult) -> list[bool]:
    return [r.reused_from is not None for e in episodes(result) for r in e.reflections]


def test_off_unless_asked_for(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    result = run(alike(tmp_path / "p.jsonl"))
    assert reused(result) == [False] * 4
    assert result.summary.llm_calls == 12


def test_a_similar_failure_is_given_the_lesson(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    result = run(alike(tmp_path / "p.jsonl"), reflection_reuse=0.85)

    assert reused(result) == [False, True, True, True]
    assert result.summary.llm_calls == openai_endpoint.stats.calls == 12 - 3
    first, *others = [r for e in episodes(result) for r in e.reflections]
    assert {r.text for r in others} == {first.text}
    assert {r.reused_from for r in others} == {first.key}
    assert all(r.similarity is not None and 0.85 <= r.similarity < 1 and r.usage.calls == 0 for r in others)
    # Beside one another, so that lessons that do not help show.
    lessons = result.summary.lessons
    assert (lessons.reused.episodes, lessons.reused.solved) == (3, 3)
    assert (lessons.fresh.episodes, lessons.fresh.solved) == (1, 1)


def test_what_is_not_similar_enough_is_drawn_anew(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    assert reused(run(alike(tmp_path / "p.jsonl"), reflection_reuse=1.0)) == [False] * 4


def test_another_failure_class_is_another_matter(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    wrong = iter(["41", "", "41", ""])

    def answer(prompt: str) -> str:
        if "PLAN-OK" in prompt:
            return "42"
        return "PLAN-OK" if "reflect" in prompt.lower() else next(wrong)

    openai_endpoint.answer = answer
    result = run(alike(tmp_path / "p.jsonl"), reflection_reuse=0.5)
    classes = [e.trials[0].evaluation.failure_class for e in episodes(result) if e.trials[0].evaluation]
    assert len(set(classes)) == 2
    assert reused(result) == [False, False, True, True]


def test_a_lesson_that_was_seen_is_not_given_again(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    # Never solved, always the same words: the second trial's failure is as similar as can be to others'.
    openai_endpoint.answer = lambda prompt: "Count again." if "reflect" in prompt.lower() else "41"
    result = run(alike(tmp_path / "p.jsonl"), reflection_reuse=0.5)
    assert reused(result) == [False, False, True, False, True, False, True, False]


def test_repeats_do_not_share_lessons(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    dataset = write_problems(tmp_path / "p.jsonl", 1)
    assert reused(run(dataset, repeat=3, reflection_reuse=0.5)) == [False] * 3


def test_lessons_outlive_the_run_and_a_refreshed_one_does_without(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    cache = {"use_cache": True, "cache": str(tmp_path / "cache")}
    run(alike(tmp_path / "a.jsonl", TOWNS[:1]), reflection_reuse=0.85, **cache)
    tomorrow = alike(tmp_path / "b.jsonl", TOWNS[1:2])
    assert reused(run(tomorrow, reflection_reuse=0.85, **cache)) == [True]
    assert reused(run(tomorrow, reflection_reuse=0.85, refresh=True, **cache)) == [False]
    # Whether and how reflections are reused is part of their key.
    assert reused(run(tomorrow, **cache)) == [False]


def test_embeddings_that_cannot_be_had_cost_a_warning(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(alike(tmp_path / "p.jsonl"), reflection_reuse=0.85, similarity="embeddings")
    assert result.summary.solved == 4
    assert reused(result) == [False] * 4
    assert sum("reflection reuse" in r.getMessage() for r in caplog.records) == 1


async def test_similarities_by_name() -> None:
    provider, close = open_similarity()
    assert provider.name == "lexical"
    await close()
    provider, close = open_similarity("embeddings:small", base_url="http://127.0.0.1:9/v1")
    assert provider.name == "embeddings:small"
    await close()
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        open_similarity("embeddings")
