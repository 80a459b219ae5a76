"""`OpenAIChat`: Chat Completions over the official client, for OpenAI and every server that speaks it.

One pooled client per endpoint, key and event loop, whatever the number of roles and models. The
SDK's own retries are off: ours know what may be retried, tell what was, and are bounded in time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from reflexion.errors import (
    CallTimeoutError,
    ConfigurationError,
    EndpointError,
    RateLimitError,
    ReflexionError,
    RequestRejectedError,
    RetryableError,
)
from reflexion.llm.base import ChatReply, ChatRequest
from reflexion.llm.limits import Limiter, Outcome, limiter_for
from reflexion.llm.wire import Dialect, ParsedReply, Tokens, encode_request, parse_reply, plain_usage
from reflexion.types import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["OPENAI_URL", "OpenAIChat", "Pricer", "public_url"]

log = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
"""Where requests go when no base URL is given."""

Pricer = Callable[[Tokens], "float | None"]
"""US dollars for a reply's tokens; None: unknown."""

_BACKOFF_FIRST, _BACKOFF_MOST = 0.5, 30.0
_LASTING_ATTEMPTS = 3
"""A server that is not there, or a page that is not JSON, is seldom cured by waiting longer."""


def public_url(base_url: str) -> str:
    """The URL without user, password, query and trailing slash: fit for messages and cache keys.

    Raises:
        ConfigurationError: it is not the URL of an HTTP endpoint.
    """
    try:
        parts = urlsplit(base_url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigurationError(f"the endpoint's base URL cannot be parsed: {exc}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(
            "the endpoint's base URL must look like http://127.0.0.1:8000/v1 "
            f"(from --base-url or OPENAI_BASE_URL), not {parts.scheme or 'nothing'}://{host or ''}"
        )
    host = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    netloc = host if port in (None, default) else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


class _Pooled:
    def __init__(self, client: AsyncOpenAI) -> None:
        self.client = client
        self.users: set[int] = set()


_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _Pooled]] = (
    weakref.WeakKeyDictionary()
)
_dialects: dict[tuple[str, str], Dialect] = {}
_answered: set[str] = set()
"""Endpoints that answered at least once in this process."""


def _import_sdk() -> None:
    # The SDK loads its resources lazily; this takes seconds, so it is done off the event loop.
    import_module("openai.resources.chat")


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
        max_attempts: int = 8,
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
        self._url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).strip()
        self._where = public_url(self._url)
        self._key = _checked_key(api_key if api_key is not None else os.environ.get("OPENAI_API_KEY"), self._where)
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
            raise
        usage = plain_usage(parsed.tokens)
        if parsed.tokens is not None:
            usage = usage.model_copy(update={"cost_usd": self._cost(parsed.tokens)})
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

    async def aclose(self) -> None:
        """Close the pooled client unless others in this event loop still use it."""
        pool = _pools.get(asyncio.get_running_loop(), {})
        pooled = pool.get((self._url, self._key))
        if pooled is None or id(self) not in pooled.users:
            return
        pooled.users.discard(id(self))
        if not pooled.users:
            del pool[self._url, self._key]
            await pooled.client.close()

    # -- one call ----------------------------------------------------------------------------------

    async def _with_retries(self, request: ChatRequest, progress: _Progress) -> ParsedReply:
        try:  # most calls need no second attempt, nor the machinery for one
            return await self._attempt(request, progress)
        except RetryableError as error:
            first = error

        from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

        def stop(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            attempts = self._max_attempts
            if isinstance(error, EndpointError) and error.lasting:
                attempts = min(attempts, _LASTING_ATTEMPTS)
            if progress.attempts >= attempts or state.upcoming_sleep >= progress.left:
                return True
            progress.retried.append(type(error).__name__)
            return False

        async def attempt() -> ParsedReply:
            if progress.attempts == 1 and not progress.retried:
                raise first
            return await self._attempt(request, progress)

        return await AsyncRetrying(
            retry=retry_if_exception_type(RetryableError), wait=_backoff, stop=stop, reraise=True
        )(attempt)

    async def _attempt(self, request: ChatRequest, progress: _Progress) -> ParsedReply:
        """One request; a second one at once where the endpoint rejects a parameter we can do without."""
        client = await self._client()
        while True:
            body = encode_request(request, self._model, self._dialect)
            try:
                raw = await self._send(client, body, progress)
            except RequestRejectedError as error:
                if not self._adapt(body, error):
                    raise
                continue
            return parse_reply(raw.content, raw.content_type, self._where)

    async def _send(self, client: AsyncOpenAI, body: dict[str, Any], progress: _Progress) -> _Raw:
        async with self._slot(progress) as slot:
            progress.attempts += 1
            try:
                async with asyncio.timeout(min(self._attempt_timeout, max(progress.left, 0.001))):
                    return await self._post(client, body)
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

    async def _post(self, client: AsyncOpenAI, body: dict[str, Any]) -> _Raw:
        import openai

        from reflexion.llm.classify import classify

        try:
            raw = await client.chat.completions.with_raw_response.create(**body)
        except openai.APIError as error:
            known = self._where in _answered
            if isinstance(error, openai.APIStatusError):
                _answered.add(self._where)
            ours = classify(error, self._where, self._model, self._key, known=known)
            if isinstance(ours, RequestRejectedError):
                ours.add_note(_parameter(error))
            raise ours from None
        except (UnicodeError, ValueError) as error:
            raise RequestRejectedError(f"the request cannot be sent: {type(error).__name__}") from None
        _answered.add(self._where)
        return _Raw(raw.content, raw.headers.get("content-type", "").lower())

    def _adapt(self, body: dict[str, Any], error: RequestRejectedError) -> bool:
        """Learn from a 400 what the endpoint does without; whether there is something to change."""
        told = f"{error} {' '.join(getattr(error, '__notes__', ()))}"
        dialect = self._dialect
        if "response_format" in body and ("response_format" in told or "json_schema" in told):
            dialect.structured = False
            log.info("%s has no response_format; structures are asked for in words", self._where)
            return True
        if "max_tokens" in body and "max_completion_tokens" in told:
            dialect.tokens_field = "max_completion_tokens"
            return True
        if "unsupported" in told.lower():
            for name in ("temperature", "top_p", "seed"):
                if name in body and f"'{name}'" in told:
                    dialect.dropped.add(name)
                    log.warning(
                        "%s does not let %s be set for %s; its own default is used", self._where, name, self._model
                    )
                    return True
        return False

    def _cost(self, tokens: Tokens) -> float | None:
        return self._price(tokens) if self._price is not None else None

    async def _client(self) -> AsyncOpenAI:
        pool = _pools.setdefault(asyncio.get_running_loop(), {})
        pooled = pool.get((self._url, self._key))
        if pooled is None:
            await asyncio.to_thread(_import_sdk)
            pooled = pool.get((self._url, self._key))
        if pooled is None:
            pooled = pool[self._url, self._key] = _Pooled(_new_client(self._url, self._key))
        pooled.users.add(id(self))
        return pooled.client


class _Slot:
    def __init__(self) -> None:
        self.outcome: Outcome = "ok"
        self.started = 0.0
        self.retry_after: float | None = None


def _parameter(error: Any) -> str:
    """The endpoint's own code and parameter, as a note: what a rejected request was rejected for."""
    code, parameter = getattr(error, "code", None), getattr(error, "param", None)
    return f"code {code or 'none'}, parameter '{parameter or 'none'}'"


def _backoff(state: Any) -> float:
    """Exponential with full jitter; never less than the endpoint asks for."""
    most = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2.0 ** (state.attempt_number - 1))
    wait = random.uniform(0.0, most)
    error = state.outcome.exception()
    if isinstance(error, RateLimitError) and error.retry_after is not None:
        # Spread those who were told the same time.
        return error.retry_after + min(wait, 0.25 * error.retry_after + 0.05)
    return wait


def _checked_key(key: str | None, where: str) -> str:
    key = (key or "").strip()
    if not key:
        if where == OPENAI_URL:
            raise ConfigurationError(
                "no API key for OpenAI: set OPENAI_API_KEY, name another endpoint by OPENAI_BASE_URL "
                "or --base-url, or use the embedded model with --llm local"
            )
        return "none"
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("the API key (OPENAI_API_KEY) has characters that no key has")
    return key


def _new_client(url: str, key: str) -> AsyncOpenAI:
    import openai

    # Keep as many connections alive as the limiter may use: each new one costs a handshake.
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=None, max_keepalive_connections=1000)
    return openai.AsyncOpenAI(
        base_url=url,
        api_key=key,
        max_retries=0,
        timeout=None,  # each attempt is timed as a whole, which the SDK's per-read timeout does not do
        http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=None),
    )
