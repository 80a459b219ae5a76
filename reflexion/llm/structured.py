"""Answers in a structure: a pydantic model in, an instance of it out.

Endpoints with `response_format` are held to the schema; `OpenAIChat` asks the others in words. Either
way the reply is read with tolerance, and one that does not fit is sent back once with the error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from reflexion.errors import MalformedReplyError
from reflexion.llm.chat_model import LLM, ChatReply, ChatRequest, Message

__all__ = ["ask_structured", "parse_structured", "strict_schema"]

T = TypeVar("T", bound=BaseModel)


def strict_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema as endpoints want it for strict structures.

    Every object is closed and all its fields are required; defaults and titles are left out, since the
    model that answers has no use for them.
    """
    schema = deepcopy(model.model_json_schema())
    _make_strict(schema)
    return schema


def _make_strict(node: Any, *, named: bool = False) -> None:
    """`named`: the node maps names to schemas, so its keys are not keywords."""
    if isinstance(node, list):
        for item in cast("list[Any]", node):
            _make_strict(item)
    if not isinstance(node, dict):
        return
    fields = cast("dict[str, Any]", node)
    if not named:
        fields.pop("title", None)
        fields.pop("default", None)
        if isinstance(fields.get("properties"), dict):
            fields["required"] = list(fields["properties"])
            fields["additionalProperties"] = False
    for name, value in fields.items():
        if named or name not in ("enum", "const", "required", "examples"):
            _make_strict(value, named=not named and name in ("properties", "$defs"))


def _candidates(text: str) -> Iterator[Any]:
    """JSON values in a reply: the whole of it, else every object in it, the first one first."""
    try:
        yield json.loads(text)
        return
    except ValueError:
        pass
    decoder, at = json.JSONDecoder(strict=False), text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        else:
            yield value
        at = text.find("{", end)


def parse_structured(text: str, model: type[T]) -> T:
    """The structure in a reply, whatever stands around it (prose, a fence of a code block).

    Raises:
        ValueError: no JSON object in it fits; the message says what is wrong with the first.
    """
    problem: str | None = None
    for value in _candidates(text):
        try:
            return model.model_validate(value)
        except ValidationError as exc:
            problem = problem or _explain(exc)
    raise ValueError(problem or "it has no JSON object that can be read to its end")


def _explain(exc: ValidationError) -> str:
    shown = exc.errors()[:5]
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the object'}: {e['msg']}" for e in shown)


async def ask_structured(llm: LLM, request: ChatRequest, model: type[T]) -> tuple[T, ChatReply]:
    """Ask for an instance of a pydantic model.

    A reply that does not fit is retried once, with the error. The reply that is returned carries the
    usage, attempts and seconds of both.

    Args:
        llm: who is asked.
        request: what is asked; its `json_schema` is set from the model.
        model: the structure.

    Raises:
        MalformedReplyError: the second reply did not fit either; carries the usage of both.
        RetryableError, PermanentError: as the model raises them.
    """
    name = model.__name__.strip("_").lower()
    request = request.model_copy(update={"json_schema": strict_schema(model), "schema_name": name})
    reply = await llm.chat(request)
    try:
        return parse_structured(reply.text, model), reply
    except ValueError as exc:
        error = _shown(exc, reply)
    again = request.model_copy(
        update={
            "messages": (
                *request.messages,
                Message(role="assistant", content=reply.text),
                Message(role="user", content=f"That does not fit: {error}. Answer with the corrected JSON only."),
            )
        }
    )
    try:
        second = await llm.chat(again)
    except MalformedReplyError as exc:
        exc.usage = reply.usage + exc.usage if exc.usage is not None else reply.usage
        raise
    both = second.model_copy(
        update={
            "usage": reply.usage + second.usage,
            "seconds": reply.seconds + second.seconds,
            "attempts": reply.attempts + second.attempts,
            "retried": (*reply.retried, MalformedReplyError.__name__, *second.retried),
        }
    )
    try:
        return parse_structured(second.text, model), both
    except ValueError as exc:
        raise MalformedReplyError(
            f"{llm.model} did not answer in the structure asked for ({_shown(exc, second)})", usage=both.usage
        ) from None


def _shown(exc: ValueError, reply: ChatReply) -> str:
    cut = "; the reply was cut at its length limit" if reply.finish_reason == "length" else ""
    return f"{exc}{cut}"
