"""A limit on money and tokens, held before each call."""

import asyncio

import pytest

from reflexion.errors import BudgetExceededError, ConfigurationError, MalformedReplyError
from reflexion.llm import Budget, BudgetedLLM, ChatReply, ChatRequest, Message, open_llm
from reflexion.testing import ScriptedEndpoint, ScriptedLLM
from reflexion.types import Usage

ASK = ChatRequest(messages=(Message(role="user", content="x" * 40),))  # ten tokens


def reply(tokens: int, cost: float | None = 0.0, unknown: int = 0) -> ChatReply:
    usage = Usage(prompt=tokens, calls=1, cost_usd=cost, unknown=unknown)
    return ChatReply(text="ok", model="m", usage=usage)


async def calls_until_refused(llm: BudgetedLLM, most: int = 1000) -> int:
    for made in range(most):
        try:
            await llm.chat(ASK)
        except BudgetExceededError:
            return made
    raise AssertionError("never refused")


async def test_no_call_begins_at_or_beyond_the_limit():
    inner = ScriptedLLM(lambda r: reply(100, 0.01))
    assert await calls_until_refused(BudgetedLLM(inner, Budget(max_tokens=500))) == 5
    inner = ScriptedLLM(lambda r: reply(100, 0.25))
    assert await calls_until_refused(BudgetedLLM(inner, Budget(max_cost=1.0))) == 4
    assert len(inner.requests) == 4


async def test_calls_under_way_are_reckoned_with():
    budget = Budget(max_tokens=1000)
    llm = BudgetedLLM(ScriptedLLM(lambda r: reply(100), latency=0.01), budget)
    await llm.chat(ASK)
    results = await asyncio.gather(*(llm.chat(ASK) for _ in range(50)), return_exceptions=True)
    refused = [r for r in results if isinstance(r, BudgetExceededError)]
    assert len(refused) == 41 and budget.tokens == 1000


async def test_a_first_round_is_all_a_limit_can_be_exceeded_by():
    budget = Budget(max_tokens=150)
    llm = BudgetedLLM(ScriptedLLM(lambda r: reply(100), latency=0.01), budget)
    await asyncio.gather(*(llm.chat(ASK) for _ in range(8)))
    with pytest.raises(BudgetExceededError, match="--max-tokens"):
        await llm.chat(ASK)
    assert budget.tokens == 800


async def test_once_refused_always_refused():
    llm = BudgetedLLM(ScriptedLLM(lambda r: reply(10)), Budget(max_tokens=10))
    await llm.chat(ASK)
    messages = set()
    for _ in range(2):
        with pytest.raises(BudgetExceededError) as caught:
            await llm.chat(ASK)
        messages.add(str(caught.value))
    assert len(messages) == 1


async def test_a_resumed_run_goes_on_from_what_was_spent():
    spent = Usage(prompt=450, completion=0, calls=9, cost_usd=0.9)
    llm = BudgetedLLM(ScriptedLLM(lambda r: reply(100)), Budget(max_tokens=500, spent=spent))
    assert await calls_until_refused(llm) == 1
    with pytest.raises(BudgetExceededError, match="--max-cost"):
        Budget(max_cost=0.5, spent=spent).reserve()


async def test_models_of_a_run_share_a_budget():
    budget = Budget(max_tokens=300)
    actor, judge = (BudgetedLLM(ScriptedLLM(lambda r: reply(100), model=m), budget) for m in ("a", "j"))
    await actor.chat(ASK)
    await judge.chat(ASK)
    await actor.chat(ASK)
    with pytest.raises(BudgetExceededError):
        await judge.chat(ASK)


async def test_calls_that_failed_are_free_and_malformed_ones_are_not():
    script = [MalformedReplyError("x", usage=Usage(prompt=60, calls=1, cost_usd=0.0)), RuntimeError("x"), reply(60)]
    budget = Budget(max_tokens=100)
    llm = BudgetedLLM(ScriptedLLM(script), budget)
    for error in (MalformedReplyError, RuntimeError):
        with pytest.raises(error):
            await llm.chat(ASK)
    assert budget.tokens == 60
    await llm.chat(ASK)
    assert budget.tokens == 120


async def test_replies_without_figures_count_as_average_ones():
    script = [reply(100), *(reply(0, None, unknown=1) for _ in range(9))]
    assert await calls_until_refused(BudgetedLLM(ScriptedLLM(script), Budget(max_tokens=500))) == 5


async def test_money_needs_a_known_price():
    with pytest.raises(ConfigurationError, match="--max-tokens"):
        BudgetedLLM(ScriptedLLM(model="mystery", cost_usd=None), Budget(max_cost=1.0))
    with pytest.raises(ConfigurationError, match="'mystery'"):
        open_llm("mystery", base_url="http://llm.internal/v1", budget=Budget(max_cost=1.0))
    async with ScriptedEndpoint() as endpoint:
        llm = open_llm("gpt-4o-mini", base_url=endpoint.url, budget=Budget(max_cost=1.0))
        spent = (await llm.chat(ASK)).usage.cost_usd
        await llm.aclose()
    assert spent is not None and 0 < spent < 0.001

    class Foreign:  # an implementation that does not say whether it knows
        model, identity = "foreign", {}

        async def chat(self, request):
            return reply(10, None)

    with pytest.raises(ConfigurationError, match="foreign"):
        await BudgetedLLM(Foreign(), Budget(max_cost=1.0)).chat(ASK)


@pytest.mark.parametrize("limits", [{"max_cost": 0}, {"max_cost": float("nan")}, {"max_tokens": 0}])
def test_a_limit_that_is_none_is_a_clear_error(limits):
    with pytest.raises(ConfigurationError, match=r"--max-(cost|tokens)"):
        Budget(**limits)


def test_without_limits_nothing_is_wrapped():
    assert not Budget().limited
    llm = open_llm("m", base_url="http://127.0.0.1:1/v1", budget=Budget())
    assert type(llm).__name__ == "OpenAIChat"
