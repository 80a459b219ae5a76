"""Compares what a reply states with a reference by what that is: a number, yes or no, a formula, JSON, a text."""

from __future__ import annotations

import re
from functools import lru_cache

from pydantic import JsonValue

from reflexion.evaluators.reading.answers import Statement, stated_answer
from reflexion.evaluators.reading.expressions import constant, same_formula
from reflexion.evaluators.reading.json_values import extract_json, same_json
from reflexion.evaluators.reading.latex import plain
from reflexion.evaluators.reading.normalisation import clean, folded
from reflexion.evaluators.reading.quantities import (
    Quantity,
    equal,
    first_number,
    last_number,
    number_in_words,
    whole_number,
)

__all__ = ["answers_to", "first_sentence", "number_meant", "number_stated", "same_answer"]

_LONGEST = 20_000
"""Characters of a reply that may be the answer as a whole."""
_YES_NO = {"yes": ("yes", "true"), "true": ("yes", "true"), "no": ("no", "false"), "false": ("no", "false")}
_ARTICLE = re.compile(r"(?:the|an?)\s+(?=\S)")
_EMPHASIS = re.compile(r"\*\*|__|`")
_CODE = re.compile(r"[-+]?0\d+\Z")
_ENDS = re.compile(
    r"[\"')\]]{0,3}(?:\Z|\s*[.!?;](?:[\"')]|\s|\Z)|\s*\(|\s+-+\s"
    r"|\s*,?\s+(?:because|since|as (?:it|he|she|they|we|the|this|that|can|shown)|for the reason|due to|given|based on"
    r"|which|who|where|rather than|and not|not|weil|denn|da|parce que|car|porque|ya que|perch[e\u00e9]"
    r"|\u043f\u043e\u0442\u043e\u043c\u0443)\b"
    r"|\s*[\u3002\u3001\uff0c]|\u3067\u3059|\u3067\u3042\u308b|\u3060(?:\Z|\u3002)|\s*\uc785\ub2c8\ub2e4|\uc774\ub2e4)"
)
"""What may follow an answer in the sentence that states it: its end, or the reason for it."""
_SENTENCE = re.compile(r"(?<=[\w)\]\"'*])(?:[.!?;](?=\s)|,?\s+(?=(?:because|since)\b)|\s+(?=\())")
_FORMULA = re.compile(
    r"\\[a-zA-Z{]|_\{?\d|[\^\u221a\u03c0\u221e]|\d\s*[a-z(]|[a-zA-Z]\s*[-+*/=]\s*[\d(a-zA-Z]\b|\A\s*[\[({].*\d.*[\])}]\s*\Z"
)
_OPERATION = re.compile(
    r"\\(?:log|ln|lg|exp|sin|cos|tan|cot|sec|csc|arc[a-z]{3}|[dt]?binom|lfloor|lceil|max|min|gcd|lcm|sum|prod|int|lim)"
    r"(?![a-zA-Z])"
    r"|\\begin\b|\||\d!\s*\Z"
)
"""What makes another number of the ones in it."""
_SUM = re.compile(r"[$\s(]*\d[\d.,]*(?:\s*[-+*/\u00d7\u00f7]\s*[$(]*\d[\d.,]*[)\s$]*){1,50}")
"""A calculation that tells no result."""
_LIST = re.compile(r"[-+]?[\d./]+(?:\s*[,;]\s*[-+]?[\d./]+){1,200}")
_MONEY: dict[str, re.Pattern[str]] = {
    "dollar": re.compile(r"\$|\b(?:dollars?|usd)\b", re.IGNORECASE),
    "euro": re.compile(r"\u20ac|\b(?:euros?|eur)\b", re.IGNORECASE),
    "pound": re.compile("\u00a3|\\bgbp\\b", re.IGNORECASE),
    "yen": re.compile("\u00a5|\\b(?:yen|jpy|yuan|cny|rmb)\\b", re.IGNORECASE),
    "rupee": re.compile("\u20b9|\\b(?:rupees?|inr)\\b", re.IGNORECASE),
}
_MONEY_BEHIND = re.compile(
    r"(?<=\d)\s*(?:[\u20ac\u00a3\u00a5\u20b9]|(?:dollars?|usd|euros?|eur|gbp|yen|jpy|rupees?|inr)\b)\s*\Z",
    re.IGNORECASE,
)
_LATEX_DOLLARS = re.compile(r"(?<!\\)\$([^$\n]{1,300})(?<!\\)\$")
_TAKEN_BACK = re.compile(
    r"\W*(?:or|oder|ou|wait|no wait|actually|sorry|wrong|incorrect|hmm+|scratch|correction|rather|maybe|perhaps)\b"
)
_YES_OR_NO = re.compile(r"\W*(?:yes|no|true|false)\b")
_COMMENTS = frozenset((
    "it", "is", "it's", "isn't", "that", "that's", "he", "she", "they", "this", "correct", "right", "indeed", "course",
    "exactly", "final", "done",
))  # fmt: skip
"""Words of a comment on an answer, however short."""
_DOUBT = re.compile(r"\b(?:however|wrong|incorrect|actually|wait|mistake|mistaken|instead)\b", re.IGNORECASE)
_ROOT_OR_PI = re.compile(r"\\(?:sqrt|pi|frac)|[\u221a\u03c0^]|sqrt|\bpi\b")
_UNIT = re.compile(
    r"(?<=\d)\s*\\(?:text|mbox|mathrm)\s*\{(?!\s*[ap]\.?\s?m\.?\s*\})[^{}\d]{0,40}\}(?:\^\{?\d\}?)?\s*\Z", re.IGNORECASE
)
"""A unit as LaTeX has it: data sets of mathematics leave it out of the comparison."""
_INLINE = re.compile(r"\$([^$\n]{1,300})\$|\\\(([^\n]{1,300}?)\\\)")
_NOT = re.compile(r"\W{0,3}(?:not|never)\b", re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")
_FEW_WORDS, _SENTENCE_WORDS = 5, 8
_ANOTHER_ANSWER = 2
"""Words that stand behind an answer as another one, too few for a reason."""
_MARKS = ("\\boxed", "####", "<answer>")


def answers_to(reply: str, reference: JsonValue) -> bool:
    """Whether a reply gives the answer that a reference asks for."""
    return same_answer(stated_answer(reply), reply, reference)


def same_answer(statement: Statement, reply: str, reference: JsonValue, tolerance: float | None = None) -> bool:
    """Whether what a reply states is the reference, which decides how both are compared."""
    if isinstance(reference, bool):
        return _same_text(statement, reply, "yes" if reference else "no")
    if isinstance(reference, dict | list):
        return _same_json(reply, reference)
    text = _given(str(reference))
    if _same_list(statement, text):
        return True
    wanted = number_meant(reference)
    if wanted is not None:
        given = number_stated(statement, reply)
        if given is None or _other_money(statement.text, text, percent=wanted.percent and not given.percent):
            return False
        return equal(given, wanted, tolerance)
    return _same_text(statement, reply, text) or _same_formula(statement, text)


@lru_cache(maxsize=1024)
def _number_in(text: str) -> Quantity | None:
    if _CODE.match(text.strip()):
        return None  # 007 and 02139 are names
    found = whole_number(_MONEY_BEHIND.sub("", _UNIT.sub("", text)))
    if found is None and _ROOT_OR_PI.search(text) and (value := constant(text)) is not None:
        return Quantity(value, text=text)
    return found


def number_meant(reference: JsonValue) -> Quantity | None:
    """The number that a reference is, or None: it is something else."""
    if reference is None or isinstance(reference, bool | dict | list):
        return None
    return _number_in(_given(str(reference)))


def _given(reference: str) -> str:
    """A reference, or of one that is a whole solution the answer it states, as GSM8K and MATH have them."""
    if any(mark in reference for mark in _MARKS) and (stated := stated_answer(reference)).marked and stated.text:
        return stated.text
    return reference


def number_stated(statement: Statement, reply: str) -> Quantity | None:
    """The one number a reply states: the first of what is marked, else the last."""
    text = statement.text
    if text == statement.line:
        text = text.removeprefix("> ")  # a line of its own that is a quote
    if statement.ended and _OPERATION.search(text):
        return None if text.endswith("!") else _worked_out(text)
    whole = whole_number(text, units=True) or number_in_words(text)
    whole = whole or (_worked_out(text) if _ROOT_OR_PI.search(text) else None)
    if whole is not None:
        return whole
    if not statement.marked:
        emphasised = _BOLD.findall(text)
        alone = whole_number(emphasised[0], units=True) if len(emphasised) == 1 else None
        return alone or (_worked_out(text) if _SUM.fullmatch(text) else None) or last_number(reply)
    found = first_number(text) if _NOT.match(text) is None else None
    if found is None and not statement.ended and not any(c.isdigit() for c in text):
        # "The answer is found by adding:", and then the sum.
        return last_number(reply[statement.start :])
    sentence = first_sentence(text)
    # 3 + 5, with no result told; a number by itself was refused before.
    return found or (_worked_out(sentence) if whole_number(sentence) is None else None)


def _worked_out(text: str) -> Quantity | None:
    value = constant(text)
    return None if value is None else Quantity(value, text=text)


def _same_list(statement: Statement, reference: str) -> bool:
    """Whether both are the same numbers in the same order, however their commas are spaced."""
    if "," not in reference and ";" not in reference:
        return False
    left, right = (_LIST.fullmatch(clean(plain(t)).strip(" $.")) for t in (statement.text[:_LONGEST], reference))
    if left is None or right is None:
        return False
    given, wanted = (re.split(r"\s*[,;]\s*", m[0]) for m in (left, right))
    return given == wanted


def _other_money(stated: str, reference: str, *, percent: bool) -> bool:
    """Whether a sum of money is one of another currency, or no share of a hundred where one is wanted."""
    given, wanted = _money(stated[:80]), _money(reference[:80])
    return bool(given) and (percent or (bool(wanted) and given.isdisjoint(wanted)))


def _money(text: str) -> set[str]:
    text = _LATEX_DOLLARS.sub(r"\1", text)
    return {name for name, sign in _MONEY.items() if sign.search(text)}


def _same_json(reply: str, reference: JsonValue) -> bool:
    try:
        return same_json(extract_json(reply), reference)
    except ValueError:
        return False


def _same_text(statement: Statement, reply: str, reference: str) -> bool:
    whole = folded(reply) if len(reply) <= _LONGEST else None
    stated = statement.text if statement.marked else _paragraph(reply) or statement.text
    told = plain(stated[:_LONGEST])
    value = folded(told)
    unbracketed = folded(_unbracketed(told))
    inner = _EMPHASIS.sub("", value).lstrip("\"'")
    for spelling in _YES_NO.get(folded(reference), (reference,)):
        wanted = folded(plain(spelling)) or spelling.strip()
        if wanted in (whole, unbracketed) or _alike(value, wanted) or value == _EMPHASIS.sub("", wanted):
            return True
        if statement.marked and any(
            _begins(text, w) for text in (inner, *_unled(inner)) for w in (wanted, *_unled(wanted))
        ):
            return True
    return False


def _paragraph(reply: str) -> str | None:
    """An answer that stands first, in a short paragraph of its own, where the last one is a sentence about it."""
    first, _, rest = reply.lstrip()[:_LONGEST].partition("\n\n")
    last = rest.rstrip().rpartition("\n")[2]
    if "\n" in first or len(first.split()) > _FEW_WORDS or len(last.split()) <= _SENTENCE_WORDS:
        return None
    if _DOUBT.search(rest):
        return None
    return None if first.rstrip("* ").endswith(":") else first


def _unbracketed(text: str) -> str:
    """An answer without brackets around it, or half a pair whose other half stands before the mark."""
    text = text.strip()
    for opening, closing in ("[]", "()", "{}"):
        inner = text[1:-1]
        if text.startswith(opening) and text.rstrip(".").endswith(closing) and closing not in inner[:-1]:
            return text.rstrip(".")[1:-1]
        if text.endswith(closing) and opening not in text:
            return text[:-1]
    return text


def _unled(text: str) -> tuple[str, ...]:
    """A text without its leading article, if it has one."""
    match = _ARTICLE.match(text)
    return (text[match.end() :],) if match is not None else ()


def _alike(a: str, b: str) -> bool:
    return a == b or bool({a, *_unled(a)} & {b, *_unled(b)})


def _begins(text: str, wanted: str) -> bool:
    if not wanted or not text.startswith(wanted) or (end := _ENDS.match(text, len(wanted))) is None:
        return False
    return any(c.isalpha() for c in end[0]) or not _goes_on(text[end.end() :], wanted, bracketed=end[0].endswith("("))


def _goes_on(rest: str, wanted: str, *, bracketed: bool) -> bool:
    """Whether what follows an answer takes it back, or gives another one: `Paris. No, London.`, `Paris (or London)`."""
    if _TAKEN_BACK.match(rest):
        return True
    first = _YES_OR_NO.match(rest)
    if first is not None and first[0].strip(" \t.,;:!?-()") != wanted:
        return True
    if wanted not in _YES_NO and re.match(r"\W*no\b\W", rest):
        return True
    words = re.findall(r"[\w'-]+", rest)
    return not bracketed and 0 < len(words) <= _ANOTHER_ANSWER and _COMMENTS.isdisjoint(words)


def _same_formula(statement: Statement, reference: str) -> bool:
    if _FORMULA.search(reference) is None or len(reference) > _LONGEST:
        return False
    text = statement.text
    if same_formula(text, reference):
        return True
    if statement.marked:
        return same_formula(first_sentence(text), reference)
    inline = [m[1] or m[2] for m in _INLINE.finditer(text[-_LONGEST:])]
    return bool(inline) and same_formula(inline[-1], reference)


def first_sentence(text: str) -> str:
    """What an answer's line states before it explains: up to the end of its sentence, `because` or a bracket."""
    text = clean(text)
    match = _SENTENCE.search(text)
    return text[: match.start()] if match is not None else text
