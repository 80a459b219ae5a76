"""Asks a model for a step: the prompt fits its window, and a reply without an answer is told as such."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reflexion.errors import ContextWindowError, MalformedReplyError, RefusalError, ReplyCutError
from reflexion.loop.prompt_budget import trim_middle
from reflexion.types import Usage

if TYPE_CHECKING:
    from reflexion.llm.chat_model import LLM, ChatReply, ChatRequest
    from reflexion.loop.steps import Runtime

__all__ = ["EMPTY_REPLY", "ask", "finish_of", "kept_thought", "reply_fields", "spent", "without_answer"]

THOUGHT_LIMIT = 20_000
"""Characters of a thought that are put on record; a longer one is cut in the middle."""
EMPTY_REPLY = "EmptyReply: the model answered with nothing"
"""Why there is no lesson where the model was silent."""


async def ask(runtime: Runtime, llm: LLM, build: Callable[[], ChatRequest]) -> tuple[ChatRequest, ChatReply]:
    """The request that was answered, and the reply.

    Args:
        runtime: its prompt budget follows the window the model's endpoint tells.
        llm: who is asked.
        build: makes the request within the runtime's budget; called again when that has become smaller.

    Raises:
        RetryableError, PermanentError: as the model raises them.
    """
    runtime.follow(llm)
    request = build()
    try:
        return request, await llm.chat(request)
    except ContextWindowError:
        runtime.follow(llm)
        shorter = build()
        if shorter.messages == request.messages:
            raise  # what is left may not be cut
    return shorter, await llm.chat(shorter)


def reply_fields(reply: ChatReply) -> dict[str, Any]:
    """What every step tells of the reply it is made of."""
    return {
        "model": reply.model,
        "usage": reply.usage,
        "seconds": reply.seconds,
        "attempts": reply.attempts,
        "retried": reply.retried,
    }


def kept_thought(thought: str) -> str:
    """A thought as it is put on record."""
    return trim_middle(thought.strip(), THOUGHT_LIMIT)


def without_answer(error: MalformedReplyError | RefusalError) -> dict[str, Any]:
    """What a step tells of a reply without an answer: why, what it cost, and what was thought."""
    thought = error.thought if isinstance(error, MalformedReplyError) else ""
    return {"error": f"{type(error).__name__}: {error}", "usage": spent(error), "thought": kept_thought(thought)}


def finish_of(error: MalformedReplyError | RefusalError) -> str | None:
    """Why a reply without an answer ended."""
    return "length" if isinstance(error, ReplyCutError) else None


def spent(error: MalformedReplyError | RefusalError) -> Usage:
    """What a reply cost that could not be used."""
    return error.usage if error.usage is not None else Usage(calls=1, unknown=1)
