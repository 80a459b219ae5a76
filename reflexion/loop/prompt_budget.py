"""How many tokens a prompt may have, and what is left out when it has too many.

Lessons go first, the least useful before the others; then feedback and the last answer are cut in the
middle; the problem is never touched. Tokens are estimated offline, and the estimate is corrected by the
usage that endpoints send back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["TokenBudget", "TokenCounter", "Window", "trim_middle", "within"]

CHARACTERS_PER_TOKEN = 3.5
"""To begin with: a cautious figure for English and code; the endpoint's own counts correct it."""


class TokenCounter:
    """Estimates tokens from characters, and learns from the counts that come back."""

    def __init__(self, characters_per_token: float = CHARACTERS_PER_TOKEN) -> None:
        self.characters_per_token = characters_per_token
        self._samples = 0

    def count(self, text: str) -> int:
        """Estimated tokens of a text, rounded up."""
        return -int(-len(text) // self.characters_per_token)

    def characters(self, tokens: int) -> int:
        """Characters that are estimated to fit into so many tokens."""
        return max(0, int(tokens * self.characters_per_token))

    def learn(self, characters: int, tokens: int) -> None:
        """Correct the estimate by one prompt whose tokens the endpoint counted.

        A moving mean over about the last 50 prompts: models differ, and so do the texts of a run.
        """
        if tokens < 1 or characters < 1:
            return
        self._samples = min(self._samples + 1, 50)
        ratio = min(max(characters / tokens, 0.5), 12.0)
        self.characters_per_token += (ratio - self.characters_per_token) / self._samples


class Window(NamedTuple):
    """What a model's endpoint told of its window: tokens of a prompt, and how they are counted."""

    tokens: int
    counter: TokenCounter


@dataclass
class TokenBudget:
    """Tokens a prompt may have.

    Attributes:
        limit: tokens of the whole prompt, system text included.
        counter: estimates them.
        learned: whether the limit is what an endpoint told in the course of a run; nobody asked for it.
        dropped: lessons left out so far.
        trimmed: texts cut so far.
    """

    limit: int
    counter: TokenCounter = field(default_factory=TokenCounter)
    learned: bool = False
    dropped: int = 0
    trimmed: int = 0
    asked: int | None = field(init=False, default=None)
    """The limit as it was asked for: part of cache keys, which must not depend on what a run learns."""

    def __post_init__(self) -> None:
        self.asked = None if self.learned else self.limit

    def fit(self, fixed: int, lessons: Sequence[str], texts: Sequence[str]) -> tuple[list[str], list[str]]:
        """What of the lessons and the texts fits beside the part that must stay.

        Args:
            fixed: characters of what is never cut: the system text, the problem, the headings.
            lessons: best first.
            texts: feedback and answers, which may be cut in the middle.

        Returns:
            The lessons that stay and the texts, cut if need be.
        """
        room = self.counter.characters(self.limit) - fixed
        kept = list(lessons)
        wanted = sum(map(len, texts))
        while kept and sum(len(t) + 3 for t in kept) + wanted > room:
            kept.pop()
            self.dropped += 1
        if wanted <= room - sum(len(t) + 3 for t in kept):
            return kept, list(texts)
        self.trimmed += 1
        return kept, self._trim(texts, max(room, 0))

    def _trim(self, texts: Sequence[str], room: int) -> list[str]:
        # Short texts stay whole; the long ones share what is left equally.
        shares: dict[int, int] = {}
        left, order = room, sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for position, index in enumerate(order):
            shares[index] = min(len(texts[index]), left // (len(order) - position))
            left -= shares[index]
        return [trim_middle(text, shares[index]) for index, text in enumerate(texts)]


def within(budget: TokenBudget | None, window: Window | None) -> TokenBudget | None:
    """The budget, within the window an endpoint told, if it did."""
    if window is None:
        return budget
    if budget is None:
        return TokenBudget(window.tokens, window.counter, learned=True)
    if window.tokens < budget.limit:
        budget.limit, budget.counter = window.tokens, window.counter
    return budget


def trim_middle(text: str, limit: int) -> str:
    """At most `limit` characters of a text, cut in the middle: errors tell most at both ends."""
    if len(text) <= limit:
        return text
    mark = "\n[…]\n"
    keep = limit - len(mark)
    if keep <= 0:
        return text[:limit]
    head = keep - keep // 2
    return text[:head] + mark + text[len(text) - keep // 2 :]
