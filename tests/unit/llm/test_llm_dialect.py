"""What an endpoint does without is learnt from its refusal, in whatever words, and once for a model."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import orjson
import pytest

from reflexion.errors import ContextWindowError, RequestRejectedError, ToolsRejectedError
from reflexion.llm import Sampling
from reflexion.llm.endpoint.extras import Extras
from tests.support.dialects import Speaking, asked, refused, speaking_model

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

# Each refuses what it names, in a shape and in words of its own.
PARAMETERS: list[tuple[str, Any]] = [
    ("temperature", (400, {"error": {"message": "temperature is fixed for this model and may not be sent"}})),
    (
        "temperature",
        (422, {"detail": [{"loc": ["body", "temperature"], "msg": "not here", "type": "extra_forbidden"}]}),
    ),
    ("temperature", (400, {"errors": [{"pointer": "/temperature", "field": "temperature", "title": "Nope"}]})),
    ("temperature", (400, {"message": "Kann den Parameter `temperature` nicht verarbeiten", "status": 400})),
    ("seed", refused(400, 'Unknown name "seed": cannot find field.', status="INVALID_ARGUMENT")),
    ("seed", (422, {"error": "extra fields not permitted: seed"})),
    ("seed", (400, {"code": 20015, "message": "The parameter is invalid. Please check again.", "param": "seed"})),
    (
        "top_p",
        (400, {"error": {"message": "wrong", "metadata": {"raw": '{"error": {"message": "topP is not for us"}}'}}}),
    ),
    ("top_p", (400, b"top_p is none of the things this server understands")),
    ("reasoning_effort", refused(400, "This one cannot think: leave reasoning effort away.")),
    ("response_format", (400, {"fault": {"msg": "responseFormat has no meaning here"}})),
    ("response_format", refused(422, "no structured output on this deployment", code="feature_missing")),
]


@pytest.mark.parametrize(("name", "refusal"), PARAMETERS)
async def test_a_parameter_that_is_refused_by_name_is_left_out_from_then_on(name: str, refusal: Any) -> None:
    async with Speaking(lambda body, n: refusal if name in body else None) as endpoint:
        llm = speaking_model(endpoint, extras=Extras(reasoning_effort="low"))
        request = asked(sampling=Sampling(seed=5, top_p=0.5), json_schema=SCHEMA)
        for _ in range(3):
            assert (await llm.chat(request)).text
        await llm.aclose()
    assert len(endpoint.bodies) == 4
    kept = {"temperature", "seed", "top_p", "reasoning_effort", "response_format", "max_tokens"} - {name}
    assert kept <= endpoint.bodies[-1].keys()


LIMITS: list[tuple[Any, str | None, int | None]] = [
    (refused(400, "'max_tokens' went away; say 'max_completion_tokens'"), "max_completion_tokens", 512),
    ((422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "unexpected"}]}), "max_completion_tokens", 512),
    (refused(400, "max tokens: at most 200 may be wished for, 512 were"), "max_tokens", 200),
    (refused(400, "Range of max_tokens should be [1, 256]"), "max_tokens", 256),
    (refused(400, "an answer of 512 was wished for, the ceiling is 300"), "max_tokens", 300),
    ((400, {"error": {"message": "maxTokens 512 > 128, the most this size allows"}}), "max_tokens", 128),
    (refused(400, "max_tokens : la valeur doit être inférieure ou égale à 256"), "max_tokens", 256),
    (refused(400, "512 Token sind zu viele; mehr als 300 gibt es hier nicht"), "max_tokens", 300),
    ((422, {"campo": "max_tokens", "mensaje": "el máximo es 128"}), "max_tokens", 128),
]


@pytest.mark.parametrize(("refusal", "field", "tokens"), LIMITS)
async def test_the_limit_of_a_reply_takes_the_name_and_the_size_that_are_wanted(
    refusal: Any, field: str, tokens: int
) -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        return None if body.get(field) == tokens else refusal

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        await llm.chat(asked())
        await llm.chat(asked())
        await llm.aclose()
    assert len(endpoint.bodies) == 3


async def test_a_number_that_was_no_size_does_not_cut_replies() -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        return refused(400, "max_tokens: no lo conozco (regla 117)") if "max_tokens" in body else None

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        await llm.chat(asked())
        await llm.aclose()
    assert endpoint.bodies[-1]["max_completion_tokens"] == endpoint.bodies[0]["max_tokens"]


async def test_a_model_whose_replies_cannot_be_limited_is_asked_without_a_limit() -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        sent = [name for name in body if name.startswith("max_")]
        return (422, {"detail": [{"loc": ["body", sent[0]], "msg": "forbidden"}]}) if sent else None

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        await llm.chat(asked())
        await llm.aclose()
    assert len(endpoint.bodies) == 3


ROLES: list[Any] = [
    (400, {"object": "error", "message": "a system turn is unknown to this template", "code": 400}),
    refused(400, "Developer instructions are switched off", status="INVALID_ARGUMENT"),
    (422, {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "Input should be 'user' or 'assistant'"}]}),
    refused(400, "wrong value", param="messages[0].role", code="unsupported_value"),
    (400, {"message": "Nur die Rollen user und assistant (roles) sind erlaubt"}),
]


@pytest.mark.parametrize("refusal", ROLES)
async def test_a_system_text_joins_the_first_user_message(refusal: Any) -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        return refusal if any(m["role"] == "system" for m in body["messages"]) else None

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        for _ in range(2):
            await llm.chat(asked("Why?"))
        await llm.aclose()
    assert len(endpoint.bodies) == 3
    assert endpoint.bodies[-1]["messages"] == [{"role": "user", "content": "Be brief.\n\nWhy?"}]


@pytest.mark.parametrize(
    "words",
    [
        "conversation roles must alternate user/assistant",
        "Two turns of the same role stand side by side; roles take turns here",
        "consecutive messages by one speaker",
    ],
)
async def test_messages_of_one_role_are_joined_where_roles_must_alternate(words: str) -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        roles = [m["role"] for m in body["messages"] if m["role"] != "system"]
        return refused(400, words) if any(a == b for a, b in pairwise(roles)) else None

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        await llm.chat(asked("One.", "Two."))
        await llm.aclose()
    assert [m["content"] for m in endpoint.bodies[-1]["messages"]] == ["Be brief.", "One.\n\nTwo."]


async def test_a_model_that_only_streams_is_read_from_then_on() -> None:
    events = (
        b': hello\n\ndata: {"choices":[{"delta":{"role":"assistant","reasoning":"Six sevens"}}]}\n\n'
        b'data: {"choices":[{"delta":{"content":"4"}}]}\n\ndata: {"choices":[{"delta":{"content":"2"},'
        b'"finish_reason":"stop"}]}\n\ndata: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
        b"data: [DONE]\n\n"
    )

    def script(body: dict[str, Any], n: int) -> Any:
        if not body.get("stream"):
            return refused(400, "this model speaks in a stream or not at all")
        return 200, events, {"content-type": "text/event-stream"}

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        replies = [await llm.chat(asked()) for _ in range(2)]
        await llm.aclose()
    assert [(r.text, r.thought, r.usage.prompt, r.usage.completion) for r in replies] == [
        ("42", "Six sevens", 9, 2)
    ] * 2
    assert len(endpoint.bodies) == 3


async def test_tool_calls_in_a_stream_are_put_together() -> None:
    first = {"index": 0, "id": "c", "function": {"name": "look", "arguments": '{"a"'}}
    second = {"index": 0, "function": {"arguments": ":1}"}}
    chunks = [{"delta": {"tool_calls": [call]}} for call in (first, second)] + [{"finish_reason": "tool_calls"}]
    events = b"".join(b"data: %b\n\n" % orjson.dumps({"choices": [chunk]}) for chunk in chunks) + b"data: [DONE]\n\n"
    async with Speaking(lambda body, n: (200, events, {"content-type": "text/event-stream"})) as endpoint:
        llm = speaking_model(endpoint)
        reply = await llm.chat(asked(tools=(TOOL,)))
        await llm.aclose()
    assert reply.tool_calls == ({"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},)


async def test_a_stream_that_breaks_off_is_an_endpoints_failure() -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        half = b'data: {"choices":[{"delta":{"content":"4"}}]}\n\n'
        return (200, half, {"content-type": "text/event-stream"}) if n == 1 else None

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        reply = await llm.chat(asked())
        await llm.aclose()
    assert reply.retried == ("EndpointError",)


async def test_a_parameter_nobody_sent_is_one_clear_error_with_its_cure() -> None:
    async with Speaking(lambda body, n: refused(400, "think_budget wants a value unless you stream")) as endpoint:
        llm = speaking_model(endpoint)
        with pytest.raises(RequestRejectedError, match=r"think_budget.*--extra-body"):
            await llm.chat(asked())
        await llm.aclose()
    assert len(endpoint.bodies) == 1


async def test_what_the_user_asked_for_by_name_is_never_left_out() -> None:
    async with Speaking(lambda body, n: refused(400, "seed may not be sent")) as endpoint:
        llm = speaking_model(endpoint, extras=Extras(body={"seed": 9}))
        with pytest.raises(RequestRejectedError, match="seed"):
            await llm.chat(asked())
        await llm.aclose()
    assert [b["seed"] for b in endpoint.bodies] == [9]


async def test_what_did_not_help_is_not_learnt() -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        return refused(400, "temperature, or something about it") if "poison" in str(body["messages"]) else None

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        with pytest.raises(RequestRejectedError):
            await llm.chat(asked("poison"))
        await llm.chat(asked("sugar"))
        await llm.aclose()
    assert endpoint.bodies[-1]["temperature"] == 0


async def test_refused_tools_are_the_callers_business() -> None:
    async with Speaking(
        lambda body, n: refused(400, "functions are beyond this model") if "tools" in body else None
    ) as e:
        llm = speaking_model(e)
        for _ in range(2):
            with pytest.raises(ToolsRejectedError):
                await llm.chat(asked(tools=(TOOL,)))
        assert llm.tool_calling is False
        await llm.aclose()
    assert len(e.bodies) == 1


async def test_an_endpoint_that_changes_its_mind_is_followed() -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        wanted = "max_tokens" if n in (1, 4, 5) else "max_completion_tokens"
        other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[wanted]
        return refused(400, f"{other} is not known") if other in body else None

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        for _ in range(3):
            await llm.chat(asked())
        await llm.aclose()
    assert len(endpoint.bodies) == 5


async def test_calls_under_way_at_once_follow_a_change_of_mind_together() -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        if n <= 12 and "max_tokens" in body:
            return refused(400, "max_tokens? nein: max_completion_tokens")
        if n > 12 and "max_completion_tokens" in body:
            return refused(400, "max_completion_tokens? nein: max_tokens")
        if n > 20 and "temperature" in body:
            return 422, {"detail": [{"loc": ["body", "temperature"], "msg": "?"}]}
        return refused(400, "rolle system?") if n > 30 and body["messages"][0]["role"] == "system" else None

    async with Speaking(script, latency=0.01) as endpoint:
        llm = speaking_model(endpoint, concurrency=6)
        replies = await asyncio.gather(*(llm.chat(asked(f"Question {i}")) for i in range(60)))
        await llm.aclose()
    assert len(replies) == 60
    # Of each change, those under way hear once.
    assert len(endpoint.bodies) <= 60 + 1 + 3 * 6


# -- windows -------------------------------------------------------------------------------------------


def tokens(body: dict[str, Any]) -> int:
    return sum(len(m["content"]) for m in body["messages"]) // 4


WINDOWS = [
    "the window holds {window} tokens, and this would be {sum}",
    "context of {window} tokens exceeded: {prompt} in the prompt plus {reply} for the reply",
    "{sum} tokens requested, {window} allowed. Shorten the input.",
    "The conversation does not fit into n_ctx={window}",
    "Zu lang: context window {window}",
    "longer than what can be held: {sum} of {window} units",
    "`inputs` and `max_new_tokens` must be <= {window}. Given: {prompt} `inputs` and {reply} `max_new_tokens`",
    "{prompt} pieces of yours and {reply} for the answer are more than the {window} there is place for",
    "Das Fenster fasst {window} Stück, {prompt} sind belegt; gewünscht waren {reply}",
    "{sum} jetons pour une fenêtre de {window}",
    "{prompt} + {reply} = {sum}; máximo {window}",
]


@pytest.mark.parametrize("words", WINDOWS)
async def test_a_context_window_that_is_told_is_fitted_once(words: str) -> None:
    window = 1000

    def script(body: dict[str, Any], n: int) -> Any:
        prompt, reply = tokens(body), body["max_tokens"]
        told = words.format(window=window, prompt=prompt, reply=reply, sum=prompt + reply)
        return refused(400, told) if prompt + reply > window else None

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        for _ in range(3):
            assert (await llm.chat(asked("word " * 560))).text
        learned = llm.learned_window
        await llm.aclose()
    assert len(endpoint.bodies) == 4
    assert all(tokens(b) + b["max_tokens"] <= window for b in list(endpoint.bodies)[1:])
    assert learned is not None and 500 < learned.tokens <= 750


async def test_a_window_told_in_fields_is_fitted_too() -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        if tokens(body) + body["max_tokens"] <= 800:
            return None
        return 400, {"error": {"code": 400, "type": "exceeds_context", "n_ctx": 800, "n_prompt_tokens": tokens(body)}}

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        await llm.chat(asked("word " * 400))
        await llm.aclose()
    assert len(endpoint.bodies) == 2


async def test_a_prompt_that_is_longer_than_the_window_says_how_long_that_is() -> None:
    async with Speaking(lambda b, n: refused(413, f"input of {tokens(b)} tokens, at most 600")) as endpoint:
        llm = speaking_model(endpoint)
        with pytest.raises(ContextWindowError) as caught:
            await llm.chat(asked("word " * 900))
        await llm.aclose()
    assert caught.value.window == 600
    assert len(endpoint.bodies) == 1


# -- once ----------------------------------------------------------------------------------------------


async def test_many_calls_at_once_learn_what_one_learns() -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        return refused(400, "temperature is set by us") if "temperature" in body else None

    async with Speaking(script, latency=0.02) as endpoint:
        llm = speaking_model(endpoint)
        await asyncio.gather(*(llm.chat(asked(f"Question {i}")) for i in range(24)))
        await llm.aclose()
    assert len(endpoint.bodies) == 25


async def test_a_slow_first_answer_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflexion.llm.endpoint.first_call.PATIENCE", 0.05)
    async with Speaking(lambda body, n: None, latency=0.5) as endpoint:
        llm = speaking_model(endpoint)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(llm.chat(asked(f"Question {i}")) for i in range(5)))
        took = asyncio.get_running_loop().time() - began
        await llm.aclose()
    assert endpoint.stats.peak_in_flight == 5 and took < 0.9
