"""Reflections drawn some other way than by one call each."""

from __future__ import annotations

from reflexion.errors import MalformedReplyError, RefusalError
from reflexion.llm.chat_model import ChatRequest
from reflexion.llm.wrappers.batched_asks import BatchedAsk, BatchingStats
from reflexion.loop.asking import EMPTY_REPLY, kept_thought, without_answer
from reflexion.loop.steps import Runtime, StepCall, reflect_request, reflection_sampling
from reflexion.types import Reflection

__all__ = ["BatchedReflector"]

INSTRUCTION = (
    "Several attempts at problems failed. Reflect on each: say in one or two sentences what went wrong and what "
    "to do differently. Do not give the answers themselves."
)


class BatchedReflector:
    """Collects failures that arrive within a short linger into one structured call.

    Whatever comes back missing or malformed is asked alone; each reflection is cached under its own key.

    Args:
        runtime: whose reflector is asked.
        size: failures in one call at most.
        linger: seconds a failure waits for others.
    """

    def __init__(self, runtime: Runtime, size: int, linger: float = 0.05) -> None:
        self._model = runtime.reflector.model
        self._ask: BatchedAsk[StepCall] = BatchedAsk(
            runtime.reflector,
            instruction=INSTRUCTION,
            render=_render,
            single=reflect_request,
            size=size,
            linger=linger,
            sampling=reflection_sampling(runtime.options),
        )

    @property
    def stats(self) -> BatchingStats:
        """How well batching works."""
        return self._ask.stats

    async def reflect(self, call: StepCall) -> Reflection:
        """The reflection for one failed trial."""
        try:
            reply = await self._ask.ask(call)
        except (MalformedReplyError, RefusalError) as exc:
            return Reflection(trial=call.attempt.index, text="", model=self._model, **without_answer(exc))
        text = reply.text.strip()
        return Reflection(
            trial=call.attempt.index,
            text=text,
            thought=kept_thought(reply.thought),
            error=None if text else EMPTY_REPLY,
            model=reply.model,
            usage=reply.usage,
            seconds=reply.seconds,
            attempts=reply.attempts,
            retried=reply.retried,
        )


def _render(call: StepCall) -> str:
    request: ChatRequest = reflect_request(call)
    return request.messages[-1].content
