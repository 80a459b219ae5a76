"""Texts made comparable: one spelling for characters that look alike, and what surrounds an answer taken off."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["bare", "clean", "folded", "is_unspaced", "normalize_answer", "tokens"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~\u2018\u2019\u201c\u201d\u00b4]")

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

_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_FRACTIONS = {c: f" {unicodedata.normalize('NFKC', chr(c))}" for c in (*range(0xBC, 0xBF), *range(0x2150, 0x215F))}
_DIGITS = re.compile(r"(?:(?![0-9])\d){1,1000}")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_OUTSIDE_ASCII = re.compile(r"[^\x00-\x7f]")

_TAG = re.compile(r"</?(?:b|strong|i|em|u|p|span|code|sub|sup|br)\s?/?>", re.IGNORECASE)
_AROUND = ("**", "__", "*", "_", "`", '"', "'", "$$", "$")
_END_TOKEN = re.compile(r"(?:\s*(?:<\|[\w ]{1,40}\|>|</s>|<eos>|<end_of_turn>))+\s*\Z")
_TAIL = " \t\n\r.,;:!?\u3002\uff0e\u3001\uff01\uff1f\uff1b"
_HEAD = " \t\n\r\u00bf\u00a1:;,\uff1a"


def clean(text: str) -> str:
    """A text with one spelling each for spaces, dashes, quotation marks, digits, fractions and raised figures."""
    if _OUTSIDE_ASCII.search(text) is None:
        return text
    text = _RAISED.sub(lambda m: f"^({unicodedata.normalize('NFKC', m[0])})", text)
    if _VULGAR.search(text) is not None:
        text = text.translate(_FRACTIONS)
    text = unicodedata.normalize("NFKC", text).translate(_ALIKE)
    return _DIGITS.sub(lambda m: str(int(f"1{m[0]}"))[1:], text)


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
    return unicodedata.normalize("NFC", " ".join(bare(clean(text)).casefold().split()))


def is_unspaced(character: str) -> bool:
    """Whether a sign belongs to a script that puts no spaces between words."""
    return _UNSPACED.match(character) is not None


def normalize_answer(text: str) -> str:
    """Lower case without punctuation, articles and surplus white space, as HotpotQA's and SQuAD's scorers have it."""
    return " ".join(_ARTICLES.sub(" ", _PUNCTUATION.sub("", text.lower())).split())


def tokens(text: str) -> list[str]:
    """The words that token F1 counts."""
    return normalize_answer(text).split()
