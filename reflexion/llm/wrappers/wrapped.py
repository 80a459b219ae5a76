"""What models that pass requests on to another model have in common, and the two smallest of them."""

from __future__ import annotations

from typing import Any

from reflexion.llm.chat_model import LLM, ChatReply, ChatRequest
from reflexion.loop.prompt_budget import Window
from reflexion.loop.thought import split_thought

__all__ = ["LimitedLLM", "SplittingLLM", "WrappedLLM", "split_reply"]


class WrappedLLM:
    """A model in front of another one: it changes no answer, so it is known by what the other one tells."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    @property
    def model(self) -> str:
        """The wrapped model's name."""
        return self._llm.model

    @property
    def identity(self) -> dict[str, Any]:
        """The wrapped model's."""
        return self._llm.identity

    @property
    def priced(self) -> bool:
        """Whether the wrapped model's price is known."""
        return getattr(self._llm, "priced", False) is True

    @property
    def suggested_concurrency(self) -> int | None:
        """The wrapped model's, if it tells."""
        return getattr(self._llm, "suggested_concurrency", None)

    @property
    def reply_tokens(self) -> int | None:
        """The wrapped model's, if it tells."""
        return getattr(self._llm, "reply_tokens", None)

    @property
    def prompt_window(self) -> int | None:
        """The wrapped model's, if it tells."""
        return getattr(self._llm, "prompt_window", None)

    @property
    def learned_window(self) -> Window | None:
        """The wrapped model's, if it tells."""
        return getattr(self._llm, "learned_window", None)

    @property
    def tool_calling(self) -> bool | None:
        """The wrapped model's, if it tells."""
        return getattr(self._llm, "tool_calling", None)

    async def warm_up(self) -> None:
        """Warm the wrapped model up, if it can be."""
        warm_up = getattr(self._llm, "warm_up", None)
        if warm_up is not None:
            await warm_up()

    async def aclose(self) -> None:
        """Close the wrapped model."""
        await self._llm.aclose()


def split_reply(reply: ChatReply) -> ChatReply:
    """A reply whose thought is set apart from its answer, if its text holds both."""
    if reply.thought or "<" not in reply.text:
        return reply
    split = split_thought(reply.text)
    if not split.thought and not split.cut:
        return reply
    return reply.model_copy(update={"text": split.answer, "thought": split.thought})


class SplittingLLM(WrappedLLM):
    """A model of the user's own, whose replies may hold a thought and an answer in one text."""

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply, its thought set apart; see `LLM.chat`."""
        return split_reply(await self._llm.chat(request))


class LimitedLLM(WrappedLLM):
    """A model whose replies have a token limit of their own, whatever the request says.

    Args:
        llm: the model that answers.
        tokens: of a reply at most.
    """

    def __init__(self, llm: LLM, tokens: int) -> None:
        super().__init__(llm)
        self._tokens = tokens

    @property
    def identity(self) -> dict[str, Any]:
        """The wrapped model's, and the limit."""
        return {**super().identity, "max_tokens": self._tokens}

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply within the limit; see `LLM.chat`."""
        sampling = request.sampling.model_copy(update={"max_tokens": self._tokens})
        return await self._llm.chat(request.model_copy(update={"sampling": sampling}))
