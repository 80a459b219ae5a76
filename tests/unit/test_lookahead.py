"""Episodes the cache answers whole are found before anything is started; the others are left alone."""

from __future__ import annotations

import pytest

from reflexion.cache import MemoryStepCache
from reflexion.cache.step_cache import CacheFilter
from reflexion.evaluators import resolve_evaluator
from reflexion.loop.algorithm import run_episode
from reflexion.loop.steps import EpisodeOptions, Runtime, build_steps
from reflexion.run.lookahead import episodes_from_cache
from reflexion.run.wiring import Session
from reflexion.testing import ScriptedLLM, learns_from_reflection
from reflexion.types import Outcome, Problem


class Told:
    def __init__(self) -> None:
        self.steps: list[tuple[str, bool]] = []

    def record_step(self, step, output, wall_seconds) -> None:
        self.steps.append((step, output is not None and output.cached))

    def record_error(self, step, error) -> None:
        raise AssertionError(step)


PROBLEMS = [Problem(id=str(n), prompt=f"{n}: what is six times seven?", answer="42") for n in range(6)]


def session_of(llm: ScriptedLLM, observer: Told) -> Session:
    runtime = Runtime(
        options=EpisodeOptions(),
        actor=lambda index: llm,
        reflector=llm,
        evaluator=lambda problem: resolve_evaluator("exact", problem),
        observers=(observer,),
    )
    return Session(runtime, MemoryStepCache(), {})


@pytest.mark.parametrize(("known", "cleared", "found"), [(6, None, 6), (4, None, 4), (6, "reflect", 0), (0, None, 0)])
async def test_whole_episodes_are_found_and_no_model_is_asked(known: int, cleared: str | None, found: int) -> None:
    answer = learns_from_reflection()
    llm = ScriptedLLM(lambda request: answer("\n".join(m.content for m in request.messages)))
    told = Told()
    session = session_of(llm, told)
    for problem in PROBLEMS[:known]:
        await run_episode(problem, build_steps(session.runtime, session.runner))
    assert session.cache is not None
    if cleared == "reflect":
        await session.cache.clear(CacheFilter(step="reflect"))
    calls = len(llm.requests)
    told.steps.clear()
    hits = sum(s.hits for s in (await session.cache.stats()).steps)

    ends = [end async for end in episodes_from_cache(((p, 0) for p in PROBLEMS), session)]

    assert [episode.problem_id for episode, _ in ends] == [str(n) for n in range(found)]
    assert all(e.outcome is Outcome.SOLVED and len(e.trials) == 2 and e.usage.calls == 0 for e, _ in ends)
    assert len(llm.requests) == calls
    one = [("trial", True), ("evaluate", False), ("reflect", True), ("memorize", False), ("trial", True)]
    assert told.steps == [*one, ("evaluate", False)] * found
    assert [len(steps) for _, steps in ends] == [6] * found
    # Look-ups of episodes that are not whole are not counted: their steps are looked up again.
    assert sum(s.hits for s in (await session.cache.stats()).steps) - hits == 3 * found


async def test_a_batch_that_is_new_is_not_looked_up_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflexion.run.lookahead.EPISODES", 2)
    session = session_of(ScriptedLLM([]), Told())
    left = iter([(p, 0) for p in PROBLEMS])
    assert [end async for end in episodes_from_cache(left, session)] == []
    assert len(list(left)) == len(PROBLEMS) - 2
