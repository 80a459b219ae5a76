r"""Whether two formulas mean the same: `\frac{\sqrt{3}}{2}` and `sqrt(3)/2`, `(x+1)^2` and `x^2+2x+1`.

Both are evaluated at the same three points, rational ones exactly. Reading is bounded: formulas of more than 300
characters, too deeply nested or with signs that are not known are no formulas, and texts decide.
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

from reflexion.evaluators.reading.latex import plain
from reflexion.evaluators.reading.normalisation import bare, clean

__all__ = ["constant", "same_formula"]

Number = Fraction | complex

_LONGEST, _DEEPEST, _MOST_DIGITS = 300, 30, 1_000
_POINTS = (Fraction(7, 11), Fraction(19, 8), Fraction(41, 29))
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<name>[A-Za-z]+)|(?P<sign>\*\*|[-+*/^()\[\]{}|,\u00b0\u00b1!]))"
)
_NAMED = re.compile(r"^\s*(?:[A-Za-z](?:\([A-Za-z]\))?\s*(?:=(?!=)|\u2208)\s*)")
_RELATION = re.compile(r"<=|>=|!=|[<>=\u2208]")
_ROUNDED, _EXACTLY = 1e-6, 1e-9
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "arcsin": cmath.asin, "arccos": cmath.acos,
    "arctan": cmath.atan, "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh, "log": cmath.log10,
    "ln": cmath.log, "exp": cmath.exp,
    "sec": lambda x: 1 / cmath.cos(x), "csc": lambda x: 1 / cmath.sin(x), "cot": lambda x: 1 / cmath.tan(x),
}  # fmt: skip

_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|"}
_CONSTANTS: dict[str, Number] = {"pi": complex(math.pi), "oo": complex(1e300)}


class _NoFormulaError(Exception):
    """A text that is not read as a formula."""


@dataclass(frozen=True, slots=True)
class _Collection:
    """Several values: in order within their brackets, or (a set, a list of solutions, a union) in any."""

    kind: str
    items: tuple[_Value, ...]


_Value = Fraction | complex | _Collection


def same_formula(given: str, wanted: str) -> bool:
    """Whether two texts are formulas of the same meaning."""
    left, right = _prepared(given), _prepared(wanted)
    if left is None or right is None:
        return False
    if left.replace(" ", "") == right.replace(" ", ""):
        return True
    try:
        return all(_alike(_read(left, point), _read(right, point)) for point in range(len(_POINTS)))
    except (_NoFormulaError, ArithmeticError, ValueError):
        return False


def constant(text: str) -> Fraction | None:
    """The value of a formula without variables, where there is more to it than one number; else None."""
    prepared = _prepared(text)
    if prepared is None:
        return None
    try:
        value, other = _read(prepared, 0), _read(prepared, 1)
        if isinstance(value, _Collection) or not _alike(value, other):
            return None
        if isinstance(value, complex):
            return Fraction(value.real) if abs(value.imag) < _EXACTLY and math.isfinite(value.real) else None
        return Fraction(value)
    except (_NoFormulaError, ArithmeticError, ValueError):
        return None


def _prepared(text: str) -> str | None:
    """A text in the signs that formulas are read in; None where it is too long for one."""
    if len(text) > _LONGEST:
        return None
    text = bare(clean(plain(text)).replace("$", ""))
    text = text.replace("\u03c0", " pi ").replace("\u221e", "oo").replace("\u221a", "sqrt").replace("\u222a", " U ")
    text = text.replace("\u00d7", "*").replace("\u00b7", "*").replace("\u00f7", "/")
    text = re.sub(r"_\{(\w{1,9})\}", r"_\1", text)
    if not re.search(r"[(\[{]", text):
        text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return _NAMED.sub("", text)


def _read(text: str, point: int) -> _Value:
    text = text.strip().strip(".").strip()
    parts = _split(text, r" U ")
    if len(parts) > 1:
        return _Collection("any", tuple(_read(p, point) for p in parts))
    brackets = text[:1] + text[-1:]
    if brackets in ("()", "[]", "(]", "[)", "{}") and _closes_at_end(text):
        inner = text[1:-1].strip()
        items = _split(inner, r"[,;]")
        if brackets == "{}" or len(items) > 1:
            values = tuple(_read(i, point) for i in items) if inner else ()
            return _Collection("any" if brackets == "{}" else brackets, values)
    items = _split(text, r"[,;]|\bor\b|\band\b")
    if len(items) > 1:
        return _Collection("any", tuple(_read(_NAMED.sub("", i), point) for i in items))
    if _RELATION.search(text):
        raise _NoFormulaError
    if "\u00b1" in text:
        return _Collection("any", tuple(_expression(text.replace("\u00b1", s), point) for s in "+-"))
    return _expression(text, point)


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators that stand in no bracket."""
    depth, start, parts = 0, 0, list[str]()
    for match in re.finditer(rf"[(\[{{]|[)\]}}]|(?P<here>{separator})", text):
        if match["here"] is None:
            depth += 1 if match[0] in "([{" else -1
            if depth > _DEEPEST:
                raise _NoFormulaError
        elif depth == 0:
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _closes_at_end(text: str) -> bool:
    depth = 0
    for position, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0:
            return position == len(text) - 1
    return False


def _alike(left: _Value, right: _Value) -> bool:
    if isinstance(left, _Collection) and isinstance(right, _Collection):
        if left.kind != right.kind or len(left.items) != len(right.items):
            return False
        if left.kind == "any":
            return _same_items(left.items, list(right.items))
        return all(map(_alike, left.items, right.items))
    if isinstance(left, _Collection) or isinstance(right, _Collection):
        return False
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    # A decimal beside a root or a multiple of pi has been rounded.
    tolerance = _EXACTLY if isinstance(left, complex) and isinstance(right, complex) else _ROUNDED
    a, b = complex(left), complex(right)
    return abs(a - b) <= tolerance * max(abs(a), abs(b), 1e-3)


def _same_items(items: Sequence[_Value], rest: list[_Value]) -> bool:
    for item in items:
        index = next((i for i, other in enumerate(rest) if _alike(item, other)), None)
        if index is None:
            return False
        rest.pop(index)
    return True


def _expression(text: str, point: int) -> Number:
    tokens: list[str] = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _NoFormulaError
        tokens += _names(match["name"]) if match["name"] else [match[0].strip()]
        position = match.end()
    if not tokens:
        raise _NoFormulaError
    parser = _Parser(tokens, point)
    value = parser.sum(0)
    if parser.position != len(tokens):
        raise _NoFormulaError
    return value


def _names(name: str) -> list[str]:
    """Known names, else one variable a letter; words are no products."""
    if name in _FUNCTIONS or name in ("sqrt", "root", "pi", "oo"):
        return [name]
    for known in ("sqrt", "pi", "sin", "cos", "tan", "log", "ln"):
        if known in name and len(name) <= len(known) + 2:
            left, _, right = name.partition(known)
            return [*left, known, *right]
    if len(name) > 3:
        raise _NoFormulaError
    return list(name)


class _Parser:
    """Evaluates a formula while reading it."""

    def __init__(self, tokens: Sequence[str], point: int) -> None:
        self._tokens = tokens
        self._point = point
        self.position = 0

    def _next(self) -> str:
        return self._tokens[self.position] if self.position < len(self._tokens) else ""

    def _take(self, wanted: str) -> None:
        if self._next() != wanted:
            raise _NoFormulaError
        self.position += 1

    def sum(self, depth: int) -> Number:
        """Terms added and subtracted."""
        if depth > _DEEPEST:
            raise _NoFormulaError
        value: Number = Fraction(0)
        first = True
        while first or self._next() in ("+", "-"):
            negative = False
            while self._next() in ("+", "-"):
                negative ^= self._next() == "-"
                self.position += 1
            term = self._product(depth)
            value = _joined(value, -term if negative else term, lambda a, b: a + b)
            first = False
        return value

    def _product(self, depth: int) -> Number:
        value = self._factor(depth)
        before = self._tokens[self.position - 1]
        while sign := self._next():
            if sign in ("*", "/"):
                self.position += 1
                negative = self._next() == "-"
                self.position += negative
                factor = self._factor(depth)
                factor = -factor if negative else factor
                value = _joined(value, factor, (lambda a, b: a * b) if sign == "*" else (lambda a, b: a / b))
            elif sign[0].isalpha() or sign in ("(", "[", "{"):
                value = _joined(value, self._factor(depth), lambda a, b: a * b)
            elif sign[0].isdigit() and before[0].isdigit() and self._is_fraction():
                value = _joined(value, self._mixed(), lambda a, b: a + b)
            else:
                break
            before = self._tokens[self.position - 1]
        return value

    def _is_fraction(self) -> bool:
        following = self._tokens[self.position : self.position + 3]
        return len(following) == 3 and following[1] == "/" and following[2].isdigit()

    def _mixed(self) -> Number:
        top, _, bottom = self._tokens[self.position : self.position + 3]
        self.position += 3
        return Fraction(int(top[:_MOST_DIGITS]), int(bottom[:_MOST_DIGITS]))

    def _factor(self, depth: int) -> Number:
        value = self._atom(depth)
        while self._next() == "\u00b0":
            self.position += 1
        if self._next() in ("^", "**"):
            self.position += 1
            negative = self._next() == "-"
            self.position += negative
            exponent = self._factor(depth + 1) if depth < _DEEPEST else self._fail()
            return _power(value, -exponent if negative else exponent)
        return value

    def _fail(self) -> Number:
        raise _NoFormulaError

    def _atom(self, depth: int) -> Number:
        sign = self._next()
        self.position += 1
        if sign in _CLOSING:
            value = self.sum(depth + 1)
            self._take(_CLOSING[sign])
            return _size(value) if sign == "|" else value
        if sign == "root":
            return self._root(depth)
        if sign == "sqrt" or sign in _FUNCTIONS:
            argument = self._factor(depth + 1) if depth < _DEEPEST else self._fail()
            return _root(argument, 2) if sign == "sqrt" else _FUNCTIONS[sign](complex(argument))
        return self._single(sign)

    def _single(self, sign: str) -> Number:
        """A number, a constant, or a letter, which stands for a number of its own at each point."""
        if sign in _CONSTANTS:
            return _CONSTANTS[sign]
        if len(sign) == 1 and sign.isalpha():
            return _POINTS[self._point] + Fraction(ord(sign), 17)
        if sign[:1].isdigit() or sign.startswith("."):
            return Fraction(f"0{sign}")
        raise _NoFormulaError

    def _root(self, depth: int) -> Number:
        self._take("(")
        degree = self.sum(depth + 1)
        self._take(",")
        value = self.sum(depth + 1)
        self._take(")")
        if not isinstance(degree, Fraction) or degree.denominator != 1 or not 1 <= degree <= 100:
            raise _NoFormulaError
        return _root(value, int(degree))


def _size(value: Number) -> Number:
    return abs(value) if isinstance(value, Fraction) else complex(abs(value))


def _joined(a: Number, b: Number, operate: Callable[[Any, Any], Any]) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        value = cast("Fraction", operate(a, b))
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > 4 * _MOST_DIGITS:
            raise _NoFormulaError
        return value
    return complex(operate(complex(a), complex(b)))


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        if max(len(str(base.numerator)), len(str(base.denominator))) * abs(exponent) > _MOST_DIGITS:
            raise _NoFormulaError
        return base ** int(exponent)
    if isinstance(exponent, Fraction) and exponent == Fraction(1, 2):
        return _root(base, 2)
    return complex(base) ** complex(exponent)


def _root(value: Number, degree: int) -> Number:
    if isinstance(value, Fraction):
        if degree == 2 and value >= 0:
            top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
            if top * top == value.numerator and bottom * bottom == value.denominator:
                return Fraction(top, bottom)
        if value < 0 and degree % 2:
            return complex(-(float(-value) ** (1 / degree)))
    return complex(value) ** (1 / degree)
