"""The Chat Completions format: what goes out for a request, and what a reply's bytes say.

Used by everything that speaks it: the client, the batch client and the recorder. This is the one place where a
reply is split into thought and answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import orjson

from reflexion.errors import EndpointError, MalformedReplyError, RefusalError, ReplyCutError
from reflexion.llm.chat_model import ChatRequest, Message, Role
from reflexion.llm.endpoint.dialect import Dialect, reshape
from reflexion.llm.endpoint.error_bodies import Told, read_told
from reflexion.loop.thought import split_thought
from reflexion.types import Usage

__all__ = [
    "ErrorInReplyError",
    "ParsedReply",
    "Tokens",
    "cut_reply",
    "encode_request",
    "parse_reply",
    "plain_usage",
    "request_characters",
    "schema_hint",
    "tokens_of",
]


class ErrorInReplyError(EndpointError):
    """An endpoint's error in the clothes of a 200; `told` is what it says."""

    def __init__(self, message: str, told: Told) -> None:
        super().__init__(message)
        self.told = told


class Tokens(NamedTuple):
    """Token counts of one reply; `cached` are prompt tokens the endpoint had seen before."""

    prompt: int
    completion: int
    cached: int


class ParsedReply(NamedTuple):
    """What a reply's body says: the answer is `text`, what was thought before it `thought`."""

    text: str
    thought: str
    model: str
    finish_reason: str | None
    tool_calls: tuple[dict[str, Any], ...]
    tokens: Tokens | None
    crowded: bool = False
    """Whether its limit cut an answer that had begun, since most of it was used up by thought."""

    @property
    def cut(self) -> bool:
        """Whether its limit was used up before an answer began."""
        return self.finish_reason == "length" and not self.tool_calls and not self.text.strip()


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


def encode_request(
    request: ChatRequest,
    model: str,
    dialect: Dialect,
    *,
    extra: Mapping[str, Any] | None = None,
    reasoning_effort: str | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """The JSON body of a request. `role` and `salt` are ours and are not sent.

    Args:
        request: what is asked.
        model: the model's name.
        dialect: what it accepts.
        extra: the user's own fields, which go before ours; None in one leaves ours out.
        reasoning_effort: how much it should think.
        limit: tokens of the reply, where it had too few; None: as asked, with the room the model needs.
    """
    messages = [_message(m) for m in request.messages]
    sampling, asked = request.sampling, request.sampling.max_tokens
    body: dict[str, Any] = {"model": model, "messages": messages}
    if asked is not None:
        characters = request_characters(request) if dialect.window is not None else 0
        asked = dialect.reply_limit(asked, characters, limit)
    for name, value in (
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        (dialect.tokens_field, asked),
        ("seed", sampling.seed),
        ("reasoning_effort", reasoning_effort),
    ):
        if value is not None and name not in dialect.dropped:
            body[name] = value
    if request.tools:
        body["tools"] = list(request.tools)
        if request.tool_choice is not None and dialect.tool_choice:
            body["tool_choice"] = request.tool_choice
    if request.json_schema is not None and dialect.structured:
        body["response_format"] = _response_format(request, strict=dialect.strict)
    elif request.json_schema is not None:
        messages.append({"role": "user", "content": schema_hint(request.json_schema)})
    if not (dialect.system and dialect.same_role):
        body["messages"] = reshape(messages, dialect)
    if dialect.stream:
        body["stream"] = True
        if "stream_options" not in dialect.dropped:
            body["stream_options"] = {"include_usage": True}
    return _with_extra(body, extra) if extra else body


def _response_format(request: ChatRequest, *, strict: bool) -> dict[str, Any]:
    structure = {"name": request.schema_name, "schema": request.json_schema}
    return {"type": "json_schema", "json_schema": structure | ({"strict": True} if strict else {})}


def _with_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The body with the user's own fields; None leaves one out."""
    left_out = {name for name, value in extra.items() if value is None}
    return {name: value for name, value in (body | dict(extra)).items() if name not in left_out}


def request_characters(request: ChatRequest) -> int:
    """Characters of a request's prompt."""
    texts = sum(len(m.content) for m in request.messages)
    return texts + (len(str(list(request.tools))) if request.tools else 0)


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


# -- usage ---------------------------------------------------------------------------------------------

_MOST_TOKENS = 10**8
"""Tokens of one reply beyond which a count is none: the largest windows have a tenth of it."""
_NOT_READ = re.compile(r"miss|writ|creat|stor|audio|ttl|seconds")


def _count(value: Any) -> int | None:
    if type(value) is int or type(value) is float:  # a bool is an int, and no count
        return int(value) if 0 <= value <= _MOST_TOKENS else None
    return None


def tokens_of(usage: Any) -> Tokens | None:
    """Token counts of a reply; None: they are missing or cannot be.

    Some endpoints count what a model thinks apart from the completion, but in the total.
    """
    fields = _object(usage)
    prompt = _count(fields["prompt_tokens"] if "prompt_tokens" in fields else fields.get("input_tokens"))
    completion = _count(fields["completion_tokens"] if "completion_tokens" in fields else fields.get("output_tokens"))
    if prompt is None or completion is None:
        return None
    total = _count(fields.get("total_tokens"))
    if total is not None:
        completion = max(completion, total - prompt)
    elif (thought := _thought_tokens(fields)) > completion:
        completion += thought
    return Tokens(prompt, completion, min(_cached(fields), prompt))


def _thought_tokens(fields: Mapping[str, Any]) -> int:
    """Tokens of a reply that were thought, as its usage tells."""
    nested = (_thought_tokens(_object(v)) for v in fields.values() if isinstance(v, dict))
    own = (_count(value) or 0 for name, value in fields.items() if _THOUGHT.search(name))
    return max((*nested, *own), default=0)


def _cached(fields: Mapping[str, Any]) -> int:
    most = 0
    for name, value in fields.items():
        if isinstance(value, dict):
            most = max(most, _cached(_object(value)))
        elif "cache" in name and not _NOT_READ.search(name):
            most = max(most, _count(value) or 0)
    return most


def plain_usage(tokens: Tokens | None, cost: float | None = None) -> Usage:
    """One call's usage, at a cost in US dollars if that is known; unknown counts are marked as such."""
    if tokens is None:
        return Usage(calls=1, unknown=1, cost_usd=cost)
    return Usage(
        prompt=tokens.prompt, completion=tokens.completion, calls=1, cost_usd=cost, cached_prompt=tokens.cached
    )


# -- bodies --------------------------------------------------------------------------------------------


def _load(content: bytes) -> Any:
    """A body as JSON, also where only a strict reader would object: a bad byte, half a character, NaN, a mark.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    # UTF-16 and UTF-32 are told by their marks or zero bytes, as Python's own reader tells them.
    text = content.decode(json.detect_encoding(content), errors="ignore").strip()
    try:
        return _clean(json.loads(text, strict=False))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _clean(value: Any) -> Any:
    """A value whose texts can all be encoded: half a character is left out, as a byte that belongs to none is."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    if isinstance(value, list):
        return [_clean(v) for v in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {_clean(k): _clean(v) for k, v in cast("dict[str, Any]", value).items()}
    return value


_EVENT = re.compile(rb"\A\s*(?::[^\n]*\s+|event:[^\n]*\s+|id:[^\n]*\s+|retry:[^\n]*\s+)*data:")


def _events(content: bytes, where: str) -> dict[str, Any]:
    """The reply that a stream's events make up.

    Raises:
        EndpointError: it ended in its midst, or an event is no JSON.
    """
    body: dict[str, Any] = {}
    message: dict[str, Any] = {}
    choice: dict[str, Any] = {"message": message}
    calls: dict[int, dict[str, Any]] = {}
    done = False
    for data in _data(content):
        if data.strip() == b"[DONE]":
            done = True
            continue
        try:
            chunk = _object(_load(data))
        except ValueError:
            raise EndpointError(f"{where} sent a stream with an event that is not JSON") from None
        body |= {k: v for k, v in chunk.items() if k != "choices" and v is not None}
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            continue
        body["choices"] = [choice]
        told = _object(cast("list[Any]", choices)[0])
        choice |= {k: v for k, v in told.items() if k not in ("delta", "message") and v is not None}
        _add(message, calls, _object(told.get("delta") or told.get("message")))
    if calls:
        message["tool_calls"] = [calls[i] for i in sorted(calls)]
    if not done and choice.get("finish_reason") is None and "error" not in body and "error" not in choice:
        raise EndpointError(f"{where} ended its stream before the reply was complete")
    return body


def _data(content: bytes) -> Iterator[bytes]:
    """What the events of a stream carry."""
    parts: list[bytes] = []
    for line in content.splitlines():
        if line.startswith(b"data:"):
            parts.append(line[5:].lstrip())
        elif not line.strip() and parts:
            yield b"\n".join(parts)
            parts = []
    if parts:
        yield b"\n".join(parts)


def _add(message: dict[str, Any], calls: dict[int, dict[str, Any]], delta: Mapping[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls" and isinstance(value, list):
            for position, part in enumerate(cast("list[Any]", value)):
                _add_call(calls, _object(part), position)
        elif isinstance(value, str) and name != "role":
            message[name] = str(message.get(name) or "") + value
        elif isinstance(value, list):
            message[name] = [*cast("list[Any]", message.get(name) or []), *cast("list[Any]", value)]
        elif value is not None:
            message[name] = value


def _add_call(calls: dict[int, dict[str, Any]], part: Mapping[str, Any], position: int) -> None:
    index = part.get("index")
    call = calls.setdefault(index if isinstance(index, int) else position, {"type": "function", "function": {}})
    if isinstance(part.get("id"), str) and part["id"]:
        call["id"] = part["id"]
    function = call["function"]
    for name, value in _object(part.get("function")).items():
        if isinstance(value, str):
            function[name] = function.get(name, "") + value


# -- replies -------------------------------------------------------------------------------------------

_THOUGHT = re.compile(r"reason|think|thought")
_USUAL = ("stop", "length", "tool_calls")
_LENGTH = frozenset({"length", "max_tokens", "max_length", "model_length", "max_output_tokens", "token_limit"})
_ENDED = frozenset(
    {
        "stop", "eos", "eos_token", "end", "end_turn", "stop_sequence", "stop_token", "complete", "completed", "done",
        "finish", "finished", "finish_reason_stop", "tool_calls", "tool_call", "tool_use", "function_call", "normal",
        "success", "",
    }
)  # fmt: skip
_FRAME = frozenset({"id", "object", "created", "model", "usage", "choices", "system_fingerprint", "service_tier"})
_REFUSED = re.compile(r"content_?filter|refus|safety|moderat|prohibit|blocklist|sensitive|recitation|policy")


def _kind_of_end(finish: str | None) -> str | None:
    """Why a reply ended, in our words: `stop`, `length` or `refused`; None: that is no answer's end."""
    told = re.sub(r"[\s\-]+", "_", finish or "").lower()
    if _REFUSED.search(told):
        return "refused"
    return "length" if told in _LENGTH else "stop" if told in _ENDED else None


def _parts(content: Any) -> tuple[str | None, str]:
    """The text of a message's content and the thought in it: a text, or a list of parts."""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        return None, ""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in cast("list[Any]", content):
        fields = _object(part)
        thinks = _THOUGHT.search(str(fields.get("type", ""))) is not None
        (thoughts if thinks else texts).append(part if isinstance(part, str) else _flat(fields))
    return "".join(texts), "\n".join(filter(None, thoughts))


def _flat(value: Any) -> str:
    """The text in a part or in a list of them, however deep it lies."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_flat(v) for v in cast("list[Any]", value)[:1000])
    fields = _object(value)
    for name in ("text", "content", "summary", *(n for n in fields if _THOUGHT.search(n))):
        if isinstance(fields.get(name), str | list):
            return _flat(fields[name])
    return ""


def _thought_of(message: Mapping[str, Any]) -> str:
    """What a message's own fields tell of the model's thought; the same text in two of them counts once."""
    found = (_flat(v) for n, v in message.items() if v and n != "content" and _THOUGHT.search(n))
    return "\n".join(dict.fromkeys(t.strip() for t in found if t.strip()))


def _body(content: bytes, content_type: str, where: str) -> dict[str, Any]:
    try:
        streamed = content[:1] != b"{" and ("text/event-stream" in content_type or _EVENT.match(content[:4096]))
        body = _events(content, where) if streamed else _load(content)
    except ValueError:
        raise _unreadable("JSON", content, content_type, where) from None
    if not isinstance(body, dict):
        raise _unreadable("a JSON object", content, content_type, where)
    return cast("dict[str, Any]", body)


def parse_reply(content: bytes, content_type: str, where: str, limit: int | None = None) -> ParsedReply:
    """What the body of a 200 says.

    A reply that was cut (`finish_reason` is `length`) is returned like any other.

    Args:
        content: the body: JSON, or a stream of events.
        content_type: its `Content-Type`.
        where: the endpoint, for messages.
        limit: tokens the reply was allowed; one that used them all up and says nothing was cut, whatever it tells.

    Raises:
        EndpointError: not JSON at all, an error in the clothes of a 200, or no reply in it; may be better next time.
        MalformedReplyError: a message without a usable answer; carries `usage`.
        RefusalError: a content filter or the model refused; carries `usage`.
    """
    body = _body(content, content_type, where)
    choices = body.get("choices")
    choice = _object(cast("list[Any]", choices)[0]) if isinstance(choices, list) and choices else {}
    tokens = tokens_of(body.get("usage"))
    message = _object(choice.get("message"))
    failure = choice.get("error") or body.get("error") or message.get("error")
    if failure:
        raise _failed(f"{where} answered 200 with an error", failure, tokens)
    if not choice:
        told = {name: value for name, value in body.items() if name not in _FRAME}
        raise _failed(f"{where} answered with no choices", told, tokens)
    ended = choice.get("finish_reason")
    finish = ended if isinstance(ended, str) else None
    kind = finish if finish in _USUAL else _kind_of_end(finish)
    if not message and "text" not in choice:
        raise _failed(f"{where} answered with no message", None, tokens)
    text, thought = _parts(message.get("content") if message else choice.get("text"))
    refusal = message.get("refusal")
    if kind == "refused" or (not text and isinstance(refusal, str) and refusal):
        reason = str(refusal or "its content filter stopped the reply")[:300]
        raise RefusalError(f"{where} refused: {reason}", usage=plain_usage(tokens))
    if kind == "length":
        finish = "length"
    elif kind is None:
        raise _failed(f"{where} ended a reply for a reason that is no answer's: {finish}", None, tokens)
    calls = message.get("tool_calls")
    tool_calls = tuple(_object(c) for c in cast("list[Any]", calls)) if isinstance(calls, list) else ()
    answer = text or ""
    if len(message) > 2:
        thought = "\n".join(filter(None, (thought, _thought_of(message))))
    if "<" in answer:
        split = split_thought(answer)
        thought, answer = "\n".join(filter(None, (thought, split.thought))), split.answer
    empty = not answer.strip() and not tool_calls
    if empty and limit and tokens is not None and tokens.completion >= limit:
        finish = "length"
    if empty and finish != "length":
        if tokens is not None and tokens.completion == 0 and not thought:
            raise _failed(f"{where} answered with nothing at all", None, tokens)
        if text is None or thought:
            what = "a thought and no answer to it" if thought else "a message without content"
            raise MalformedReplyError(f"{where} answered with {what}", usage=plain_usage(tokens), thought=thought)
    model = body.get("model")
    told = model if isinstance(model, str) else ""
    crowded = finish == "length" and not tool_calls and not empty and _mostly_thought(body, thought, answer)
    return ParsedReply(answer, thought, told, finish, tool_calls, tokens, crowded)


def _mostly_thought(body: Mapping[str, Any], thought: str, answer: str) -> bool:
    """Whether a reply is thought for the most part: as its usage tells, else by the texts."""
    usage = _object(body.get("usage"))
    tokens, spent = tokens_of(usage), _thought_tokens(usage)
    return 2 * spent > tokens.completion if tokens is not None and spent else len(thought) > len(answer)


_OPTIONS: dict[Role, str] = {
    "actor": "--max-completion-tokens",
    "reflector": "--reflection-max-tokens",
    "judge": "--judge-max-tokens or --tests-max-tokens",
}


def cut_reply(parsed: ParsedReply, where: str, role: Role, limit: int | None, usage: Usage) -> ReplyCutError:
    """The error for a reply whose limit was used up before an answer began; names the option to raise."""
    of = f" of {limit} tokens" if limit is not None else ""
    return ReplyCutError(
        f"{where}: the reply's limit{of} was used up before an answer began; raise {_OPTIONS[role]}",
        usage=usage,
        thought=parsed.thought,
    )


def _failed(text: str, failure: Any, tokens: Tokens | None) -> ErrorInReplyError:
    told = read_told(failure) if failure else Told()
    error = ErrorInReplyError(f"{text}: {told.message[:300]}" if told.message else text, told)
    error.usage = plain_usage(tokens) if tokens is not None and tokens != (0, 0, 0) else None
    return error


def _unreadable(what: str, content: bytes, content_type: str, where: str) -> EndpointError:
    kind = content_type.split(";", maxsplit=1)[0].strip() or "no content type"
    shown = re.sub(r"\s+", " ", content[:60].decode(errors="replace")).strip()
    return EndpointError(
        f"{where} answered 200 with a body that is not {what} ({kind}, {len(content)} bytes, begins {shown!r}); "
        "if this persists, check that the base URL is the API's, which usually ends in /v1",
        lasting=True,
    )
