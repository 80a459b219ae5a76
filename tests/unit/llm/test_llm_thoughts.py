"""Models that think before they speak: the thought is set apart, and room for it is found once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reflexion.errors import MalformedReplyError, ReplyCutError
from reflexion.llm import ChatReply, Sampling
from reflexion.llm.endpoint.dialect import ROOM_MOST
from reflexion.llm.wrappers.wrapped import LimitedLLM, SplittingLLM
from reflexion.testing import ScriptedLLM
from reflexion.types import Usage
from tests.support.dialects import Speaking, asked, completion, speaking_model

APART: list[tuple[Any, str, str]] = [
    (completion("<thinking>six by seven</thinking>\n42"), "42", "six by seven"),
    (completion("six by seven\n</think>42"), "42", "six by seven"),
    (completion("42", message={"reasoning_content": "six by seven"}), "42", "six by seven"),
    (completion("42", message={"reasoning": "six by seven", "thoughts": "six by seven"}), "42", "six by seven"),
    (
        completion("42", message={"reasoning_details": [{"type": "x", "text": "six "}, {"summary": "by"}]}),
        "42",
        "six by",
    ),
    (completion("42", message={"chain_of_thought": {"text": "six by seven"}}), "42", "six by seven"),
    (
        completion(None, message={"content": [{"type": "thinking", "thinking": [{"text": "hm"}]}, {"text": "42"}]}),
        "42",
        "hm",
    ),
    (completion("42", message={"thinking_tokens": 3, "reasoning": None}), "42", ""),
    (completion("a <b>bold</b> 42"), "a <b>bold</b> 42", ""),
]


@pytest.mark.parametrize(("body", "text", "thought"), APART)
async def test_thought_and_answer_are_set_apart(body: Any, text: str, thought: str) -> None:
    async with Speaking(lambda sent, n: (200, body)) as endpoint:
        llm = speaking_model(endpoint)
        reply = await llm.chat(asked())
        await llm.aclose()
    assert (reply.text.strip(), reply.thought) == (text, thought)


@pytest.mark.parametrize(
    "body",
    [
        completion(None, message={"reasoning_content": "it is 42"}),
        completion("", message={"thinking": "it is 42"}),
        completion("<reasoning>it is 42</reasoning>"),
    ],
)
async def test_a_thought_alone_is_no_answer_and_is_told_as_such(body: Any) -> None:
    async with Speaking(lambda sent, n: (200, body)) as endpoint:
        llm = speaking_model(endpoint)
        with pytest.raises(MalformedReplyError, match="a thought and no answer") as caught:
            await llm.chat(asked())
        await llm.aclose()
    assert caught.value.thought == "it is 42" and caught.value.usage is not None


async def test_a_model_of_the_users_own_is_split_too() -> None:
    llm = SplittingLLM(ScriptedLLM(["<think>hm</think>\n42", ChatReply(text="41", model="s", usage=Usage())]))
    replies = [await llm.chat(asked()) for _ in range(2)]
    assert [(r.text, r.thought) for r in replies] == [("42", "hm"), ("41", "")]


# -- room ----------------------------------------------------------------------------------------------


def thinker(need: int) -> Any:
    """A model that thinks for so many tokens before it says a word."""

    def script(body: dict[str, Any], n: int) -> Any:
        limit = body["max_tokens"]
        spent = min(limit, need)
        usage = {"prompt_tokens": 10, "completion_tokens": spent + (limit > need), "total_tokens": 10 + spent}
        return 200, completion("42" if limit > need else "", "stop" if limit > need else "max_tokens", usage=usage)

    return script


async def test_a_reply_that_thinking_used_up_is_asked_again_with_room_and_once_for_all() -> None:
    async with Speaking(thinker(900), latency=0.01) as endpoint:
        llm = speaking_model(endpoint)
        first = await asyncio.gather(*(llm.chat(asked(f"Question {i}")) for i in range(20)))
        short = await llm.chat(asked(sampling=Sampling(max_tokens=64), role="reflector"))
        await llm.aclose()
    assert all(r.text == "42" for r in (*first, short))
    assert len(endpoint.bodies) == 22
    again = [r for r in first if r.retried]
    assert [r.retried for r in again] == [("ReplyCutError",)]
    assert (again[0].usage.calls, again[0].usage.completion) == (2, 512 + 901)


async def test_a_short_reply_gets_enough_room_at_once() -> None:
    async with Speaking(thinker(900)) as endpoint:
        llm = speaking_model(endpoint)
        assert (await llm.chat(asked(sampling=Sampling(max_tokens=32), role="judge"))).text == "42"
        await llm.aclose()
    assert [b["max_tokens"] for b in endpoint.bodies] == [32, 2048]


@pytest.mark.parametrize(
    ("role", "option"),
    [("actor", "--max-completion-tokens"), ("reflector", "--reflection-max-tokens"), ("judge", "--judge-max-tokens")],
)
async def test_thinking_without_end_is_bounded_and_names_the_option(role: Any, option: str) -> None:
    async with Speaking(thinker(10**9)) as endpoint:
        llm = speaking_model(endpoint)
        errors: list[ReplyCutError] = []
        for _ in range(5):
            with pytest.raises(ReplyCutError, match=option) as caught:
                await llm.chat(asked(role=role))
            errors.append(caught.value)
        await llm.aclose()
    assert len(endpoint.bodies) <= 5 + 2
    assert max(b["max_tokens"] for b in endpoint.bodies) <= ROOM_MOST
    spent = sum(e.usage.completion for e in errors if e.usage is not None)
    assert spent == sum(b["max_tokens"] for b in endpoint.bodies)


async def test_a_thought_that_the_limit_cut_is_kept_with_the_error() -> None:
    async with Speaking(lambda sent, n: (200, completion("<think>it may be 42, but", "length"))) as endpoint:
        llm = speaking_model(endpoint)
        with pytest.raises(ReplyCutError) as caught:
            await llm.chat(asked())
        await llm.aclose()
    assert caught.value.thought == "it may be 42, but"
    assert len(endpoint.bodies) == 2


async def test_an_answer_that_the_limit_cut_is_an_answer() -> None:
    async with Speaking(lambda sent, n: (200, completion("It is forty", "length"))) as endpoint:
        llm = speaking_model(endpoint)
        reply = await llm.chat(asked())
        await llm.aclose()
    assert (reply.text, reply.finish_reason, len(endpoint.bodies)) == ("It is forty", "length", 1)


async def test_room_stays_below_what_the_model_allows() -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        if body["max_tokens"] > 1024:
            return 400, {"error": {"message": "max_tokens may be 1024 at most"}}
        return thinker(900)(body, n)

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        assert (await llm.chat(asked())).text == "42"
        assert (await llm.chat(asked())).text == "42"
        await llm.aclose()
    assert [b["max_tokens"] for b in endpoint.bodies] == [512, 2048, 1024, 1024]


async def test_a_limit_of_its_own_is_part_of_a_models_identity() -> None:
    inner = ScriptedLLM(["42"])
    llm = LimitedLLM(inner, 77)
    await llm.chat(asked())
    assert inner.requests[0].sampling.max_tokens == 77
    assert llm.identity == {"model": "scripted", "max_tokens": 77}


@pytest.mark.parametrize("message", [{}, {"content": None}, {"reasoning": "hm, hm"}, {"content": "<think>hm"}])
async def test_a_reply_that_used_all_its_room_and_says_nothing_was_cut_whatever_it_tells(message: Any) -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        spent = min(body["max_tokens"], 900)
        usage = {"prompt_tokens": 9, "completion_tokens": spent, "total_tokens": 9 + spent}
        return 200, completion("", "stop", usage=usage, message=message) if spent < 900 else completion("42")

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        replies = [await llm.chat(asked()) for _ in range(2)]
        await llm.aclose()
    assert [r.text for r in replies] == ["42", "42"] and replies[0].retried == ("ReplyCutError",)
    assert len(endpoint.bodies) == 3


@pytest.mark.parametrize("shown", [True, False])
async def test_an_answer_that_thinking_left_no_room_is_asked_for_again(shown: bool) -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        spent = min(body["max_tokens"], 900)
        details = {} if shown else {"output_details": {"thinking_tokens": spent - 5}}
        usage = {"prompt_tokens": 9, "completion_tokens": spent, "total_tokens": 9 + spent, **details}
        thought = {"thinking": "one, two, " * 40} if shown else {}
        cut = spent < 900
        text, finish = ("It", "length") if cut else ("It is 42", "stop")
        return 200, completion(text, finish, usage=usage, message=thought)

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        replies = [await llm.chat(asked()) for _ in range(2)]
        await llm.aclose()
    assert [r.text for r in replies] == ["It is 42"] * 2
    assert len(endpoint.bodies) == 3


async def test_an_answer_that_had_begun_is_kept_where_more_room_is_of_no_use() -> None:
    body = completion("It is forty", "length", message={"reasoning": "round and round " * 20})
    async with Speaking(lambda sent, n: (200, body)) as endpoint:
        llm = speaking_model(endpoint)
        replies = [await llm.chat(asked()) for _ in range(4)]
        await llm.aclose()
    assert {(r.text, r.finish_reason) for r in replies} == {("It is forty", "length")}
    assert len(endpoint.bodies) == 4 + 2
