"""What the loop asks of a language model: one method, JSON-safe requests and replies."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field, JsonValue

from reflexion.types import Frozen, Usage

__all__ = ["LLM", "ChatReply", "ChatRequest", "Message", "Role", "Sampling"]

Role = Literal["actor", "reflector", "judge"]
"""For whom a call is made; each role may have a model of its own."""


class Message(Frozen):
    """One chat message. `tool_calls` and `tool_call_id` follow the Chat Completions format.

    An assistant's `tool_calls` are objects such as `{"id": "call_1", "type": "function", "function":
    {"name": "search", "arguments": "{\\"query\\": \\"Ada\\"}"}}`, the arguments being JSON in a text. Each is
    answered by a message with the role `tool`, whose `tool_call_id` is the call's `id`.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[dict[str, JsonValue], ...] = ()
    tool_call_id: str | None = None


class Sampling(Frozen):
    """Sampling parameters; None leaves the endpoint's default."""

    temperature: float | None = Field(default=0.0, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    max_tokens: int | None = Field(default=512, ge=1)
    seed: int | None = None


class ChatRequest(Frozen):
    """One request. `salt` tells repeats apart where replies are recorded; it is never sent.

    `tools` are offered as the Chat Completions format has it: `{"type": "function", "function": {"name",
    "description", "parameters": a JSON schema}}`. Whoever has no function calling raises
    `ToolsRejectedError`, or says so beforehand by an attribute `tool_calling` that is False.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    role: Role = "actor"
    json_schema: dict[str, JsonValue] | None = Field(default=None, description="Structure asked for, if any.")
    schema_name: str = "reply"
    tools: tuple[dict[str, JsonValue], ...] = ()
    tool_choice: Literal["none"] | None = Field(default=None, description="`none`: tools are not called any more.")
    salt: str = ""


class ChatReply(Frozen):
    """One reply: a text, calls of tools in the form of `Message.tool_calls`, or both.

    `text` is the answer alone; what the model thought aloud before it is `thought`.
    """

    text: str
    thought: str = ""
    model: str
    usage: Usage
    finish_reason: str | None = None
    tool_calls: tuple[dict[str, JsonValue], ...] = ()
    seconds: float = 0.0
    attempts: int = 1
    retried: tuple[str, ...] = ()


@runtime_checkable
class LLM(Protocol):
    """A language model behind some endpoint.

    Implementations raise only errors of `reflexion.errors`.
    """

    @property
    def model(self) -> str:
        """Name of the model, as reports show it."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its answers from another model's: part of every cache key. No secrets, no ports."""
        ...

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request.

        Raises:
            RetryableError: retries are used up.
            PermanentError: the request will fail again.
        """
        ...

    async def aclose(self) -> None:
        """Release connections and servers; harmless when called twice."""
        ...
