"""Places for workers: kept full, never over, and closed when there is no work."""

from __future__ import annotations

from pathlib import Path

import pytest

from reflexion.run.batch_run import execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.run.workers import CREW, Crew
from reflexion.testing import ScriptedEndpoint
from tests.support.evals import CALLS, write_problems


def crew_of(size: int, most: int) -> tuple[Crew, list[int]]:
    hired: list[int] = []
    return Crew(size, most, lambda: hired.append(1)), hired


def test_places_of_those_who_wait_are_filled_up_to_the_most() -> None:
    crew, hired = crew_of(2, 4)
    crew.fill()
    assert len(hired) == 2
    with crew.away():
        assert len(hired) == 3 and not crew.too_many
        with crew.away(), crew.away():
            assert len(hired) == 4, "no more than the most, however many wait"
    assert crew.too_many
    crew.leave(finished=False)
    crew.leave(finished=False)
    assert not crew.too_many


def test_a_closed_crew_hires_nobody() -> None:
    crew, hired = crew_of(2, 8)
    crew.fill()
    crew.leave(finished=True)
    with crew.away():
        pass
    crew.leave(finished=False)
    crew.fill()
    assert len(hired) == 2


def test_a_place_is_taken_again_when_the_wait_ends_badly() -> None:
    crew, _ = crew_of(1, 8)
    crew.fill()
    with pytest.raises(RuntimeError), crew.away():
        raise RuntimeError
    assert crew.too_many


async def test_an_episode_that_waits_does_not_hold_up_the_others(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    """One at a time, the first call refused: the others are done before it is tried again."""
    problems = 6
    openai_endpoint.faults.append("429")
    openai_endpoint.retry_after = 1.0
    dataset = write_problems(tmp_path / "p.jsonl", problems)
    result = await execute_batch(BatchParameters(dataset=dataset, llm="mock", concurrency=1))
    assert result.summary.solved == problems
    asked = [next(n for n in range(problems) if f"What is {n} times" in str(b)) for b in openai_endpoint.bodies]
    assert asked[0] == 0 and asked[-CALLS:] == [0] * CALLS, asked
    assert openai_endpoint.stats.calls == problems * CALLS + 1
    assert openai_endpoint.stats.peak_in_flight == 1, "never more requests at a time than were asked for"
    assert CREW.get() is None
