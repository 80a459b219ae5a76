"""Several small questions in one call: gather, ask in a structure, fall back to single calls.

Whatever the shared call leaves out, answers twice or answers with nothing is asked alone, so that
batching saves calls and prompt tokens and loses no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from reflexion.errors import MalformedReplyError, ReflexionError, RefusalError, RequestRejectedError
from reflexion.llm.chat_model import LLM, ChatReply, ChatRequest, Message, Role, Sampling
from reflexion.llm.structured import ask_structured
from reflexion.types import Usage

__all__ = ["BatchedAsk", "BatchedReply", "BatchingStats", "split_usage"]

T = TypeVar("T")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")
    item: int = Field(description="Number of the item this answers.")
    text: str = Field(description="The answer to that item alone.")


class _Answers(BaseModel):
    model_config = ConfigDict(extra="ignore")
    answers: list[_Answer]


@dataclass(frozen=True)
class BatchedReply:
    """The answer to one item; its `usage` is its share of the call it was part of."""

    text: str
    model: str
    usage: Usage
    seconds: float
    attempts: int
    retried: tuple[str, ...]
    batched: bool
    thought: str = ""


@dataclass
class BatchingStats:
    """How well batching works."""

    items: int = 0
    calls: int = 0
    batched: int = 0
    """Items answered by a shared call."""
    fallbacks: int = 0
    """Items a shared call left out."""


@dataclass
class _Waiting(Generic[T]):
    item: T
    answer: asyncio.Future[BatchedReply]
    carried: Usage = field(default_factory=Usage)
    """Its share of a shared call that did not answer it."""


def split_usage(usage: Usage, parts: int) -> list[Usage]:
    """Usage in equal parts that sum up to it exactly; the call itself counts for the first part."""

    def share(total: int, index: int) -> int:
        return total * (index + 1) // parts - total * index // parts

    return [
        Usage(
            prompt=share(usage.prompt, i),
            completion=share(usage.completion, i),
            calls=usage.calls if i == 0 else 0,
            unknown=usage.unknown if i == 0 else 0,
            cost_usd=None if usage.cost_usd is None else usage.cost_usd / parts,
            cached_prompt=share(usage.cached_prompt, i),
            known_usd=None if usage.known_usd is None else usage.known_usd / parts,
        )
        for i in range(parts)
    ]


class BatchedAsk(Generic[T]):
    """Answers items, up to `size` of them by one call. For one event loop.

    Args:
        llm: who is asked.
        instruction: what is asked of every item; it comes first, so that endpoints can reuse it.
        render: an item as a text for the shared call.
        single: an item as a request of its own.
        size: items in one call at most; 1: no batching.
        linger: seconds the first item waits for others.
        sampling: of the shared call; `max_tokens` is for each item.
        role: for whom the calls are made.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        instruction: str,
        render: Callable[[T], str],
        single: Callable[[T], ChatRequest],
        size: int,
        linger: float = 0.05,
        sampling: Sampling | None = None,
        role: Role = "reflector",
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self._llm, self._instruction = llm, instruction
        self._render, self._single = render, single
        self._size, self._linger = size, linger
        self._sampling = sampling or Sampling()
        self._role: Role = role
        self._waiting: list[_Waiting[T]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.stats = BatchingStats()

    async def ask(self, item: T) -> BatchedReply:
        """The answer to one item.

        Raises:
            RetryableError, PermanentError: as the model raises them.
        """
        self.stats.items += 1
        waiting = _Waiting(item, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if len(self._waiting) >= self._size:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._linger, self._flush)
        return await waiting.answer

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Who was cancelled while waiting is not asked for.
        batch = [w for w in self._waiting if not w.answer.done()]
        self._waiting = []
        if batch:
            task = asyncio.get_running_loop().create_task(self._answer(batch))
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._finished(done, batch))

    def _finished(self, task: asyncio.Task[None], batch: Sequence[_Waiting[T]]) -> None:
        self._tasks.discard(task)
        for waiting in batch:
            if waiting.answer.done():
                continue
            # The loop is being shut down, or `render` failed: nobody must wait for ever.
            if task.cancelled() or (error := task.exception()) is None:
                waiting.answer.cancel()
            else:
                waiting.answer.set_exception(error)

    async def _answer(self, batch: Sequence[_Waiting[T]]) -> None:
        try:
            left = list(batch) if len(batch) == 1 else await self._shared(batch)
        except ReflexionError as error:
            for waiting in batch:
                _fail(waiting, error)
            return
        await asyncio.gather(*(self._alone(waiting) for waiting in left))

    async def _shared(self, batch: Sequence[_Waiting[T]]) -> list[_Waiting[T]]:
        """Answer a batch by one call; returns what is left to be asked alone."""
        self.stats.calls += 1
        try:
            answers, reply = await ask_structured(self._llm, self._shared_request(batch), _Answers)
        except (MalformedReplyError, RefusalError, RequestRejectedError) as error:
            # The call may be too long, or one item may have spoilt it for all.
            return self._leave(batch, split_usage(error.usage or Usage(), len(batch)))
        texts: dict[int, list[str]] = {}
        for answer in answers.answers:
            texts.setdefault(answer.item, []).append(answer.text.strip())
        shares = split_usage(reply.usage, len(batch))
        unanswered: list[tuple[_Waiting[T], Usage]] = []
        for number, (waiting, usage) in enumerate(zip(batch, shares, strict=True), 1):
            match texts.get(number):
                case [text] if text:
                    self.stats.batched += 1
                    _settle(waiting, _reply(reply, text, usage, batched=True))
                case _:
                    unanswered.append((waiting, usage))
        return self._leave([w for w, _ in unanswered], [u for _, u in unanswered])

    def _leave(self, left: Sequence[_Waiting[T]], shares: Sequence[Usage]) -> list[_Waiting[T]]:
        self.stats.fallbacks += len(left)
        for waiting, usage in zip(left, shares, strict=True):
            waiting.carried = usage
        return list(left)

    def _shared_request(self, batch: Sequence[_Waiting[T]]) -> ChatRequest:
        items = "\n\n".join(f"### Item {i}\n{self._render(w.item)}" for i, w in enumerate(batch, 1))
        ask = (
            f"{self._instruction}\n\nThere are {len(batch)} items. Answer each on its own, in the list `answers`, "
            "with its number as `item` and your answer to it as `text`."
        )
        most = self._sampling.max_tokens
        sampling = self._sampling.model_copy(update={"max_tokens": None if most is None else most * len(batch) + 64})
        return ChatRequest(
            messages=(Message(role="system", content=ask), Message(role="user", content=items)),
            sampling=sampling,
            role=self._role,
        )

    async def _alone(self, waiting: _Waiting[T]) -> None:
        self.stats.calls += 1
        try:
            reply = await self._llm.chat(self._single(waiting.item))
        except ReflexionError as error:
            _fail(waiting, error)
            return
        _settle(waiting, _reply(reply, reply.text, waiting.carried + reply.usage, batched=False))


def _reply(reply: ChatReply, text: str, usage: Usage, *, batched: bool) -> BatchedReply:
    thought = "" if batched else reply.thought  # of a shared call it belongs to no item
    return BatchedReply(text, reply.model, usage, reply.seconds, reply.attempts, reply.retried, batched, thought)


def _settle(waiting: _Waiting[T], reply: BatchedReply) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(reply)


def _fail(waiting: _Waiting[T], error: ReflexionError) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
