"""Structured answers, batched questions, roles and prices."""

import asyncio
import json
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from reflexion.errors import (
    AuthenticationError,
    ConfigurationError,
    EndpointError,
    MalformedReplyError,
    RefusalError,
)
from reflexion.llm import BatchedAsk, ChatRequest, Message, ModelRoles, OpenAIChat, ask_structured
from reflexion.llm.endpoint.wire import Tokens
from reflexion.llm.prices import free, price_list
from reflexion.llm.structured import parse_structured, strict_schema
from reflexion.llm.wrappers.batched_asks import split_usage
from reflexion.testing import ScriptedEndpoint, ScriptedLLM
from reflexion.types import Usage

ASK = ChatRequest(messages=(Message(role="user", content="Judge it."),))


class Part(BaseModel):
    title: str = ""
    kind: Literal["a", "b"] = "a"


class Verdict(BaseModel):
    passed: bool
    score: float = Field(default=0.5, ge=0, le=1)
    parts: list[Part] = []


GOOD = '{"passed": true, "score": 1, "parts": [{"title": "x", "kind": "b"}]}'


def test_a_strict_schema_is_closed_and_complete():
    schema = strict_schema(Verdict)
    assert schema["required"] == ["passed", "score", "parts"]
    assert schema["additionalProperties"] is False
    part = schema["$defs"]["Part"]
    assert part["required"] == ["title", "kind"] and part["additionalProperties"] is False
    assert "title" in part["properties"]  # the field, not the keyword
    assert "default" not in json.dumps(schema)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Here is my verdict: {GOOD} I hope it helps.",
        'I first thought {"x": 1} but then {not json} and finally ' + GOOD,
    ],
)
def test_a_structure_is_found_whatever_stands_around_it(text):
    assert parse_structured(text, Verdict) == Verdict(passed=True, score=1, parts=[Part(title="x", kind="b")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no", "no JSON object"),
        ('{"passed": tru', "no JSON object"),
        ('{"score": 0.5}', "passed: Field required"),
        ('{"passed": true, "score": 7}', "score"),
        ("[1, 2]", "the object"),
    ],
)
def test_what_does_not_fit_is_explained(text, message):
    with pytest.raises(ValueError, match=message):
        parse_structured(text, Verdict)


async def test_a_reply_that_does_not_fit_is_retried_once_with_the_error():
    llm = ScriptedLLM(['{"score": 1}', GOOD])
    verdict, reply = await ask_structured(llm, ASK, Verdict)
    assert verdict.passed
    assert reply.usage == llm.usage and reply.usage.calls == 2
    assert reply.attempts == 2 and reply.retried == ("MalformedReplyError",)
    assert "passed: Field required" in llm.requests[1].messages[-1].content
    assert llm.requests[1].messages[-2].content == '{"score": 1}'


async def test_a_second_misfit_is_an_error_that_tells_the_cost():
    llm = ScriptedLLM(["no", "still no"])
    with pytest.raises(MalformedReplyError, match="no JSON object") as caught:
        await ask_structured(llm, ASK, Verdict)
    assert caught.value.usage == llm.usage and len(llm.requests) == 2


async def test_an_endpoint_is_held_to_the_schema():
    async with ScriptedEndpoint() as endpoint:
        llm = OpenAIChat("m", endpoint.url)
        verdict, _ = await ask_structured(llm, ASK, Verdict)
        await llm.aclose()
    assert isinstance(verdict, Verdict)
    sent = endpoint.bodies[0]["response_format"]
    assert sent["json_schema"] == {"name": "verdict", "schema": strict_schema(Verdict), "strict": True}
    assert endpoint.stats.calls == 1


async def test_an_endpoint_without_response_format_is_asked_in_words_and_remembered():
    async with ScriptedEndpoint(lambda prompt: f"Sure! {GOOD}", structured=False) as endpoint:
        for _ in range(2):
            llm = OpenAIChat("m", endpoint.url)
            verdict, reply = await ask_structured(llm, ASK, Verdict)
            await llm.aclose()
            assert verdict.passed
    assert endpoint.stats.calls == 3  # one was refused, once
    assert "response_format" not in endpoint.bodies[-1]
    assert "JSON schema" in endpoint.bodies[-1]["messages"][-1]["content"]
    assert reply.attempts == 1


# -- batches -------------------------------------------------------------------------------------------


def answers(request: ChatRequest, *, skip=(), twice=(), empty=()) -> str:
    count = request.messages[-1].content.count("### Item")
    entries = [{"item": i, "text": "" if i in empty else f"shared {i}"} for i in range(1, count + 1) if i not in skip]
    return json.dumps({"answers": entries + [{"item": i, "text": "again"} for i in twice]})


def batcher(llm, size=4, linger=0.02) -> BatchedAsk[str]:
    return BatchedAsk(
        llm,
        instruction="Reflect on each failure.",
        render=lambda item: f"failure {item}",
        single=lambda item: ChatRequest(messages=(Message(role="user", content=item),), role="reflector"),
        size=size,
        linger=linger,
    )


async def test_items_that_come_together_share_a_call():
    llm = ScriptedLLM(answers)
    ask = batcher(llm)
    replies = await asyncio.gather(*(ask.ask(c) for c in "abcdefgh"))
    assert [r.text for r in replies] == [f"shared {i}" for i in (1, 2, 3, 4)] * 2
    assert len(llm.requests) == 2 and all(r.batched for r in replies)
    assert sum((r.usage for r in replies), Usage()) == llm.usage
    assert ask.stats.calls == 2 and ask.stats.batched == 8
    request = llm.requests[0]
    assert request.role == "reflector" and request.sampling.max_tokens == 4 * 512 + 64
    assert "failure c" in request.messages[-1].content


async def test_a_lone_item_is_asked_alone_after_the_linger():
    llm = ScriptedLLM(["alone"])
    reply = await batcher(llm).ask("a")
    assert (reply.text, reply.batched) == ("alone", False)
    assert llm.requests[0].json_schema is None


async def test_what_a_shared_call_leaves_out_is_asked_alone():
    def script(request):
        if request.json_schema is None:
            return f"alone {request.messages[0].content}"
        return answers(request, skip={2}, twice=[3], empty={4})

    llm = ScriptedLLM(script)
    ask = batcher(llm)
    replies = await asyncio.gather(*(ask.ask(c) for c in "abcd"))
    assert [r.text for r in replies] == ["shared 1", "alone b", "alone c", "alone d"]
    assert sum((r.usage for r in replies), Usage()) == llm.usage
    assert ask.stats.fallbacks == 3 and ask.stats.calls == 4


@pytest.mark.parametrize("fault", ["nonsense", RefusalError("no")])
async def test_a_shared_call_that_fails_costs_no_answer(fault):
    llm = ScriptedLLM(lambda r: fault if r.json_schema else "alone")
    ask = batcher(llm, size=2)
    replies = await asyncio.gather(ask.ask("a"), ask.ask("b"))
    assert [r.text for r in replies] == ["alone", "alone"]
    assert sum((r.usage for r in replies), Usage()) == llm.usage


@pytest.mark.parametrize("error", [AuthenticationError("key"), EndpointError("down")])
async def test_an_error_that_concerns_all_is_raised_to_all(error):
    llm = ScriptedLLM(lambda r: error)
    ask = batcher(llm, size=3)
    results = await asyncio.gather(*(ask.ask(c) for c in "abc"), return_exceptions=True)
    assert results == [error] * 3 and len(llm.requests) == 1


async def test_one_that_gives_up_waiting_is_not_asked_for():
    llm = ScriptedLLM(lambda r: "alone")
    ask = batcher(llm)
    leaving = asyncio.create_task(ask.ask("a"))
    staying = asyncio.create_task(ask.ask("b"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).text == "alone"
    assert len(llm.requests) == 1 and llm.requests[0].messages[0].content == "b"


async def test_a_fault_of_the_caller_leaves_nobody_waiting():
    ask = batcher(ScriptedLLM(["x"]), size=2)
    ask._render = lambda item: 1 / 0
    results = await asyncio.gather(ask.ask("a"), ask.ask("b"), return_exceptions=True)
    assert [type(r) for r in results] == [ZeroDivisionError] * 2


def test_shares_sum_up_exactly():
    usage = Usage(prompt=101, completion=7, calls=1, cost_usd=0.3)
    shares = split_usage(usage, 4)
    assert sum(shares, Usage()) == usage
    assert max(s.prompt for s in shares) - min(s.prompt for s in shares) <= 1


# -- roles ---------------------------------------------------------------------------------------------


def test_one_model_takes_every_role_unless_told():
    roles = ModelRoles.of(None, "default")
    assert (roles.actors, roles.reflector, roles.judge) == (("default",), "default", "default")
    roles = ModelRoles.of("m", "default", reflector="r", judge="j")
    assert roles.specs == ("m", "r", "j")


@pytest.mark.parametrize("text", ["small->large", "small → large", " small->large "])
def test_escalation_gives_later_trials_the_stronger_model(text):
    roles = ModelRoles.of(None, "default", escalate=text)
    assert [roles.actor_for(i, 4) for i in (1, 2, 3, 4)] == ["small", "large", "large", "large"]
    assert roles.actor_for(1, 1) == "small"


def test_the_last_trial_is_the_strongest_models():
    roles = ModelRoles.of("a", "d", escalate="a->b->c")
    assert [roles.actor_for(i, 2) for i in (1, 2)] == ["a", "c"]


@pytest.mark.parametrize("text", ["small", "->", "a->", "a->->b"])
def test_a_wrong_escalation_is_a_clear_error(text):
    with pytest.raises(ConfigurationError, match="--escalate"):
        ModelRoles.of(None, "d", escalate=text)


def test_two_first_models_are_a_clear_error():
    with pytest.raises(ConfigurationError, match="--llm other"):
        ModelRoles.of("other", "d", escalate="a->b")


# -- prices --------------------------------------------------------------------------------------------


def test_known_prices_are_proportional_and_cached_tokens_cheaper():
    price = price_list("gpt-4o-mini", "https://api.openai.com/v1")
    assert price is not None
    one, cached = price(Tokens(1000, 100, 0)), price(Tokens(1000, 100, 1000))
    assert 0 < cached < one
    assert price(Tokens(2000, 200, 0)) == pytest.approx(2 * one)
    assert price(Tokens(200_000, 0, 0)) == pytest.approx(200 * price(Tokens(1000, 0, 0)))


def test_a_proxy_passes_prices_on_and_an_unknown_model_has_none():
    proxied = price_list("gpt-4o-mini", "http://proxy.internal/v1")
    direct = price_list("gpt-4o-mini", "https://api.openai.com/v1")
    assert proxied is not None and direct is not None
    assert proxied(Tokens(10, 10, 0)) == direct(Tokens(10, 10, 0))
    assert price_list("my-own-model", "http://127.0.0.1:8000/v1") is None
    assert free(Tokens(10**6, 10**6, 0)) == 0.0


async def test_replies_are_priced_and_a_model_of_this_machine_costs_nothing():
    async with ScriptedEndpoint() as endpoint:
        known, own = (OpenAIChat(m, endpoint.url) for m in ("gpt-4o-mini", "my-own-model"))
        costs = [(await llm.chat(ASK)).usage.cost_usd for llm in (known, own)]
        await known.aclose()
        await own.aclose()
    assert costs[0] is not None and costs[0] > 0 and costs[1] == 0.0
    assert known.priced and own.priced and not OpenAIChat("my-own-model", "http://llm.internal/v1").priced
