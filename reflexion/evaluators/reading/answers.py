r"""Finds where a reply states its answer. All evaluators take it from here, so that all read replies alike.

A reply has one reading. In this order it is

1. the last answer in a mark that has an end: `\boxed{…}`, `<answer>…</answer>`, `Finish[…]`;
2. what stands behind the last mark without one: `Answer: …`, `The answer is …`, `#### …`, `{"answer": …}`, a heading
   `Final Answer`, and the same words in other languages;
3. its last line, where nothing is marked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from reflexion.evaluators.reading.latex import balanced
from reflexion.evaluators.reading.normalisation import without_end_tokens

__all__ = ["Statement", "stated_answer"]

_WORDS = (
    "answer", "answers", "ans", "final_answer", "final result", "final output", "final value",
    "correct option", "right option", "best option", "correct choice", "right choice", "best choice", "final choice",
    "my choice", "correct letter",
    "antwort", "endergebnis", "antwoord", "svar", "r\u00e9ponse", "reponse", "respuesta", "resposta", "risposta",
    "odpowied\u017a", "odpov\u011b\u010f", "cevap", "yan\u0131t", "vastaus", "jawaban", "v\u00e1lasz",
    "r\u0103spuns", "\u0111\u00e1p \u00e1n", "c\u00e2u tr\u1ea3 l\u1eddi",
    "\u043e\u0442\u0432\u0435\u0442", "\u0432\u0456\u0434\u043f\u043e\u0432\u0456\u0434\u044c",
    "\u0430\u0434\u043a\u0430\u0437", "\u03b1\u03c0\u03ac\u03bd\u03c4\u03b7\u03c3\u03b7",
    "\u0627\u0644\u0625\u062c\u0627\u0628\u0629", "\u0627\u0644\u062c\u0648\u0627\u0628", "\u062c\u0648\u0627\u0628",
    "\u05ea\u05e9\u05d5\u05d1\u05d4", "\u0909\u0924\u094d\u0924\u0930", "\u0989\u09a4\u09cd\u09a4\u09b0",
    "\u0e04\u0e33\u0e15\u0e2d\u0e1a",
    "\u7b54\u6848", "\u7b54\u3048", "\u56de\u7b54", "\u89e3\u7b54", "\u7b54", "\ub2f5", "\uc815\ub2f5", "\ub2f5\ubcc0",
)  # fmt: skip
"""Words that announce an answer: in English, German, Dutch, Scandinavian, Romance, Slavic and other languages."""
_RESULTS = (
    "result",
    "ergebnis",
    "r\u00e9sultat",
    "resultado",
    "risultato",
    "\u0440\u0435\u0437\u0443\u043b\u044c\u0442\u0430\u0442",
)
"""Words that announce one only at the start of a line and before a colon."""
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]")

_DECORATION = r"(?:[*_`\"')}\]\u201d]{0,4}(?:</(?:b|strong|i|em|u)>)?)"
_GAP, _SPACE = r"[ \t]{0,20}", r"[ \t]{1,20}"
_COLON = rf"{_DECORATION}{_GAP}(?:\([^()\n]{{0,60}}\){_GAP})?[:=\uff1a]{_DECORATION}"
_IS = (
    r"(?:is|are|was|were|(?:would|should|must|will|can(?:\s+only)?)\s+be|ist|lautet|betr\u00e4gt|sind|w\u00e4re|es|son|est|"
    r"sont|serait|\u00e8|sono|\u00e9|s\u00e3o|seria|\u0435\u0441\u0442\u044c|\u044d\u0442\u043e|\u0431\u0443\u0434\u0435\u0442|"
    r"\u00e4r|er|brzmi|je|adalah|l\u00e0)\b"
)
_IS_UNSPACED = "(?:\u662f|\u4e3a|\u70ba|\u5e94\u4e3a|\u306f|\u4fc2|\uc740|\ub294)"
_SEPARATOR = re.compile(
    rf"(?:{_COLON}"
    rf"|{_DECORATION}(?:{_SPACE}(?:to|for|of)\b[^\n.:=?!]{{0,80}}?)?(?:,[^,\n.:]{{1,20}},)?{_SPACE}{_IS}(?:{_GAP}{_COLON})?"
    rf"|{_DECORATION}{_SPACE}[-\u2013\u2014]{{1,2}}{_SPACE}"
    rf"|{_DECORATION}{_GAP}{_IS_UNSPACED}(?:{_GAP}{_COLON})?"
    rf"|{_SPACE}(?:to|for)\b[^\n:=]{{0,80}}:(?=[ \t])"
    rf"){_GAP}",
    re.IGNORECASE,
)
_RESULT = re.compile(rf"{_COLON}{_GAP}")
_HEADING = re.compile(
    r"[\s#*_>\d.\[\](){}:\uff1a`$-]*(?:(?:the|my|your|our|die|der|la|le|el|final|correct|finale|endg\u00fcltige)\s+){0,3}",
    re.I,
)
_NOT = re.compile(r"[*_]{0,2}(?:not|never|isn't|wrong|incorrect|unclear|nicht|pas|no\s+es)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;!?,](?=\s+\S)|\bbut\b")
_NOTHING = re.compile(r"[\s#*_`~$\\\[\]{}()|:=>.-]*")
_HASHES = re.compile(r"^[ \t]*#{4}(?!#)[ \t]*(?=\S)", re.MULTILINE)
_TAGS = ("answer", "final_answer", "finalanswer", "ans", "final-answer")
_POINT = re.compile(r"[ \t]*[-*\u2022][ \t]+")
_FOLLOWING = 40
"""Lines without content that may stand between a mark and its answer."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Where and what a reply answers.

    Attributes:
        text: the answer, with what explains it on the same line, as it was written.
        marked: whether a mark says that this is the answer.
        start: where it begins in the reply; with its mark, in `line`.
        line: the whole line it stands in.
        ended: whether the mark says where the answer ends.
    """

    text: str
    marked: bool
    start: int = 0
    line: str = ""
    ended: bool = False


def stated_answer(reply: str) -> Statement:
    """The answer a reply states; its text is empty only where the reply holds nothing."""
    reply = without_end_tokens(reply)
    ended = _ended(reply)
    if ended is not None:
        start, end = ended
        inner = _phrase(reply, start, end)
        return _statement(reply, *inner) if inner is not None else _statement(reply, start, end, ended=True)
    found = _phrase(reply, 0, len(reply))
    if found is not None:
        value = _of_json(reply, found[0])
        return (
            Statement(value, True, found[0], _line(reply, found[0])) if value is not None else _statement(reply, *found)
        )
    start, end = _last_line(reply)
    return Statement(reply[start:end].strip(), False, start, reply[start:end].strip())


def _statement(reply: str, start: int, end: int, *, ended: bool = False) -> Statement:
    return Statement(reply[start:end].strip(), True, start, _line(reply, start), ended)


def _line(reply: str, position: int) -> str:
    end = reply.find("\n", position)
    return reply[reply.rfind("\n", 0, position) + 1 : len(reply) if end < 0 else end].strip()


def _lowered(text: str) -> str:
    """Lower case of the same length, so that places in both agree."""
    return text.replace("\u0130", "i").lower()


def _ended(reply: str) -> tuple[int, int] | None:
    """The span of the last answer whose mark has an end."""
    spans: list[tuple[int, int, int]] = []
    for command in ("\\boxed", "\\fbox"):
        mark = reply.rfind(command)
        if mark >= 0 and (span := _braced(reply, mark + len(command))) is not None:
            spans.append((mark, *span))
    lowered = _lowered(reply)
    for tag in _TAGS:
        mark = lowered.rfind(f"<{tag}>")
        if mark >= 0:
            start = mark + len(tag) + 2
            end = lowered.find(f"</{tag}>", start)
            spans.append((mark, start, len(reply) if end < 0 else end))
    mark = lowered.rfind("finish[")
    if mark >= 0 and not lowered[mark - 1 : mark].isalnum():
        end = balanced(reply, mark + 6, "[", "]")
        if end is not None:
            spans.append((mark, mark + 7, end))
    if not spans:
        return None
    _, start, end = max(spans)
    return start, end


def _braced(reply: str, position: int) -> tuple[int, int] | None:
    """The span of a command's argument; of one that was cut off, the rest of its line."""
    while reply[position : position + 1] == " ":
        position += 1
    if reply[position : position + 1] != "{":
        end = re.compile(r"[^\s$.,;]{1,80}").match(reply, position)
        return (position, end.end()) if end is not None and end[0][0].isalnum() else None
    end = balanced(reply, position)
    if end is None:
        end = reply.find("\n", position)
        end = len(reply) if end < 0 else end
    return position + 1, end


def _phrase(reply: str, start: int, end: int) -> tuple[int, int] | None:
    """The span of what stands behind the last mark that has no end of its own."""
    lowered = _lowered(reply)
    best: tuple[int, int] | None = None
    last = start - 1
    left = _MOST_MARKS
    for words, weak in ((_WORDS, False), (_RESULTS, True)):
        for word in words:
            position = end
            for _ in range(min(left, _MOST_OF_ONE)):
                position = lowered.rfind(word, max(start, last + 1), position)
                if position < 0:
                    break
                left -= 1
                span = _behind(reply, lowered, position, position + len(word), end, weak=weak)
                if span is not None:
                    best, last = span, position
                    break
    for match in _HASHES.finditer(reply, start, end):
        if match.start() > last:
            following = _of_line(reply, match.end(), end)
            inner = _phrase_in_line(best, following)
            best, last = (best if inner else following), match.start()
    return best


_MOST_OF_ONE, _MOST_MARKS = 500, 3_000
"""Places of one word, and of all, that are looked at, from the end."""
_BEFORE, _SENTENCE = 80, 300
"""Characters before a mark that may lead to it, and behind it in which a sentence that says no may end."""


def _phrase_in_line(best: tuple[int, int] | None, line: tuple[int, int]) -> bool:
    return best is not None and line[0] <= best[0] < line[1]


def _behind(reply: str, lowered: str, position: int, behind: int, end: int, *, weak: bool) -> tuple[int, int] | None:
    """The span of the answer a word announces; None where it does not announce any."""
    if not _is_word(reply, lowered, position, behind, end):
        return None
    first = max(0, position - _BEFORE)
    first = max(first, reply.rfind("\n", first, position) + 1)
    separator = (_RESULT if weak else _SEPARATOR).match(reply, behind, end)
    if weak or separator is None:
        if _HEADING.fullmatch(reply, first, position) is None:
            return None
        span = _of_line(reply, behind if separator is None else separator.end(), end)
        empty = _NOTHING.fullmatch(reply, *span) is not None
        if weak:
            return span if separator is not None and not empty else None
        return _next_line(reply, span[1], end) if empty else None
    span = _of_line(reply, separator.end(), end)
    if _denies(reply, separator, span, end):
        return None
    open_ended = reply[span[0] : span[1]].rstrip(" *_").endswith((":", "\uff1a"))
    below = _next_line(reply, span[1], end) if open_ended or _NOTHING.fullmatch(reply, *span) is not None else None
    return below or span


def _denies(reply: str, separator: re.Match[str], span: tuple[int, int], end: int) -> bool:
    """Whether a sentence says what the answer is not, and more follows: `The answer is not Rome.`"""
    if _NOT.match(reply, span[0], end) is None or separator[0].rstrip().endswith((":", "=", "\uff1a")):
        return False
    sentence = span[0], min(span[1], span[0] + _SENTENCE)
    return _SENTENCE_END.search(reply, *sentence) is not None or _NOTHING.fullmatch(reply, span[1], end) is None


def _is_word(reply: str, lowered: str, position: int, behind: int, end: int) -> bool:
    """Whether a place is a word of its own; scripts without spaces have no such bounds."""
    if _UNSPACED.match(reply, position) is not None:
        return True
    before, after = lowered[position - 1 : position] if position else "", lowered[behind : min(end, behind + 1)]
    return not (before.isalnum() or before in ("_", "-") or after.isalnum())


def _of_line(reply: str, start: int, end: int) -> tuple[int, int]:
    stop = reply.find("\n", start, end)
    return start, end if stop < 0 else stop


def _next_line(reply: str, position: int, end: int) -> tuple[int, int] | None:
    """The span of the next line that holds more than signs of layout."""
    for _ in range(_FOLLOWING):
        if position >= end:
            return None
        start, stop = _of_line(reply, position + 1, end)
        if _NOTHING.fullmatch(reply, start, stop) is None:
            point = _POINT.match(reply, start, stop)
            return (point.end() if point is not None else start), stop
        position = stop
    return None


def _of_json(reply: str, position: int) -> str | None:
    """The answer of a JSON object such as `{"answer": "Paris", …}`, from where its value stands."""
    before = reply[max(0, position - 8) : position]
    if re.search(r"\"\s*:\s*\"?\Z", before) is None:
        return None
    start = position - 1 if before.endswith('"') else position
    if reply[start : start + 1] not in tuple('"-0123456789tfn'):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(reply[start : start + 5_000])
    except ValueError:
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _last_line(reply: str) -> tuple[int, int]:
    """The span of the last line that holds more than signs of layout."""
    end = len(reply.rstrip())
    last = reply.rfind("\n", 0, end) + 1, end
    start, stop = last
    for _ in range(_FOLLOWING):
        if re.fullmatch(r"[\s`~*_$\\\[\]{}-]*", reply[start:stop]) is None:
            return start, stop
        if start == 0:
            break
        stop = start - 1
        start = reply.rfind("\n", 0, stop) + 1
    return last
