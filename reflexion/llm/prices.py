"""What tokens cost, from the price list of `genai-prices`, offline.

An unknown price stays unknown: nothing is ever taken for free because nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from reflexion.llm.endpoint.wire import Tokens

__all__ = ["Pricer", "free", "price_list"]

Pricer = Callable[[Tokens], float]
"""US dollars for a reply's tokens."""

_LINEAR_UP_TO = 100_000
"""Tokens up to which no price list has a second tier; beyond, every reply is looked up as it is."""


class _Rates(NamedTuple):
    fresh: Decimal
    cached: Decimal
    completion: Decimal


def free(tokens: Tokens) -> float:
    """The price of a model that runs on one's own machine."""
    return 0.0


@lru_cache(maxsize=256)
def price_list(model: str, base_url: str) -> Pricer | None:
    """The price of a model at an endpoint, or None when it is not known.

    An endpoint the list does not know, such as a proxy, is taken to pass OpenAI's own prices on for
    OpenAI's own models; any other model there has no known price.

    Args:
        model: the model's name.
        base_url: the endpoint's URL.
    """
    from genai_prices import Usage, calc_price

    def exact(tokens: Tokens) -> Decimal:
        usage = Usage(input_tokens=tokens.prompt, cache_read_tokens=tokens.cached, output_tokens=tokens.completion)
        try:
            return calc_price(usage, model, provider_api_url=base_url).total_price
        except LookupError:
            return calc_price(usage, model, provider_id="openai").total_price

    n = 1000
    try:
        rates = _Rates(
            exact(Tokens(n, 0, 0)) / n,
            exact(Tokens(n, 0, n)) / n,
            exact(Tokens(0, n, 0)) / n,
        )
    except LookupError:
        return None

    def price(tokens: Tokens) -> float:
        if tokens.prompt > _LINEAR_UP_TO:
            return float(exact(tokens))
        cost = (tokens.prompt - tokens.cached) * rates.fresh + tokens.cached * rates.cached
        return float(cost + tokens.completion * rates.completion)

    return price
