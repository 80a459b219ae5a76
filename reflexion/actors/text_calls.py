"""Tool calls in plain text, for models without function calling, and for those that write them anyway.

A reply holds a thought, then one action or the answer; the first of the two counts, since what follows an
action was made up without seeing what comes of it. Actions are read in every form models write them in:

    Action: search[Ada Lovelace]          Action: search("Ada Lovelace")
    Action: search {"query": "Ada"}       Action: {"name": "search", "arguments": {"query": "Ada"}}
    Action: search                        <tool_call>{"name": "search", "arguments": …}</tool_call>
    Action Input: Ada Lovelace
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any, NamedTuple, cast

from reflexion._python_source import parse_python
from reflexion.evaluators.reading.normalisation import crowded

__all__ = ["Action", "Reply", "read_reply", "tagged_calls"]

_MARK = re.compile(
    r"^[ \t>*_#]*(?P<kind>action|(?:final[ \t]+)?answer)(?:[ \t]*\d+)?[ \t]*(?:\*\*|__)?[ \t]*:"
    r"[ \t]*(?:\*\*|__)?[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_INPUT = re.compile(r"\s*^[ \t>*_]*(?:action[ \t_]+)?input(?:\*\*)?[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_TAG = re.compile(r"<tool_call>\s*")
_THOUGHT = re.compile(r"^[ \t>*_#]*thought(?:[ \t]*\d+)?[ \t]*(?:\*\*|__)?[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_OBSERVATION = re.compile(r"^[ \t>*_#]*observation(?:[ \t]*\d+)?[ \t]*(?:\*\*)?[ \t]*:", re.IGNORECASE | re.MULTILINE)
_NAME = re.compile(r"[`*'\"]*(?P<name>[A-Za-z_][\w.-]*)[`*'\"]*[ \t]*")
_FINISH = ("finish", "answer", "final_answer", "final answer")
_CLOSING = {"[": "]", "(": ")"}
_decoder = json.JSONDecoder(strict=False, parse_constant=str)


class Action(NamedTuple):
    """A call as it was written: the arguments are an object, a list in order, or one text."""

    name: str
    arguments: Any
    line: str
    """The whole line after `Action:`: a command, where an environment reads it."""


class Reply(NamedTuple):
    """What a reply says: a thought, and an action or an answer or neither."""

    thought: str
    action: Action | None
    answer: str | None
    used: str
    """The part of the reply that counts."""


def read_reply(text: str) -> Reply:
    """Read a reply of a model that calls tools in plain text."""
    tag, mark = _TAG.search(text), _MARK.search(text)
    invented = _OBSERVATION.search(text)
    if tag is not None and (mark is None or tag.start() < mark.start()):
        found = _object(text, tag.end())
        if found is not None:
            value, end = found
            closing = text.find("</tool_call>", end)
            line = text[tag.end() : end].strip()
            used = text[: closing + len("</tool_call>")] if closing >= 0 else text[:end]
            return Reply(_thought(text[: tag.start()]), _of_object(value, line), None, used)
    if mark is None or (invented is not None and invented.start() < mark.start()):
        cut = text[: invented.start()] if invented is not None else text
        return Reply(_thought(cut), None, None, cut.rstrip())
    thought = _thought(text[: mark.start()])
    if mark["kind"].lower() != "action":
        return Reply(thought, None, text[mark.end() :].strip(), text)
    action, end = _action(text, mark.end())
    if action is not None and action.name.lower() in _FINISH:
        return Reply(thought, None, _plain(action.arguments), text[:end])
    return Reply(thought, action, None, text[:end].rstrip())


def tagged_calls(text: str) -> list[Action]:
    """The calls between `<tool_call>` tags: what some endpoints leave in the text of a reply."""
    found = ((_object(text, match.end()), match) for match in _TAG.finditer(text))
    return [_of_object(item[0], text[match.end() : item[1]]) for item, match in found if item is not None]


def _thought(text: str) -> str:
    return _THOUGHT.sub("", text).strip()


def _plain(arguments: Any) -> str:
    """An answer that was given as an action's argument."""
    if isinstance(arguments, dict):
        arguments = list(cast("dict[str, Any]", arguments).values())
    if isinstance(arguments, list):
        arguments = ", ".join(str(item) for item in cast("list[Any]", arguments))
    return str(arguments).strip()


def _object(text: str, start: int) -> tuple[dict[str, Any], int] | None:
    """The JSON object that begins at or right after a position, and where it ends."""
    brace = re.compile(r"\s*(?:```(?:json)?\s*)?\{").match(text, start)
    if brace is None:
        return None
    try:
        value, end = _decoder.raw_decode(text, brace.end() - 1)
    except ValueError:
        return None
    return cast("dict[str, Any]", value), end


def _of_object(value: dict[str, Any], line: str) -> Action:
    names = [value.get(key) for key in ("name", "tool", "function", "action", "tool_name")]
    name = next((n for n in names if isinstance(n, str)), "")
    keys = ("arguments", "parameters", "args", "input", "action_input", "tool_input")
    arguments = next((value[key] for key in keys if key in value), {})
    return Action(name, arguments, line.strip())


def _action(text: str, start: int) -> tuple[Action | None, int]:
    """The action that begins at a position, and where it ends."""
    found = _object(text, start)
    stop = text.find("\n", start)
    stop = len(text) if stop < 0 else stop
    if found is not None:
        return _of_object(found[0], text[start : found[1]]), found[1]
    line = text[start:stop].strip()
    name = _NAME.match(text, start, stop)
    if name is None:
        return (Action("", line, line), stop) if line else (None, stop)
    given, end = _arguments(text, name.end(), stop)
    return Action(name["name"], given, line), end


def _arguments(text: str, start: int, stop: int) -> tuple[Any, int]:
    rest = text[start:stop].strip()
    if rest[:1] in _CLOSING:
        close = text.rfind(_CLOSING[rest[0]], start, stop)
        opening = text.index(rest[0], start)
        inner = text[opening + 1 : close if close > opening else stop]
        return _inner(inner.strip(), keywords=rest[0] == "("), stop
    found = _object(text, start)
    if found is not None:
        return found
    if not rest:
        following = _INPUT.match(text, stop)
        if following is None:
            return "", stop
        found = _object(text, following.end())
        if found is not None:
            return found
        end = text.find("\n", following.end())
        end = len(text) if end < 0 else end
        return _unquoted(text[following.end() : end].strip()), end
    return _unquoted(rest.removeprefix(":").strip()), stop


def _inner(inner: str, *, keywords: bool) -> Any:
    """What stands between the brackets of a call."""
    if inner.startswith("{"):
        try:
            return _decoder.decode(inner)
        except ValueError:
            return inner
    if not crowded(inner) and (keywords or re.match(r"[\w]+\s*=", inner)):
        try:
            call = cast("ast.Call", parse_python(f"f({inner})", mode="eval").body)
            if call.keywords and not call.args:
                return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
            if call.args and not call.keywords:
                return [ast.literal_eval(a) for a in call.args]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    return _unquoted(inner)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text
