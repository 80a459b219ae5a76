"""The actor `react`: turns with tools, what is kept of them, and everything that may go wrong in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reflexion import Document, Episode, Problem, ReflexionAgent
from reflexion.errors import ConfigurationError, MalformedReplyError, RequestRejectedError, ToolsRejectedError
from reflexion.llm.chat_model import ChatReply, ChatRequest
from reflexion.llm.endpoint.openai_chat import OpenAIChat
from reflexion.llm.wrappers.recording import RecordingLLM, ReplayLLM
from reflexion.loop.algorithm import Attempt
from reflexion.loop.prompt_budget import TokenBudget
from reflexion.loop.steps import EpisodeOptions, Runtime, StepCall, perform
from reflexion.loop.strategies import Past
from reflexion.run.checks import check_problems
from reflexion.run.parameters import EpisodeParameters
from reflexion.run.wiring import tool_source
from reflexion.testing import HttpReply, ScriptedEndpoint, ScriptedLLM
from reflexion.types import Trial, Usage

SUM = Problem(id="sum", prompt="What is 40 + 2?", answer="42", evaluator="numeric")
WHERE = Problem(
    id="where",
    prompt="Where was the founder of Arlo Mills born?",
    answer="Port Selby",
    context=(
        Document(title="Arlo Mills", text="Arlo Mills was founded by Ida Crane."),
        Document(title="Ida Crane", text="Ida Crane was born in Port Selby."),
    ),
)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def raises() -> None:
    """Always raises."""
    raise RuntimeError("out of order")


def called(*calls: tuple[str, str], text: str = "") -> ChatReply:
    made = tuple(
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    )
    usage = Usage(prompt=10, completion=5, calls=1, cost_usd=0.25)
    return ChatReply(text=text, model="m", usage=usage, finish_reason="tool_calls", tool_calls=made)


class Textual(ScriptedLLM):
    """A model without function calling."""

    tool_calling = False


def run(llm: Any, problem: Problem = SUM, tools: Any = (add, raises), **more: Any) -> Episode:
    given: dict[str, Any] = {"max_trials": 1, "actor": "react", "tools": tools}
    return ReflexionAgent(llm, **(given | more)).run(problem)


def observations(trial: Trial) -> list[Any]:
    return [t["observation"] for t in trial.trajectory if "observation" in t]


def test_tools_are_called_by_function_calling_and_the_turns_kept() -> None:
    llm = ScriptedLLM([called(("add", '{"a": 40, "b": 2}'), text="I add."), "42"])
    episode = run(llm)
    assert episode.solved
    assert episode.trials[0].trajectory == (
        {"turn": 1, "thought": "I add.", "tool": "add", "arguments": {"a": 40, "b": 2}, "observation": "42"},
        {"turn": 2, "answer": "42"},
    )
    assert [d["function"]["name"] for d in llm.requests[0].tools] == ["add", "raises"]  # type: ignore[index]
    told = llm.requests[1].messages[2:]
    assert [(m.role, m.content, m.tool_call_id) for m in told] == [("assistant", "I add.", None), ("tool", "42", "c0")]
    assert told[0].tool_calls[0]["id"] == "c0"
    assert episode.usage.calls == 2 and episode.usage.prompt > 10 and episode.usage.cost_usd == 0.25


def test_tools_are_called_by_text_where_there_is_no_function_calling() -> None:
    llm = Textual(["Thought: I add.\nAction: add(40, 2)\nObservation: 41\nAnswer: 41", "Thought: so.\nAnswer: 42"])
    episode = run(llm)
    assert episode.solved and episode.trials[0].answer == "42"
    assert not llm.requests[0].tools and "- add(a: integer, b: integer): Add two numbers." in text_of(llm.requests[0])
    # What the model made up after its action is not shown to it again.
    assert [m.content for m in llm.requests[1].messages[2:]] == [
        "Thought: I add.\nAction: add(40, 2)",
        "Observation: 42",
    ]


def text_of(request: ChatRequest) -> str:
    return "\n".join(m.content for m in request.messages)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("divide", "{}"), "Error: there is no tool 'divide'; there are: add, raises."),
        (("add", '{"a": 1}'), "Error: add cannot be called like this: b: Field required."),
        (("add", '{"a": 1, '), "Error: add cannot be called like this: the arguments are not JSON"),
        (("raises", ""), "Error: raises raised RuntimeError: out of order"),
        (("", "{}"), "Error: there is no tool ''"),
    ],
)
def test_what_goes_wrong_with_a_call_is_an_observation(call: tuple[str, str], said: str) -> None:
    episode = run(ScriptedLLM([called(call), "42"]))
    turn = episode.trials[0].trajectory[0]
    assert episode.solved and turn["failed"] is True and str(turn["observation"]).startswith(said)


def test_calls_of_any_shape_are_sent_back_in_the_right_one() -> None:
    odd = called().model_copy(update={"tool_calls": ({"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}, {})})
    llm = ScriptedLLM([odd, '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 1}}</tool_call>', "42"])
    assert observations(run(llm).trials[0])[::2] == ["3", "2"]
    for call in [c for m in llm.requests[2].messages for c in m.tool_calls]:
        function: Any = call["function"]
        assert call["id"] and isinstance(function["name"], str) and isinstance(function["arguments"], str)


def test_turns_are_bounded_and_the_last_one_has_no_tools() -> None:
    llm = ScriptedLLM(lambda request: called(("add", '{"a": 1, "b": 1}')))
    trial = run(llm, max_turns=3).trials[0]
    assert len(llm.requests) == 3 and trial.usage.calls == 3
    assert [r.tool_choice for r in llm.requests] == [None, None, "none"]
    assert "Give the final answer now" in llm.requests[-1].messages[-1].content
    assert trial.error == "NoAnswer: no answer was given within 3 turns" and trial.evaluation is not None
    assert trial.evaluation.failure_class == "NoAnswer"
    textual = Textual(lambda request: "Action: add(1, 1)")
    assert run(textual, max_turns=2).trials[0].error == "NoAnswer: no answer was given within 2 turns"
    flood = ScriptedLLM([called(*[("add", '{"a": 1, "b": 1}')] * 12), "42"])
    assert [str(o)[:22] for o in observations(run(flood).trials[0])][-1] == "Error: not carried out"


def test_the_model_reads_documents_with_tools_instead_of_the_prompt() -> None:
    llm = Textual(["Action: search[founder of Arlo Mills]", "Action: lookup[born in]", "Answer: Port Selby"])
    episode = run(llm, WHERE, tools=())
    assert episode.solved and "Ida Crane" not in text_of(llm.requests[0])
    assert observations(episode.trials[0])[-1] == "(Ida Crane) Ida Crane was born in Port Selby."
    assert "Ida Crane was born" in text_of((other := Textual(["Answer: Port Selby"])) and run_with(other))


def test_a_worked_example_is_shown_where_tools_are_called_by_text() -> None:
    textual, native = Textual(["Answer: 42"]), ScriptedLLM(["42"])
    for llm in (textual, native):
        run(llm, tools=["calculator"])
    roles = [m.role for m in textual.requests[0].messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "Action: calculate[12 * 7 - 5]" in text_of(textual.requests[0])
    assert textual.requests[0].messages[-1].content == "What is 40 + 2?" and len(native.requests[0].messages) == 2


def run_with(llm: ScriptedLLM) -> ChatRequest:
    run(llm, WHERE, tools=[add])  # tools that do not read documents leave them in the prompt
    return llm.requests[0]


def test_a_reflection_and_the_next_trial_see_what_was_done() -> None:
    llm = Textual(["Action: add(1, 1)", "Answer: 2", "Lesson: add the right numbers.", "Answer: 42"])
    episode = run(llm, max_trials=2, strategy="last_attempt_and_reflexion")
    assert episode.solved_at == 2
    for request in llm.requests[2:]:
        assert "Action: add [1,1]\nObservation: 2\nAnswer: 2" in text_of(request)


def test_a_reply_that_cannot_be_used_ends_the_trial_and_what_it_cost_is_counted() -> None:
    broken = MalformedReplyError("no choices", usage=Usage(prompt=7, completion=1, calls=1, cost_usd=0.5))
    trial = run(ScriptedLLM([called(("add", '{"a": 1, "b": 1}')), broken])).trials[0]
    assert trial.error == "MalformedReplyError: no choices" and observations(trial) == ["2"]
    assert (trial.usage.prompt, trial.usage.calls, trial.usage.cost_usd) == (17, 2, 0.75)


def test_a_prompt_that_grows_too_long_loses_its_oldest_observations() -> None:
    def page(number: int) -> str:
        """A page."""
        return f"page {number} " + "x" * 1500

    llm = ScriptedLLM([*(called(("page", f'{{"number": {n}}}')) for n in range(4)), "42"])
    runtime = runtime_of(llm, [page])
    runtime.budget = TokenBudget(1000)
    assert call_perform(runtime).answer == "42"
    sizes = [len(m.content) for m in llm.requests[-1].messages if m.role == "tool"]
    assert sizes[0] == 160 and sizes[-1] > 1000 and sum(sizes) < 3500


def runtime_of(llm: Any, tools: Any, **options: Any) -> Runtime:
    from reflexion.evaluators import resolve_evaluator

    return Runtime(
        options=EpisodeOptions(actor="react", **options),
        actor=lambda index: llm,
        reflector=llm,
        evaluator=lambda problem: resolve_evaluator(None, problem, judge=llm),
        tools=tool_source("react", tools),
    )


def step(runtime: Runtime, problem: Problem = SUM) -> StepCall:
    return StepCall(runtime, "trial", Attempt(problem, 1, 0, Past()))


def call_perform(runtime: Runtime) -> Trial:
    import asyncio

    trial = asyncio.run(perform(step(runtime)))  # type: ignore[arg-type]
    assert isinstance(trial, Trial)
    return trial


# -- cache keys ----------------------------------------------------------------------------------------


def test_tools_and_turns_are_in_the_key_and_nothing_of_them_is_without() -> None:
    from reflexion.actors import tool

    @tool(name="add", version="2")
    def other(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    def renamed(x: int, b: int) -> int:
        """Add two numbers."""
        return x + b

    llm = ScriptedLLM()
    made: list[Runtime] = [
        runtime_of(llm, [add]),
        runtime_of(llm, [other]),
        runtime_of(llm, [tool(name="add", version="2")(renamed)]),
        runtime_of(llm, [add, raises]),
        runtime_of(llm, [add], max_turns=3),
        runtime_of(llm, [add], tool_mode="text"),
        runtime_of(llm, ()),
    ]
    assert len({step(r).key for r in made}) == len(made)
    assert step(made[0]).key == step(runtime_of(llm, [add])).key
    direct = Runtime(options=EpisodeOptions(), actor=lambda i: llm, reflector=llm, evaluator=made[0].evaluator)
    assert "tools" not in step(direct).fields


# -- endpoints -----------------------------------------------------------------------------------------


class ToolEndpoint(ScriptedEndpoint):
    """An endpoint whose model calls `add` once; or one that refuses tools."""

    def __init__(self, *, able: bool) -> None:
        super().__init__(lambda prompt: "Answer: 42" if "Observation: 42" in prompt else "Action: add(40, 2)")
        self.able = able

    async def complete(self, raw: bytes) -> HttpReply:
        if not self.able and b'"tools"' in raw:
            return HttpReply(400, b'{"error": {"message": "this model does not support tools"}}')
        return await super().complete(raw)

    def completion(self, body: Any) -> dict[str, Any]:
        reply = super().completion(body)
        if "tools" in body:
            answered = any(m["role"] == "tool" for m in body["messages"])
            call = {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a": 40, "b": 2}'}}
            reply["choices"][0]["message"] = (
                {"role": "assistant", "content": "42"} if answered else {"role": "assistant", "tool_calls": [call]}
            )
        return reply


@pytest.mark.parametrize("able", [True, False])
async def test_an_endpoint_is_asked_by_function_calling_else_by_text(able: bool, tmp_path: Path) -> None:
    async with ToolEndpoint(able=able) as endpoint:
        llm = RecordingLLM(OpenAIChat("m", endpoint.url), tmp_path / "exchanges.jsonl")
        async with ReflexionAgent(llm, tools=[add], max_trials=1) as agent:
            first, second = await agent.arun(SUM), await agent.arun(SUM.model_copy(update={"prompt": "40 + 2?"}))
        await llm.aclose()
    assert first.solved and second.solved
    assert [observations(e.trials[0]) for e in (first, second)] == [["42"], ["42"]]
    offered = sum("tools" in body for body in endpoint.bodies)
    assert (llm.tool_calling, offered) == ((None, 4) if able else (False, 0))
    # A recording answers both: the calls of tools are in it.
    replay = ReplayLLM(tmp_path / "exchanges.jsonl")
    async with ReflexionAgent(replay, tools=[add], max_trials=1) as agent:
        assert (await agent.arun(SUM)).solved


async def test_function_calling_that_was_asked_for_is_not_given_up_quietly() -> None:
    async with ToolEndpoint(able=False) as endpoint:
        llm = OpenAIChat("strict", endpoint.url)
        with pytest.raises(ToolsRejectedError, match="does not support tools"):
            await perform(step(runtime_of(llm, [add], tool_mode="native")))
        with pytest.raises(ToolsRejectedError, match="has no function calling for strict"):
            await perform(step(runtime_of(llm, [add], tool_mode="native")))
        await llm.aclose()


def test_a_client_that_does_not_learn_what_a_refusal_means_is_asked_by_text_too() -> None:
    def script(request: ChatRequest) -> Any:
        return RequestRejectedError("tools are not supported") if request.tools else "Answer: 42"

    assert run(ScriptedLLM(script)).solved
    other = run(ScriptedLLM([RequestRejectedError("the prompt is too long")]))
    assert other.error is not None and other.error.kind == "RequestRejectedError"


# -- what is refused beforehand ------------------------------------------------------------------------


def test_tools_need_the_actor_that_uses_them() -> None:
    with pytest.raises(ConfigurationError, match="the actor is cot; use --actor react"):
        ReflexionAgent(ScriptedLLM(), actor="cot", tools=[add]).run(SUM)
    assert ReflexionAgent(ScriptedLLM(), tools=[add]).options.actor == "react"
    with pytest.raises(ConfigurationError, match="unknown tools 'weather'"):
        ReflexionAgent(ScriptedLLM(), tools=["weather"])
    options = EpisodeParameters(problem="p", actor="react", max_turns=4, tool_mode="text", tool_timeout=2).options()
    assert (options.actor, options.max_turns, options.tool_mode, options.tool_timeout) == ("react", 4, "text", 2)


def test_a_problem_no_tool_suits_is_refused() -> None:
    code = Problem(id="code", prompt="Write f.", tests="assert f()")
    with pytest.raises(ConfigurationError, match="no tool suits problem 'code'"):
        check_problems([code], runtime_of(ScriptedLLM(), ()))
    check_problems([code], runtime_of(ScriptedLLM(), [add]))
