"""`ReflexionAgent` over a scripted model: what it gives, where it works, and what it refuses."""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
from pathlib import Path

import pytest

from reflexion import Episode, Outcome, Problem, ReflexionAgent, Sampling, Strategy
from reflexion.errors import AuthenticationError, ConfigurationError, EndpointError
from reflexion.llm.chat_model import ChatRequest
from reflexion.telemetry import PerformanceMonitor
from reflexion.testing import ScriptedEndpoint, ScriptedLLM, learns_from_reflection

PROBLEM = Problem(id="p", prompt="What is six times seven?", answer="42")


def learner(latency: float = 0.0) -> ScriptedLLM:
    """Wrong until its own reflection is in the prompt."""
    answer = learns_from_reflection()
    return ScriptedLLM(lambda r: answer("\n".join(m.content for m in r.messages)), latency=latency)


def test_the_reflection_reaches_the_next_trial() -> None:
    llm = learner()
    episode = ReflexionAgent(llm).run(PROBLEM)
    assert isinstance(episode, Episode)
    assert (episode.outcome, episode.solved_at, episode.answer) == (Outcome.SOLVED, 2, "42")
    assert [r.role for r in llm.requests] == ["actor", "reflector", "actor"]
    assert "PLAN-OK" in llm.requests[2].messages[-1].content
    assert episode.usage == llm.usage


def test_a_text_is_a_problem_that_the_same_model_judges() -> None:
    llm = ScriptedLLM(["Paris", '{"passed": true, "reason": "It is."}'])
    episode = ReflexionAgent(llm).run("What is the capital of France?")
    assert episode.solved
    assert episode.trials[0].evaluation is not None and episode.trials[0].evaluation.evaluator == "judge"
    assert len(llm.requests) == 2


def test_roles_may_have_models_of_their_own() -> None:
    actor, reflector = learner(), ScriptedLLM(["PLAN-OK: count."], model="wise")
    episode = ReflexionAgent(actor, reflector=reflector).run(PROBLEM)
    assert episode.solved_at == 2
    assert [len(actor.requests), len(reflector.requests)] == [2, 1]
    assert episode.reflections[0].model == "wise"


@pytest.mark.parametrize("returned", [True, 1.0, "", {"passed": True}])
def test_a_function_of_the_user_s_judges(returned: object) -> None:
    seen: list[tuple[str, str]] = []

    def check(problem: Problem, answer: str) -> object:
        seen.append((problem.id, answer))
        return returned

    assert ReflexionAgent(ScriptedLLM(["41"]), evaluator=check).run(PROBLEM).solved
    assert seen == [("p", "41")]


def test_a_function_s_words_are_what_is_reflected_on() -> None:
    llm = ScriptedLLM(["41", "I was off by one.", "42"])
    agent = ReflexionAgent(llm, evaluator=lambda problem, answer: "" if answer == "42" else "One more!")
    assert agent.run(PROBLEM).solved_at == 2
    assert "One more!" in llm.requests[1].messages[-1].content


async def test_an_async_function_judges_too() -> None:
    async def check(problem: Problem, answer: str) -> bool:
        await asyncio.sleep(0)
        return answer == "42"

    assert (await ReflexionAgent(learner(), evaluator=check).arun(PROBLEM)).solved_at == 2


@pytest.mark.parametrize("strategy", list(Strategy))
def test_each_strategy_by_name(strategy: Strategy) -> None:
    llm = ScriptedLLM(lambda request: "41")
    episode = ReflexionAgent(llm, strategy=strategy.value, max_trials=2).run(PROBLEM)
    assert len(episode.reflections) == (1 if strategy.reflects else 0)
    assert ("Your previous answer was wrong" in llm.requests[-1].messages[-1].content) is strategy.shows_last_attempt


# -- many ----------------------------------------------------------------------------------------------


def test_run_many_works_side_by_side_and_keeps_the_order() -> None:
    llm = learner(latency=0.01)
    problems = [Problem(id=f"p{n}", prompt=f"[{n}] What is six times seven?", answer="42") for n in range(12)]
    episodes = ReflexionAgent(llm, concurrency=4).run_many(problems)
    assert [e.problem_id for e in episodes] == [p.id for p in problems]
    assert all(e.solved for e in episodes)
    assert llm.peak_in_flight == 4


def test_one_problem_that_fails_never_fails_the_others() -> None:
    answer = learns_from_reflection()

    def script(request: ChatRequest) -> str | Exception:
        text = "\n".join(m.content for m in request.messages)
        return EndpointError("boom") if "[bad]" in text else answer(text)

    bad = Problem(id="bad", prompt="[bad] ?", answer="42")
    episodes = ReflexionAgent(ScriptedLLM(script)).run_many([PROBLEM, bad])
    assert [e.outcome for e in episodes] == [Outcome.SOLVED, Outcome.ERROR]
    assert episodes[1].error is not None and episodes[1].error.kind == "EndpointError"


def test_a_wrong_key_is_raised_not_repeated_for_each_problem() -> None:
    llm = ScriptedLLM(lambda request: AuthenticationError("401: wrong key"))
    problems = [Problem(id=f"p{n}", prompt=f"{n}?", answer="1") for n in range(50)]
    with pytest.raises(AuthenticationError, match="401"):
        ReflexionAgent(llm, concurrency=2).run_many(problems)
    assert len(llm.requests) <= 4


def test_run_many_of_nothing_is_nothing() -> None:
    assert ReflexionAgent(ScriptedLLM()).run_many([]) == []


# -- cache, memory, monitor ----------------------------------------------------------------------------


def test_a_repeated_question_is_answered_from_memory_unless_told_otherwise() -> None:
    for cache, calls in ((None, 3), (False, 6)):
        llm = learner()
        agent = ReflexionAgent(llm, cache=cache)
        assert agent.run(PROBLEM).answer == agent.run(PROBLEM).answer == "42"
        assert len(llm.requests) == calls


def test_a_folder_caches_across_agents(tmp_path: Path) -> None:
    llm = learner()
    for _ in range(2):
        with ReflexionAgent(llm, cache=str(tmp_path / "steps")) as agent:
            episode = agent.run(PROBLEM)
    assert len(llm.requests) == 3
    assert episode.usage.calls == 0 and episode.saved.calls == 3


def test_a_lasting_memory_solves_at_once_what_was_learned_before(tmp_path: Path) -> None:
    memory = f"sqlite:{tmp_path / 'lessons.sqlite'}"
    for solved_at in (2, 1):
        with ReflexionAgent(learner(), memory=memory, cache=False) as agent:
            assert agent.run(PROBLEM).solved_at == solved_at


def test_the_monitor_sees_every_step() -> None:
    monitor = PerformanceMonitor()
    ReflexionAgent(learner(), performance_monitor=monitor).run_many([PROBLEM, PROBLEM.model_copy(update={"id": "q"})])
    markdown = monitor.report().to_markdown()
    assert "response_time_p95" in markdown
    assert "| memorize | 2 |" in markdown


# -- where it works ------------------------------------------------------------------------------------


def test_profiling_as_the_guide_shows(capsys: pytest.CaptureFixture[str]) -> None:
    agent = ReflexionAgent(llm=ScriptedLLM(["Done.", '{"passed": true, "reason": "fine"}']))
    cProfile.runctx('agent.run("example task")', {"agent": agent}, {})
    assert "function calls" in capsys.readouterr().out


def test_a_profile_names_the_loop() -> None:
    profile = cProfile.Profile()
    profile.runcall(ReflexionAgent(learner()).run, PROBLEM)
    assert any("run_episode" in name for _, _, name in pstats.Stats(profile).stats)  # type: ignore[attr-defined]


async def test_run_inside_a_running_event_loop() -> None:
    # As in a notebook: the call blocks, and works.
    agent = ReflexionAgent(learner())
    assert agent.run(PROBLEM).solved_at == 2
    assert agent.run_many([PROBLEM])[0].solved_at == 2
    agent.close()


async def test_arun_and_run_of_one_agent_do_not_disturb_each_other() -> None:
    agent = ReflexionAgent(learner())
    assert (await agent.arun(PROBLEM)).solved
    assert agent.run(PROBLEM).solved
    assert (await agent.arun(PROBLEM)).solved


def test_calls_of_several_event_loops_reuse_the_agent(openai_endpoint: ScriptedEndpoint) -> None:
    agent = ReflexionAgent("mock", cache=False)
    for _ in range(3):
        assert asyncio.run(agent.arun(PROBLEM)).solved_at == 2
    agent.close()
    assert openai_endpoint.stats.calls == 9


def test_connections_are_kept_between_calls(openai_endpoint: ScriptedEndpoint) -> None:
    with ReflexionAgent("mock", cache=False) as agent:
        for _ in range(4):
            agent.run(PROBLEM)
    assert openai_endpoint.stats.connections == 1


def test_calls_at_once_share_what_is_opened(openai_endpoint: ScriptedEndpoint) -> None:
    async def at_once() -> None:
        async with ReflexionAgent("mock", cache=False) as agent:
            await asyncio.gather(*(agent.arun(PROBLEM) for _ in range(4)))

    asyncio.run(at_once())
    assert openai_endpoint.stats.connections <= 4


def test_an_agent_that_is_dropped_lets_go_of_its_connections(openai_endpoint: ScriptedEndpoint) -> None:
    # A socket left open would be reported as a warning, and warnings are errors.
    assert ReflexionAgent("mock").run(PROBLEM).solved
    gc.collect()


def test_threads_may_share_an_agent() -> None:
    from concurrent.futures import ThreadPoolExecutor

    agent = ReflexionAgent(learner(latency=0.01), cache=False)
    with ThreadPoolExecutor(4) as pool:
        assert all(e.solved for e in pool.map(agent.run, [PROBLEM] * 8))
    agent.close()


# -- what it refuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_trials": 0}, "max_trials"),
        ({"strategy": "guess"}, "strategy"),
        ({"concurrency": 0}, "concurrency"),
    ],
)
def test_wrong_options_are_named_at_once(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        ReflexionAgent(ScriptedLLM(), **options)  # type: ignore[arg-type]


def test_an_unknown_evaluator_is_named() -> None:
    with pytest.raises(ConfigurationError, match="guess"):
        ReflexionAgent(ScriptedLLM(["1"]), evaluator="guess").run(PROBLEM)


def test_an_empty_task_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt"):
        ReflexionAgent(ScriptedLLM()).run("")


def test_no_key_is_told_with_the_way_to_mend_it() -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        ReflexionAgent("gpt-4").run("example task")


def test_sampling_reaches_the_model() -> None:
    llm = ScriptedLLM(["42"])
    ReflexionAgent(llm, sampling=Sampling(temperature=0.7, seed=3)).run(PROBLEM)
    assert (llm.requests[0].sampling.temperature, llm.requests[0].sampling.seed) == (0.7, 3)
