"""What makes two problems similar: shared words, rare ones counting for more."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["CANDIDATES", "NEWEST", "rank_problems", "rarest", "words_of"]

MAX_WORDS = 256
"""Distinct words kept of one problem; a long context must not fill the index."""
NEWEST = 128
"""Problems looked at of a word that very many problems have: the newest ones."""
CANDIDATES = 32
"""Problems compared in full with the one that is asked about."""
_BUDGET = 256
"""Index entries read for one question. It keeps retrieval flat while the memory grows."""
_FLOOR = 0.1
"""Below this similarity two problems share little more than articles."""

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> tuple[str, ...]:
    """The distinct words of a text in order, lower case, at most 256."""
    found: dict[str, None] = {}
    for match in _WORD.finditer(text.lower()):
        found.setdefault(match.group())
        if len(found) == MAX_WORDS:
            break
    return tuple(found)


def rarest(words: Iterable[str], frequencies: Mapping[str, int]) -> list[str]:
    """The rarest of the words that occur, as many as the budget of index entries allows, at least one.

    Args:
        words: of the question.
        frequencies: number of problems that have each word; missing or 0: none.
    """
    chosen: list[str] = []
    spent = 0
    for word in sorted((w for w in words if frequencies.get(w)), key=lambda w: (frequencies[w], w)):
        spent += min(frequencies[word], NEWEST)
        if chosen and spent > _BUDGET:
            break
        chosen.append(word)
    return chosen


def rank_problems(
    words: Sequence[str],
    candidates: Mapping[str, Iterable[str]],
    total: int,
    frequencies: Mapping[str, int],
) -> list[str]:
    """Candidates by falling similarity; those that share next to nothing are left out.

    Similarity is the share of the question's words, weighted by how rare they are, that the candidate
    has, times the Dice coefficient of both word sets, so that long candidates are not favoured.

    Args:
        words: of the question.
        candidates: words of each candidate; of equally similar ones the first given wins.
        total: number of problems in the memory.
        frequencies: number of problems that have each word.
    """
    weights = {w: math.log1p((total + 1) / (frequencies.get(w, 0) + 1)) for w in words}
    whole = sum(weights.values())
    scored: list[tuple[float, str]] = []
    for problem, its_words in candidates.items():
        its = set(its_words)
        shared = weights.keys() & its
        if shared:
            coverage = sum(weights[w] for w in shared) / whole
            score = coverage * 2 * len(shared) / (len(weights) + len(its))
            if score >= _FLOOR:
                scored.append((score, problem))
    scored.sort(key=lambda item: -item[0])
    return [problem for _, problem in scored]
