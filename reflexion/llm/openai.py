"""`OpenAIChat`: Chat Completions, for OpenAI and every server that speaks it.

One pool of connections per endpoint, key and event loop, whatever the number of roles and models, and
the official client where a request takes more than that. Its own retries are off: ours know what may be
retried, tell what was, and are bounded in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from reflexion.errors import (
    CallTimeoutError,
    ConfigurationError,
    MalformedReplyError,
    RateLimitError,
    ReflexionError,
    RequestRejectedError,
    RetryableError,
    ToolsRejectedError,
)
from reflexion.llm.backoff import retry_after_failure
from reflexion.llm.base import ChatReply, ChatRequest
from reflexion.llm.classify import classify, reply_error, wire_error
from reflexion.llm.connections import WireError
from reflexion.llm.limits import Limiter, Outcome, limiter_for
from reflexion.llm.pool import OPENAI_URL, Endpoint, answered, note_answer
from reflexion.llm.prices import Pricer, price_list
from reflexion.llm.wire import Dialect, ParsedReply, Tokens, encode_request, parse_reply, plain_usage
from reflexion.types import Usage

__all__ = ["OpenAIChat"]

log = logging.getLogger(__name__)

_dialects: dict[tuple[str, str], Dialect] = {}


class _Raw(NamedTuple):
    content: bytes
    content_type: str


class _Progress:
    """What one call has done so far. Time spent waiting for a slot is not the endpoint's."""

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self.began = time.monotonic()
        self.queued = 0.0
        self.attempts = 0
        self.retried: list[str] = []
        self.usage = Usage()

    @property
    def left(self) -> float:
        return self.bound - (time.monotonic() - self.began - self.queued)


class OpenAIChat:
    """One model of one OpenAI-compatible endpoint. Implements `LLM`.

    Args:
        model: the model's name at the endpoint.
        base_url: the endpoint; None: `OPENAI_BASE_URL`, else OpenAI.
        api_key: the key; None: `OPENAI_API_KEY`. Needed for OpenAI itself only.
        concurrency: requests at a time; None: adapted to what the endpoint bears. All clients of one
            endpoint in one event loop share the limit.
        attempt_timeout: seconds one request may take.
        call_timeout: seconds one call may take with its retries and backoff, without waiting for a slot.
        max_attempts: requests one call may take.
        price: what tokens cost; None: by model and endpoint, where that is known.
        gate: a context that is held during each request, such as a limit shared across processes.
        identity: what names its answers in cache keys; None: the model and the endpoint's public URL.

    Raises:
        ConfigurationError: the URL, the key or a number is unusable.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        concurrency: int | None = None,
        attempt_timeout: float = 60.0,
        call_timeout: float = 300.0,
        max_attempts: int = 16,
        price: Pricer | None = None,
        gate: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
        identity: dict[str, Any] | None = None,
    ) -> None:
        if not model.strip():
            raise ConfigurationError("the model's name is empty")
        if attempt_timeout <= 0 or call_timeout <= 0:
            raise ConfigurationError("attempt_timeout and call_timeout must be more than 0 seconds")
        if max_attempts < 1 or (concurrency is not None and concurrency < 1):
            raise ConfigurationError("max_attempts and concurrency must be at least 1")
        self._endpoint = Endpoint(base_url, api_key)
        self._where = self._endpoint.where
        self._model = model
        self._concurrency = concurrency
        self._attempt_timeout, self._call_timeout = attempt_timeout, call_timeout
        self._max_attempts = max_attempts
        self._price, self._gate = price, gate
        self._identity = identity or {"model": model, "base_url": self._where}
        tokens_field = "max_completion_tokens" if self._where == OPENAI_URL else "max_tokens"
        self._dialect = _dialects.setdefault((self._where, model), Dialect(tokens_field=tokens_field))

    def __repr__(self) -> str:
        return f"OpenAIChat({self._model!r}, base_url={self._where!r})"

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._model

    @property
    def endpoint(self) -> str:
        """The endpoint's URL without credentials."""
        return self._where

    @property
    def identity(self) -> dict[str, Any]:
        """Model and endpoint, without credentials."""
        return dict(self._identity)

    @property
    def limiter(self) -> Limiter:
        """The limiter of this endpoint in the running event loop."""
        return limiter_for(self._where, self._concurrency)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request; see `LLM.chat`.

        A reply cut by its length limit is returned, with `finish_reason` `length`. Without figures
        from the endpoint, `usage.unknown` is 1.

        Raises:
            RetryableError: attempts or time are used up.
            PermanentError: the endpoint will not answer this request.
        """
        progress = _Progress(self._call_timeout)
        try:
            parsed = await self._with_retries(request, progress)
        except ReflexionError as error:
            if progress.attempts > 1:
                error.add_note(f"after {progress.attempts} attempts ({', '.join(progress.retried)} were retried)")
            if isinstance(error, MalformedReplyError) and error.usage is not None:
                usage = error.usage
                error.usage = self._usage(Tokens(usage.prompt, usage.completion, 0) if not usage.unknown else None)
            raise
        usage = self._usage(parsed.tokens)
        return ChatReply(
            text=parsed.text,
            model=parsed.model or self._model,
            usage=usage,
            finish_reason=parsed.finish_reason,
            tool_calls=parsed.tool_calls,
            seconds=time.monotonic() - progress.began - progress.queued,
            attempts=progress.attempts,
            retried=tuple(progress.retried),
        )

    @property
    def priced(self) -> bool:
        """Whether the price of its tokens is known."""
        return self._pricer is not None

    @property
    def tool_calling(self) -> bool | None:
        """False once the endpoint refused tools; None: nothing is known."""
        return None if self._dialect.tools else False

    @cached_property
    def _pricer(self) -> Pricer | None:
        return self._price or price_list(self._model, self._where)

    def _usage(self, tokens: Tokens | None) -> Usage:
        usage = plain_usage(tokens)
        if tokens is None or self._pricer is None:
            return usage
        return usage.model_copy(update={"cost_usd": self._pricer(tokens)})

    async def warm_up(self) -> None:
        """Load the SDK, the certificates and the prices, which take a second, before the first call is timed."""
        await self._endpoint.client(self)
        await asyncio.to_thread(getattr, self, "priced")

    async def aclose(self) -> None:
        """Close the pooled client unless others in this event loop still use it."""
        await self._endpoint.let_go(self)

    # -- one call ----------------------------------------------------------------------------------

    async def _with_retries(self, request: ChatRequest, progress: _Progress) -> ParsedReply:
        try:
            return await self._attempt(request, progress)
        except RetryableError as error:
            first = error
        return await retry_after_failure(
            first,
            lambda: self._attempt(request, progress),
            max_attempts=self._max_attempts,
            seconds_left=lambda: progress.left,
            on_retry=lambda error: progress.retried.append(type(error).__name__),
        )

    async def _attempt(self, request: ChatRequest, progress: _Progress) -> ParsedReply:
        """One request; a second one at once where the endpoint rejects a parameter we can do without."""
        if request.tools and not self._dialect.tools:
            raise ToolsRejectedError(f"{self._where} has no function calling for {self._model}")
        while True:
            body = encode_request(request, self._model, self._dialect)
            try:
                raw = await self._send(body, progress)
            except RequestRejectedError as error:
                if not self._adapt(body, error):
                    raise
                continue
            return parse_reply(raw.content, raw.content_type, self._where)

    async def _send(self, body: dict[str, Any], progress: _Progress) -> _Raw:
        async with self._slot(progress) as slot:
            progress.attempts += 1
            try:
                async with asyncio.timeout(min(self._attempt_timeout, max(progress.left, 0.001))):
                    return await self._post(body)
            except TimeoutError:
                slot.outcome = "failed"
                raise CallTimeoutError(
                    f"{self._where} gave no answer within {self._attempt_timeout:g} s (attempt timeout)"
                ) from None
            except RateLimitError as error:
                slot.outcome, slot.retry_after = "rate_limited", error.retry_after
                raise
            except RetryableError:
                slot.outcome = "failed"
                raise
            except asyncio.CancelledError:
                slot.outcome = "cancelled"
                raise

    @asynccontextmanager
    async def _slot(self, progress: _Progress) -> AsyncGenerator[_Slot]:
        limiter = self.limiter
        asked = time.monotonic()
        await limiter.acquire()
        slot = _Slot()
        try:
            async with self._gate() if self._gate is not None else nullcontext():
                slot.started = time.monotonic()
                progress.queued += slot.started - asked
                yield slot
        finally:
            limiter.release(slot.outcome, slot.started or asked, slot.retry_after)

    async def _post(self, body: dict[str, Any]) -> _Raw:
        connections = self._endpoint.connections(self)
        if connections is None:
            return await self._post_by_sdk(body)
        try:
            content = orjson.dumps(body)
        except TypeError as error:
            raise RequestRejectedError(f"the request cannot be sent: {type(error).__name__}") from None
        try:
            reply = await connections.post(f"{self._endpoint.path}/chat/completions", content)
        except WireError as error:
            raise wire_error(error, self._where, self._endpoint.key, known=answered(self._where)) from None
        if 300 <= reply.status < 400:
            return await self._post_by_sdk(body)  # it follows redirects
        note_answer(self._where)
        if reply.status >= 400:
            # From nothing: what the endpoint echoes is redacted, and no chain may lead to it.
            raise reply_error(reply, self._where, self._model, self._endpoint.key) from None
        return _Raw(reply.content, reply.headers.get("content-type", "").lower())

    async def _post_by_sdk(self, body: dict[str, Any]) -> _Raw:
        client = await self._endpoint.client(self)
        import openai

        from reflexion.llm.transport import http_module

        try:
            # Not `chat.completions.create`: it walks through every message by its type's annotations, which
            # takes more time than the rest of the request, and ours are plain JSON already.
            raw = await client.post("/chat/completions", cast_to=http_module().Response, body=body)
        except openai.APIError as error:
            known = answered(self._where)
            if isinstance(error, openai.APIStatusError):
                note_answer(self._where)
            raise classify(error, self._where, self._model, self._endpoint.key, known=known) from None
        except (UnicodeError, ValueError) as error:
            raise RequestRejectedError(f"the request cannot be sent: {type(error).__name__}") from None
        note_answer(self._where)
        return _Raw(raw.content, raw.headers.get("content-type", "").lower())

    def _adapt(self, body: dict[str, Any], error: RequestRejectedError) -> bool:
        """Learn from a 400 what the endpoint does without; whether there is something to change.

        Raises:
            ToolsRejectedError: it does without tools, which is the caller's business.
        """
        told = f"{error} {' '.join(getattr(error, '__notes__', ()))}"
        dialect = self._dialect
        if "response_format" in body and ("response_format" in told or "json_schema" in told):
            dialect.structured = False
            log.info("%s has no response_format; structures are asked for in words", self._where)
            return True
        if "max_tokens" in body and "max_completion_tokens" in told:
            dialect.tokens_field = "max_completion_tokens"
            return True
        if "tool_choice" in body and "tool_choice" in told:
            dialect.tool_choice = False
            return True
        if "tools" in body and "tool" in told.lower():
            dialect.tools = False
            log.warning("%s does not accept tools for %s (%s)", self._where, self._model, error)
            raise ToolsRejectedError(str(error)) from None
        if "unsupported" in told.lower():
            for name in ("temperature", "top_p", "seed"):
                if name in body and f"'{name}'" in told:
                    dialect.dropped.add(name)
                    log.warning(
                        "%s does not let %s be set for %s; its own default is used", self._where, name, self._model
                    )
                    return True
        return False


class _Slot:
    def __init__(self) -> None:
        self.outcome: Outcome = "ok"
        self.started = 0.0
        self.retry_after: float | None = None
