"""Embeddings from an OpenAI-compatible endpoint, for `EmbeddingSimilarity`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from reflexion.errors import ConfigurationError, MalformedReplyError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["EndpointEmbedder"]


class EndpointEmbedder:
    """Asks `/embeddings` of an OpenAI-compatible endpoint; an `Embed` function with a connection.

    Args:
        model: name of the embedding model.
        base_url: of the endpoint; None: `OPENAI_BASE_URL`, else OpenAI's.
        api_key: None: `OPENAI_API_KEY`; endpoints other than OpenAI's may do without.
        timeout: seconds a request may take.
        retries: further requests after one that may succeed later.

    Raises:
        ConfigurationError: OpenAI's own endpoint is asked without a key.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        self.model = model
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        self._api_key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        self._timeout = timeout
        self._retries = retries
        self._answered = False
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncOpenAI] = WeakKeyDictionary()
        if not self._api_key and urlsplit(self._base_url).hostname == "api.openai.com":
            raise ConfigurationError(
                "embeddings: no API key for OpenAI; set OPENAI_API_KEY, or use the lexical similarity"
            )

    async def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector for each text.

        Raises:
            MalformedReplyError: the reply does not have one vector for each text.
            ReflexionError: the endpoint failed, as for any LLM call.
        """
        import openai

        from reflexion.llm.endpoint.classify import classify

        try:
            reply = await self._client().embeddings.create(model=self.model, input=list(texts), encoding_format="float")
        except openai.APIError as exc:
            where = urlsplit(self._base_url)._replace(query="", fragment="")
            shown = where._replace(netloc=where.netloc.rpartition("@")[2]).geturl()
            raise classify(exc, shown, self.model, self._api_key, known=self._answered) from None
        self._answered = True
        rows = sorted(reply.data or [], key=lambda row: row.index)
        if [row.index for row in rows] != list(range(len(texts))):
            raise MalformedReplyError(f"{self.model}: the reply has {len(rows)} vectors for {len(texts)} texts")
        return [row.embedding for row in rows]

    def _client(self) -> AsyncOpenAI:
        import openai

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = openai.AsyncOpenAI(
                base_url=self._base_url,
                api_key=self._api_key or "none",
                max_retries=self._retries,
                timeout=self._timeout,
            )
        return client

    async def aclose(self) -> None:
        """Close the running event loop's connections; harmless when called twice."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()
