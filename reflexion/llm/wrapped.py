"""What models that pass requests on to another model have in common."""

from __future__ import annotations

from typing import Any

from reflexion.llm.base import LLM

__all__ = ["WrappedLLM"]


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
