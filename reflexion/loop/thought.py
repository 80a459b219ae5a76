"""Splits a reply into what the model thought aloud and what it answered.

Models that reason write their thoughts before the answer: in tags (`<think>…</think>`, `[THINK]…[/THINK]`,
`<|begin_of_thought|>…<|end_of_thought|>`) or in a channel of their own (`<|channel|>analysis<|message|>…`). A draft
in there is no answer. Some servers leave out the opening tag, since their prompt template ends with it; a token
limit can cut a reply before the closing one, and then there is no answer at all.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

__all__ = ["Split", "split_thought"]

_NAMES = "think|thinking|thought|thoughts|reasoning|seed:think"
_TAG = re.compile(
    rf"<(?P<angle>/?(?:{_NAMES}))(?:\s[^<>\n]{{0,200}})?>"
    r"|\[(?P<square>/?THINK)\]"
    r"|<\|(?P<mark>begin|end)_of_thought\|>"
    r"|\u25c1(?P<triangle>/?think)\u25b7",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^[ \t>]*(?P<mark>`{3,}|~{3,})(?P<info>[^\n]*)$", re.MULTILINE)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<\n]{0,200}<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_BARE_CHANNELS = re.compile(r"\A\s*analysis(?=[A-Z\s])")
"""How a reply in channels looks where a server dropped the special tokens between them."""
_SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>")
_MOST_TAGS = 2_000
"""Tags read in one reply; those that follow are text."""
_QUOTES = "\"'`\u2018\u2019\u201c\u201d"


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


class _Tag(NamedTuple):
    start: int
    end: int
    family: str
    closes: bool


def split_thought(reply: str) -> Split:
    """The thought and the answer of a reply, in linear time.

    A thought begins at the start of the reply, or of a line outside code, and ends at its closing tag; thoughts
    may be nested. A closing tag with no opening one ends a thought that began with the reply. Tags in quotation
    marks, and those in code that is part of the answer, are text.
    """
    if "<|channel|>" in reply:
        return _by_channels(reply)
    bare = _BARE_CHANNELS.match(reply)
    if bare is not None and "assistantfinal" in reply:
        thought, _, answer = reply[bare.end() :].rpartition("assistantfinal")
        return Split(thought.strip(), answer.lstrip("\n"))
    tags = _tags(reply)
    split = _by_tags(reply, tags) if tags else Split("", reply)
    if "_of_solution|>" in split.answer:
        return split._replace(answer=_SOLUTION.sub("", split.answer).strip("\n"))
    return split


def _tags(reply: str) -> list[_Tag]:
    found: list[_Tag] = []
    for match in islice(_TAG.finditer(reply), _MOST_TAGS):
        start, end = match.span()
        if start > 0 and end < len(reply) and reply[start - 1] in _QUOTES and reply[end] in _QUOTES:
            continue
        found.append(_Tag(start, end, *_kind(match[0])))
    return found


@lru_cache(maxsize=256)
def _kind(text: str) -> tuple[str, bool]:
    """The family of a tag, within which tags open and close each other, and whether it closes."""
    match = _TAG.match(text)
    assert match is not None
    name = (match["angle"] or match["square"] or match["triangle"] or "").lower()
    family = name.lstrip("/") if match["angle"] else str(match.lastgroup)
    return family, name.startswith("/") or (match["mark"] or "").lower() == "end"


def _by_tags(reply: str, tags: list[_Tag]) -> Split:
    thoughts: list[str] = []
    answer: list[str] = []
    position = 0
    code = _Code(reply)
    index = 0
    while index < len(tags):
        tag = tags[index]
        index += 1
        if tag.closes:
            # A closing tag with no opening one: all that stands before it was thought as well.
            if not code.holds(tag.start, whole=False):
                thoughts.append("".join([*answer, reply[position : tag.start]]))
                answer, position = [], tag.end
            continue
        if tag.start > position and not reply[tag.start - 1].isspace():
            continue
        line = max(position, reply.rfind("\n", position, tag.start) + 1)
        if reply[line : tag.start].strip() or code.holds(tag.start):
            continue
        answer.append(reply[position : tag.start])
        index, end = _closing(tags, index, tag.family)
        if end is None:
            thoughts.append(reply[tag.end :])
            return Split(_joined(thoughts), "", cut=True)
        thoughts.append(reply[tag.end : end.start])
        position = end.end
    rest = reply[position:]
    answer.append(rest.lstrip("\n") if thoughts else rest)
    return Split(_joined(thoughts), "".join(answer))


def _joined(thoughts: list[str]) -> str:
    return "\n".join(t.strip() for t in thoughts).strip()


def _closing(tags: list[_Tag], index: int, family: str) -> tuple[int, _Tag | None]:
    """The tag that ends a thought, and the index behind it: with nested ones, the last that is needed."""
    depth, last = 1, None
    for position in range(index, len(tags)):
        tag = tags[position]
        if tag.family != family:
            continue
        depth += -1 if tag.closes else 1
        if tag.closes:
            last = (position + 1, tag)
        if depth == 0:
            break
    # Where one opening tag too many stands in a thought, it was only talked about.
    return last if last is not None else (len(tags), None)


class _Code:
    """The fenced blocks of a reply, found once and only if they are asked for."""

    def __init__(self, reply: str) -> None:
        self._reply = reply
        self._starts: list[int] | None = None
        self._spans: list[tuple[int, int, bool]] = []

    def holds(self, position: int, *, whole: bool = True) -> bool:
        """Whether a position lies in a block; `whole`: in one that is never closed as well."""
        if self._starts is None:
            self._read()
        index = bisect_right(self._starts or [], position) - 1
        if index < 0:
            return False
        _, end, closed = self._spans[index]
        return position < end and (closed or whole)

    def _read(self) -> None:
        opened: re.Match[str] | None = None
        for fence in _FENCE.finditer(self._reply):
            if opened is None:
                if fence["mark"][0] == "`" and "`" in fence["info"]:
                    continue  # code within one line
                opened = fence
            elif fence["mark"].startswith(opened["mark"]) and not fence["info"].strip():
                self._spans.append((opened.start(), fence.end(), True))
                opened = None
            elif fence["mark"].startswith(opened["mark"]) and len(opened["mark"]) == 3:
                # A language after the mark begins a block: the one before was left open.
                opened = fence
        if opened is not None:
            self._spans.append((opened.start(), len(self._reply), False))
        self._starts = [start for start, _, _ in self._spans]


def _by_channels(reply: str) -> Split:
    """A reply in channels: the last one called `final` is the answer, all others are thoughts."""
    thoughts: list[str] = []
    answer: str | None = None
    first = reply.partition("<|channel|>")[0].removesuffix("<|start|>assistant").strip()
    for match in _CHANNEL.finditer(reply):
        end = _CHANNEL_END.search(reply, match.end())
        text = reply[match.end() : end.start() if end else len(reply)]
        if match[1].lower() == "final":
            answer = text
        else:
            thoughts.append(text)
    if answer is None:
        return Split(_joined(thoughts) or first, "", cut=True)
    return Split(_joined([first, *thoughts] if first else thoughts), answer.lstrip("\n"))
