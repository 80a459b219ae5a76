"""How the public interface is used, as a type checker sees it. Read by the checker, never run."""

from __future__ import annotations

from typing import assert_type

from reflexion import Episode, Evaluation, Problem, ReflexionAgent, Sampling, Strategy
from reflexion.actors import Environment, State, tool
from reflexion.flows.batch import batch_evaluation
from reflexion.flows.episode import EpisodeRun, episode
from reflexion.flows.sharded import sharded_evaluation
from reflexion.flows.submitted import SubmittedRun
from reflexion.run.batch_run import BatchResult
from reflexion.run.parameters import BatchParameters, EpisodeParameters
from reflexion.sharding.shard_parameters import ShardedParameters
from reflexion.telemetry import PerformanceMonitor
from reflexion.testing import ScriptedLLM


def agents() -> None:
    agent = ReflexionAgent(llm="local", max_trials=3, strategy="reflexion", performance_monitor=PerformanceMonitor())
    assert_type(agent.run("example task"), Episode)
    assert_type(agent.run_many([Problem(id="a", prompt="b"), "c"]), list[Episode])
    with ReflexionAgent(ScriptedLLM(["42"]), strategy=Strategy.NONE, sampling=Sampling(temperature=0.5)) as scripted:
        assert_type(scripted.run(Problem(id="a", prompt="b", answer="c")).solved, bool)


def tools() -> None:
    @tool(timeout=5)
    def double(n: int) -> int:
        """Twice a number."""
        return 2 * n

    class Coin:
        def reset(self) -> State:
            return State("A coin.")

        def step(self, action: str) -> State:
            return State("Heads.", reward=1.0, done=True)

    assert_type(double(2), int)
    environment: Environment = Coin()
    environment.reset()
    ReflexionAgent(tools=[double, "documents"], max_turns=5)
    ReflexionAgent(actor="react").run(Problem(id="a", prompt="b", environment="mine:Coin"))


async def async_agents() -> None:
    async with ReflexionAgent() as agent:
        assert_type(await agent.arun("example task"), Episode)
        assert_type(await agent.arun_many(["a"]), list[Episode])


def evaluators() -> None:
    def passed(problem: Problem, answer: str) -> bool:
        return answer == problem.answer

    async def judged(problem: Problem, answer: str) -> Evaluation:
        return Evaluation(evaluator="mine", passed=True, score=1.0)

    ReflexionAgent(evaluator=passed)
    ReflexionAgent(evaluator=judged)
    ReflexionAgent(evaluator="exact")


def flows() -> None:
    parameters = BatchParameters(dataset="starter", llm="local", limit=2)
    assert_type(batch_evaluation(parameters), BatchResult)
    assert_type(batch_evaluation.run(parameters), BatchResult)
    assert_type(batch_evaluation.with_options(name="nightly").run(parameters), BatchResult)
    assert_type(episode.run(EpisodeParameters(problem="example task")), EpisodeRun)
    assert_type(batch_evaluation.run(parameters).summary.solved_by_trial, tuple[int, ...])
    assert_type(sharded_evaluation.run(ShardedParameters(dataset="starter", shards=2)), BatchResult)
    submitted = batch_evaluation.submit(parameters, deployment="nightly")
    assert_type(submitted, SubmittedRun)
    assert_type(submitted.wait(timeout=60), SubmittedRun)
    assert_type(submitted.result(), BatchResult)
    assert_type(submitted.cancel(), SubmittedRun)


async def async_flows() -> None:
    parameters = BatchParameters(dataset="starter")
    assert_type(await batch_evaluation.arun(parameters), BatchResult)
    assert_type(await batch_evaluation.run(parameters), BatchResult)
    assert_type(await batch_evaluation(parameters), BatchResult)
    submitted = await batch_evaluation.submit(parameters)
    assert_type(submitted, SubmittedRun)
    assert_type(await (await batch_evaluation.asubmit(parameters)).result(timeout=60), BatchResult)
    assert_type(await submitted.wait(), SubmittedRun)
    assert_type(await submitted.cancel(), SubmittedRun)
