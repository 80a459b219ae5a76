"""Texts made comparable: one spelling for characters that look alike, and what surrounds an answer taken off."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

__all__ = ["bare", "clean", "crowded", "folded", "is_unspaced", "normalize_answer"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~\u2018\u2019\u201c\u201d\u00b4]+")

_ALIKE: dict[int, str | None] = {
    **dict.fromkeys(map(ord, "\u00a0\u1680\u202f\u205f\u3000"), " "),
    **dict.fromkeys(range(0x2000, 0x200B), " "),
    **dict.fromkeys([0xAD, *range(0x200B, 0x2010), 0x2060, 0xFEFF, *range(0x202A, 0x202F)]),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"), "-"),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032\u00b4\u02bc"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"), '"'),
    **{0x2044: "/", 0x2215: "/", 0x066B: ".", 0x066C: ",", 0x2217: "*", 0x22C5: "\u00b7"},
}
"""Characters that look alike: spaces, invisible ones, dashes and minus signs, quotation marks, signs."""

_RAISED = re.compile("([\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+)")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_SPELLED = re.compile(f"[{''.join(map(chr, _ALIKE))}]|(?![0-9])\\d")
_FEW = 8
"""Kinds of signs up to which replacing one after the other is quicker than looking each character up."""
_PHRASES = re.compile("[\ufdfa\ufdfb]")
"""Blessings that stand behind a name, in one character: no part of an answer, and 18 letters when spelled out."""
_SHORT, _IDEOGRAPHS = "\uffff", 0x20000
"""The last character of 16 bits; from ideographs on there are no combining marks."""
_VOICED = (("\uff9e", "\u3099"), ("\uff9f", "\u309a"))
"""Half-width sound marks, and the combining ones that they become."""
_MOST_MARKS = 10
"""Combining marks on one letter, more than any script needs: to sort them takes quadratic time."""
_MAYBE_MARKS = re.compile(rf"[^\w\0-\x7f]{{{_MOST_MARKS + 1}}}")

_TAG = re.compile(r"</?(?:b|strong|i|em|u|p|span|code|sub|sup|br)\s?/?>", re.IGNORECASE)
_AROUND = ("**", "__", "*", "_", "`", '"', "'", "$$", "$")
_END_TOKEN = re.compile(r"(?:\s*(?:<\|[\w ]{1,40}\|>|</s>|<eos>|<end_of_turn>))+\s*\Z")
_TAIL = " \t\n\r.,;:!?\u3002\uff0e\u3001\uff01\uff1f\uff1b"
_HEAD = " \t\n\r\u00bf\u00a1:;,\uff1a"


def clean(text: str) -> str:
    """A text with one spelling each for spaces, dashes, quotation marks, digits, fractions and raised figures."""
    if text.isascii():
        return text
    if _RAISED.search(text) is not None:
        parts = _RAISED.split(text)
        parts[1::2] = [f"^({raised})" for raised in parts[1::2]]
        text = "".join(parts)
    text = _respelled(text, _VULGAR, _fraction)
    if text.isascii():
        return text
    text = _PHRASES.sub("", text)
    return _respelled(unicodedata.normalize("NFKC", _with_few_marks(text)), _SPELLED, _spelling)


def _respelled(text: str, signs: re.Pattern[str], spelling: Callable[[str], str]) -> str:
    """A text with the signs of a pattern, one character each, spelled in another way."""
    kinds: set[str] = set() if text.isascii() else set(signs.findall(text))
    if len(kinds) > _FEW:
        return text.translate({ord(sign): spelling(sign) for sign in kinds})
    for sign in kinds:
        text = text.replace(sign, spelling(sign))
    return text


def _fraction(sign: str) -> str:
    return " " + unicodedata.normalize("NFKC", sign).replace("\u2044", "/")


def _spelling(sign: str) -> str:
    spelled = _ALIKE.get(ord(sign), sign)
    return str(unicodedata.decimal(sign)) if spelled == sign else spelled or ""


def _with_few_marks(text: str) -> str:
    """A text to be normalised, without combining marks that no one writes in such number."""
    for mark, combining in _VOICED:
        text = text.replace(mark, combining)
    return text if _MAYBE_MARKS.search(text) is None else _many_marks().sub(r"\1", text)


def crowded(text: str) -> bool:
    """Whether a text holds more combining marks on one letter than anyone writes.

    Python's parser normalises names, and takes quadratic time over such a one.
    """
    return not text.isascii() and _with_few_marks(text) != text.replace(*_VOICED[0]).replace(*_VOICED[1])


@lru_cache(maxsize=1)
def _many_marks() -> re.Pattern[str]:
    """More combining marks on one letter than anyone writes: the first of them are its group."""
    marks = [c for c in map(chr, range(0x300, _IDEOGRAPHS)) if unicodedata.combining(c)]
    # `re` looks a character up in a class of 16-bit ones at once, and in any other range by range.
    short, long = (f"[{''.join(c for c in marks if (c > _SHORT) is over)}]" for over in (False, True))
    mark = f"(?:{short}|(?=[^\0-{_SHORT}]){long})"
    return re.compile(f"({mark}{{{_MOST_MARKS}}}){mark}+")


def bare(text: str) -> str:
    """A text without what decorates it: quotation marks, bold and code marks around it, punctuation at its end.

    What belongs to the word stays: the signs of `C#`, `.NET`, `A*` and `-5`.
    """
    text = ((_TAG.sub("", text).strip() if "<" in text else "") or text).strip()
    for _ in range(8):
        before = text
        text = text.lstrip(_HEAD).rstrip(_TAIL) or text
        for mark in _AROUND:
            inner = text[len(mark) : -len(mark)]
            if text.startswith(mark) and text.endswith(mark) and inner.strip() and mark not in inner:
                text = inner.strip()
        for mark in ("**", "__", "`", '"'):
            # Half a pair: the other half stood at the mark before the answer.
            if text.count(mark) == 1 and (text.startswith(mark) or text.endswith(mark)) and len(text) > len(mark):
                text = text.removeprefix(mark).removesuffix(mark).strip()
        if text == before:
            break
    return text


def without_end_tokens(text: str) -> str:
    """A reply without the end tokens that some servers leave in it."""
    if not text.rstrip().endswith(">"):
        return text
    tail = text[-400:]
    return text[: len(text) - len(tail)] + _END_TOKEN.sub("", tail)


def folded(text: str) -> str:
    """What two spellings of the same answer have in common: no case, no decoration, single spaces."""
    return unicodedata.normalize("NFC", _with_few_marks(" ".join(bare(clean(text)).casefold().split())))


def is_unspaced(character: str) -> bool:
    """Whether a sign belongs to a script that puts no spaces between words."""
    return _UNSPACED.match(character) is not None


def normalize_answer(text: str) -> str:
    """Lower case without punctuation, articles and surplus white space, as HotpotQA's and SQuAD's scorers have it."""
    return " ".join(_ARTICLES.sub(" ", _PUNCTUATION.sub("", text.lower())).split())
