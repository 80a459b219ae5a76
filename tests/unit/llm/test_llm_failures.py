"""Failures are told apart by what they are: by status, codes and numbers, in nobody's words in particular."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from reflexion.errors import (
    AuthenticationError,
    EndpointError,
    MalformedReplyError,
    ModelNotFoundError,
    RateLimitError,
    RefusalError,
    RequestRejectedError,
    is_fatal,
)
from reflexion.llm.endpoint.classify import told_error
from reflexion.llm.endpoint.error_bodies import header_wait, read_told, seconds_in, text_wait
from tests.support.dialects import Speaking, asked, completion, refused, speaking_model


def error_for(status: int, body: Any, headers: dict[str, str] | None = None) -> Exception:
    told = read_told(body if isinstance(body, bytes) else json.dumps(body).encode())
    return told_error(status, told, headers or {}, where="http://x/v1", model="m", shown=told.message)


# -- inside a 200 --------------------------------------------------------------------------------------

INSIDE: list[Any] = [
    completion("", "error", choice={"error": {"code": 503, "message": "the machine behind us fell over"}}),
    completion("Par", "upstream_lost"),
    completion("", "insufficient_capacity"),
    {"object": "chat.completion", "choices": []},
    {"object": "chat.completion", "choices": None, "msg": "no worker was free"},
    {"choices": [{"index": 0, "finish_reason": None}]},
    {"error": "overloaded, alas"},
    completion("", message={"error": {"message": "cut in the middle"}}),
    {"detail": "the pool is empty", "choices": []},
    completion("", "stop", usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    completion("42", error={"type": "server_error", "message": "half of it is missing"}),
]


@pytest.mark.parametrize("body", INSIDE)
async def test_a_failure_inside_a_200_is_tried_again_and_is_no_answer(body: Any) -> None:
    async with Speaking(lambda sent, n: (200, body) if n <= 2 else None) as endpoint:
        llm = speaking_model(endpoint)
        reply = await llm.chat(asked())
        await llm.aclose()
    assert reply.text == "41" and reply.retried == ("EndpointError", "EndpointError")


async def test_a_failure_that_stays_is_an_endpoints_error_in_its_own_words() -> None:
    body = completion("", "error", choice={"error": {"message": "the machine behind us fell over"}})
    async with Speaking(lambda sent, n: (200, body)) as endpoint:
        llm = speaking_model(endpoint, max_attempts=2)
        with pytest.raises(EndpointError, match="fell over"):
            await llm.chat(asked())
        await llm.aclose()


async def test_what_failed_attempts_cost_is_counted() -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
        return (200, completion("", "broken", usage=usage)) if n == 1 else (200, completion("42", usage=usage))

    async with Speaking(script) as endpoint:
        llm = speaking_model(endpoint)
        reply = await llm.chat(asked())
        await llm.aclose()
    assert (reply.usage.prompt, reply.usage.completion, reply.usage.calls) == (20, 6, 1)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "invalid_api_key", "message": "no"}, AuthenticationError),
        ({"code": 401, "message": "who are you"}, AuthenticationError),
        ({"type": "billing_hard_limit", "message": "pay"}, AuthenticationError),
        ({"code": 429, "message": "slower"}, RateLimitError),
        ({"code": "model_not_found", "message": "which?"}, ModelNotFoundError),
    ],
)
async def test_an_error_inside_a_200_is_what_its_code_says(error: Any, kind: type[Exception]) -> None:
    async with Speaking(lambda sent, n: (200, {"error": error})) as endpoint:
        llm = speaking_model(endpoint, max_attempts=1)
        with pytest.raises(kind):
            await llm.chat(asked())
        await llm.aclose()


@pytest.mark.parametrize("finish", ["eos", "END_TURN", "stop sequence", "complete", None])
async def test_a_reply_may_end_in_many_words(finish: str | None) -> None:
    async with Speaking(lambda sent, n: (200, completion("42", finish))) as endpoint:
        llm = speaking_model(endpoint)
        assert (await llm.chat(asked())).text == "42"
        await llm.aclose()
    assert len(endpoint.bodies) == 1


# -- fatal ---------------------------------------------------------------------------------------------

FATAL: list[tuple[int, Any]] = [
    (401, b""),
    (402, {"message": "the purse is empty"}),
    (403, {"error": "you may not"}),
    (400, {"error": {"message": "?", "details": [{"reason": "API_KEY_EXPIRED"}]}}),
    (400, {"code": "InvalidApiKey", "message": "?"}),
    (422, {"errors": [{"category": "authentication", "detail": "?"}]}),
    (400, {"error": {"message": "Your API key looks like nothing we ever gave out."}}),
    (429, {"error": {"message": "?", "type": "billing_inactive"}}),
    (429, {"error": {"message": "?", "code": "insufficient_quota"}}),
    (429, {"error": {"message": "?", "code": "monthly_quota_used_up"}}),
    (400, {"code": "Arrearage", "message": "?"}),
    (429, {"kind": "out_of_credits", "title": "?"}),
    (400, {"error": {"type": "account_suspended", "message": "?"}}),
    (429, {"error": {"message": "?", "code": "purse_is_empty"}}),
    (403, {"error": {"code": "trial_has_ended", "message": "?"}}),
    (400, {"error": {"message": "The key you hold opens nothing here."}}),
    (422, {"reason": "key_not_valid"}),
    (404, {"error": {"message": "never heard of it"}}),
    (400, {"error": {"message": "no", "param": "model"}}),
]


@pytest.mark.parametrize(("status", "body"), FATAL)
def test_what_every_call_would_meet_is_fatal(status: int, body: Any) -> None:
    assert is_fatal(error_for(status, body))


PASSING: list[tuple[int, Any, dict[str, str]]] = [
    (429, {"error": {"message": "slower", "code": "rate_limit_exceeded"}}, {}),
    (429, {"error": {"status": "RESOURCE_EXHAUSTED", "message": "Quota", "details": [{"retryDelay": "2s"}]}}, {}),
    (429, {"error": {"code": "quota_per_minute", "message": "?"}}, {}),
    (429, {"error": {"code": "quota_reached", "message": "try again in 4 s"}}, {}),
    (429, {"code": "Throttling.RateQuota", "message": "?"}, {}),
    (503, {"error": {"type": "authentication_service_away", "message": "?"}}, {}),
    (500, {"error": {"type": "load_balancer", "message": "?"}}, {}),
    (529, {"error": {"type": "overloaded_error", "message": "?"}}, {}),
    (400, {"error": {"message": "come again"}}, {"x-should-retry": "true"}),
]


@pytest.mark.parametrize(("status", "body", "headers"), PASSING)
def test_what_may_pass_is_not_fatal_and_is_tried_again(status: int, body: Any, headers: dict[str, str]) -> None:
    error = error_for(status, body, headers)
    assert isinstance(error, RateLimitError | EndpointError) and not error.final


REJECTED: list[tuple[int, str]] = [
    (429, "Request too big for this tier: limit 20000, requested 21500"),
    (429, "One call may take 8,000 tokens per minute at most; yours needs 9,120"),
    (429, "the bucket holds 5000 and this call wants 7000"),
]


@pytest.mark.parametrize(("status", "words"), REJECTED)
def test_what_no_waiting_cures_is_not_waited_for(status: int, words: str) -> None:
    assert type(error_for(status, {"error": {"message": words}})) is RequestRejectedError


@pytest.mark.parametrize(
    "words",
    [
        "Limit 20000, used 19000, requested 2000",
        "60 requests per minute are allowed, you made 75",
        "You used 90000 tokens of 80000",
        "Limit 20000, requested 21500. Try again in 3 s",
    ],
)
def test_a_limit_that_will_have_room_again_is_waited_for(words: str) -> None:
    assert isinstance(error_for(429, {"error": {"message": words}}), RateLimitError)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "content_filter", "message": "?"}},
        {"error": {"type": "moderation", "message": "?"}},
        {"code": "DataInspectionFailed", "message": "?"},
        {"error": {"innererror": {"code": "ResponsibleAI.content_policy"}, "message": "?"}},
    ],
)
def test_a_filter_s_refusal_is_a_refusal(body: Any) -> None:
    assert isinstance(error_for(400, body), RefusalError)


async def test_what_is_told_not_to_be_tried_again_is_not() -> None:
    async with Speaking(lambda sent, n: (500, {"error": "for good"}, {"X-Should-Retry": "false"})) as endpoint:
        llm = speaking_model(endpoint)
        with pytest.raises(EndpointError, match="for good"):
            await llm.chat(asked())
        await llm.aclose()
    assert len(endpoint.bodies) == 1


async def test_calls_that_waited_while_a_key_was_refused_are_not_sent() -> None:
    async with Speaking(lambda sent, n: refused(402, "nothing left"), latency=0.05) as endpoint:
        llm = speaking_model(endpoint, concurrency=4)
        calls = (llm.chat(asked(f"Question {i}")) for i in range(40))
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert len(endpoint.bodies) <= 4
        # A later call is another matter: the account may have been filled meanwhile.
        with pytest.raises(AuthenticationError):
            await llm.chat(asked())
        await llm.aclose()
    assert all(isinstance(e, AuthenticationError) for e in ended)
    assert len(endpoint.bodies) <= 5


async def test_secret_headers_that_are_echoed_are_not_shown() -> None:
    from reflexion.llm.endpoint.extras import Extras

    async with Speaking(lambda sent, n: refused(400, "do not send tok-1234567 to us")) as endpoint:
        llm = speaking_model(endpoint, extras=Extras(headers={"X-Token": "tok-1234567"}))
        with pytest.raises(RequestRejectedError) as caught:
            await llm.chat(asked())
        await llm.aclose()
    assert endpoint.headers[0]["x-token"] == "tok-1234567"
    assert "tok-1234567" not in f"{caught.value}{caught.value!r}{llm.identity}{llm!r}"


# -- waits ---------------------------------------------------------------------------------------------

HEADERS: list[tuple[dict[str, str], float | None]] = [
    ({"retry-after": "1m30s"}, 90.0),
    ({"retry-after": "250ms"}, 0.25),
    ({"retry-after": "PT1M5S"}, 65.0),
    ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, 60.0),
    ({"retry-after": "1970-01-01T00:01:30Z"}, 30.0),
    ({"x-vendor-retry-after": "7"}, 7.0),
    ({"x-ratelimit-reset-requests": "2s", "x-ratelimit-remaining-requests": "0"}, 2.0),
    ({"x-ratelimit-reset-requests": "12ms", "x-ratelimit-reset-tokens": "6m0s"}, 0.012),
    (
        {
            "x-ratelimit-reset-tokens": "6m0s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-remaining-requests": "99",
        },
        360.0,
    ),
    ({"ratelimit-reset": "5"}, 5.0),
    ({"x-ratelimit-reset-day": "86000"}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), HEADERS)
def test_a_wait_is_read_from_headers_of_any_form(headers: dict[str, str], seconds: float | None) -> None:
    assert header_wait(headers, now=60.0) == seconds


def test_a_time_in_milliseconds_is_a_time() -> None:
    assert seconds_in("1700000005000", now=1_700_000_000.0) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("come back in 1 minute and 5 seconds", 65.0),
        ("retry after 350ms", 0.35),
        ("Bitte 12 s warten", 12.0),
        ("at most 20 calls per 60 seconds", None),
        ("20 calls in the last 10 s; wait 4s", 4.0),
        ("Réessayez dans 1 minute et 2,5 secondes", 62.5),
        ("60 Aufrufe je 60 Sekunden; in 3 Sekunden wieder", 3.0),
        ("请在4秒后重试", 4.0),
        ("try again in 1,500 ms", 1.5),
        ("slow down", None),
        ("at least 16 minimum, in 3 sections", None),
    ],
)
def test_a_wait_is_read_from_words(words: str, seconds: float | None) -> None:
    assert text_wait(words) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "answer",
    [
        (429, {"error": {"message": "too fast, again in 300ms"}}),
        (429, {"error": {"message": "?", "details": [{"retry_after_seconds": 0.3}]}}),
        (429, {"retryAfterMs": 300, "message": "?"}),
        (429, {"error": {"retry_delay": {"seconds": 0, "nanos": 300_000_000}, "message": "?"}}),
        (503, {"message": "?"}, {"Retry-After": "0.3"}),
    ],
)
async def test_waits_are_kept(answer: Any) -> None:
    async with Speaking(lambda sent, n: answer if n == 1 else None) as endpoint:
        llm = speaking_model(endpoint)
        began = time.monotonic()
        await llm.chat(asked())
        took = time.monotonic() - began
        await llm.aclose()
    assert 0.3 <= took < 0.9


# -- bodies --------------------------------------------------------------------------------------------

READ: list[tuple[bytes, str]] = [
    (json.dumps(completion("forty-two XX")).replace("XX", "\\udc42").encode(), "forty-two "),
    (json.dumps(completion("forty-two XX")).encode().replace(b"XX", b"\xc3"), "forty-two "),
    (json.dumps(completion("42", took=float("inf"))).encode(), "42"),
    (b"\n\n   " + json.dumps(completion("42")).encode(), "42"),
    (b"\xef\xbb\xbf" + json.dumps(completion("42")).encode(), "42"),
    (json.dumps(completion("42")).encode("utf-16"), "42"),
    (json.dumps(completion("\\ud83d\\ude00")).replace("\\\\u", "\\u").encode(), "\U0001f600"),
    (json.dumps(completion("a\tb")).replace("\\t", "\t").encode(), "a\tb"),
    (json.dumps({"choices": [{"text": "42", "finish_reason": "stop"}]}).encode(), "42"),
]


@pytest.mark.parametrize(("content", "text"), READ)
async def test_a_body_that_others_read_is_read(content: bytes, text: str) -> None:
    async with Speaking(lambda sent, n: (200, content)) as endpoint:
        llm = speaking_model(endpoint)
        assert (await llm.chat(asked())).text == text
        await llm.aclose()
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize("content", [b"{", b"", b"[" * 5000, b'{"a": ' + b"9" * 5000 + b"}", b"upstream connect error"])
async def test_a_body_nobody_could_read_is_one_clear_error(content: bytes) -> None:
    async with Speaking(lambda sent, n: (200, content)) as endpoint:
        llm = speaking_model(endpoint, max_attempts=1)
        with pytest.raises(EndpointError, match=r"not JSON|no choices"):
            await llm.chat(asked())
        await llm.aclose()


UNREADABLE: list[tuple[bytes, dict[str, str]]] = [
    (b"[1, 2]", {}),
    (b"null", {}),
    (b"\x1f\x8b\x08 not what it seems", {}),
    (json.dumps(completion("42")).encode(), {"Content-Encoding": "gzip"}),
    (b"so sorry", {"Content-Encoding": "deflate"}),
]


@pytest.mark.parametrize(("content", "headers"), UNREADABLE)
async def test_what_waiting_seldom_cures_is_tried_again_a_few_times_only(
    content: bytes, headers: dict[str, str]
) -> None:
    async with Speaking(lambda sent, n: (200, content, headers)) as endpoint:
        llm = speaking_model(endpoint)
        with pytest.raises(EndpointError, match=r"not JSON|no(?:t a)? JSON object|nobody can read"):
            await llm.chat(asked())
        await llm.aclose()
    assert len(endpoint.bodies) == 3


async def test_an_empty_message_is_no_answer_and_tells_its_cost() -> None:
    async with Speaking(lambda sent, n: (200, completion(None))) as endpoint:
        llm = speaking_model(endpoint)
        with pytest.raises(MalformedReplyError) as caught:
            await llm.chat(asked())
        await llm.aclose()
    assert caught.value.usage is not None and caught.value.usage.total == 36
