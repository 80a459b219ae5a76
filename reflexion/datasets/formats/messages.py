"""Prompts that are a chat: a list of messages with roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from reflexion.datasets.text_cells import as_list

__all__ = ["ends_with_answer", "is_prompt", "prompt_text"]

_ROLES = {"human": "User", "gpt": "Assistant", "user": "User", "assistant": "Assistant", "system": "System"}


def is_prompt(value: Any) -> bool:
    """Whether it is a text that is not empty, or a chat."""
    return bool(value.strip()) if isinstance(value, str) else _messages(value) is not None


def prompt_text(value: Any) -> str:
    """A prompt as one text: a single message of the user by itself, others with the names of their roles."""
    messages = _messages(value if not isinstance(value, str) else _listed(value))
    if messages is None:
        return cast("str", value)
    if any(role == "User" for role, _ in messages):
        # The turn of an assistant at the end is an answer, which must not be told.
        messages = messages[: max(i for i, (role, _) in enumerate(messages) if role != "Assistant") + 1]
    if len(messages) == 1 and messages[0][0] in ("User", ""):
        return messages[0][1]
    return "\n\n".join(f"{role}: {text}" if role else text for role, text in messages)


def ends_with_answer(value: Any) -> bool:
    """Whether it is a chat whose last turn is an assistant's."""
    messages = _messages(value)
    return messages is not None and messages[-1][0] == "Assistant" and any(role == "User" for role, _ in messages)


def _listed(text: str) -> Any:
    return as_list(text) if text.lstrip().startswith(("[{", "[ {")) else None


def _messages(value: Any) -> list[tuple[str, str]] | None:
    if not isinstance(value, list) or not value:
        return None
    messages: list[tuple[str, str]] = []
    for item in cast("list[Any]", value):
        if not isinstance(item, Mapping):
            return None
        message = cast("Mapping[str, Any]", item)
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        text = _content(content)
        if not isinstance(role, str) or text is None:
            return None
        messages.append((_ROLES.get(role, role.capitalize()), text))
    return messages if any(text.strip() for _, text in messages) else None


def _content(value: Any) -> str | None:
    """Text of a message; of several parts those that are texts. None: a part is no text, an image for example."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return None
    texts: list[str] = []
    for part in cast("list[Any]", value):
        text = cast("Mapping[str, Any]", part).get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "\n".join(texts)
