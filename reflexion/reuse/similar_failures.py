"""Reuse of reflections for similar failures: how similar two failures are, and an index of reflections.

Compared are the problem's text and the failure's feedback, never a prompt: two prompts share their
template, which would make everything look alike. Evaluator kind and failure class must be equal.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import pairwise
from operator import mul
from typing import Any, Protocol, runtime_checkable

from pydantic import Field, ValidationError

from reflexion.cache.journal import Journal, journal_of
from reflexion.cache.step_cache import FORMAT, StepCache
from reflexion.errors import ConfigurationError, MalformedReplyError, ReflexionError
from reflexion.types import Frozen

__all__ = [
    "Embed",
    "EmbeddingSimilarity",
    "Failure",
    "LexicalSimilarity",
    "ReflectionIndex",
    "SimilarReflection",
    "SimilarityProvider",
    "StoredReflection",
    "open_reflection_index",
]

logger = logging.getLogger("reflexion.cache")

Embed = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]
"""Gives one vector for each text, in order."""

TEXT_CHARACTERS = 8_000
"""Characters of a text that are compared: its beginning, where a problem says what it is."""
EMBED_BATCH = 64
OFF_LOOP_FROM = 256
"""Comparisons from which they are made in a thread, so that the event loop goes on."""
REFRESH_SECONDS = 1.0
"""Pause between two looks at what other processes added."""


class Failure(Frozen):
    """What is compared."""

    problem: str = Field(description="The problem's text, without any template.")
    feedback: str = Field(default="", description="The evaluator's feedback on the failed trial.")


@runtime_checkable
class SimilarityProvider(Protocol):
    """Says how similar failures are: 0 for nothing in common, 1 for the same; symmetric."""

    @property
    def name(self) -> str:
        """Names the method and its model: representations of another name are not comparable."""
        ...

    @property
    def persistent(self) -> bool:
        """Whether representations are lists of numbers that are worth keeping."""
        ...

    async def represent(self, failures: Sequence[Failure]) -> list[Any]:
        """What is compared of each failure, computed once."""
        ...

    def scores(self, one: Any, others: Sequence[Any]) -> list[float]:
        """Similarity of one representation to each of the others."""
        ...


def _both(problem: float, feedback: float) -> float:
    """Similarity of the whole: the geometric mean, so that neither text makes up for the other."""
    return round(min(1.0, math.sqrt(max(0.0, problem) * max(0.0, feedback))), 12)


_TOKEN = re.compile(r"\w+|[^\w\s]")
_Bag = Mapping[str, float]


class LexicalSimilarity:
    """Cosine over words, pairs of neighbouring words and 4-letter pieces of long words.

    Needs no model and no download. Words weigh most; pieces let `reversed` and `reverse` meet.
    """

    name = "lexical"
    persistent = False

    async def represent(self, failures: Sequence[Failure]) -> list[tuple[_Bag, _Bag]]:
        """Weighted features of both texts, each of length 1."""
        return [(self._bag(failure.problem), self._bag(failure.feedback)) for failure in failures]

    def scores(self, one: tuple[_Bag, _Bag], others: Sequence[tuple[_Bag, _Bag]]) -> list[float]:
        """Geometric mean of the two texts' cosines."""
        return [_both(self._cosine(one[0], other[0]), self._cosine(one[1], other[1])) for other in others]

    def similarity(self, a: Failure, b: Failure) -> float:
        """Similarity of two failures, 0 to 1."""
        first, second = ((self._bag(failure.problem), self._bag(failure.feedback)) for failure in (a, b))
        return self.scores(first, [second])[0]

    @staticmethod
    def _bag(text: str) -> _Bag:
        words: list[str] = _TOKEN.findall(text[:TEXT_CHARACTERS].lower())
        weights: dict[str, float] = {}
        pairs = [f"{left} {right}" for left, right in pairwise(words)]
        pieces = [f"~{word[at : at + 4]}" for word in words if len(word) > 4 for at in range(len(word) - 3)]
        for features, weight in ((words, 1.0), (pairs, 0.5), (pieces, 0.25)):
            for feature, count in Counter(features).items():
                weights[feature] = weight * (1.0 + math.log(count))
        length = math.sqrt(math.fsum(value * value for value in weights.values()))
        return {feature: value / length for feature, value in weights.items()}

    @staticmethod
    def _cosine(a: _Bag, b: _Bag) -> float:
        if not a or not b:
            return float(not a and not b)
        if len(b) < len(a):
            a, b = b, a
        # fsum is exact, so that the order of the features, and of a and b, does not matter.
        return math.fsum(value * b[feature] for feature, value in a.items() if feature in b)


_Vectors = tuple[Sequence[float], Sequence[float]]


class EmbeddingSimilarity:
    """Cosine over embeddings.

    Args:
        embed: gives vectors for texts (see `reflexion.reuse.embeddings` for an endpoint's).
        name: of the model; vectors of another one are not compared.
    """

    persistent = True

    def __init__(self, embed: Embed, name: str = "embedding") -> None:
        self._embed = embed
        self.name = name

    async def represent(self, failures: Sequence[Failure]) -> list[_Vectors]:
        """Both texts' vectors, each of length 1; empty texts have none.

        Raises:
            MalformedReplyError: not one vector of one length came for each text.
            ReflexionError: what `embed` raises.
        """
        texts = dict.fromkeys(text[:TEXT_CHARACTERS] for f in failures for text in (f.problem, f.feedback) if text)
        vectors: dict[str, Sequence[float]] = {"": ()}
        wanted = list(texts)
        for start in range(0, len(wanted), EMBED_BATCH):
            batch = wanted[start : start + EMBED_BATCH]
            given = await self._embed(batch)
            if len(given) != len(batch) or len({len(vector) for vector in given}) != 1:
                raise MalformedReplyError(f"{self.name}: not one vector for each of {len(batch)} texts")
            vectors |= zip(batch, map(_unit, given), strict=True)
        return [(vectors[f.problem[:TEXT_CHARACTERS]], vectors[f.feedback[:TEXT_CHARACTERS]]) for f in failures]

    def scores(self, one: _Vectors, others: Sequence[_Vectors]) -> list[float]:
        """Geometric mean of the two texts' cosines."""
        return [_both(self._cosine(one[0], other[0]), self._cosine(one[1], other[1])) for other in others]

    @staticmethod
    def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
        if not a or not b:
            return float(not a and not b)
        return sum(map(mul, a, b)) if len(a) == len(b) else 0.0


def _unit(vector: Sequence[float]) -> tuple[float, ...]:
    length = math.sqrt(math.fsum(x * x for x in vector)) or 1.0
    return tuple(float(x / length) for x in vector)


class StoredReflection(Frozen):
    """A reflection in the index."""

    format: int = FORMAT
    key: str = Field(description="Key of the reflect step that drew it.")
    scope: str = ""
    evaluator: str
    failure_class: str | None
    failure: Failure
    text: str
    created: float = 0.0
    provider: str = ""
    vectors: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def group(self) -> tuple[str, str, str | None]:
        """What must be equal for a reflection to be considered at all."""
        return self.scope, self.evaluator, self.failure_class


class SimilarReflection(Frozen):
    """A reflection that was found."""

    key: str = Field(description="For `Reflection.reused_from`.")
    text: str
    similarity: float = Field(ge=0.0, le=1.0)


class ReflectionIndex:
    """Finds the reflection of the most similar failure.

    Bounded: beyond `limit` reflections the oldest goes. To be used in one event loop.

    Args:
        provider: how similarity is measured; None: lexical.
        journal: where reflections are kept for other processes and runs; None: this process only.
        limit: reflections kept.
    """

    def __init__(
        self, provider: SimilarityProvider | None = None, journal: Journal | None = None, limit: int = 2_000
    ) -> None:
        if limit < 1:
            raise ConfigurationError(f"reflection index: limit is {limit}; it must be 1 or more")
        self._provider = provider or LexicalSimilarity()
        self._journal = journal
        self._limit = limit
        self._rows: dict[str, StoredReflection] = {}
        self._groups: dict[tuple[str, str, str | None], dict[str, None]] = {}
        self._representations: dict[str, Any] = {}
        self._refreshed = -math.inf
        self._warned = False

    def __len__(self) -> int:
        return len(self._rows)

    async def add(
        self,
        key: str,
        text: str,
        *,
        evaluator: str,
        failure_class: str | None,
        problem: str,
        feedback: str,
        scope: str = "",
    ) -> None:
        """Keep a reflection; a key that is there is left as it is.

        Args:
            key: of the reflect step that drew it.
            text: the reflection.
            evaluator: kind of the evaluator that judged the trial.
            failure_class: class of the failure.
            problem: the problem's text.
            feedback: the evaluator's feedback.
            scope: what else must be equal, such as the reflecting model.
        """
        if key in self._rows or not text.strip():
            return
        failure = Failure(problem=problem[:TEXT_CHARACTERS], feedback=feedback[:TEXT_CHARACTERS])
        found = await self._represented([failure])
        vectors = found[0] if found and self._provider.persistent else None
        row = StoredReflection(
            key=key,
            scope=scope,
            evaluator=evaluator,
            failure_class=failure_class,
            failure=failure,
            text=text,
            created=time.time(),
            provider=self._provider.name,
            vectors=vectors,
        )
        self._keep(row, found[0] if found else None)
        if self._journal is not None:
            await self._journal.append(row.model_dump_json(exclude_defaults=True).encode())

    async def find(
        self,
        *,
        evaluator: str,
        failure_class: str | None,
        problem: str,
        feedback: str,
        threshold: float,
        scope: str = "",
    ) -> SimilarReflection | None:
        """The reflection of the most similar failure, or None when none reaches the threshold.

        Of equally similar ones the oldest is given, whatever the order they were read in.

        Args:
            evaluator: kind of the evaluator; must be equal.
            failure_class: class of the failure; must be equal.
            problem: the problem's text.
            feedback: the evaluator's feedback.
            threshold: least similarity, above 0, up to 1.
            scope: must be equal.

        Raises:
            ConfigurationError: the threshold is out of range.
        """
        if not 0.0 < threshold <= 1.0:
            raise ConfigurationError(f"reflection reuse: the threshold is {threshold}; it must be above 0, up to 1")
        await self._refresh()
        rows = [self._rows[key] for key in self._groups.get((scope, evaluator, failure_class), ())]
        if not rows:
            return None
        failure = Failure(problem=problem[:TEXT_CHARACTERS], feedback=feedback[:TEXT_CHARACTERS])
        missing = [row for row in rows if row.key not in self._representations]
        represented = await self._represented([failure, *(row.failure for row in missing)])
        if represented is None:
            return None
        self._representations |= zip((row.key for row in missing), represented[1:], strict=True)
        others = [self._representations[row.key] for row in rows]
        if len(rows) < OFF_LOOP_FROM:
            scores = self._provider.scores(represented[0], others)
        else:
            scores = await asyncio.to_thread(self._provider.scores, represented[0], others)
        score, row = min(zip(scores, rows, strict=True), key=lambda pair: (-pair[0], pair[1].created, pair[1].key))
        return SimilarReflection(key=row.key, text=row.text, similarity=score) if score >= threshold else None

    async def _represented(self, failures: Sequence[Failure]) -> list[Any] | None:
        """Representations; None, and one warning, when the provider fails: reuse never stops a run."""
        try:
            return await self._provider.represent(failures)
        except ReflexionError as exc:
            if not self._warned:
                self._warned = True
                logger.warning("reflection reuse: %s failed (%s); reflections are drawn anew", self._provider.name, exc)
            return None

    def _keep(self, row: StoredReflection, representation: Any = None) -> None:
        if row.key in self._rows:
            return
        self._rows[row.key] = row
        self._groups.setdefault(row.group, {})[row.key] = None
        if representation is not None:
            self._representations[row.key] = representation
        while len(self._rows) > self._limit:
            oldest = self._rows.pop(next(iter(self._rows)))
            group = self._groups[oldest.group]
            del group[oldest.key]
            if not group:
                del self._groups[oldest.group]
            self._representations.pop(oldest.key, None)

    async def _refresh(self) -> None:
        now = time.monotonic()
        if self._journal is None or now - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = now
        unreadable = 0
        for line in await self._journal.read_new():
            try:
                row = StoredReflection.model_validate_json(line)
            except ValidationError:
                unreadable += 1
                continue
            usable = row.vectors if row.provider == self._provider.name and self._provider.persistent else None
            self._keep(row, usable)
        if unreadable:
            logger.warning("reflection reuse: %d kept reflections cannot be read and are left out", unreadable)


def open_reflection_index(
    cache: StepCache | None, provider: SimilarityProvider | None = None, limit: int = 2_000
) -> ReflectionIndex:
    """An index that is kept in the same folder or Redis as a step cache, or in this process only.

    Args:
        cache: the store; it has to stay open as long as the index is used.
        provider: how similarity is measured; None: lexical.
        limit: reflections kept.
    """
    return ReflectionIndex(provider, None if cache is None else journal_of(cache, "reflections", limit), limit)
