"""What holds for any input: parsing, limits, shares, recordings."""

import asyncio
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from reflexion.errors import ReflexionError
from reflexion.llm import ChatRequest, Message, RecordingLLM, ReplayLLM, Sampling
from reflexion.llm.endpoint.classify import redact
from reflexion.llm.endpoint.clients import public_url
from reflexion.llm.endpoint.error_bodies import header_wait
from reflexion.llm.endpoint.wire import parse_reply
from reflexion.llm.pacing.limits import AdaptiveLimiter
from reflexion.llm.structured import parse_structured
from reflexion.llm.wrappers.batched_asks import split_usage
from reflexion.llm.wrappers.budget import Budget
from reflexion.testing import ScriptedLLM
from reflexion.types import Usage

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN = st.sampled_from(["choices", "message", "content", "usage", "error", "finish_reason", "tool_calls", "refusal"])
REPLIES = st.recursive(
    JSON,
    lambda inner: st.dictionaries(KNOWN, inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=12,
)


@given(st.binary(max_size=200) | REPLIES.map(lambda v: json.dumps(v).encode()), st.text(max_size=20))
def test_any_body_is_a_reply_or_one_of_our_errors(content, content_type):
    try:
        parsed = parse_reply(content, content_type, "http://x/v1")
    except ReflexionError:
        return
    assert isinstance(parsed.text, str)
    assert parsed.tokens is None or min(parsed.tokens) >= 0


class Pair(BaseModel):
    a: int
    b: str


@given(st.integers(), st.text(), st.text(alphabet=st.characters(exclude_characters="{}"), max_size=40), st.text())
def test_a_structure_is_found_between_any_prose(a, b, before, after):
    value = Pair(a=a, b=b)
    assert parse_structured(before + "\n" + value.model_dump_json() + "\n" + after, Pair) == value


@given(st.text(max_size=200))
def test_any_text_is_a_structure_or_an_explained_error(text):
    try:
        parse_structured(text, Pair)
    except ValueError as error:
        assert str(error)


@given(st.text(), st.text(alphabet="abcXYZ019-_", min_size=6, max_size=60), st.text())
def test_a_key_never_survives(before, key, after):
    assert key not in redact(f"{before} {key} {after}", key).replace("[key]", "")


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=30)))
def test_any_retry_after_is_a_wait_or_none(headers):
    wait = header_wait(headers)
    assert wait is None or wait >= 0


@given(st.text(alphabet="ab", min_size=1, max_size=5), st.text(alphabet="xyz", min_size=8, max_size=8))
def test_no_password_is_in_a_public_url(user, password):
    assert password not in public_url(f"http://{user}:{password}@host:81/v1?key={password}")


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 64), st.none() | st.floats(0, 10), st.integers(0, 1)
)
def test_shares_lose_and_invent_nothing(prompt, completion, parts, cost, unknown):
    usage = Usage(prompt=prompt, completion=completion, calls=1, unknown=unknown)
    shares = split_usage(usage.model_copy(update={"cost_usd": cost}), parts)
    total = sum(shares, Usage())
    assert (total.prompt, total.completion, total.calls, total.unknown) == (prompt, completion, 1, unknown)
    assert min(s.prompt for s in shares) >= 0
    if cost is not None:
        assert abs((total.cost_usd or 0.0) - (cost if usage.total >= parts else total.cost_usd or 0.0)) < 1e-6


@given(st.lists(st.tuples(st.sampled_from(["ok", "rate_limited", "failed", "cancelled"]), st.integers(1, 40))))
@settings(max_examples=50)
def test_a_limiter_keeps_its_bounds_and_its_slots(rounds):
    async def play():
        clock = [0.0]
        limiter = AdaptiveLimiter("e", ceiling=100, paced=False, clock=lambda: clock[0])
        for outcome, wanted in rounds:
            clock[0] += 100.0
            count = min(wanted, limiter.limit)
            for _ in range(count):
                await limiter.acquire()
            assert limiter.in_use == count
            for _ in range(count):
                limiter.release(outcome, clock[0], 0.0)
            assert 1 <= limiter.limit <= 100
            assert limiter.in_use == 0

    asyncio.run(play())


@given(st.lists(st.integers(0, 500), max_size=60), st.integers(1, 5000))
def test_a_budget_begins_no_call_beyond_its_limit(costs, limit):
    budget = Budget(max_tokens=limit)
    for tokens in costs:
        if budget.exhausted or budget.tokens >= limit:
            break
        before = budget.tokens
        budget.reserve()
        assert before < limit
        budget.settle(Usage(prompt=tokens, calls=1))
    assert budget.tokens <= limit + max(costs, default=0)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
REQUESTS = st.builds(
    ChatRequest,
    messages=st.lists(
        st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=TEXT), min_size=1, max_size=3
    ).map(tuple),
    sampling=st.builds(Sampling, temperature=st.none() | st.floats(0, 2), seed=st.none() | st.integers(0, 9)),
    role=st.sampled_from(["actor", "reflector", "judge"]),
    salt=TEXT,
)


@given(st.lists(REQUESTS, min_size=1, max_size=5, unique_by=lambda r: r.model_dump_json()), TEXT)
@settings(max_examples=40)
def test_any_exchange_can_be_recorded_and_replayed(tmp_path_factory, requests, text):
    async def play():
        path = tmp_path_factory.mktemp("recording") / "r.jsonl"
        llm = RecordingLLM(ScriptedLLM(lambda r: f"{text}{r.salt}"), path)
        recorded = [await llm.chat(r) for r in requests]
        replay = ReplayLLM(path)
        assert [await replay.chat(r) for r in requests] == recorded

    asyncio.run(play())
