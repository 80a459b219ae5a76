"""What replies cost: as the endpoint counts, wherever it counts it; and endpoints at uncommon addresses."""

from __future__ import annotations

from typing import Any

import pytest

from reflexion.errors import ConfigurationError, RefusalError
from reflexion.llm import Budget, BudgetedLLM
from reflexion.llm.endpoint.clients import Endpoint, is_loopback
from reflexion.llm.endpoint.extras import Extras, parse_extra_body, parse_extra_headers
from reflexion.llm.endpoint.wire import Tokens, tokens_of
from reflexion.llm.prices import price_list
from reflexion.llm.wrappers.batched_asks import split_usage
from reflexion.types import Usage
from tests.support.dialects import Speaking, asked, completion, speaking_model

COUNTS: list[tuple[Any, Tokens | None]] = [
    ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}, Tokens(32, 103, 0)),
    ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 41}, Tokens(32, 9, 0)),
    ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 12}, Tokens(32, 9, 0)),
    (
        {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 60}},
        Tokens(100, 1, 60),
    ),
    ({"prompt_tokens": 100, "completion_tokens": 1, "prompt_cache_hit_tokens": 70}, Tokens(100, 1, 70)),
    ({"prompt_tokens": 100, "completion_tokens": 1, "prompt_cache_miss_tokens": 70}, Tokens(100, 1, 0)),
    ({"prompt_tokens": 100, "completion_tokens": 1, "cache_read_input_tokens": 500}, Tokens(100, 1, 100)),
    ({"prompt_tokens": 100, "completion_tokens": 1, "cache_creation_input_tokens": 50}, Tokens(100, 1, 0)),
    ({"prompt_tokens": 10.0, "completion_tokens": 5.0, "total_tokens": 15.0}, Tokens(10, 5, 0)),
    (
        {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 90}},
        Tokens(10, 95, 0),
    ),
    (
        {"prompt_tokens": 10, "completion_tokens": 95, "completion_tokens_details": {"reasoning_tokens": 90}},
        Tokens(10, 95, 0),
    ),
    ({"input_tokens": 10, "output_tokens": 5}, Tokens(10, 5, 0)),
    ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 10**15}, Tokens(10, 5, 0)),
    ({"prompt_tokens": 2**63 - 1, "completion_tokens": 5}, None),
    ({"prompt_tokens": -1, "completion_tokens": 5}, None),
    ({"prompt_tokens": 10, "completion_tokens": float("inf")}, None),
    ({"prompt_tokens": "10", "completion_tokens": 5}, None),
    ({"prompt_tokens": True, "completion_tokens": 5}, None),
    ([1], None),
    (None, None),
]


@pytest.mark.parametrize(("usage", "tokens"), COUNTS)
def test_counts_are_read_or_unknown(usage: Any, tokens: Tokens | None) -> None:
    assert tokens_of(usage) == tokens


async def test_a_budget_counts_as_the_endpoint_does() -> None:
    total = 0

    def script(body: dict[str, Any], n: int) -> Any:
        nonlocal total
        usage = {"prompt_tokens": 20 + n, "completion_tokens": 5, "total_tokens": 20 + n + 5 + 40 * n}
        total += usage["total_tokens"]
        if n == 2:
            return 200, completion("", "stop", message={"refusal": "never"}, usage=usage)
        if n == 3:
            return 200, completion("", "length", usage=usage)
        return 200, completion("42", usage=usage)

    async with Speaking(script) as endpoint:
        budget = Budget(max_tokens=10**6)
        llm = BudgetedLLM(speaking_model(endpoint), budget)
        await llm.chat(asked())
        with pytest.raises(RefusalError) as caught:
            await llm.chat(asked())
        await llm.chat(asked())
        await llm.aclose()
    assert caught.value.usage is not None and caught.value.usage.total == 107
    assert len(endpoint.bodies) == 4 and budget.tokens == total


def test_cached_input_is_priced_as_such() -> None:
    price = price_list("gpt-4o-mini", "https://api.openai.com/v1")
    assert price is not None
    assert price(Tokens(1000, 0, 900)) < price(Tokens(1000, 0, 0)) * 0.6


async def test_cached_input_is_on_record() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101, "cached_tokens": 60}
    async with Speaking(lambda body, n: (200, completion("42", usage=usage))) as endpoint:
        llm = speaking_model(endpoint)
        reply = await llm.chat(asked())
        await llm.aclose()
    assert reply.usage.cached_prompt == 60


def test_a_sum_with_an_unknown_part_tells_what_is_known() -> None:
    known, dear = Usage(prompt=5, calls=1, cost_usd=0.25), Usage(prompt=5, calls=1, cost_usd=0.5)
    total = known + Usage(calls=1, unknown=1) + dear
    assert (total.cost_usd, total.at_least_usd, total.unknown) == (None, 0.75, 1)
    assert (known + dear).at_least_usd == (known + dear).cost_usd == 0.75
    assert Usage(calls=1, unknown=1).at_least_usd is None
    parts = split_usage(total, 3)
    assert sum(parts, Usage()).at_least_usd == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:11434/v1", True),
        ("http://llm.localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://127.example.com/v1", False),
        ("https://10.0.0.7/v1", False),
    ],
)
def test_what_runs_on_this_machine_costs_nothing(url: str, here: bool) -> None:
    from reflexion.llm import OpenAIChat

    assert is_loopback(url) is here
    assert OpenAIChat("my-own-weights", url, "k").priced is here


# -- addresses -----------------------------------------------------------------------------------------

ADDRESSES: list[tuple[str, str, str]] = [
    (
        "/openai/deployments/d?api-version=2024-06-01",
        "/openai/deployments/d/chat/completions?api-version=2024-06-01",
        "k",
    ),
    (
        "/openai/deployments/d/?api-version=1&x=a%20b",
        "/openai/deployments/d/chat/completions?api-version=1&x=a%20b",
        "k",
    ),
    ("/gate/way/v1", "/gate/way/v1/chat/completions", "b"),
    ("/gate/way/v1/", "/gate/way/v1/chat/completions", "b"),
    ("/v1?tenant=blue", "/v1/chat/completions?tenant=blue", "b"),
    ("/v1/chat/completions", "/v1/chat/completions", "b"),
    ("", "/chat/completions", "b"),
]


@pytest.mark.parametrize(("given", "target", "key"), ADDRESSES)
@pytest.mark.parametrize("user", ["", "me:word@"])
async def test_requests_go_where_the_url_says(given: str, target: str, key: str, user: str) -> None:
    async with Speaking(lambda body, n: None) as endpoint:
        base = endpoint.url.removesuffix("/v1").replace("://", f"://{user}") + given
        llm = speaking_model(endpoint, url=base)
        assert (await llm.chat(asked())).text
        await llm.aclose()
    (sent,) = endpoint.headers
    assert endpoint.targets == [target.replace("a%20b", "a+b") if user else target]
    assert sent.get("api-key") == ("a-secret-key" if key == "k" else None)
    assert sent.get("authorization", "").startswith("Bearer") is (key == "b" and not user)


def test_a_query_tells_endpoints_apart_and_is_not_shown() -> None:
    plain, blue, red = (Endpoint(f"http://127.0.0.1:1/v1{q}", "k") for q in ("", "?key=blue-secret", "?key=red-secret"))
    assert plain.identity == {"base_url": "http://127.0.0.1:1/v1"}
    assert blue.identity != red.identity != plain.identity
    assert "secret" not in f"{blue.identity}{blue!r}{blue.where}"


# -- extras --------------------------------------------------------------------------------------------


async def test_an_extra_body_goes_before_ours_and_null_leaves_a_field_out() -> None:
    async with Speaking(lambda body, n: None) as endpoint:
        extras = Extras(body={"top_k": 20, "temperature": None, "chat_template_kwargs": {"think": False}})
        llm = speaking_model(endpoint, extras=extras)
        await llm.chat(asked())
        await llm.aclose()
    (body,) = endpoint.bodies
    assert body["top_k"] == 20 and body["chat_template_kwargs"] == {"think": False} and "temperature" not in body
    assert llm.identity["extra_body"] == dict(extras.body)


@pytest.mark.parametrize("text", ["{", "[1]", "7", '{"a": NaN}', '{"messages": []}', '{"model": "other"}', "top_k=20"])
def test_an_extra_body_that_is_none_is_one_clear_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--extra-body"):
        parse_extra_body(text)


@pytest.mark.parametrize("pair", ["no sign", "bad name=v", "X-A=line\nbreak", "Content-Length=3", "=v"])
def test_a_header_that_is_none_is_named_without_its_value(pair: str) -> None:
    with pytest.raises(ConfigurationError, match="--extra-header") as caught:
        parse_extra_headers([pair])
    assert "line" not in str(caught.value)


@pytest.mark.parametrize(
    "given", [["X-A=b=c", "X-D=e"], "X-A=b=c\nX-D=e", '{"X-A": "b=c", "X-D": "e"}', {"X-A": "b=c", "X-D": "e"}]
)
def test_headers_are_given_in_many_ways(given: Any) -> None:
    assert parse_extra_headers(given) == {"X-A": "b=c", "X-D": "e"}


def test_only_the_digest_of_headers_is_in_a_key() -> None:
    one, other = Extras(headers={"X-A": "secret-one"}), Extras(headers={"X-A": "secret-two"})
    assert one.identity.keys() == {"extra_headers"} and one.identity != other.identity
    assert "secret" not in f"{one.identity}{one!r}"
    assert Extras().identity == {}


async def test_what_runs_on_this_machine_costs_nothing_where_it_counts_no_tokens() -> None:
    async with Speaking(lambda body, n: (200, completion("42", usage=None))) as endpoint:
        llm = speaking_model(endpoint)
        reply = await llm.chat(asked())
        await llm.aclose()
    assert reply.usage.unknown == 1 and reply.usage.cost_usd == 0.0
