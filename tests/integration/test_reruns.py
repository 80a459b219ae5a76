"""What a second run finds of the first one's work, by all three engines: without Prefect, with a task run
for each step, and with steps that share task runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from reflexion.cache import CacheStats, open_cache
from reflexion.testing import ScriptedEndpoint
from tests.support.evals import CALLS, ENGINES, Engine, episodes, evaluate, write_problems
from tests.waiting import wait_until

PREFECT = [
    pytest.mark.prefect,
    # Prefect's own clients are still open when the event loop of a flow run ends.
    pytest.mark.filterwarnings("ignore:unclosed (<socket|transport):ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(params=[pytest.param(e, marks=() if e == "direct" else PREFECT) for e in ENGINES])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param != "direct":
        request.getfixturevalue("prefect_server")
    return request.param


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def cache_stats(cache: str) -> CacheStats:
    async def work() -> CacheStats:
        store = open_cache(cache)
        try:
            return await store.stats()
        finally:
            await store.aclose()

    return asyncio.run(work())


def keys_on_record(folder: Path) -> list[str]:
    trials = [t for line in (folder / "episodes.jsonl").read_text().splitlines() for t in json.loads(line)["trials"]]
    return [t["key"] for t in trials] + [t["reflection"]["key"] for t in trials if "reflection" in t]


def test_a_second_run_calls_nothing_whatever_its_ttl(
    engine: Engine, openai_endpoint: ScriptedEndpoint, cache: str, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 4)

    first = evaluate(engine, dataset, cache=cache, ttl="1d")
    second = evaluate(engine, dataset, cache=cache, ttl="trial=2h,reflect=30d")

    assert openai_endpoint.stats.calls == 4 * CALLS
    assert (first.summary.llm_calls, first.summary.cache_hit_rate) == (4 * CALLS, 0.0)
    assert (second.summary.llm_calls, second.summary.cache_hit_rate) == (0, 1.0)
    assert second.summary.tokens.saved == first.summary.tokens.prompt + first.summary.tokens.completion
    assert episodes(first.folder) == episodes(second.folder)
    steps = {s.step: s for s in cache_stats(cache).steps}
    assert (steps["trial"].hits, steps["trial"].misses) == (8, 8)
    assert (steps["reflect"].hits, steps["reflect"].misses) == (4, 4)
    assert steps["trial"].saved.total + steps["reflect"].saved.total == second.summary.tokens.saved


@pytest.mark.prefect
@pytest.mark.filterwarnings("ignore:unclosed (<socket|transport):ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_engines_share_their_entries(
    prefect_server: Any, openai_endpoint: ScriptedEndpoint, cache: str, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 2)
    runs = [evaluate(engine, dataset, cache=cache) for engine in ("task runs", "direct", "shared task runs")]
    assert [run.summary.llm_calls for run in runs] == [2 * CALLS, 0, 0]
    assert openai_endpoint.stats.calls == 2 * CALLS


def test_refresh_computes_again_and_identical_steps_once(
    engine: Engine, openai_endpoint: ScriptedEndpoint, cache: str, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 2, copies=3)
    openai_endpoint.latency = 0.05
    evaluate(engine, dataset, cache=cache)
    assert openai_endpoint.stats.calls == 2 * CALLS

    refreshed = evaluate(engine, dataset, cache=cache, refresh=True)
    assert openai_endpoint.stats.calls == 4 * CALLS
    assert openai_endpoint.stats.duplicates_in_flight == 0
    assert refreshed.summary.llm_calls == 2 * CALLS

    # What was refreshed took the place of what was there.
    openai_endpoint.answer = lambda prompt: "never asked"
    assert evaluate(engine, dataset, cache=cache).summary.solved == 6
    assert openai_endpoint.stats.calls == 4 * CALLS


def test_no_cache_neither_reads_nor_writes(
    engine: Engine, openai_endpoint: ScriptedEndpoint, cache: str, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 2)
    evaluate(engine, dataset, cache=cache, use_cache=False)
    assert not Path(cache).exists()
    evaluate(engine, dataset, cache=cache)
    before = cache_stats(cache)
    assert evaluate(engine, dataset, cache=cache, use_cache=False).summary.llm_calls == 2 * CALLS
    assert openai_endpoint.stats.calls == 3 * 2 * CALLS
    assert cache_stats(cache) == before


def test_entries_end_with_their_time_to_live(
    engine: Engine, openai_endpoint: ScriptedEndpoint, cache: str, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 1)
    first = evaluate(engine, dataset, cache=cache, ttl="trial=1,reflect=1d")

    async def trials_are_gone() -> bool:
        store = open_cache(cache)
        try:
            return len(await store.get_many(keys_on_record(first.folder))) == 1
        finally:
            await store.aclose()

    asyncio.run(wait_until(trials_are_gone))
    second = evaluate(engine, dataset, cache=cache)
    assert (second.summary.steps["trial"].executed, second.summary.steps["reflect"].cached) == (2, 1)


def test_an_entry_that_does_not_fit_is_computed_again_once(
    engine: Engine, openai_endpoint: ScriptedEndpoint, cache: str, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 1, copies=3)
    first = evaluate(engine, dataset, cache=cache)

    async def spoil() -> None:
        store = open_cache(cache)
        try:
            for entry in (await store.get_many(keys_on_record(first.folder))).values():
                await store.put(entry.model_copy(update={"value": {"nothing": "of use"}}))
        finally:
            await store.aclose()

    asyncio.run(spoil())
    openai_endpoint.latency = 0.05
    second = evaluate(engine, dataset, cache=cache)
    assert second.summary.solved == 3
    assert openai_endpoint.stats.calls == 2 * CALLS


def test_repeats_do_not_share_answers(openai_endpoint: ScriptedEndpoint, cache: str, tmp_path: Path) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 2)
    first = evaluate("direct", dataset, cache=cache, repeat=3)
    assert first.summary.llm_calls == openai_endpoint.stats.calls == 2 * 3 * CALLS
    assert evaluate("direct", dataset, cache=cache, repeat=3).summary.llm_calls == 0


def test_a_tenth_changed_overnight(openai_endpoint: ScriptedEndpoint, cache: str, tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    dataset = write_problems(path, 20)
    evaluate("direct", dataset, cache=cache)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.replace("two", "2") if n % 10 == 0 else line for n, line in enumerate(lines)) + "\n")

    tonight = evaluate("direct", dataset, cache=cache).summary

    assert (tonight.solved, tonight.llm_calls) == (20, 2 * CALLS)
    assert tonight.steps["reflect"].hit_rate == pytest.approx(0.9)
    assert openai_endpoint.stats.calls == 20 * CALLS + 2 * CALLS
