"""The fenced blocks of a reply in markdown, as models write them, in linear time.

CommonMark's fences are read, and what models make of them: a fence behind prose or glued to the code, code on the
fence's own line, fences in lists and quotes, blocks within a block of markdown, and fences in a docstring of the code.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from reflexion.evaluators.code.python_reader import Reader

__all__ = ["Block", "Scan", "fenced_blocks", "is_python", "scan"]

_MOST = 200
"""Fences read in one text; what follows them counts as prose."""
_MOST_DOCSTRINGS = 4
"""Blocks read on beyond a fence in a docstring."""
_DEEPEST = 3
"""Levels of blocks in blocks of markdown."""

_LEAD = re.compile(r"[ \t\u00a0\u200b\ufeff]*(?:(?:>|[-*+]|\d{1,9}[.)])[ \t]*)*")
_QUOTE = re.compile(r"[ \t]{0,3}>[ \t]?")
_TIGHT_QUOTE = re.compile(r"[ \t]{0,3}>")
_RUN = re.compile(r"(`{3,}|~{3,})")
_LANGUAGE = re.compile(r"[\s{.]*([\w+#-]*)")
_STATEMENT = re.compile(r"(?:async[ \t]+def|def|class|import|from)[ \t]+\w|@\w")
_QUOTES = re.compile(r"'''|\"\"\"|#[^\n]*|'(?:\\[\s\S]?|[^'\\\n])*'?|\"(?:\\[\s\S]?|[^\"\\\n])*\"?")
_MARKS = frozenset({"'''", '"""'})
_INVISIBLE = " \t\r\u00a0\u200b\u200c\u200d\u2060\ufeff"
_PYTHON = frozenset({"python", "py", "python3", "py3", "python2", "ipython", "ipython3", "pycon", "pyi", "tool_code"})


class Block(NamedTuple):
    """One fenced block.

    Attributes:
        lang: the first word of its info string in lower case, without braces and dots; empty where there is none.
        body: what stands in it, without the indent or the quote marks of its fence; ends with a line break.
        line: number of the text's line, from 1, in which the body begins.
        closed: whether it has a closing fence.
    """

    lang: str
    body: str
    line: int
    closed: bool = True


class Scan(NamedTuple):
    """A text taken apart: its blocks in order, and what stands outside of them."""

    blocks: list[Block]
    prose: str


class _Fence(NamedTuple):
    """A line with a fence in it: `before` it, the `mark`, what follows (`info`)."""

    start: int
    end: int
    number: int
    line: str
    before: str
    mark: str
    info: str
    own: bool
    """Whether nothing but marks of lists and quotes stands before it."""


class _Opening(NamedTuple):
    lang: str
    code: str
    """Code on the fence's own line."""


def is_python(lang: str) -> bool:
    """Whether a block of that language is Python by its own word."""
    return lang in _PYTHON


def fenced_blocks(text: str) -> list[Block]:
    """The fenced blocks of a text in order, empty ones left out, in linear time.

    A block of markdown that holds blocks of Python gives way to them.
    """
    return scan(text, Reader()).blocks


def scan(text: str, reader: Reader, depth: int = 0) -> Scan:
    """Take a text apart.

    Args:
        text: any text; a line ends at a line feed.
        reader: tells a fence in a docstring from one that ends the block.
        depth: levels of blocks around the text.
    """
    fences = _fences(text)
    blocks: list[Block] = []
    prose: list[str] = []
    index = position = docstrings = 0
    while index < len(fences):
        fence = fences[index]
        whole, opening = _whole(fence), _opening(fence)
        index += 1
        if whole is None and opening is None:
            continue
        prose.append(text[position : fence.start] + (fence.before if not fence.own else "") + "\n")
        position = fence.end
        if whole is not None:
            blocks.append(whole)
            continue
        assert opening is not None
        found = end = _closing(fences, index, fence)
        if found < len(fences) and docstrings < _MOST_DOCSTRINGS and (not opening.lang or is_python(opening.lang)):
            end = _closing(fences, index, fence, text)
            if end != found:
                docstrings += 1
                end = end if reader.reads(_block(text, fence, opening, fences, end).body) else found
        blocks += _nested(_block(text, fence, opening, fences, end), reader, depth)
        position = fences[end].end if end < len(fences) else len(text)
        index = end + 1
        if end < len(fences) and _begins_another(fences[end], fence):
            position, index = fences[end].start, end
    prose.append(text[position:])
    return Scan([b for b in blocks if b.body.strip()], "".join(prose))


def _fences(text: str) -> list[_Fence]:
    found: list[_Fence] = []
    position, number, counted = 0, 1, 0
    ticks, tildes = text.find("```"), text.find("~~~")
    while len(found) < _MOST:
        ticks = text.find("```", position) if 0 <= ticks < position else ticks
        tildes = text.find("~~~", position) if 0 <= tildes < position else tildes
        at = max(ticks, tildes) if min(ticks, tildes) < 0 else min(ticks, tildes)
        if at < 0:
            break
        start = text.rfind("\n", 0, at) + 1
        end = text.find("\n", at)
        position = len(text) if end < 0 else end + 1
        number += text.count("\n", counted, start)
        counted = start
        line = text[start:position].rstrip("\n")
        before, mark, info = _RUN.split(line, maxsplit=1)
        lead = _LEAD.match(line)
        own = lead is not None and lead.end() >= len(before)
        found.append(_Fence(start, position, number, line, before, mark, info.strip(_INVISIBLE), own))
        if position >= len(text):
            break
    return found


def _whole(fence: _Fence) -> Block | None:
    """A block that begins and ends on one line."""
    parts = _RUN.split(fence.line)
    if len(parts) < 5 or fence.mark[0] != "`" or fence.mark not in parts[3::2]:
        return None
    body = "".join(parts[2 : 2 * parts[3::2].index(fence.mark) + 3])
    opening = _language(body.strip(_INVISIBLE))
    code = opening.code or ("" if is_python(opening.lang) and body.strip().lower() == opening.lang else body)
    if is_python(opening.lang) and not opening.code:
        code = _LANGUAGE.sub("", code, count=1)
    return Block(opening.lang if is_python(opening.lang) else "", code.strip() + "\n", fence.number)


def _language(info: str) -> _Opening:
    """What an info string says."""
    if _STATEMENT.match(info):
        return _Opening("", info)
    match = _LANGUAGE.match(info)
    if match is None:
        return _Opening("", "")
    rest = info[match.end() :].strip()
    lang = match[1].lower()
    return _Opening(lang, rest if is_python(lang) and _STATEMENT.match(rest) else "")


def _opening(fence: _Fence) -> _Opening | None:
    """What a fence opens; None where it is a part of its line's prose."""
    if fence.mark[0] == "`" and "`" in fence.info:
        return None
    opening = _language(fence.info)
    if not fence.own and fence.info and not opening.code and not is_python(fence.info.lower()):
        return None
    return opening


def _closing(fences: list[_Fence], index: int, opened: _Fence, text: str | None = None) -> int:
    """The index of the fence that ends a block; with the text, fences in its docstrings are passed over."""
    quotes = _Quotes(text, opened.end) if text is not None else None
    while index < len(fences):
        fence = fences[index]
        if _ends(fence, opened) and not (quotes is not None and quotes.around(fence.start + len(fence.before))):
            break
        index += 1
    return index


def _ends(fence: _Fence, opened: _Fence) -> bool:
    if fence.mark[0] != opened.mark[0] or len(fence.mark) < len(opened.mark):
        return False
    if not fence.own:
        # Glued to the end of the last line of code.
        return not fence.info and not fence.before.lstrip().startswith("#")
    return not fence.info or _begins_another(fence, opened)


def _begins_another(fence: _Fence, opened: _Fence) -> bool:
    """Whether a fence begins a block before the last one was ended, or within one of markdown."""
    lang = _language(fence.info).lang
    return fence.own and bool(fence.info) and "`" not in fence.info and (is_python(lang) or bool(lang and opened.info))


class _Quotes:
    """Says in ascending order which positions of code stand in a string of three quotes that ends further down."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._at = start
        self._end = start
        """Where the last string of three quotes ends."""

    def around(self, position: int) -> bool:
        """Whether a position stands within such a string."""
        while self._at < position:
            match = _QUOTES.search(self._text, self._at, position)
            if match is None:
                self._at = position
            elif match[0] not in _MARKS:
                self._at = match.end()
            else:
                end = self._text.find(match[0], match.end())
                # One that nothing ends is no string: a reply that breaks off there, or prose.
                self._end = self._at = end + 3 if end >= 0 else len(self._text)
                self._end = self._end if end >= 0 else 0
        return position < self._end


def _block(text: str, fence: _Fence, opening: _Opening, fences: list[_Fence], end: int) -> Block:
    closing = fences[end] if end < len(fences) else None
    stop = len(text) if closing is None else closing.start
    body = text[fence.end : stop]
    if closing is not None and not closing.own:
        body += closing.before
    quotes = fence.before.count(">")
    if quotes:
        lines, mark = body.split("\n"), _QUOTE if fence.before[-1:].isspace() else _TIGHT_QUOTE
        for _ in range(min(quotes, 4)):
            lines = [mark.sub("", line, count=1) for line in lines]
        body = "\n".join(lines)
    elif fence.own and (indent := len(fence.before.strip(_INVISIBLE[3:]))):
        body = re.sub(rf"^[ \t]{{1,{min(indent, 100)}}}", "", body, flags=re.MULTILINE)
    if opening.code:
        return Block(opening.lang, f"{opening.code}\n{body}", fence.number, closing is not None)
    body = body if body.endswith("\n") or not body else body + "\n"
    return Block(opening.lang, body, fence.number + 1, closing is not None)


def _nested(block: Block, reader: Reader, depth: int) -> list[Block]:
    """The blocks within one of markdown; the block itself where there are none of Python."""
    if is_python(block.lang) or depth >= _DEEPEST or not ("```" in block.body or "~~~" in block.body):
        return [block]
    found = scan(block.body, reader, depth + 1).blocks
    if not any(is_python(b.lang) for b in found):
        return [block]
    return [b._replace(line=b.line + block.line - 1) for b in found]
