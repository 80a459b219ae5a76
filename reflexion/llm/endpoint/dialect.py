"""What one endpoint and model turned out not to accept, and how requests are reshaped for it.

Learned from refusals, once per process: each names a parameter or a role that was sent, in whatever words.
What was learned in vain, because the request is refused all the same, is forgotten again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from reflexion.errors import ContextWindowError, RequestRejectedError, ToolsRejectedError
from reflexion.llm.endpoint.error_bodies import Told
from reflexion.loop.prompt_budget import TokenCounter, Window

__all__ = ["LEAST_ROOM", "ROOM_MOST", "Dialect", "adapt", "foreign_names", "reshape"]

log = logging.getLogger(__name__)

LEAST_ROOM = 16
"""Tokens of a reply below which a request is not worth sending."""
ROOM_FIRST = 2048
"""Tokens a reply is given at the least when its limit had cut it to nothing."""
ROOM_MOST = 16_384
"""Tokens a reply is given at the most, unless the user asked for more."""
_IN_VAIN = 2
"""Replies that more room did not help, after which no more is given."""


class Dialect:
    """What one endpoint and model accept. For all requests of a process.

    Args:
        name: of both, for messages.
        tokens_field: what the limit of a reply is called to begin with.
    """

    def __init__(self, name: str = "the model", *, tokens_field: str = "max_tokens") -> None:
        self.name = name
        self.tokens_field = tokens_field
        self.structured = True
        """Whether `response_format` with a JSON schema is accepted."""
        self.strict = True
        """Whether `strict` is accepted in it."""
        self.tools = True
        """Whether `tools` are accepted."""
        self.tool_choice = True
        """Whether `tool_choice` is."""
        self.dropped: frozenset[str] = frozenset()
        """Parameters the model refuses to be told."""
        self.system = True
        """Whether it has a system role; else its text stands before the first user message."""
        self.same_role = True
        """Whether two messages of one role may follow each other."""
        self.stream = False
        """Whether it answers in streams only."""
        self.window: int | None = None
        """Tokens of prompt and reply together, once it told."""
        self.cap: int | None = None
        """Tokens it lets one reply have, once it told."""
        self.floor: int | None = None
        """Tokens it wants to be allowed for one reply, once it told."""
        self.overhead = 0
        """Tokens of a prompt that its characters do not account for."""
        self.room = 0
        """Tokens a reply gets beyond what was asked for: what the model needs to think."""
        self.in_vain = 0
        self.proven = False
        """Whether it ever answered in this process."""
        self.counter = TokenCounter()

    def snapshot(self) -> dict[str, Any]:
        """What was learned so far, to go back to."""
        return dict(vars(self))

    def restore(self, before: Mapping[str, Any]) -> None:
        """Forget what was learned since."""
        vars(self).update(before)

    # -- room --------------------------------------------------------------------------------------

    def estimate(self, characters: int) -> int:
        """Tokens a prompt is expected to have."""
        return -int(-characters // self.counter.characters_per_token) + self.overhead

    def learn(self, characters: int, tokens: int) -> None:
        """Correct the estimate by a prompt the endpoint counted."""
        self.counter.learn(characters, tokens)
        self.overhead = 0
        self.overhead = max(0, tokens - self.estimate(characters))

    def reply_limit(self, asked: int | None, characters: int, limit: int | None = None) -> int | None:
        """Tokens to allow a reply for which `asked` are wanted, beside a prompt of so many characters.

        Args:
            limit: what this reply is given for another try.
        """
        if asked is None:
            return None
        limit = limit or asked + self.room
        if self.cap is not None:
            limit = min(limit, self.cap)
        if self.window is not None:
            limit = min(limit, max(LEAST_ROOM, self.window - self.estimate(characters)))
        return max(limit, self.floor or 0)

    def more_room(self, sent: int) -> int | None:
        """Tokens for another try at a reply that `sent` tokens cut to nothing; None: that is of no use."""
        room = min(max(4 * sent, ROOM_FIRST), max(ROOM_MOST, sent), self.cap or ROOM_MOST, self.window or ROOM_MOST)
        return room if room > sent and self.in_vain < _IN_VAIN else None

    def note_room(self, extra: int, *, helped: bool) -> None:
        """Another try was made with so many tokens more than asked for."""
        # Even in vain: the model is known to need more than it got.
        self.room = max(self.room, extra)
        self.in_vain = 0 if helped else self.in_vain + 1

    @property
    def learned_window(self) -> Window | None:
        """What a prompt may have, so that a reply fits beside it; None: nothing is known."""
        if self.window is None:
            return None
        return Window(max(64, self.window * 3 // 4 - self.overhead), self.counter)


# -- requests ------------------------------------------------------------------------------------------


def reshape(messages: Sequence[dict[str, Any]], dialect: Dialect) -> list[dict[str, Any]]:
    """The messages in the form the model accepts."""
    out = list(messages)
    if not dialect.system:
        told = "\n\n".join(m["content"] for m in out if m["role"] == "system")
        out = [m for m in out if m["role"] != "system"]
        if told:
            at = next((i for i, m in enumerate(out) if m["role"] == "user"), None)
            if at is None:
                out.insert(0, {"role": "user", "content": told})
            else:
                out[at] = {**out[at], "content": f"{told}\n\n{out[at]['content']}"}
    return out if dialect.same_role else _alternating(out)


def _alternating(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for message in messages:
        last = out[-1] if out else None
        plain = last is not None and not (last.keys() | message.keys()) - {"role", "content"}
        if last is not None and plain and last["role"] == message["role"]:
            out[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}"}
        else:
            out.append(message)
    return out


# -- refusals ------------------------------------------------------------------------------------------

_TOKENS = (
    r"(?:max(?:imum)?_(?:number_of_)?(?:completion_|output_|new_|reply_|response_|generated_|generation_)?"
    r"(?:tokens?|length)|num_predict|n_predict|max_tokens_to_sample)"
)
_FORMAT = r"(?:response_?format|json_?schema|structured_outputs?|json_mode|guided_json|output_format|schema)"
_TOOLS = r"(?:tools?|functions?|tool_use|tool_calls?|tool_calling|function_calls?|function_calling)"
_STREAM = r"(?:(?:non_?)?stream(?:ing|ed|s)?|sse|server_sent_events?|event_streams?)"
_SYSTEM = r"(?:system|developer)"
_ROLE = rf"(?:{_SYSTEM}|roles?|alternat\w*|consecutive)"
_WINDOW = re.compile(r"(?<![a-z])(?:context|ctx|window|prompt|inputs?|messages|sequence|conversation)(?![a-z])")
_LENGTH = re.compile(r"(?<![a-z])(?:tokens?|context|ctx|window|too_long|longer|length|truncat\w*|fit)(?![a-z])")
_LENGTH_CODE = re.compile(r"context|too_long|too_large|window|length|overflow|token")
_WINDOW_CODE = re.compile(r"context|window")
_IDENTIFIER = re.compile(r"(?<![\w/.-])(?:\w+\.)*([a-z][a-z0-9]*(?:_[a-z0-9]+|[A-Z][a-z0-9]+)+)(?![\w/(-])")
_WANTS = re.compile(r"\b(?:must|requir\w*|missing|needs?|set|wants?|expect\w*|unless|without|should)\b", re.IGNORECASE)
_NAMES: tuple[str, ...] = ("temperature", "top_p", "seed", "reasoning_effort", "stop", "n", "stream_options")


def foreign_names(told: Told, body: Mapping[str, Any]) -> list[str]:
    """Parameters a refusal speaks of that were not sent: what it may want to be told."""
    found = [m[1] for text in told.raw for m in _IDENTIFIER.finditer(text) if _WANTS.search(text)]
    known = {*body, *told.codes}
    return [n for n in dict.fromkeys(found) if n not in known and not re.search(f"{_TOKENS}|{_STREAM}", n)]


def adapt(
    dialect: Dialect,
    body: Mapping[str, Any],
    error: RequestRejectedError,
    tried: set[str],
    *,
    asked: frozenset[str] = frozenset(),
) -> bool:
    """Learn from a refusal what the model does without; whether there is something to change.

    Args:
        dialect: is changed.
        body: what was sent.
        error: the refusal.
        tried: what was changed for this call already; is added to.
        asked: parameters the user asked for by name, which are never left out.

    Raises:
        ToolsRejectedError: it does without tools, which is the caller's business.
        ContextWindowError: the prompt is too long for any reply.
    """
    told = error.told
    if told is None:
        return False
    if _fit(dialect, body, error, told, tried):
        return True
    focus = _focus(told, body)
    return (
        _limit(dialect, body, told, focus, tried)
        or _streaming(dialect, body, told, focus, tried)
        or _structure(dialect, body, focus, tried)
        or _drop(dialect, body, focus, tried, asked)
        or _tools(dialect, body, error, focus, tried)
        or _roles(dialect, body, focus, tried)
    )


def _focus(told: Told, body: Mapping[str, Any]) -> Told:
    """The refusal, without its text where a field of it says already what of the request it means."""
    sent = "|".join(re.escape(name) for name in body if name != "model")
    exact = Told(parameters=told.parameters)
    return exact if exact.names(rf"(?:{sent}|{_ROLE})") and not exact.names("messages") else told


def _once(step: str, tried: set[str]) -> bool:
    """Whether a step was not taken yet for this call; it is from now on."""
    if step in tried:
        return False
    tried.add(step)
    return True


def characters_of(body: Mapping[str, Any]) -> int:
    """Characters of a request's prompt."""
    texts = sum(len(m["content"] or "") for m in body["messages"])
    return texts + (len(str(body["tools"])) if "tools" in body else 0)


def _fit(dialect: Dialect, body: Mapping[str, Any], error: RequestRejectedError, told: Told, tried: set[str]) -> bool:
    """Take over a context window the refusal tells."""
    sent = body.get(dialect.tokens_field) or 0
    limits = [v for v in told.limits() if v >= 64 and v != sent]
    if not limits:
        return _fit_numbers(dialect, body, error, told, tried)
    if not (_LENGTH.search(told.text) or told.coded(_LENGTH_CODE) or _exceeds(told, limits[0], sent)):
        return False
    about_prompts = _WINDOW.search(told.text) or told.coded(_WINDOW_CODE)
    if not about_prompts and (told.names(_TOKENS) or limits[0] < sent):
        return False  # a cap on replies
    window, characters = limits[0], characters_of(body)
    prompt = _counted(told.asked(), sent, dialect.estimate(characters))
    expected = dialect.estimate(characters) if prompt is None else prompt
    if 2 * (expected + sent) <= window:
        return False  # far below: it is about something else
    first, second = _once("window", tried), prompt is None and _once("window again", tried)
    if not first and not second:
        raise ContextWindowError(str(error), window) from None
    dialect.window = window if dialect.window is None else min(dialect.window, window)
    if prompt is not None:
        dialect.learn(characters, prompt)
    elif not first:
        dialect.overhead += window // 8
    if window - dialect.estimate(characters) < LEAST_ROOM:
        raise ContextWindowError(str(error), window) from None
    log.info("%s: the context window is %d tokens; prompts and replies follow it", dialect.name, window)
    return sent > 0 or not first


def _fit_numbers(
    dialect: Dialect, body: Mapping[str, Any], error: RequestRejectedError, told: Told, tried: set[str]
) -> bool:
    """Take over a context window that is told in words which are not known: by what its numbers add up to.

    A window that refuses a request lies between the prompt, and the prompt with the reply's limit.
    """
    sent, characters = body.get(dialect.tokens_field) or 0, characters_of(body)
    values = {a.value for a in told.amounts if a.value >= 64 and not a.spent}
    estimate, others = dialect.estimate(characters), values - {sent}
    pairs = [(w, p) for w in others for p in {*others, *(t - sent for t in others)} if 0 < p < w < p + sent]
    if sent not in values:  # numbers of anything: the prompt's must be about what it is expected to be
        pairs = [(w, p) for w, p in pairs if estimate <= 2 * p <= 4 * estimate]
    if not pairs or not (_once("window", tried) or _once("window again", tried)):
        return False
    window, prompt = min(pairs, key=lambda pair: (abs(pair[1] - estimate), pair[0]))
    dialect.window = window if dialect.window is None else min(dialect.window, window)
    dialect.learn(characters, prompt)
    if window - dialect.estimate(characters) < LEAST_ROOM:
        raise ContextWindowError(str(error), window) from None
    log.info("%s: the context window is %d tokens; prompts and replies follow it", dialect.name, window)
    return True


def _exceeds(told: Told, limit: int, sent: int) -> bool:
    """Whether it sets what was asked for, the reply's limit among it, against a limit."""
    return any(a.value == sent or (a.kind == "asked" and a.value > limit) for a in told.amounts)


def _counted(told: list[int], sent: int, estimate: int) -> int | None:
    """The prompt's tokens among the numbers of a refusal, of which one may be the sum with the reply's limit."""
    found = [value for value in told if value != sent]
    for value in found:
        if sent and value + sent in found:
            return value
    if not found:
        return None
    value = found[0]
    with_reply = sent and sent not in told and value > sent
    return value - sent if with_reply and abs(value - sent - estimate) < abs(value - estimate) else value


def _limit(dialect: Dialect, body: Mapping[str, Any], told: Told, focus: Told, tried: set[str]) -> bool:
    sent = body.get(dialect.tokens_field)
    if sent is None:
        return False
    set_against = sent in {a.value for a in told.amounts} and any(
        a.value < sent and (a.kind == "limit" or a.value >= LEAST_ROOM) for a in told.amounts
    )
    return (set_against or focus.names(_TOKENS)) and _other_limit(dialect, sent, told, tried)


def _other_limit(dialect: Dialect, sent: int, told: Told, tried: set[str]) -> bool:
    """Another size of the limit, else another name for it, else none."""
    other = "max_tokens" if dialect.tokens_field == "max_completion_tokens" else "max_completion_tokens"
    below = [a.value for a in told.amounts if 1 < a.value < sent and (a.kind == "limit" or _bounds(told, a.kind))]
    bare = [a.value for a in told.amounts if LEAST_ROOM <= a.value < sent and not a.spent]
    above = [a.value for a in told.amounts if a.value > sent]
    if "guessed cap" in tried:
        dialect.cap = None  # the number was about something else
    if below and not told.names(other) and _once("cap", tried):
        dialect.cap = max(below)
    elif bare and not told.names(other) and "cap" not in tried and _once("guessed cap", tried):
        dialect.cap = max(bare)
    elif above and re.search(r"least|min|low|small", told.text) and _once("floor", tried):
        dialect.floor = min(above)
    elif _once("limit's name", tried):
        dialect.tokens_field = other
    elif _once("limit", tried):
        dialect.dropped |= {"max_tokens", "max_completion_tokens"}
        log.warning("%s does not let replies be limited; they are as long as it makes them", dialect.name)
    else:
        return False
    return True


def _bounds(told: Told, kind: str) -> bool:
    """Whether a number that no word names is one of the bounds of a range."""
    return (
        kind == "none" and re.search(r"between|range|\[\d|too_(?:large|big|high|long)|interval", told.text) is not None
    )


def _streaming(dialect: Dialect, body: Mapping[str, Any], told: Told, focus: Told, tried: set[str]) -> bool:
    if "stream_options" in body and focus.names("(?:stream_options|include_usage)") and _once("stream_options", tried):
        dialect.dropped |= {"stream_options"}
        return True
    if not focus.names(_STREAM) or foreign_names(told, body):
        return False
    if _once("stream", tried):
        dialect.stream = not body.get("stream")
        return True
    return False


def _structure(dialect: Dialect, body: Mapping[str, Any], focus: Told, tried: set[str]) -> bool:
    if "response_format" not in body:
        return False
    if focus.names("strict") and dialect.strict and _once("strict", tried):
        dialect.strict = False
        return True
    if focus.names(_FORMAT) and _once("response_format", tried):
        dialect.structured = False
        log.info("%s has no response_format; structures are asked for in words", dialect.name)
        return True
    return False


def _drop(dialect: Dialect, body: Mapping[str, Any], focus: Told, tried: set[str], asked: frozenset[str]) -> bool:
    for name in _NAMES:
        quoted = "['\"`]n['\"`]" if name == "n" else re.escape(name)
        if name in body and name not in asked and focus.names(quoted) and _once(name, tried):
            dialect.dropped |= {name}
            log.warning("%s does not let %s be set; its own default is used", dialect.name, name)
            return True
    return False


def _tools(
    dialect: Dialect, body: Mapping[str, Any], error: RequestRejectedError, focus: Told, tried: set[str]
) -> bool:
    if "tool_choice" in body and focus.names("tool_choice") and _once("tool_choice", tried):
        dialect.tool_choice = False
        return True
    if "tools" in body and focus.names(_TOOLS):
        dialect.tools = False
        log.warning("%s does not accept tools (%s)", dialect.name, error)
        raise ToolsRejectedError(str(error)) from None
    return False


def _roles(dialect: Dialect, body: Mapping[str, Any], focus: Told, tried: set[str]) -> bool:
    if not focus.names(_ROLE):
        return False
    roles = [m["role"] for m in body["messages"]]
    repeated = any(a == b for a, b in pairwise(roles))
    steps = ["join"] if "system" in roles else []
    if repeated:
        # A refusal that speaks of the system text means that; one that speaks of roles alone, their order.
        steps.insert(len(steps) if focus.names(_SYSTEM) else 0, "merge")
    for step in steps:
        if _once(step, tried):
            if step == "join":
                dialect.system = False
            else:
                dialect.same_role = False
            log.info("%s: messages are reshaped (%s)", dialect.name, step)
            return True
    return False
