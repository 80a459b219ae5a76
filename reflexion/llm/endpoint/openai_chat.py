"""`OpenAIChat`: Chat Completions, for OpenAI and every server that speaks it.

One pool of connections per endpoint, key and event loop, whatever the number of roles and models, and
the official client where a request takes more than that. Its own retries are off: ours know what may be
retried, tell what was, and are bounded in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from reflexion.errors import (
    CallTimeoutError,
    ConfigurationError,
    EndpointError,
    PermanentError,
    RateLimitError,
    ReflexionError,
    ReplyCutError,
    RequestRejectedError,
    RetryableError,
    ToolsRejectedError,
    is_fatal,
)
from reflexion.llm.chat_model import ChatReply, ChatRequest
from reflexion.llm.endpoint.classify import classify, inner_error, reply_error, wire_error
from reflexion.llm.endpoint.clients import OPENAI_URL, Endpoint, answered, is_loopback, note_answer
from reflexion.llm.endpoint.connections import WireError
from reflexion.llm.endpoint.dialect import Dialect, adapt, characters_of, foreign_names
from reflexion.llm.endpoint.extras import NO_EXTRAS, Extras
from reflexion.llm.endpoint.first_call import Scout
from reflexion.llm.endpoint.wire import (
    ErrorInReplyError,
    ParsedReply,
    Tokens,
    cut_reply,
    encode_request,
    parse_reply,
    plain_usage,
    request_characters,
)
from reflexion.llm.pacing.backoff import retry_after_failure
from reflexion.llm.pacing.limits import Limiter, Outcome, limiter_for
from reflexion.llm.prices import Pricer, free, price_list
from reflexion.loop.prompt_budget import Window
from reflexion.types import Usage

__all__ = ["OpenAIChat"]

log = logging.getLogger(__name__)

_dialects: dict[tuple[str, str], Dialect] = {}


class _Raw(NamedTuple):
    content: bytes
    headers: dict[str, str]


_NOTHING = Usage()
_MOST_OVERTAKEN = 8
"""Refusals of what is not sent any more, after which a call learns from the next one all the same."""


class _Progress:
    """What one call has done so far. Time spent waiting for a slot is not the endpoint's."""

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self.began = time.monotonic()
        self.queued = 0.0
        self.attempts = 0
        self.retried: list[str] = []
        self.usage = _NOTHING
        """What requests before the last one cost."""
        self.tried: set[str] = set()
        """What was changed in the request, as the endpoint wants it."""
        self.body: dict[str, Any] = {}
        """What was sent last."""
        self.overtaken = 0
        """Refusals of what other calls had learnt meanwhile not to send."""
        self.limit: int | None = None
        """Tokens of the reply, where the usual ones were too few."""

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
        extras: what is sent along with every request; part of the identity.
        scout: whether the first call of a model goes a moment ahead of the others, so that what the endpoint
            wants otherwise is learnt once.

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
        extras: Extras = NO_EXTRAS,
        scout: bool = True,
    ) -> None:
        if not model.strip():
            raise ConfigurationError("the model's name is empty")
        if attempt_timeout <= 0 or call_timeout <= 0:
            raise ConfigurationError("attempt_timeout and call_timeout must be more than 0 seconds")
        if max_attempts < 1 or (concurrency is not None and concurrency < 1):
            raise ConfigurationError("max_attempts and concurrency must be at least 1")
        self._endpoint = Endpoint(base_url, api_key, extras.headers)
        self._extras = extras
        self._where = self._endpoint.where
        self._model = model
        self._concurrency = concurrency
        self._attempt_timeout, self._call_timeout = attempt_timeout, call_timeout
        self._max_attempts = max_attempts
        self._price, self._gate = price, gate
        self._identity = (identity or {"model": model, **self._endpoint.identity}) | extras.identity
        tokens_field = "max_completion_tokens" if self._where == OPENAI_URL else "max_tokens"
        self._dialect = _dialects.setdefault(
            (self._where, model), Dialect(f"{model} at {self._where}", tokens_field=tokens_field)
        )
        self._scout = Scout() if scout else None
        self._given_up: tuple[float, ReflexionError] | None = None
        """When the endpoint refused every call, and why."""

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
        if self._scout is not None and not self._dialect.proven:
            async with self._scout.turn():
                progress.queued = time.monotonic() - progress.began
                return await self._chat(request, progress)
        return await self._chat(request, progress)

    async def _chat(self, request: ChatRequest, progress: _Progress) -> ChatReply:
        try:
            parsed = await self._with_retries(request, progress)
            if parsed.cut or parsed.crowded:
                parsed = await self._with_room(request, parsed, progress)
        except ReflexionError as error:
            if progress.attempts > 1:
                retried = f" ({', '.join(progress.retried)} were retried)" if progress.retried else ""
                error.add_note(f"after {progress.attempts} attempts{retried}")
            if error.usage is not None or progress.usage.total:
                error.usage = progress.usage + self._of(error.usage)
            if isinstance(error, PermanentError) and is_fatal(error):
                self._given_up = (time.monotonic(), error)
            raise
        self._dialect.proven = True
        usage = self._usage(parsed.tokens)
        return ChatReply(
            text=parsed.text,
            thought=parsed.thought,
            model=parsed.model or self._model,
            usage=progress.usage + usage if progress.usage.calls or progress.usage.total else usage,
            finish_reason=parsed.finish_reason,
            tool_calls=parsed.tool_calls,
            seconds=time.monotonic() - progress.began - progress.queued,
            attempts=progress.attempts,
            retried=tuple(progress.retried),
        )

    async def _with_room(self, request: ChatRequest, cut: ParsedReply, progress: _Progress) -> ParsedReply:
        """The reply to a request whose reply was used up by thought: asked once more, with room.

        An answer that had begun is kept where more room is not to be had.

        Raises:
            ReplyCutError: there is no answer at all, with or without more room.
        """
        asked = request.sampling.max_tokens
        sent = self._dialect.reply_limit(asked, request_characters(request))
        limited = sent is not None and self._dialect.tokens_field not in self._dialect.dropped
        room = self._dialect.more_room(sent) if sent is not None and limited else None
        if room is None or asked is None:
            if cut.crowded:
                return cut
            raise cut_reply(cut, self._where, request.role, sent, plain_usage(cut.tokens))
        log.info("%s used up %d tokens before an answer; asked again with %d", self._model, sent, room)
        progress.usage += self._usage(cut.tokens)
        progress.retried.append(ReplyCutError.__name__)
        progress.limit = room
        parsed = await self._with_retries(request, progress)
        self._dialect.note_room(room - asked, helped=not (parsed.cut or parsed.crowded))
        if parsed.cut:
            raise cut_reply(parsed, self._where, request.role, room, plain_usage(parsed.tokens))
        return parsed

    @property
    def priced(self) -> bool:
        """Whether the price of its tokens is known."""
        return self._pricer is not None

    @property
    def tool_calling(self) -> bool | None:
        """False once the endpoint refused tools; None: nothing is known."""
        return None if self._dialect.tools else False

    @property
    def learned_window(self) -> Window | None:
        """What a prompt may have, once the endpoint told its context window."""
        return self._dialect.learned_window

    @cached_property
    def _pricer(self) -> Pricer | None:
        price = self._price or price_list(self._model, self._where)
        # On this machine, what is in no price list is computed here: it costs nothing.
        return free if price is None and is_loopback(self._where) else price

    def _usage(self, tokens: Tokens | None) -> Usage:
        price = self._pricer
        if tokens is None and price is free:
            return plain_usage(None, 0.0)  # whatever it took, it cost nothing
        return plain_usage(tokens, None if tokens is None or price is None else price(tokens))

    def _of(self, usage: Usage | None) -> Usage:
        """A usage without a price, with it."""
        if usage is None:
            return Usage()
        if usage.unknown or self._pricer is None:
            return usage
        tokens = Tokens(usage.prompt, usage.completion, usage.cached_prompt)
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
        if first.final:
            raise first
        return await retry_after_failure(
            first,
            lambda: self._attempt(request, progress),
            max_attempts=self._max_attempts,
            seconds_left=lambda: progress.left,
            on_retry=lambda error: self._on_retry(error, progress),
        )

    def _on_retry(self, error: RetryableError, progress: _Progress) -> None:
        progress.retried.append(type(error).__name__)
        if self._scout is not None:
            self._scout.let_go()
        if error.usage is not None:  # the call that failed was paid for, and is no call of its own
            progress.usage += self._of(error.usage.model_copy(update={"calls": 0, "unknown": 0}))

    async def _attempt(self, request: ChatRequest, progress: _Progress) -> ParsedReply:
        """One request; a second one at once where the endpoint rejects a parameter we can do without."""
        if request.tools and not self._dialect.tools:
            raise ToolsRejectedError(f"{self._where} has no function calling for {self._model}")
        before: dict[str, Any] = {}
        while True:
            try:
                parsed = await self._reply(request, progress)
            except RequestRejectedError as error:
                body = progress.body
                if progress.overtaken < _MOST_OVERTAKEN and self._body(request, progress) != body:
                    progress.overtaken += 1  # others learnt meanwhile: what was refused is not what would go now
                    continue
                known = self._dialect.snapshot()
                if not adapt(self._dialect, body, error, progress.tried, asked=frozenset(self._extras.body)):
                    self._dialect.restore(before)  # what did not help was not what it wanted
                    raise self._hinted(error, body) from None
                before = {n: v for n, v in known.items() if getattr(self._dialect, n) != v} | before
                continue
            return parsed

    def _body(self, request: ChatRequest, progress: _Progress) -> dict[str, Any]:
        return encode_request(request, self._model, self._dialect, limit=progress.limit, **self._extras.fields)

    def _hinted(self, error: RequestRejectedError, body: dict[str, Any]) -> RequestRejectedError:
        """The refusal; where it speaks of a parameter that is not ours, with how to send it."""
        names = foreign_names(error.told, body) if error.told is not None else []
        if not names:
            return error
        hinted = type(error)(f"{error}. To send {names[0]!r}, use --extra-body")
        hinted.told = error.told
        return hinted

    async def _reply(self, request: ChatRequest, progress: _Progress) -> ParsedReply:
        """What one request brings.

        Raises:
            ReflexionError: the endpoint refused or failed, by its status or inside a 200.
        """
        raw = await self._send(request, progress)
        body = progress.body
        kind, limit = raw.headers.get("content-type", "").lower(), body.get(self._dialect.tokens_field)
        try:
            parsed = parse_reply(raw.content, kind, self._where, limit)
        except ErrorInReplyError as error:
            if not (error.told.message or error.told.codes or error.told.status):
                raise EndpointError(str(error)).with_usage(error.usage) from None
            inner = inner_error(error.told, raw.headers, self._where, self._model, self._endpoint.secrets)
            raise inner.with_usage(error.usage) from None
        if self._dialect.window is not None and parsed.tokens is not None:
            self._dialect.learn(characters_of(body), parsed.tokens.prompt)
        return parsed

    async def _send(self, request: ChatRequest, progress: _Progress) -> _Raw:
        """One request, within the limit of requests under way, which learns how it ended."""
        limiter, asked = self.limiter, time.monotonic()
        await limiter.acquire()
        slot = _Slot()
        try:
            if self._gate is None:
                return await self._timed(request, progress, slot, asked)
            async with self._gate():
                return await self._timed(request, progress, slot, asked)
        except RateLimitError as error:
            slot.outcome, slot.retry_after = "rate_limited", error.retry_after
            raise
        except RetryableError:
            slot.outcome = "failed"
            raise
        except asyncio.CancelledError:
            slot.outcome = "cancelled"
            raise
        finally:
            limiter.release(slot.outcome, slot.started or asked, slot.retry_after)

    async def _timed(self, request: ChatRequest, progress: _Progress, slot: _Slot, asked: float) -> _Raw:
        slot.started = time.monotonic()
        progress.queued += slot.started - asked
        if self._given_up is not None and progress.began < self._given_up[0]:
            # Whoever waited while the endpoint refused every call need not hear it again.
            slot.outcome = "cancelled"
            raise type(self._given_up[1])(str(self._given_up[1])) from None
        progress.attempts += 1
        # Only now: while it waited, others may have learnt what the model does without.
        progress.body = self._body(request, progress)
        try:
            async with asyncio.timeout(min(self._attempt_timeout, max(progress.left, 0.001))):
                return await self._post(progress.body)
        except TimeoutError:
            raise CallTimeoutError(
                f"{self._where} gave no answer within {self._attempt_timeout:g} s (attempt timeout)"
            ) from None

    async def _post(self, body: dict[str, Any]) -> _Raw:
        connections = self._endpoint.connections(self)
        if connections is None:
            return await self._post_by_sdk(body)
        try:
            content = orjson.dumps(body)
        except TypeError as error:
            raise RequestRejectedError(f"the request cannot be sent: {type(error).__name__}") from None
        try:
            reply = await connections.post(self._endpoint.target, content)
        except WireError as error:
            raise wire_error(error, self._where, self._endpoint.secrets, known=answered(self._where)) from None
        if 300 <= reply.status < 400:
            return await self._post_by_sdk(body)  # it follows redirects
        note_answer(self._where)
        if reply.status >= 400:
            # From nothing: what the endpoint echoes is redacted, and no chain may lead to it.
            raise reply_error(reply, self._where, self._model, self._endpoint.secrets) from None
        return _Raw(reply.content, reply.headers)

    async def _post_by_sdk(self, body: dict[str, Any]) -> _Raw:
        client = await self._endpoint.client(self)
        import openai

        from reflexion.llm.endpoint.transport import http_module

        try:
            # Not `chat.completions.create`: it walks through every message by its type's annotations, which
            # takes more time than the rest of the request, and ours are plain JSON already.
            raw = await client.post("/chat/completions", cast_to=http_module().Response, body=body)
        except openai.APIError as error:
            known = answered(self._where)
            if isinstance(error, openai.APIStatusError):
                note_answer(self._where)
            raise classify(error, self._where, self._model, *self._endpoint.secrets, known=known) from None
        except (UnicodeError, ValueError) as error:
            raise RequestRejectedError(f"the request cannot be sent: {type(error).__name__}") from None
        note_answer(self._where)
        return _Raw(raw.content, {name.lower(): value for name, value in raw.headers.items()})


class _Slot:
    def __init__(self) -> None:
        self.outcome: Outcome = "ok"
        self.started = 0.0
        self.retry_after: float | None = None
