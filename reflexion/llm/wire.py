"""The Chat Completions format: what goes out for a request, and what a reply's bytes say.

Used by everything that speaks it: the client, the batch client and the recorder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import orjson

from reflexion.errors import (
    EndpointError,
    MalformedReplyError,
    PermanentError,
    RateLimitError,
    RefusalError,
    RequestRejectedError,
    RetryableError,
)
from reflexion.llm.base import ChatRequest, Message
from reflexion.types import Usage

__all__ = ["Dialect", "ParsedReply", "Tokens", "encode_request", "parse_reply", "schema_hint"]


class Dialect:
    """What one endpoint and model turned out not to accept. Learned from its 400s, once per process."""

    def __init__(self, *, tokens_field: str = "max_tokens") -> None:
        self.tokens_field = tokens_field
        self.structured = True
        """Whether `response_format` with a JSON schema is accepted."""
        self.tools = True
        """Whether `tools` are accepted."""
        self.tool_choice = True
        """Whether `tool_choice` is."""
        self.dropped: set[str] = set()
        """Sampling parameters the model refuses to be told."""


class Tokens(NamedTuple):
    """Token counts of one reply; `cached` are prompt tokens the endpoint had seen before."""

    prompt: int
    completion: int
    cached: int


class ParsedReply(NamedTuple):
    """What a reply's body says."""

    text: str
    model: str
    finish_reason: str | None
    tool_calls: tuple[dict[str, Any], ...]
    tokens: Tokens | None


def schema_hint(schema: Mapping[str, Any]) -> str:
    """How to ask for a structure in words, where the endpoint has no `response_format`."""
    return (
        "Answer with one JSON object and nothing else. It must fit this JSON schema:\n" + orjson.dumps(schema).decode()
    )


def _message(message: Message) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        out["tool_calls"] = list(message.tool_calls)
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    return out


def encode_request(request: ChatRequest, model: str, dialect: Dialect) -> dict[str, Any]:
    """The JSON body of a request. `role` and `salt` are ours and are not sent."""
    messages = [_message(m) for m in request.messages]
    body: dict[str, Any] = {"model": model, "messages": messages}
    sampling = request.sampling
    for name, value in (
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        (dialect.tokens_field, sampling.max_tokens),
        ("seed", sampling.seed),
    ):
        if value is not None and name not in dialect.dropped:
            body[name] = value
    if request.tools:
        body["tools"] = list(request.tools)
        if request.tool_choice is not None and dialect.tool_choice:
            body["tool_choice"] = request.tool_choice
    if request.json_schema is not None:
        if dialect.structured:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": request.schema_name, "schema": request.json_schema, "strict": True},
            }
        else:
            messages.append({"role": "user", "content": schema_hint(request.json_schema)})
    return body


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _tokens(usage: Any) -> Tokens | None:
    fields = _object(usage)
    prompt, completion = _count(fields.get("prompt_tokens")), _count(fields.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    cached = _count(_object(fields.get("prompt_tokens_details")).get("cached_tokens")) or 0
    return Tokens(prompt, completion, min(cached, prompt))


def _text(content: Any) -> str | None:
    if isinstance(content, list):  # some endpoints answer in parts
        parts = [_object(p).get("text") for p in cast("list[Any]", content)]
        return "".join(p for p in parts if isinstance(p, str))
    return content if isinstance(content, str) else None


def parse_reply(content: bytes, content_type: str, where: str) -> ParsedReply:
    """What the body of a 200 says.

    A reply that was cut (`finish_reason` is `length`) is returned like any other.

    Args:
        content: the body.
        content_type: its `Content-Type`.
        where: the endpoint, for messages.

    Raises:
        EndpointError: not JSON at all, or an error in the clothes of a 200; may be better next time.
        MalformedReplyError: JSON without a usable answer, or an event stream; carries `usage`.
        RefusalError: a content filter refused.
    """
    if "text/event-stream" in content_type or content.startswith(b"data:"):
        raise MalformedReplyError(f"{where} answered with an event stream, which was not asked for")
    try:
        body = _object(orjson.loads(content))
    except orjson.JSONDecodeError:
        kind = content_type.split(";", maxsplit=1)[0].strip() or "no content type"
        shown = re.sub(r"\s+", " ", content[:60].decode(errors="replace")).strip()
        raise EndpointError(
            f"{where} answered 200 with a body that is not JSON ({kind}, {len(content)} bytes, begins {shown!r}); "
            "if this persists, check that the base URL is the API's, which usually ends in /v1",
            lasting=True,
        ) from None
    if "error" in body and not body.get("choices"):
        raise _error_in_200(body["error"], where)

    tokens = _tokens(body.get("usage"))
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise MalformedReplyError(f"{where} answered with no choices", usage=plain_usage(tokens))
    choice = _object(cast("list[Any]", choices)[0])
    message = _object(choice.get("message"))
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) else None
    text = _text(message.get("content"))
    calls = message.get("tool_calls")
    tool_calls = tuple(_object(c) for c in cast("list[Any]", calls)) if isinstance(calls, list) else ()
    if finish == "content_filter" or (text is None and isinstance(message.get("refusal"), str)):
        reason = message.get("refusal") or "its content filter stopped the reply"
        raise RefusalError(f"{where} refused: {str(reason)[:300]}")
    if text is None and not tool_calls and finish != "length":
        raise MalformedReplyError(f"{where} answered with a message without content", usage=plain_usage(tokens))
    model = body.get("model")
    return ParsedReply(text or "", model if isinstance(model, str) else "", finish, tool_calls, tokens)


def plain_usage(tokens: Tokens | None) -> Usage:
    """One call's usage without a price; unknown counts are marked as such."""
    if tokens is None:
        return Usage(calls=1, unknown=1)
    return Usage(prompt=tokens.prompt, completion=tokens.completion, calls=1)


def _error_in_200(error: Any, where: str) -> RetryableError | PermanentError:
    fields = _object(error)
    message = str(fields.get("message") or error)[:300]
    code = fields.get("code")
    text = f"{where} answered 200 with an error: {message}"
    if code == 429:
        return RateLimitError(text)
    if isinstance(code, int) and 400 <= code < 500 and code not in (408, 409):
        return RequestRejectedError(text)
    return EndpointError(text)
