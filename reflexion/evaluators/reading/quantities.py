"""Reads numbers as people and models write them, exactly: whole numbers of any size, fractions, percent, times, dates.

`1,234.50`, `12 000`, `12'000`, `12,34,567`, `1.234,56`, `2 1/2`, `25%`, `1.5e6`, `3 * 10^5`, `1 million`, `$5k`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

from reflexion.evaluators.reading.latex import plain
from reflexion.evaluators.reading.normalisation import bare, clean

__all__ = ["Quantity", "all_numbers", "equal", "first_number", "last_number", "number_in_words", "whole_number"]

_MULTIPLIERS = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "mille": 10**3,
    "tausend": 10**3, "millionen": 10**6, "milliarde": 10**9, "milliarden": 10**9, "mio": 10**6, "mrd": 10**9,
    "milliard": 10**9, "mil": 10**3, "millones": 10**6, "mill\u00f3n": 10**6, "milh\u00f5es": 10**6,
    "\u0442\u044b\u0441\u044f\u0447": 10**3, "\u043c\u0438\u043b\u043b\u0438\u043e\u043d": 10**6,
    "\u043c\u0438\u043b\u043b\u0438\u043e\u043d\u043e\u0432": 10**6,
    "lakh": 10**5, "crore": 10**7, "k": 10**3, "m": 10**6, "b": 10**9, "bn": 10**9, "mn": 10**6,
    "\u4e07": 10**4, "\u842c": 10**4, "\u4ebf": 10**8, "\u5104": 10**8,
}  # fmt: skip
_CURRENCY = (
    r"(?:US\$|A\$|C\$|[$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20a6\u20ba]|(?<![A-Za-z])(?:USD|EUR|GBP|INR|CHF|Rs\.?))"
)
_WORDS = "|".join(sorted((w for w in _MULTIPLIERS if len(w) > 2), key=len, reverse=True))
_DIGITS = (
    r"(?:[1-9]\d{0,2}(?:,\d{3}){1,12}(?!\d)"  # 1,234,567
    r"|[1-9]\d?(?:,\d{2}){1,12},\d{3}(?!\d)"  # 12,34,567
    r"|[1-9]\d{0,2}(?:[ ]\d{3}){1,12}(?!\d)"  # 12 000
    r"|\d{1,3}(?:'\d{3}){1,12}(?!\d)"  # 12'000
    r"|\d{1,3}(?:_\d{3}){1,12}(?!\d)"
    r"|(?P<dotted>\d{1,3}(?:(?:\.\d{3}){2,12}(?![\d])|(?:\.\d{3}){1,12}(?=,\d{1,2}(?!\d))))"  # 1.234.567 and 1.234,50
    r"|\d+)"
)
_NUMBER = re.compile(
    rf"""
    (?P<date>(?<!\d)\d{{4}}-\d{{1,2}}-\d{{1,2}}(?!\d)|(?<![\d/.])\d{{1,2}}(?P<slash>[/.])\d{{1,2}}(?P=slash)\d{{4}}(?!\d))
    |(?P<time>(?<![\d:.])\d{{1,9}}(?::\d{{1,9}}){{1,3}}(?![\d:]))
    |(?P<sign>(?<![\w)%\]}}])[-+](?:[ ](?=\d))?|(?<!\w)(?:minus|negative|moins|menos)[ ](?=[\d$]))?
     (?:{_CURRENCY}[ ]?(?P<inner>-(?=\d))?)?
     (?:(?P<mixed>(?<![\d.,])\d{{1,9}})(?:[ ]{{1,9}}(?:and[ ]{{1,9}})?|-(?=\d{{1,6}}/\d))
        (?P<part>\d{{1,6}}[ ]?/[ ]?\d{{1,6}})(?![\d/])
     |(?P<whole>(?<![\d]){_DIGITS})
      (?P<decimals>\.\d+|(?<=\d),(?:\d{{1,2}}|\d{{4,20}})(?![\d,])|(?<=(?<!\d)0),\d{{3}}(?![\d,]))?
     |(?P<point>(?<![\w.])\.\d+)
     )
     (?P<exponent>[eE][-+]?\d{{1,4}}(?![\w])
      |[ ]?(?:x|X|\*|\u00d7|\u00b7)[ ]?10[ ]?(?:\^|\*\*)[ ]?[({{]?[-+]?\d{{1,4}}[)}}]?)?
     (?:[ ]?(?:\^|\*\*)[ ]?[({{]?(?P<power>[-+]?\d{{1,4}})[)}}]?)?
     (?:[ ]?/[ ]?[({{]?(?P<under>\d{{1,20}}(?:\.\d{{1,20}})?)[)}}]?(?![\d/]))?
     (?P<percent>[ ]?%|[ ](?:percent|per[ ]cent|pct|Prozent|pour[ ]cent|por[ ]ciento)\b)?
     (?:[ ]?(?P<times>(?:{_WORDS})s?)\b|(?P<kilo>[kK])\b|(?P<great>M|B|bn|mn)\b
      |[ ]?(?P<wan>[\u4e07\u842c\u4ebf\u5104]))?
    """,
    re.VERBOSE,
)
_ROUND = re.compile(r"[({]\s*([-+]?[\d.,]+)\s*[)}]\s*/\s*[({]\s*([-+]?[\d.,]+)\s*[)}]")
_OPERATOR = re.compile(r"\s*(?:[A-Za-z\u00b0%]{0,15}\s*)?[-+*/\u00d7\u00f7=\u2248]{1,2}\s*[($]?\s*")
_AND = re.compile(r"\s*(?:,|;|\||&|and|und|et|y)\s*(?:[A-Za-z]\s?=\s?)?", re.IGNORECASE)
_CLOSE = re.compile(r"(?:[\s\d.,;&+$)\]}*-]|and|or|und|et|y)*")
"""Nothing but more numbers and the end."""
_LONGEST_GAP = 40
_OR = re.compile(
    r"\s*[,(]?\s*(?:or|oder|ou|o|\u0438\u043b\u0438)\s*(?:[A-Za-z]\s?=\s?)?[$\u20ac\u00a3]?\s*", re.IGNORECASE
)
_UNIT = re.compile(
    r"\s*(?:\$|\u20ac|\u00a3|\u00a5|[A-Za-z\u00b0\u00b5\u03a9][\w\u00b0/^*.()-]{0,24}(?:\s+[A-Za-z][\w/^-]{0,24}){0,3})?\s*"
)
_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL: dict[str, int] = {
    **{word: number for number, word in enumerate(f"{_ONES} seventeen eighteen nineteen".split())},
    **{word: 10 * number for number, word in enumerate(_TENS.split(), 2)},
}
_GREAT = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_MOST_UNIT_WORDS = 3
_LONGEST_NUMBER = 1_000
"""Digits of the longest number that is read."""
_LAST = 20_000
"""Characters from the end within which numbers are looked for."""
_WINDOW = 1_500
_GAP = re.compile(r"\s(?!\d)|\n")
_ANY_DIGIT = re.compile(r"[0-9]")
_FACTOR = re.compile(
    r"\s?\*?\s?(?:pi\b|\u03c0|sqrt|root\(|\u221a)|[xyzien](?![A-Za-z])|\s?\*\s?[A-Za-z(]|\([a-z](?:\s?[-+*/^]|\))|\u2030"
)
_ARGUMENT = re.compile(r"(?:(?<![A-Za-z])[A-Za-z]\(|\b(?:log|ln|exp|sin|cos|tan|sqrt)\s?\(?|[\u221a-\u221c]\(?)\s?\Z")
"""What takes a number as its argument."""
_NAMED = re.compile(r"[A-Za-z]\s?=\s?(?=\S)")
_BOUND = re.compile(r"(?:(?<![-=<>\n])>=?|<=?|!=|[\u2264\u2265\u2260])\s*\$?\s*\Z")
_OTHER_BEFORE = re.compile(
    r"(?:\b(?:(?:more|less|fewer|greater|higher|lower|smaller|larger|other|rather) than|over|under|above|below|twice"
    r"|double|triple|half(?: of)?|(?:anything|all) but|not|never|cannot(?: be)?)|n't(?: be)?)\s*\$?\Z",
    re.IGNORECASE,
)
_OTHER_BEHIND = re.compile(
    r"[ ](?:and[ ]a[ ](?:half|quarter|third)|hal(?:f|ves)|thirds|quarters|fourths|fifths|sixths|eighths|tenths"
    r"|hundredths|thousandths|squared|cubed|to[ ]the[ ]power|factorial|or[ ](?:more|fewer|less)"
    r"|(?:is|was)[ ](?:wrong|incorrect|not))\b",
    re.IGNORECASE,
)
"""Words that make another number of the one beside them, or say that it is none."""
_TO = re.compile(r"\s*(?:to|through|till|until|bis)\s*|\s+", re.IGNORECASE)
_RETRACTED = re.compile(r"[\s.?!,;]*(?:no|wait|actually|sorry|or rather)\b[^\d]*", re.IGNORECASE)
_SPOKEN = re.compile(r"\s*(?:plus|minus|times|over|divided by|multiplied by)\s*", re.IGNORECASE)
_EQUALS = re.compile(r"\s*(?:,?\s*which)?\s*(?:is|equals|makes|gives)\s*\$?", re.IGNORECASE)
_MINUS_BRACKET = re.compile(r"(?:\A|[\s=:$(])-\s?\(\Z")
_TAG_BEFORE = re.compile(r"</?[A-Za-z]{1,10}\s?/?>\s*\Z")
"""A relation that makes the number behind it a bound: `x > 5` is not 5. Arrows, and quotes (`> 5`), are none."""
_OPEN_ENDED = re.compile(r"\+(?=\s*(?:\Z|[.,;)])|\s+[A-Za-z]{2})")
_DECADE = re.compile(r"(?:1\d|20)\d0\Z")
_NO_UNITS = frozenset((
    "half", "halves", "third", "thirds", "quarter", "quarters", "fourths", "fifths", "sixths", "eighths", "tenths",
    "hundredths", "thousandths", "dozen", "dozens", "score", "percent", "hundred", *_SMALL, *_GREAT, "or", "to", "and",
    "point", "plus", "minus", "times", "over", "by",
))  # fmt: skip
"""Words behind a number in words that make it another number."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number out of a text.

    Attributes:
        value: what it is, exactly; of a percentage the part of one (25% is 1/4), of a date its year.
        percent: whether it was written as a percentage.
        parts: of a time or a ratio `12:30` its numbers, of a date year, month and day; empty for a plain number.
        text: how it was written.
        end: where it ends in the cleaned text.
    """

    value: Fraction
    percent: bool = False
    parts: tuple[int, ...] = ()
    text: str = ""
    start: int = 0
    end: int = 0


def _cleaned(text: str) -> str:
    text = clean(plain(text))
    return _ROUND.sub(r"\1/\2", text) if ")/(" in text.replace(" ", "") else text


def _quantity(match: re.Match[str]) -> Quantity | None:
    """The number of a match; None where it is part of a word, or too long to be one."""
    text, start = match.string, match.start()
    place = {"text": match[0].strip(), "start": start, "end": match.end()}
    if match.end() - start > _LONGEST_NUMBER or _in_word(text, match):
        return None
    if match["date"]:
        parts = tuple(int(p) for p in re.split(r"[-/.]", match["date"]))
        year = parts if parts[0] > 31 else parts[::-1]
        return Quantity(Fraction(year[0]), parts=parts, text=match[0], start=start, end=match.end())
    if match["time"]:
        parts = tuple(int(p) for p in match["time"].split(":"))
        return Quantity(Fraction(parts[0]), parts=parts, text=match[0], start=start, end=match.end())
    try:
        value = _value(match)
    except (ZeroDivisionError, ValueError, OverflowError):
        return None
    negative = "-" in (match["inner"] or "") or _is_negative(text, match)
    return Quantity(-value if negative else value, bool(match["percent"]), **place)  # type: ignore[arg-type]


def _in_word(text: str, match: re.Match[str]) -> bool:
    """Whether the digits belong to a word, a unit or a formula, as in `H2O`, `x_1`, `m^2` or `2 sqrt(3)`."""
    start = match.start()
    end = match.end()
    following = text[end : end + 1]
    if _FACTOR.match(text, end) or (following == "+" and _OPEN_ENDED.match(text, end)):
        return True
    if text[max(0, start - 3) : start].rstrip()[-1:] == "\u00b1" or (following == "s" and _DECADE.match(match[0])):
        return True
    if match["sign"] or not text[start].isdigit() or start == 0:
        return False
    return _in_front(text, start)


def _in_front(text: str, start: int) -> bool:
    """Whether what stands before digits without a sign makes them part of a word or an argument."""
    before = text[start - 1]
    if (before in "(\u221a\u221b\u221c" or before.isspace()) and _ARGUMENT.search(text, max(0, start - 8), start):
        return True
    grouped = text[start - 2 : start - 1] in ("^", "_") or text[max(0, start - 5) : start - 1] == "sqrt"
    if before in "^_" or (before in "({" and grouped):
        return True
    if before == "-" and text[start - 2 : start - 1].isalpha():
        return True
    return before.isascii() and before.isalpha()


def _is_negative(text: str, match: re.Match[str]) -> bool:
    sign = match["sign"] or ""
    before = text[max(0, match.start() - 40) : match.start()].rstrip(" ")
    if not sign:
        return _MINUS_BRACKET.search(before) is not None
    if sign[:1].isalpha():
        return not before[-1:].isdigit()  # after a number it subtracts
    if sign != "- ":
        return sign == "-"
    # "- 5" is a point of a list at the start of a line, and a subtraction after a number.
    return before[-1:] in ("=", ":", "(", "[", ",", "$") if before else "\n" not in text


def _value(match: re.Match[str]) -> Fraction:
    if match["mixed"]:
        top, _, bottom = match["part"].partition("/")
        value = Fraction(int(match["mixed"])) + Fraction(int(top), int(bottom))
    else:
        digits = _digits(match)
        value = Fraction(int(digits) if digits.isdecimal() else digits)
    if match["exponent"]:
        digits = re.search(r"[-+]?\d+\D?\Z", match["exponent"])
        value *= _power(Fraction(10), int((digits[0] if digits else "0").rstrip(")}")))
    if match["power"]:
        value = _power(value, int(match["power"]))
    if match["under"]:
        under = match["under"]
        value /= Fraction(int(under) if under.isdecimal() else under)
    if match["percent"]:
        value /= 100
    if match["times"]:
        word = match["times"].lower()
        value *= _MULTIPLIERS.get(word) or _MULTIPLIERS[word.removesuffix("s")]
    if match["kilo"]:
        value *= 1000
    if match["great"]:
        value *= _MULTIPLIERS[match["great"].lower()]
    if match["wan"]:
        value *= _MULTIPLIERS[match["wan"]]
    return value


def _digits(match: re.Match[str]) -> str:
    if match["point"]:
        return "0" + match["point"]
    whole = re.sub(r"[^\d]", "", match["whole"]) if not match["whole"].isdigit() else match["whole"]
    return whole + (match["decimals"] or "").replace(",", ".")


def _power(base: Fraction, exponent: int) -> Fraction:
    size = max(len(str(base.numerator)), len(str(base.denominator)))
    if size * abs(exponent) > _LONGEST_NUMBER:
        raise OverflowError("too large a number")
    return base**exponent


def first_number(text: str) -> Quantity | None:
    """The number that a stated answer begins with: of `9 * 2 = 18` its result, of `18 because 9 * 2 = 18` the 18."""
    cleaned = _cleaned(text[:4_000])
    found: Quantity | None = None
    end = 0
    resulted = True
    for match in _NUMBER.finditer(cleaned):
        number = _quantity(match)
        if number is None:
            gap = cleaned[end : match.start()] + (match["sign"] or "")
            if found is not None and "=" not in gap and _OPERATOR.fullmatch(gap) is not None:
                return None  # 2 + 3i
            continue
        if found is None:
            if _is_another(cleaned, match):
                return None
            found, end = number, match.end()
            continue
        gap = cleaned[end : match.start()]
        if len(gap) > _LONGEST_GAP:
            break
        if _two_answers(gap, cleaned, match.end()):
            return None
        gap += match["sign"] or ""
        equals = not resulted and _EQUALS.fullmatch(gap) is not None
        if not equals and _OPERATOR.fullmatch(gap) is None and _SPOKEN.fullmatch(gap) is None:
            break
        end = match.end()
        resulted = equals or "=" in gap or "\u2248" in gap
        if resulted:
            found = number
    return found if resulted else None  # of "3 - 5" neither number is the answer


def _is_another(text: str, match: re.Match[str]) -> bool:
    """Whether what stands beside a number makes it another one, or denies it: `x > 5`, `half of 5`, `5 squared`."""
    before = text[max(0, match.start() - 20) : match.start()]
    if _OTHER_BEFORE.search(before) is not None or _OTHER_BEHIND.match(text, match.end()) is not None:
        return True
    return _BOUND.search(before) is not None and _TAG_BEFORE.search(before) is None


def _two_answers(gap: str, text: str, end: int) -> bool:
    """Whether what stands between two numbers tells that both are answers, or that the first is none."""
    if _OR.fullmatch(gap) or _RETRACTED.fullmatch(gap):
        return True
    return (_AND.fullmatch(gap) or _TO.fullmatch(gap)) is not None and _CLOSE.fullmatch(text, end) is not None


def last_number(text: str) -> Quantity | None:
    """The last number of a text, looked for in its last 20,000 characters."""
    text = clean(text[-_LAST:])[-_LAST:]
    end = len(text)
    while (digit := _last_digit(text, end)) >= 0:
        start = max(0, digit - _WINDOW)
        if start and (gap := _GAP.search(text, start, digit)) is not None:
            start = gap.end()  # not in the middle of a number
        found = None
        for match in _NUMBER.finditer(_cleaned(text[start : min(end, digit + 80)])):
            found = _quantity(match) or found
        if found is not None:
            return found
        end = start
    return None


def _last_digit(text: str, end: int) -> int:
    """Where the last digit before `end` stands; -1 if there is none."""
    found = _ANY_DIGIT.search(text[:end][::-1])
    return -1 if found is None else end - found.end()


def all_numbers(text: str, most: int = 5_000) -> list[Quantity]:
    """The numbers of a text, `most` of them, and of a long one those in its last 20,000 characters."""
    found: list[Quantity] = []
    for match in islice(_NUMBER.finditer(_cleaned(text)[-_LAST:]), 2 * most):
        number = _quantity(match)
        if number is not None:
            found.append(number)
            if len(found) == most:
                break
    return found


def whole_number(text: str, *, units: bool = False) -> Quantity | None:
    """The number that a text is, and nothing else; `units` allows a unit behind it."""
    if len(text) > _LONGEST_NUMBER:
        return None
    cleaned = bare(_cleaned(text)).strip("$ ")
    if (named := _NAMED.match(cleaned)) is not None:
        cleaned = cleaned[named.end() :]
    match = _NUMBER.match(cleaned)
    if match is None and (match := _NUMBER.match(bare(cleaned))) is None:
        return None
    rest = cleaned[match.end() :]
    if rest.strip() and not (units and _UNIT.fullmatch(rest) and _OTHER_BEHIND.match(rest) is None):
        return None
    return _quantity(match)


def number_in_words(text: str) -> Quantity | None:
    """The number that a text is in English words, alone or with its unit: `twenty-one apples`."""
    if len(text) > _LONGEST_NUMBER or _ANY_DIGIT.search(text):
        return None
    words = re.split(r"[\s-]+", re.sub(r"[*_`.!\"]", "", clean(plain(text))).strip().lower())
    total = part = read = 0
    for word in words:
        if word in _SMALL:
            part += _SMALL[word]
        elif word == "hundred" and part:
            part *= 100
        elif word in _GREAT and part:
            total, part = total + part * _GREAT[word], 0
        elif not (read and word == "and"):
            break
        read += 1
    unit = words[read:]
    if not read or len(unit) > _MOST_UNIT_WORDS or unit[:1] == ["of"] or not _NO_UNITS.isdisjoint(unit):
        return None
    return Quantity(Fraction(total + part), text=text[:60])


def equal(given: Quantity, wanted: Quantity, tolerance: float | None = None) -> bool:
    """Whether a number is the one wanted.

    Times, ratios and dates are equal part by part; a plain number that is wanted equals a date's year. Without a
    tolerance a whole number must be met within 1e-6, any other within its millionth part; with one, that part of
    the number wanted, or that much where 0 is wanted.
    """
    if wanted.parts:
        return given.parts == wanted.parts
    if given.parts and len(given.parts) != 3:
        return False
    readings = {given.value}
    if wanted.percent and not given.percent:
        readings.add(given.value / 100)
    if given.percent and not wanted.percent and abs(wanted.value) >= 1:
        readings.add(given.value * 100)
    return any(_close(value, wanted.value, tolerance) for value in readings)


_TOLERANCE = Fraction(1, 10**6)


def _close(given: Fraction, wanted: Fraction, tolerance: float | None) -> bool:
    if given == wanted:
        return True
    if tolerance is None:
        if given.denominator == 1 and wanted.denominator == 1:
            return False
        allowed = _TOLERANCE if wanted.denominator == 1 else abs(wanted) * _TOLERANCE
    else:
        allowed = Fraction(tolerance) * (abs(wanted) if wanted else 1)
    return abs(given - wanted) <= allowed
