"""Models for tests: a scripted one in process, and a scripted OpenAI-compatible HTTP endpoint.

Both are for users' own tests as well as ours. Nothing here needs a network beyond the loopback.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Self, cast

import orjson

from reflexion.errors import ReplayMissError
from reflexion.llm.chat_model import ChatReply, ChatRequest
from reflexion.types import Usage

__all__ = ["FAULTS", "EndpointStats", "Fault", "HttpReply", "ScriptedEndpoint", "ScriptedLLM", "learns_from_reflection"]

Script = Iterable["str | ChatReply | BaseException"] | Callable[[ChatRequest], "str | ChatReply | BaseException"]


def estimated_tokens(text: str) -> int:
    """The scripted models' count: a token for each four characters, at least one."""
    return max(1, len(text) // 4)


class ScriptedLLM:
    """An `LLM` that answers from a script and remembers what it was asked.

    Args:
        script: replies in order, or a function of the request. A reply is a text, a `ChatReply`, or an
            exception to raise.
        model: the model's name.
        latency: seconds each call takes.
        cost_usd: price of each call; None: unknown.

    Example:
        >>> import asyncio
        >>> from reflexion.llm.chat_model import Message
        >>> llm = ScriptedLLM(["first", "second"])
        >>> request = ChatRequest(messages=(Message(role="user", content="Hello"),))
        >>> asyncio.run(llm.chat(request)).text
        'first'
        >>> len(llm.requests)
        1
    """

    def __init__(
        self,
        script: Script = (),
        *,
        model: str = "scripted",
        latency: float = 0.0,
        cost_usd: float | None = 0.0,
    ) -> None:
        self._next: Callable[[ChatRequest], str | ChatReply | BaseException]
        if callable(script):
            self._next = script
        else:
            replies = iter(script)
            self._next = lambda _: self._from_list(replies)
        self._model, self._latency, self._cost = model, latency, cost_usd
        self.requests: list[ChatRequest] = []
        """Every request, in order of arrival."""
        self.usage = Usage()
        """Usage of all replies together."""
        self.in_flight = 0
        self.peak_in_flight = 0
        self.closed = False

    def _from_list(self, replies: Any) -> str | ChatReply | BaseException:
        for reply in replies:
            return reply
        raise ReplayMissError(f"the script of {self._model!r} has no reply for request {len(self.requests)}")

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def identity(self) -> dict[str, Any]:
        """The model's name."""
        return {"model": self._model}

    @property
    def priced(self) -> bool:
        """Whether calls have a price."""
        return self._cost is not None

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The script's next reply."""
        self.requests.append(request)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            # Always a turn of the event loop, as with any real model.
            await asyncio.sleep(self._latency)
            reply = self._next(request)
        finally:
            self.in_flight -= 1
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, str):
            prompt = estimated_tokens("\n".join(m.content for m in request.messages))
            usage = Usage(prompt=prompt, completion=estimated_tokens(reply), calls=1, cost_usd=self._cost)
            reply = ChatReply(text=reply, model=self._model, usage=usage, finish_reason="stop", seconds=self._latency)
        self.usage = self.usage + reply.usage
        return reply

    async def aclose(self) -> None:
        """Notes that it was closed."""
        self.closed = True


Fault = Literal[
    "429", "500", "hang", "no_usage", "no_choices", "no_content", "length", "invalid_utf8", "html", "not_json",
    "stream", "close_mid_body", "close", "content_filter", "refusal", "error_in_200", "400", "401", "404",
]  # fmt: skip
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]
"""Everything the scripted endpoint can do wrong."""


class HttpReply(NamedTuple):
    """A reply of the endpoint; `cut` closes the connection in the middle of the body."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    content_type: str = "application/json"
    cut: bool = False


class EndpointStats:
    """What an endpoint was asked and how it answered."""

    def __init__(self) -> None:
        self.calls = 0
        self.answered = 0
        self.s429 = 0
        self.s500 = 0
        self.hung = 0
        self.connections = 0
        self.peak_in_flight = 0
        self.duplicates_in_flight = 0
        """Requests that arrived while the very same one was being answered."""
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.distinct: set[str] = set()
        self.log: list[tuple[float, int]] = []
        """Monotonic time and status of each reply."""

    def as_dict(self) -> dict[str, int]:
        """The counts, for `/stats`."""
        counts = {k: v for k, v in vars(self).items() if isinstance(v, int)}
        return {**counts, "distinct": len(self.distinct)}


def learns_from_reflection(right: str = "42", wrong: str = "41", mark: str = "PLAN-OK") -> Callable[[str], str]:
    """A model that answers wrong until the prompt carries its own reflection.

    So a problem that is solved proves that the reflection reached the next trial.
    """

    def answer(prompt: str) -> str:
        if mark in prompt:
            return right
        if "reflect" in prompt.lower():
            return f"{mark}: I guessed. Next time I count again before I answer."
        return wrong

    return answer


def fill_schema(  # noqa: PLR0911 - one return for each kind of schema
    schema: Mapping[str, Any], text: str, root: Mapping[str, Any] | None = None
) -> Any:
    """A value that fits a JSON schema, with `text` for every string."""
    root = schema if root is None else root
    if "$ref" in schema:
        return fill_schema(root.get("$defs", {})[str(schema["$ref"]).rsplit("/", 1)[-1]], text, root)
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            return fill_schema(schema[name][0], text, root)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type", "string"):
        case "object":
            return {k: fill_schema(v, text, root) for k, v in schema.get("properties", {}).items()}
        case "array":
            return [fill_schema(schema.get("items", {}), text, root)] * max(1, schema.get("minItems", 1))
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return text


class ScriptedEndpoint:
    """A real OpenAI-compatible HTTP endpoint on the loopback, with latency and faults.

    In an event loop: `async with ScriptedEndpoint() as endpoint`. From plain code, with a thread of
    its own: `with ScriptedEndpoint() as endpoint`.

    Args:
        answer: a function of the prompt (all messages as one text).
        latency: seconds each answer takes.
        p429, p500, phang: shares of calls that fail so, by chance.
        rate: requests admitted in a second, the rest get 429; None: all.
        burst: requests admitted at once after a quiet time; None: a tenth of a second's.
        retry_after: seconds told with each 429; None: nothing is told.
        faults: what goes wrong with the first calls, in order; None for a call that is answered.
        structured: whether `response_format` is accepted.
        models: the models it knows; None: any.
        api_key: the key it wants; None: any or none.
        seed: of the chance.
        port: 0: a free one.
    """

    def __init__(
        self,
        answer: Callable[[str], str] | None = None,
        *,
        latency: float = 0.0,
        p429: float = 0.0,
        p500: float = 0.0,
        phang: float = 0.0,
        rate: float | None = None,
        burst: float | None = None,
        retry_after: float | None = 0.2,
        faults: Iterable[Fault | None] = (),
        structured: bool = True,
        models: Iterable[str] | None = None,
        api_key: str | None = None,
        seed: int = 7,
        port: int = 0,
    ) -> None:
        self.answer = answer or learns_from_reflection()
        self.latency, self.retry_after = latency, retry_after
        self.p429, self.p500, self.phang = p429, p500, phang
        self.rate = rate
        self._burst = burst if burst is not None else max(1.0, (rate or 0.0) / 10)
        self._tokens, self._refilled = self._burst, time.monotonic()
        self.faults: deque[Fault | None] = deque(faults)
        self.structured = structured
        self.models = None if models is None else set(models)
        self.api_key = api_key
        self.bodies: deque[dict[str, Any]] = deque(maxlen=1000)
        """The last thousand request bodies."""
        self.stats = EndpointStats()
        self._random = random.Random(seed)
        self._port = port
        self._live = 0
        self._inflight: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None
        self._stop: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    @property
    def url(self) -> str:
        """The base URL to give to a client."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, backlog=4096, limit=2**24)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await self._server.wait_closed()

    def __enter__(self) -> Self:
        ready = threading.Event()

        async def serve() -> None:
            stop = asyncio.Event()
            async with self:
                self._stop = (asyncio.get_running_loop(), stop)
                ready.set()
                await stop.wait()

        self._thread = threading.Thread(target=asyncio.run, args=(serve(),), name="scripted-endpoint", daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise TimeoutError("the scripted endpoint did not start within 10 s")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._stop is not None and self._thread is not None:
            loop, stop = self._stop
            loop.call_soon_threadsafe(stop.set)
            self._thread.join(10)

    # -- HTTP --------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections.add(task)
        self.stats.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went, or the endpoint is being stopped
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, _, rest = head.partition("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (h.partition(":") for h in rest.splitlines()) if v}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        method, target, _ = line.split(" ", 2)
        reply = await self.respond(method, target, headers, raw)
        extra = "".join(f"{k}: {v}\r\n" for k, v in reply.headers.items())
        writer.write(
            f"HTTP/1.1 {reply.status} X\r\ncontent-type: {reply.content_type}\r\n"
            f"content-length: {len(reply.body)}\r\n{extra}\r\n".encode("latin-1")
        )
        writer.write(reply.body[: len(reply.body) // 2] if reply.cut else reply.body)
        await writer.drain()
        return not reply.cut

    async def respond(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> HttpReply:
        """The reply to one HTTP request; subclasses add paths."""
        path = target.partition("?")[0]
        if path == "/stats":
            return _json(200, self.stats.as_dict())
        if path == "/reset":
            self.stats = EndpointStats()
            return _json(200, {})
        if self.api_key is not None and headers.get("authorization") != f"Bearer {self.api_key}":
            return _error(401, f"Incorrect API key provided: {headers.get('authorization', '')[7:]}")
        if path.endswith("/models"):
            names = sorted(self.models or {"scripted"})
            return _json(200, {"object": "list", "data": [{"id": n, "object": "model"} for n in names]})
        if method == "POST" and path == "/v1/chat/completions":
            return await self._counted(raw)
        return _error(404, f"no such path: {path}")

    async def _counted(self, raw: bytes) -> HttpReply:
        stats, key = self.stats, hashlib.sha256(raw).hexdigest()
        stats.calls += 1
        stats.distinct.add(key)
        stats.duplicates_in_flight += key in self._inflight
        self._inflight[key] = self._inflight.get(key, 0) + 1
        self._live += 1
        stats.peak_in_flight = max(stats.peak_in_flight, self._live)
        try:
            reply = await self.complete(raw)
        finally:
            self._live -= 1
            self._inflight[key] -= 1
            if not self._inflight[key]:
                del self._inflight[key]
        stats.log.append((time.monotonic(), reply.status))
        return reply

    async def complete(self, raw: bytes) -> HttpReply:  # noqa: PLR0911 - one return for each way to fail
        """The reply to a chat completion, faults included."""
        try:
            body = cast("dict[str, Any]", json.loads(raw))
        except ValueError:
            return _error(400, "the body is not JSON")
        self.bodies.append(body)
        fault = self.faults.popleft() if self.faults else self._chance()
        if fault == "429" or not self._admit():
            self.stats.s429 += 1
            await asyncio.sleep(0.005)
            told = {} if self.retry_after is None else {"retry-after": f"{self.retry_after:g}"}
            return _error(429, "rate limited", told)
        if fault == "hang":
            self.stats.hung += 1
            await asyncio.sleep(3600)
        if fault == "500":
            self.stats.s500 += 1
            return _error(500, "boom")
        if fault in ("400", "401", "404"):
            return _error(int(fault), f"scripted {fault}")
        if self.models is not None and body.get("model") not in self.models:
            return _error(404, f"The model {body.get('model')!r} does not exist", code="model_not_found")
        if "response_format" in body and not self.structured:
            return _error(400, "Unknown parameter: 'response_format'", param="response_format")
        if self.latency:
            await asyncio.sleep(self.latency)
        return self._with_fault(self.completion(body), fault)

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The completion for a request's body; counts its tokens."""
        prompt = "\n".join(
            m["content"] if isinstance(m.get("content"), str) else json.dumps(m.get("content"))
            for m in body.get("messages", [])
        )
        text = self.answer(prompt)
        schema = (body.get("response_format") or {}).get("json_schema")
        if schema and not text.lstrip().startswith("{"):
            text = json.dumps(fill_schema(schema["schema"], text))
        counts = (estimated_tokens(prompt), estimated_tokens(text))
        self.stats.answered += 1
        self.stats.prompt_tokens += counts[0]
        self.stats.completion_tokens += counts[1]
        return {
            "id": f"chatcmpl-{self.stats.answered}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model", "scripted"),
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {
                "prompt_tokens": counts[0],
                "completion_tokens": counts[1],
                "total_tokens": sum(counts),
            },
        }

    # -- faults ------------------------------------------------------------------------------------

    def _chance(self) -> Fault | None:
        x = self._random.random()
        for share, fault in ((self.p429, "429"), (self.p500, "500"), (self.phang, "hang")):
            if x < share:
                return cast("Fault", fault)
            x -= share
        return None

    def _admit(self) -> bool:
        if self.rate is None:
            return True
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled) * self.rate)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    @staticmethod
    def _with_fault(reply: dict[str, Any], fault: Fault | None) -> HttpReply:  # noqa: PLR0911, PLR0912 - a table
        choice = reply["choices"][0]
        match fault:
            case "no_usage":
                del reply["usage"]
            case "no_choices":
                reply["choices"] = []
            case "no_content":
                choice["message"]["content"] = None
            case "length":
                choice["finish_reason"] = "length"
            case "content_filter":
                choice["finish_reason"] = "content_filter"
            case "refusal":
                choice["message"] = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
            case "invalid_utf8":
                return HttpReply(200, json.dumps(reply).encode().replace(b"assistant", b"\xff\xfe\xfd"))
            case "html":
                page = b"<!doctype html><html><body>Welcome</body></html>"
                return HttpReply(200, page, content_type="text/html; charset=utf-8")
            case "not_json":
                return HttpReply(200, b"{broken")
            case "stream":
                chunks = b'data: {"choices":[{"delta":{"content":"4"}}]}\n\ndata: [DONE]\n\n'
                return HttpReply(200, chunks, content_type="text/event-stream")
            case "error_in_200":
                return _json(200, {"error": {"message": "upstream is overloaded", "code": 502}})
            case "close":
                return HttpReply(200, b"", cut=True)
            case "close_mid_body":
                return HttpReply(200, orjson.dumps(reply), cut=True)
            case _:
                pass
        return _json(200, reply)


def _json(status: int, value: Any, headers: Mapping[str, str] | None = None) -> HttpReply:
    return HttpReply(status, orjson.dumps(value), headers or {})


def _error(
    status: int, message: str, headers: Mapping[str, str] | None = None, *, code: str | None = None, param: str = ""
) -> HttpReply:
    error = {"message": message, "type": "scripted", "code": code, "param": param or None}
    return _json(status, {"error": error}, headers)
