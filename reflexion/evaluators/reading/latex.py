r"""Writes LaTeX as plain text: `\frac{1}{2}` as `1/2`, `8{,}000` as `8,000`, `\text{even}` as `even`."""

from __future__ import annotations

import re

__all__ = ["balanced", "plain"]

_MARKUP = re.compile(r"[\\${}]")
_SPACING = re.compile(
    r"(?<!\\)\\(?:[ ,;:!>]|quad\b|qquad\b|left\b\.?|right\b\.?|[bB]igg?[lr]?\b|displaystyle\b|limits\b)|(?<!\\)~"
)
_SIGNS = {
    "times": "*", "cdot": "*", "ast": "*", "div": "/", "pm": "\u00b1", "mp": "\u2213",
    "le": "<=", "leq": "<=", "ge": ">=", "geq": ">=", "lt": "<", "gt": ">", "ne": "!=", "neq": "!=",
    "cup": " U ", "cap": " \u2229 ", "in": " \u2208 ", "infty": "oo", "pi": "pi", "theta": "theta",
    "emptyset": "\u2205", "varnothing": "\u2205", "degree": "\u00b0", "circ": "\u00b0",
    "ldots": "...", "dots": "...", "cdots": "...", "lbrace": "{", "rbrace": "}", "to": "->", "rightarrow": "->",
    "approx": "=", "equiv": "=", "sim": "=", "colon": ":", "lvert": "|", "rvert": "|", "mid": "|",
}  # fmt: skip
_WRAPPERS = frozenset((
    "text", "textbf", "textit", "textrm", "texttt", "textsf", "textnormal", "mathrm", "mathbf", "mathit", "mathsf",
    "mathtt", "mathcal", "mathbb", "operatorname", "mbox", "hbox", "boxed", "fbox", "bm", "boldsymbol", "emph",
    "underline", "overline", "ensuremath", "bf", "rm", "it",
))  # fmt: skip
_FUNCTIONS = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln", "exp",
    "max", "min", "gcd",
))  # fmt: skip
_SIMPLE = {**_SIGNS, **dict.fromkeys(_WRAPPERS, "")}
_NAME = re.compile(r"\\([a-zA-Z]+)\*?|\\(.)", re.DOTALL)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_DEGREES = re.compile(r"\^\s*(?:\{\s*(?:\\circ|\\degree)\s*\}|\\circ\b|\\degree\b)")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\!|,\\!|\{\\,\})[ ]?(?=\d{3}(?!\d))")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-zA-Z*]{1,20}\}(?:\{[lcr| ]{0,20}\})?")
_MATRIX = re.compile(r"\\(begin|end)\s*\{(?:[pbB]?matrix|smallmatrix|array)\*?\}(?:\{[lcr| ]{0,20}\})?")
"""A matrix or a vector, whose entries have an order."""
_DELIMITERS = re.compile(r"\\[()\[\]]|\$\$")
_SIGNED = re.compile(r"[-+]\d+(?:\.\d+)?")
_DEPTH = 40
_LONGEST = 4_000
"""Characters that are read as LaTeX; longer texts lose their markup only."""


def balanced(text: str, position: int, opening: str = "{", closing: str = "}", limit: int = 20_000) -> int | None:
    """Where the bracket that opens at `position` is closed; None if it is not, or only after `limit` characters."""
    depth = 0
    for found in re.compile(r"\\.|[" + re.escape(opening + closing) + "]", re.DOTALL).finditer(
        text, position, position + limit
    ):
        if found[0] == opening:
            depth += 1
        elif found[0] == closing:
            depth -= 1
            if depth == 0:
                return found.start()
    return None


def plain(text: str) -> str:
    """A text without LaTeX; one that holds none comes back as it is. Single dollar signs stay: they may be money."""
    if _MARKUP.search(text) is None:
        return text
    money = "\x00"
    text = text.replace("\\$", money).replace("\\%", "%").replace("\\#", "#").replace("\\&", "&").replace("\\_", "_")
    text = _THOUSANDS.sub(",", text)
    text = _DEGREES.sub("\u00b0", text)
    text = _MATRIX.sub(lambda m: " [" if m[1] == "begin" else "] ", text)
    text = _ENVIRONMENT.sub(" ", text)
    text = _DELIMITERS.sub("", text)
    text = _SPACING.sub(" ", text)
    text = _written(text) if "\\" in text and len(text) <= _LONGEST else _NAME.sub(_simple, text)
    return text.replace(money, "$").strip()


def _simple(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    return _SIMPLE.get(name, name)


def _written(text: str) -> str:
    r"""Commands written out; `\{` and `\}` are brackets that stay."""
    return _Writer(text).written(0, len(text), 0)


class _Writer:
    """Writes out commands, and those in their arguments; where braces close is found once for all of them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._closing: dict[int, int] = {}
        opened: list[int] = []
        for brace in _BRACE.finditer(text):
            if brace[0] == "{":
                opened.append(brace.start())
            elif brace[0] == "}" and opened:
                self._closing[opened.pop()] = brace.start()

    def written(self, position: int, end: int, depth: int) -> str:
        """What stands between two places."""
        out: list[str] = []
        while (match := _NAME.search(self._text, position, end)) is not None:
            out.append(self._text[position : match.start()])
            position = match.end()
            name = match[1] or match[2]
            if name in ("{", "}", "|", "\\"):
                out.append(";" if name == "\\" else name)
                continue
            name = _SIGNS.get(name, name)
            if depth < _DEPTH and name in ("frac", "dfrac", "tfrac", "cfrac"):
                top, position = self._argument(position, end, depth)
                bottom, position = self._argument(position, end, depth)
                before = next((part for part in map(str.rstrip, reversed(out)) if part), "")
                # 2\frac{1}{2} is a mixed number.
                out.append(" " if before[-1:].isdigit() else "")
                top = top.strip()
                out.append(f"{top if _SIGNED.fullmatch(top) else _grouped(top)}/{_grouped(bottom)}")
            elif depth < _DEPTH and name == "sqrt":
                root = ""
                if self._text.startswith("[", position, end) and (stop := self._text.find("]", position, end)) > 0:
                    root, position = self._text[position + 1 : stop], stop + 1
                inner, position = self._argument(position, end, depth)
                out.append(f"root({root},{inner})" if root else f"sqrt({inner})")
            elif depth < _DEPTH and name in _WRAPPERS:
                if self._text.startswith("{", position, end):
                    inner, position = self._argument(position, end, depth)
                    out.append(f" {inner}" if out and out[-1][-1:].isalnum() else inner)
            elif name in _FUNCTIONS:
                out.append(f" {name} ")
            else:
                out.append(name)
        out.append(self._text[position:end])
        return "".join(out)

    def _argument(self, position: int, end: int, depth: int) -> tuple[str, int]:
        """A command's argument written out, in braces or a single sign, and where it ends."""
        while self._text.startswith(" ", position, end):
            position += 1
        if not self._text.startswith("{", position, end):
            command = _NAME.match(self._text, position, end)
            stop = command.end() if command is not None else min(position + 1, end)
            return self.written(position, stop, depth + 1), stop
        stop = self._closing.get(position, end)
        return self.written(position + 1, min(stop, end), depth + 1), min(stop + 1, end)


def _grouped(text: str) -> str:
    text = text.strip()
    return text if re.fullmatch(r"\w+|\d*\.\d+", text) else f"({text})"
