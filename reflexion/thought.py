"""Splits a reply into what the model thought aloud and what it answered.

Models that reason write their thoughts in tags before the answer: `<think>…</think>`, `<thinking>`, `<reasoning>`
and the like. A draft in there is no answer. Some servers leave out the opening tag, since their prompt template
ends with it; a token limit can cut a reply before the closing one, and then there is no answer at all.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Split", "split_thought"]

_NAMES = "think|thinking|thought|thoughts|reasoning"
_OPEN = re.compile(rf"<({_NAMES})>", re.IGNORECASE)
_CLOSE = re.compile(rf"(?<![\"'`\w])</(?:{_NAMES})>", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)


class Split(NamedTuple):
    """A reply in its two parts.

    Attributes:
        thought: what stands in the tags, without them; empty where the model did not think aloud.
        answer: what is left of the reply; empty where it ended within a thought.
        cut: whether the reply ended within a thought.
    """

    thought: str
    answer: str
    cut: bool = False


def split_thought(reply: str) -> Split:
    """The thought and the answer of a reply, in linear time.

    A thought begins at the start of the reply, or of a line outside code, and ends at its closing tag. A closing tag
    with no opening one ends a thought that began with the reply.
    """
    if "<" not in reply:
        return Split("", reply)
    thoughts: list[str] = []
    answer: list[str] = []
    position = seen = fences = 0
    blank = True  # whether nothing stands before `seen` on its line
    for opened in _OPEN.finditer(reply):
        start = opened.start()
        if start < position:
            continue
        # A thought begins first on its line, and in no block of code. Each part of a reply is looked at once.
        between = reply[seen:start]
        line = between.rfind("\n") + 1
        blank = (blank or line > 0) and not between[line:].strip()
        fences += len(_FENCE.findall(reply, seen, start))
        seen = start
        if not blank or fences % 2:
            blank = False
            continue
        answer.append(reply[position:start])
        closed = re.compile(f"</{opened[1]}>", re.IGNORECASE).search(reply, opened.end())
        if closed is None:
            thoughts.append(reply[opened.end() :])
            return Split("\n".join(thoughts).strip(), "", cut=True)
        thoughts.append(reply[opened.end() : closed.start()])
        position = seen = closed.end()
        fences, blank = 0, True
    rest = reply[position:]
    if not thoughts and (closed := _last_close(rest)) is not None:
        return Split(rest[: closed.start()].strip(), rest[closed.end() :].lstrip("\n"))
    answer.append(rest if not thoughts else rest.lstrip("\n"))
    return Split("\n".join(t.strip() for t in thoughts), "".join(answer))


def _last_close(reply: str) -> re.Match[str] | None:
    """The last closing tag outside code."""
    found = None
    for match in _CLOSE.finditer(reply):
        found = match
    if found is None or len(_FENCE.findall(reply, found.end())) % 2:
        return None
    return found
