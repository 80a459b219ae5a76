"""The client against a real HTTP endpoint: replies, retries, bad replies, errors, secrets."""

import asyncio
import logging
import time
from contextlib import asynccontextmanager

import pytest

from reflexion.errors import (
    AuthenticationError,
    CallTimeoutError,
    ConfigurationError,
    EndpointError,
    MalformedReplyError,
    ModelNotFoundError,
    PermanentError,
    RateLimitError,
    RefusalError,
    RequestRejectedError,
    is_fatal,
)
from reflexion.llm import ChatRequest, Message, OpenAIChat, Sampling, open_llm
from reflexion.llm.endpoint.classify import status_error
from reflexion.llm.endpoint.clients import OPENAI_URL, Endpoint, public_url
from reflexion.llm.endpoint.error_bodies import header_wait
from reflexion.llm.pacing.backoff import backoff_seconds
from reflexion.testing import ScriptedEndpoint

KEY = "sk-very-secret-key-123456"
ASK = ChatRequest(messages=(Message(role="user", content="What is six times seven?"),))


def chat(endpoint: ScriptedEndpoint, **options) -> OpenAIChat:
    options = {"api_key": KEY, "attempt_timeout": 5.0, "max_attempts": 4} | options
    return OpenAIChat(options.pop("model", "m"), endpoint.url, **options)


async def test_a_reply_carries_text_model_usage_and_time():
    async with ScriptedEndpoint(lambda prompt: "42", latency=0.02) as endpoint:
        llm = chat(endpoint)
        reply = await llm.chat(ASK)
        await llm.aclose()
    assert (reply.text, reply.model, reply.finish_reason) == ("42", "m", "stop")
    assert (reply.usage.prompt, reply.usage.completion) == (
        endpoint.stats.prompt_tokens,
        endpoint.stats.completion_tokens,
    )
    assert reply.usage.calls == reply.attempts == 1
    assert reply.usage.unknown == 0 and reply.retried == ()
    assert reply.seconds >= 0.02


async def test_what_is_ours_is_not_sent():
    async with ScriptedEndpoint() as endpoint:
        llm = chat(endpoint)
        await llm.chat(ASK.model_copy(update={"salt": "repeat-3", "role": "judge"}))
        await llm.aclose()
    (body,) = endpoint.bodies
    assert set(body) == {"model", "messages", "temperature", "max_tokens"}
    assert body["messages"] == [{"role": "user", "content": "What is six times seven?"}]


async def test_parameters_left_to_the_endpoint_are_not_sent():
    async with ScriptedEndpoint() as endpoint:
        llm = chat(endpoint)
        await llm.chat(ASK.model_copy(update={"sampling": Sampling(temperature=None, max_tokens=None, seed=3)}))
        await llm.aclose()
    assert set(endpoint.bodies[0]) == {"model", "messages", "seed"}


async def test_tool_calls_travel_both_ways():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}

    class Tools(ScriptedEndpoint):
        def completion(self, body):
            reply = super().completion(body)
            reply["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
            return reply

    async with Tools() as endpoint:
        llm = chat(endpoint)
        messages = (
            *ASK.messages,
            Message(role="assistant", content="", tool_calls=(call,)),
            Message(role="tool", content="5", tool_call_id="c1"),
        )
        reply = await llm.chat(ChatRequest(messages=messages))
        await llm.aclose()
    assert reply.tool_calls == (call,) and reply.text == ""
    sent = endpoint.bodies[0]["messages"]
    assert sent[1]["tool_calls"] == [call] and sent[2]["tool_call_id"] == "c1"


# -- retries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("429", "RateLimitError"),
        ("500", "EndpointError"),
        ("close", "EndpointError"),
        ("close_mid_body", "EndpointError"),
        ("html", "EndpointError"),
        ("not_json", "EndpointError"),
        ("no_choices", "EndpointError"),
        ("error_in_200", "EndpointError"),
    ],
)
async def test_what_may_pass_is_retried_and_told(fault, kind):
    async with ScriptedEndpoint(faults=[fault], retry_after=0.01) as endpoint:
        llm = chat(endpoint)
        reply = await llm.chat(ASK)
        await llm.aclose()
    assert reply.text == "41"
    assert reply.attempts == 2 and reply.retried == (kind,)
    assert endpoint.stats.calls == 2


async def test_a_hung_request_is_given_up_and_made_again():
    async with ScriptedEndpoint(faults=["hang"]) as endpoint:
        llm = chat(endpoint, attempt_timeout=0.2)
        reply = await llm.chat(ASK)
        await llm.aclose()
    assert reply.retried == ("CallTimeoutError",)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("400", RequestRejectedError),
        ("401", AuthenticationError),
        ("404", ModelNotFoundError),
        ("content_filter", RefusalError),
        ("refusal", RefusalError),
        ("no_content", MalformedReplyError),
    ],
)
async def test_what_will_not_pass_is_never_retried(fault, error):
    async with ScriptedEndpoint(faults=[fault] * 3) as endpoint:
        llm = chat(endpoint)
        with pytest.raises(error) as caught:
            await llm.chat(ASK)
        await llm.aclose()
    assert isinstance(caught.value, PermanentError)
    assert endpoint.stats.calls == 1
    assert endpoint.url in str(caught.value)


async def test_a_malformed_reply_still_tells_what_it_cost():
    async with ScriptedEndpoint(faults=["no_content"]) as endpoint:
        llm = chat(endpoint, model="gpt-4o-mini")
        with pytest.raises(MalformedReplyError) as caught:
            await llm.chat(ASK)
        await llm.aclose()
    usage = caught.value.usage
    assert usage is not None and usage.prompt == endpoint.stats.prompt_tokens > 0
    assert usage.cost_usd is not None and usage.cost_usd > 0


@pytest.mark.parametrize(("fault", "text"), [("invalid_utf8", "41"), ("stream", "4")])
async def test_what_other_clients_read_is_read(fault, text):
    async with ScriptedEndpoint(faults=[fault]) as endpoint:
        llm = chat(endpoint)
        reply = await llm.chat(ASK)
        await llm.aclose()
    assert (reply.text, reply.attempts) == (text, 1)


async def test_a_reply_cut_by_length_is_returned():
    async with ScriptedEndpoint(faults=["length"]) as endpoint:
        llm = chat(endpoint)
        reply = await llm.chat(ASK)
        await llm.aclose()
    assert reply.finish_reason == "length" and reply.text == "41"


async def test_missing_usage_counts_as_unknown_never_as_nothing():
    async with ScriptedEndpoint(faults=["no_usage"]) as endpoint:
        llm = chat(endpoint, model="gpt-4o-mini")
        reply = await llm.chat(ASK)
        await llm.aclose()
    assert (reply.usage.calls, reply.usage.unknown, reply.usage.cost_usd) == (1, 1, None)


async def test_attempts_are_bounded():
    async with ScriptedEndpoint(p500=1.0) as endpoint:
        llm = chat(endpoint, max_attempts=3)
        with pytest.raises(EndpointError) as caught:
            await llm.chat(ASK)
        await llm.aclose()
    assert endpoint.stats.calls == 3
    assert "after 3 attempts" in caught.value.__notes__[0]


async def test_a_page_that_is_not_the_api_gets_few_retries_and_a_hint():
    async with ScriptedEndpoint(faults=["html"] * 20) as endpoint:
        llm = chat(endpoint, max_attempts=8)
        with pytest.raises(EndpointError, match="/v1"):
            await llm.chat(ASK)
        await llm.aclose()
    assert endpoint.stats.calls == 3


async def test_total_time_is_bounded():
    async with ScriptedEndpoint(phang=1.0) as endpoint:
        llm = chat(endpoint, attempt_timeout=0.2, call_timeout=0.5, max_attempts=100)
        started = time.monotonic()
        with pytest.raises(CallTimeoutError):
            await llm.chat(ASK)
        await llm.aclose()
    assert time.monotonic() - started < 0.8
    assert endpoint.stats.calls <= 3


async def test_a_wait_that_does_not_fit_is_not_begun():
    async with ScriptedEndpoint(p429=1.0, retry_after=3600) as endpoint:
        llm = chat(endpoint, call_timeout=5)
        started = time.monotonic()
        with pytest.raises(RateLimitError) as caught:
            await llm.chat(ASK)
        await llm.aclose()
    assert time.monotonic() - started < 2
    assert caught.value.retry_after == 3600


async def test_waiting_for_a_slot_is_not_held_against_a_call():
    async with ScriptedEndpoint(latency=0.15) as endpoint:
        llm = chat(endpoint, concurrency=1, call_timeout=0.4)
        replies = await asyncio.gather(*(llm.chat(ASK) for _ in range(5)))
        await llm.aclose()
    assert len(replies) == 5 and endpoint.stats.peak_in_flight == 1
    assert max(r.seconds for r in replies) < 0.4


def test_backoff_is_full_jitter_and_respects_retry_after():
    waits = [backoff_seconds(n, None) for n in range(1, 12) for _ in range(50)]
    assert min(waits) < 0.1 and max(waits) <= 30.0
    assert all(backoff_seconds(1, None) <= 0.5 for _ in range(100))
    assert all(2.0 <= backoff_seconds(5, RateLimitError("x", retry_after=2.0)) <= 2.6 for _ in range(100))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    assert header_wait(headers, now=60.0) == seconds


@pytest.mark.parametrize(
    ("status", "code", "error", "fatal"),
    [
        (408, None, EndpointError, False),
        (409, None, EndpointError, False),
        (503, None, EndpointError, False),
        (429, "rate_limit_exceeded", RateLimitError, False),
        (429, "insufficient_quota", AuthenticationError, True),
        (400, "content_filter", RefusalError, False),
        (400, "model_not_found", ModelNotFoundError, True),
        (403, None, AuthenticationError, True),
        (413, None, RequestRejectedError, False),
        (422, None, RequestRejectedError, False),
    ],
)
def test_statuses_are_classified(status, code, error, fatal):
    made = status_error(status, code, "because", where="http://x/v1", model="m")
    assert type(made) is error
    assert is_fatal(made) is fatal


# -- endpoints that cannot be used ---------------------------------------------------------------------


async def test_an_endpoint_that_is_not_there_is_named_at_once():
    async with ScriptedEndpoint() as gone:
        url = gone.url
    llm = OpenAIChat("m", url, KEY)
    started = time.monotonic()
    with pytest.raises(EndpointError, match="cannot connect to") as caught:
        await llm.chat(ASK)
    await llm.aclose()
    assert caught.value.unreachable and is_fatal(caught.value)
    assert url in str(caught.value) and "OPENAI_BASE_URL" in str(caught.value)
    assert time.monotonic() - started < 5


async def test_an_endpoint_that_answered_before_is_not_called_unreachable():
    async with ScriptedEndpoint() as endpoint:
        llm = chat(endpoint, max_attempts=2)
        await llm.chat(ASK)
    with pytest.raises(EndpointError) as caught:
        await llm.chat(ASK)
    await llm.aclose()
    assert not caught.value.unreachable and not is_fatal(caught.value)


async def test_an_unknown_model_is_named():
    async with ScriptedEndpoint(models=["other"]) as endpoint:
        llm = chat(endpoint, model="gpt-17")
        with pytest.raises(ModelNotFoundError, match="gpt-17"):
            await llm.chat(ASK)
        await llm.aclose()


async def test_the_key_appears_nowhere(caplog):
    caplog.set_level(logging.DEBUG, logger="reflexion")
    async with ScriptedEndpoint(api_key="another") as endpoint:
        llm = chat(endpoint)
        with pytest.raises(AuthenticationError) as caught:  # the endpoint echoes the key it was given
            await llm.chat(ASK)
        await llm.aclose()
    assert "Incorrect API key" in str(caught.value)
    chain = [caught.value, caught.value.__cause__]
    assert caught.value.__suppress_context__
    for text in (*map(repr, chain), *map(str, chain), repr(llm), str(llm.identity), caplog.text):
        assert KEY not in text


def test_urls_are_shown_without_credentials():
    shown = public_url("https://user:secret@Example.com:443/v1/?api-key=hidden#x")
    assert shown == "https://example.com/v1"
    assert public_url("http://[::1]:8000/v1") == "http://[::1]:8000/v1"
    llm = OpenAIChat("m", "http://user:secret@127.0.0.1:1/v1", "k")
    assert llm.identity == {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
    assert "secret" not in repr(llm)


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "ftp://x/v1", "http://", "http://host:port/v1", "http://[::1/v1"])
def test_a_wrong_url_is_a_clear_error(url):
    with pytest.raises(ConfigurationError, match="base URL"):
        OpenAIChat("m", url, "k")


def test_openai_wants_a_key_and_others_do_not(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        open_llm("gpt-4o")
    assert OpenAIChat("m", "http://127.0.0.1:1/v1").endpoint == "http://127.0.0.1:1/v1"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert OpenAIChat("gpt-4o").identity == {"model": "gpt-4o", "base_url": OPENAI_URL}
    with pytest.raises(ConfigurationError, match="characters") as caught:
        OpenAIChat("gpt-4o", api_key="sk-ünïcode-secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"attempt_timeout": 0}, {"call_timeout": -1}, {"max_attempts": 0}, {"concurrency": 0}],
)
def test_wrong_numbers_are_clear_errors(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        OpenAIChat("m", "http://127.0.0.1:1/v1", **options)


async def test_text_that_is_not_unicode_is_a_rejected_request():
    async with ScriptedEndpoint() as endpoint:
        llm = chat(endpoint)
        with pytest.raises(RequestRejectedError, match="cannot be sent"):
            await llm.chat(ChatRequest(messages=(Message(role="user", content="\udcff"),)))
        await llm.aclose()


# -- what an endpoint does without ---------------------------------------------------------------------


async def test_a_refused_parameter_is_left_out_from_then_on(caplog):
    class Picky(ScriptedEndpoint):
        async def complete(self, raw):
            from reflexion.testing import _error

            if b'"temperature"' in raw:
                return _error(400, "Unsupported value: 'temperature'", code="unsupported_value", param="temperature")
            if b'"max_tokens"' in raw:
                return _error(400, "Unsupported parameter: use 'max_completion_tokens' instead", param="max_tokens")
            return await super().complete(raw)

    async with Picky() as endpoint:
        llm = chat(endpoint)
        await llm.chat(ASK)
        await llm.chat(ASK)
        await llm.aclose()
    assert endpoint.stats.calls == 4  # two lessons, then one request for each call
    assert set(endpoint.bodies[-1]) == {"model", "messages", "max_completion_tokens"}
    assert "temperature" in caplog.text


# -- the pool ------------------------------------------------------------------------------------------


async def test_models_of_one_endpoint_share_connections():
    async with ScriptedEndpoint(latency=0.02) as endpoint:
        models = [chat(endpoint, model=f"m{i}") for i in range(4)]
        for _ in range(3):
            for llm in models:
                await llm.chat(ASK)
        assert endpoint.stats.connections == 1
        await models[0].aclose()
        await models[0].aclose()
        assert (await models[1].chat(ASK)).text == "41"  # still open for the others
        for llm in models[1:]:
            await llm.aclose()


def test_one_model_serves_several_event_loops():
    with ScriptedEndpoint() as endpoint:
        llm = chat(endpoint)

        async def once() -> str:
            try:
                return (await llm.chat(ASK)).text
            finally:
                await llm.aclose()

        assert [asyncio.run(once()) for _ in range(3)] == ["41"] * 3


async def test_a_cancelled_call_gives_its_slot_back():
    async with ScriptedEndpoint(faults=["hang"]) as endpoint:
        llm = chat(endpoint, concurrency=1)
        task = asyncio.create_task(llm.chat(ASK))
        while endpoint.stats.hung == 0:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await asyncio.wait_for(llm.chat(ASK), 5)).text == "41"
        await llm.aclose()


async def test_a_gate_is_held_during_each_request():
    held = []

    @asynccontextmanager
    async def gate():
        held.append("in")
        try:
            yield
        finally:
            held.append("out")

    async with ScriptedEndpoint(faults=["500"]) as endpoint:
        llm = chat(endpoint, gate=gate)
        await llm.chat(ASK)
        await llm.aclose()
    assert held == ["in", "out", "in", "out"]


def test_an_endpoint_does_not_show_its_key():
    assert KEY not in repr(Endpoint("http://127.0.0.1:1/v1", KEY))


async def test_many_calls_through_faults_lose_nothing_and_count_nothing_twice():
    async with ScriptedEndpoint(p429=0.2, p500=0.1, phang=0.01, retry_after=0.02) as endpoint:
        llm = chat(endpoint, concurrency=50, attempt_timeout=2.0, max_attempts=20)
        requests = [ChatRequest(messages=(Message(role="user", content=f"question {i}"),)) for i in range(150)]
        replies = await asyncio.gather(*(llm.chat(r) for r in requests))
        await llm.aclose()
    assert len(replies) == len(endpoint.stats.distinct) == endpoint.stats.answered == 150
    assert endpoint.stats.duplicates_in_flight <= endpoint.stats.hung
    assert sum(r.usage.prompt for r in replies) == endpoint.stats.prompt_tokens
    assert sum(r.attempts for r in replies) == endpoint.stats.calls
    assert any(r.retried for r in replies)
