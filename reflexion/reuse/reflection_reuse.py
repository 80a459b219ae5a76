"""Reuse of reflections: a failure much like an earlier one is given the lesson drawn from that.

Off unless asked for. Compared are problem text and feedback, of the same kind of evaluator and class of
failure; a reused reflection says where it is from and how similar the failures are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from reflexion.cache.step_cache import StepCache
from reflexion.keys import digest
from reflexion.loop.steps import Runtime, StepCall, reflect_once
from reflexion.reuse.similar_failures import (
    EmbeddingSimilarity,
    LexicalSimilarity,
    ReflectionIndex,
    SimilarityProvider,
    open_reflection_index,
)
from reflexion.types import Reflection

__all__ = ["DEFAULT_EMBEDDING", "ReusingReflector", "open_similarity", "reuse_reflections"]

DEFAULT_EMBEDDING = "text-embedding-3-small"
"""Model of `embeddings` when none is named."""


class ReusingReflector:
    """Gives the reflection of a similar failure if there is one, else draws a new one and keeps it.

    Args:
        index: the reflections that may be reused.
        threshold: least similarity, above 0, up to 1.
        draw: how a new one is drawn.
    """

    def __init__(
        self,
        index: ReflectionIndex,
        threshold: float,
        draw: Callable[[StepCall], Awaitable[Reflection]] = reflect_once,
    ) -> None:
        self._index, self._threshold, self._draw = index, threshold, draw

    async def reflect(self, call: StepCall) -> Reflection:
        """The reflection for a failed trial.

        Raises:
            RetryableError, PermanentError: as `draw` raises them.
        """
        trial, problem, scope = call.trial, call.attempt.problem.prompt, _scope(call)
        assert trial is not None and trial.evaluation is not None
        evaluation = trial.evaluation
        similar = await self._index.find(
            evaluator=evaluation.evaluator,
            failure_class=evaluation.failure_class,
            problem=problem,
            feedback=evaluation.feedback,
            threshold=self._threshold,
            scope=scope,
        )
        # A lesson this trial had before its eyes did not help, so the same one again would not either.
        if similar is not None and similar.text not in call.attempt.past.lessons:
            return Reflection(
                trial=call.attempt.index,
                text=similar.text,
                reused_from=similar.key,
                similarity=similar.similarity,
            )
        drawn = await self._draw(call)
        if not drawn.text:
            return drawn
        await self._index.add(
            call.key,
            drawn.text,
            evaluator=evaluation.evaluator,
            failure_class=evaluation.failure_class,
            problem=problem,
            feedback=evaluation.feedback,
            scope=scope,
        )
        return drawn


def _scope(call: StepCall) -> str:
    """What must be equal besides the failure: who reflects and how, and which try it is.

    The repeat keeps pass@k honest: repeats of a problem must not share their reflections.
    """
    runtime, attempt = call.runtime, call.attempt
    return digest(
        [
            runtime.reflector.identity,
            runtime.prompts.reflect_digest,
            runtime.options.sampling.model_dump(mode="json"),
            attempt.index,
            attempt.repeat,
        ]
    )[:16]


def reuse_reflections(
    runtime: Runtime, cache: StepCache | None, provider: SimilarityProvider, threshold: float
) -> ReflectionIndex:
    """Let a runtime's reflections be reused; whatever draws them now draws those that are new.

    Args:
        cache: where reflections are kept for other processes and runs; None: in this process only.
        provider: how similarity is measured.
        threshold: least similarity, above 0, up to 1.
    """
    index = open_reflection_index(cache, provider)
    custom = runtime.custom_reflector
    draw = reflect_once if custom is None else custom.reflect
    runtime.custom_reflector = ReusingReflector(index, threshold, draw)
    runtime.reflection_fields["reuse"] = {"threshold": threshold, "similarity": provider.name}
    return index


async def _nothing() -> None:
    return None


def open_similarity(
    spec: str = "lexical", *, base_url: str | None = None, api_key: str | None = None
) -> tuple[SimilarityProvider, Callable[[], Awaitable[None]]]:
    """The similarity of a name, and what closes its connections.

    Args:
        spec: `lexical`, `embeddings` or `embeddings:MODEL`.

    Raises:
        ConfigurationError: embeddings are asked of OpenAI without a key.
    """
    if spec == "lexical":
        return LexicalSimilarity(), _nothing
    from reflexion.reuse.embeddings import EndpointEmbedder

    model = spec.partition(":")[2] or DEFAULT_EMBEDDING
    embedder = EndpointEmbedder(model, base_url=base_url, api_key=api_key)
    return EmbeddingSimilarity(embedder, f"embeddings:{model}"), embedder.aclose
