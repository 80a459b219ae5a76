"""A limit on the money and tokens of a run, held before each call.

A call begins only while what is spent, and what the calls under way are expected to spend, is below
the limit. So a run ends within one round of calls of it, and never begins a call beyond it.
"""

from __future__ import annotations

from reflexion.errors import BudgetExceededError, ConfigurationError, ReflexionError
from reflexion.llm.chat_model import LLM, ChatReply, ChatRequest
from reflexion.llm.wrappers.wrapped import WrappedLLM
from reflexion.types import Usage

__all__ = ["Budget", "BudgetedLLM"]


class Budget:
    """What a run may spend, shared by its models. For one event loop.

    Args:
        max_cost: US dollars; None: no limit.
        max_tokens: prompt and completion tokens together; None: no limit.
        spent: what a resumed run spent before.

    Raises:
        ConfigurationError: a limit is not positive.
    """

    def __init__(
        self, max_cost: float | None = None, max_tokens: int | None = None, spent: Usage | None = None
    ) -> None:
        if max_cost is not None and not max_cost > 0:
            raise ConfigurationError(f"--max-cost must be more than 0 dollars, not {max_cost}")
        if max_tokens is not None and max_tokens < 1:
            raise ConfigurationError(f"--max-tokens must be at least 1, not {max_tokens}")
        self.max_cost, self.max_tokens = max_cost, max_tokens
        spent = spent or Usage()
        self.cost = spent.cost_usd or 0.0
        self.tokens = spent.total
        self.exhausted: str | None = None
        """Why no call begins any more, once that is so."""
        self._calls = 0
        self._cost_per_call = 0.0
        self._tokens_per_call = 0.0
        self._under_way = 0

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.max_cost is not None or self.max_tokens is not None

    def reserve(self) -> None:
        """Begin a call, or refuse it.

        Raises:
            BudgetExceededError: it would begin beyond a limit. Once raised, it is for every later call.
        """
        if self.exhausted is None:
            self.exhausted = self._reason()
        if self.exhausted is not None:
            raise BudgetExceededError(self.exhausted)
        self._under_way += 1

    def _reason(self) -> str | None:
        cost = self.cost + self._under_way * self._cost_per_call
        if self.max_cost is not None and cost >= self.max_cost:
            return (
                f"the limit of ${self.max_cost:g} is reached (${self.cost:.4f} spent, {self._under_way} calls "
                "under way). Resume the run with a higher --max-cost"
            )
        tokens = self.tokens + self._under_way * self._tokens_per_call
        if self.max_tokens is not None and tokens >= self.max_tokens:
            return (
                f"the limit of {self.max_tokens} tokens is reached ({self.tokens} spent, {self._under_way} calls "
                "under way). Resume the run with a higher --max-tokens"
            )
        return None

    def settle(self, usage: Usage | None) -> None:
        """End a call; None when it brought nothing that is paid for.

        A call without figures from the endpoint is taken for an average one, so that a limit holds
        on endpoints that do not tell.
        """
        self._under_way -= 1
        if usage is None:
            return
        if usage.unknown:
            self.tokens += round(self._tokens_per_call)
            self.cost += self._cost_per_call
            return
        self.tokens += usage.total
        self.cost += usage.cost_usd or 0.0
        self._calls += 1
        # Averages over about the last fifty calls: later trials have longer prompts than first ones.
        weight = 1 / min(self._calls, 50)
        self._tokens_per_call += (usage.total - self._tokens_per_call) * weight
        self._cost_per_call += ((usage.cost_usd or 0.0) - self._cost_per_call) * weight


class BudgetedLLM(WrappedLLM):
    """A model that spends from a budget. Implements `LLM`.

    Raises:
        ConfigurationError: there is a limit on money, and the model's price is not known.
    """

    def __init__(self, llm: LLM, budget: Budget) -> None:
        super().__init__(llm)
        self._budget = budget
        if budget.max_cost is not None and getattr(llm, "priced", None) is False:
            raise _unpriced(llm.model)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply; see `LLM.chat`.

        Raises:
            BudgetExceededError: a limit is reached; nothing was sent.
            ConfigurationError: there is a limit on money, and the reply came without a price.
        """
        self._budget.reserve()
        usage: Usage | None = None
        try:
            reply = await self._llm.chat(request)
            usage = reply.usage
        except ReflexionError as error:
            usage = error.usage  # what failed may have been paid for all the same
            raise
        finally:
            self._budget.settle(usage)
        if self._budget.max_cost is not None and reply.usage.cost_usd is None and not reply.usage.unknown:
            raise _unpriced(self.model)
        return reply


def _unpriced(model: str) -> ConfigurationError:
    return ConfigurationError(
        f"--max-cost: the price of model {model!r} is not known, so a limit on money cannot be held. "
        "Use --max-tokens instead"
    )
