"""An endpoint whose answers a test writes itself: any status, any body, any headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from reflexion.llm import ChatRequest, Message, OpenAIChat, Sampling
from reflexion.testing import HttpReply, ScriptedEndpoint

__all__ = ["Speaking", "asked", "completion", "refused", "speaking_model", "strangers"]

Answer = tuple[int, Any] | tuple[int, Any, Mapping[str, str]]
"""Status, body (JSON or bytes) and headers."""


class Speaking(ScriptedEndpoint):
    """An endpoint that answers as `script` says.

    Args:
        script: is given a request's body and its number, from 1; None: a plain completion.
    """

    def __init__(self, script: Callable[[dict[str, Any], int], Answer | None], **options: Any) -> None:
        super().__init__(**options)
        self.script = script
        self.targets: list[str] = []
        self.headers: list[dict[str, str]] = []

    async def respond(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> HttpReply:
        """As the script says, at any path that is one of chat completions."""
        if not target.partition("?")[0].endswith("/chat/completions"):
            return await super().respond(method, target, headers, raw)
        self.targets.append(target)
        self.headers.append(dict(headers))
        return await self._counted(raw)

    async def complete(self, raw: bytes) -> HttpReply:
        """The script's answer."""
        body = orjson.loads(raw)
        self.bodies.append(body)
        if self.latency:
            import asyncio

            await asyncio.sleep(self.latency)
        found = self.script(body, len(self.bodies))
        if found is None:
            return HttpReply(200, orjson.dumps(self.completion(body)))
        status, content, *more = found
        told = dict(more[0]) if more else {}
        kind = told.pop("content-type", "application/json")
        data = content if isinstance(content, bytes) else orjson.dumps(content)
        return HttpReply(status, data, told, kind)


def strangers(monkeypatch: Any) -> None:
    """Forget what was learnt of models: of another one, with the same name at the same port."""
    from reflexion.llm.endpoint import openai_chat

    monkeypatch.setattr(openai_chat, "_dialects", {})


def completion(text: str | None = "42", finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    """The body of a completion. `message`, `choice` and `usage` add to their parts, other fields to the whole."""
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    usage = fields.pop("usage", {"prompt_tokens": 30, "completion_tokens": 6, "total_tokens": 36})
    choice = {"index": 0, "finish_reason": finish, "message": message, **fields.pop("choice", {})}
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage, **fields}


def refused(status: int, message: str, /, **fields: Any) -> Answer:
    """A refusal whose body is `{"error": {"message": …}}`."""
    return status, {"error": {"message": message, **fields}}


def speaking_model(endpoint: ScriptedEndpoint, model: str = "m", **options: Any) -> OpenAIChat:
    """A client of an endpoint, with few attempts."""
    given: dict[str, Any] = {"api_key": "a-secret-key", "attempt_timeout": 5.0, "max_attempts": 4} | options
    return OpenAIChat(model, given.pop("url", endpoint.url), given.pop("api_key"), **given)


def asked(*texts: str, system: str | None = "Be brief.", **fields: Any) -> ChatRequest:
    """A request of one user message or several."""
    messages = [Message(role="system", content=system)] if system is not None else []
    messages += [Message(role="user", content=text) for text in texts or ("What is six times seven?",)]
    return ChatRequest(messages=tuple(messages), sampling=fields.pop("sampling", Sampling(seed=5)), **fields)
