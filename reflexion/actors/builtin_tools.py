"""Tools that come with the package, and which of them a problem gets when none are named."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from reflexion._python_source import parse_python
from reflexion.actors.tools import Tool, as_tools, tool
from reflexion.evaluators.reading.normalisation import crowded
from reflexion.types import Document, Problem

__all__ = ["BUILTIN", "default_tools"]

# -- documents -----------------------------------------------------------------------------------------

_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_FOUND = 5
"""Sentences or titles told at most."""


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


@lru_cache(maxsize=256)
def _index(documents: tuple[tuple[str, str], ...]) -> tuple[list[Counter[str]], Counter[str]]:
    """Words of each document, those of its title thrice, and in how many documents each stands."""
    counts = [Counter(_words(title) * 3 + _words(text)) for title, text in documents]
    return counts, Counter(word for count in counts for word in count)


def _ranked(query: str, documents: tuple[Document, ...]) -> list[Document]:
    """The documents that share words with the query, best first: BM25 with its usual constants."""
    counts, spread = _index(tuple((d.title, d.text) for d in documents))
    lengths = [sum(c.values()) for c in counts]
    mean = (sum(lengths) / len(lengths)) or 1.0
    scores: list[float] = []
    for count, length in zip(counts, lengths, strict=True):
        score = 0.0
        for word in set(_words(query)):
            n = count[word]
            rarity = math.log(1 + (len(documents) - spread[word] + 0.5) / (spread[word] + 0.5))
            score += rarity * n * 2.2 / (n + 1.2 * (0.25 + 0.75 * length / mean))
        scores.append(score)
    order = sorted(range(len(documents)), key=lambda i: -scores[i])
    return [documents[i] for i in order if scores[i] > 0]


@tool(version="1")
def search(query: str, problem: Problem) -> str:
    """Find the document that tells most about a name or topic, and read it."""
    documents = problem.context
    titles = ", ".join(d.title for d in documents)
    found = _ranked(query, documents)
    if not found:
        return f"Nothing was found for {query!r}. The documents are: {titles}."
    best, others = found[0], ", ".join(d.title for d in found[1:_FOUND])
    more = f"\nOther documents about it: {others}." if others else ""
    return f"{best.title}: {best.text}{more}"


@tool(version="1")
def lookup(keyword: str, problem: Problem) -> str:
    """Find the sentences of all documents that contain a word or phrase."""
    wanted = " ".join(_words(keyword))
    hits = [
        f"({d.title}) {sentence.strip()}"
        for d in problem.context
        for sentence in _SENTENCE.split(d.text)
        if wanted and f" {wanted} " in f" {' '.join(_words(sentence))} "
    ]
    if not hits:
        return f"No sentence contains {keyword!r}."
    left = f"\n{len(hits) - _FOUND} more sentences contain it." if len(hits) > _FOUND else ""
    return "\n".join(hits[:_FOUND]) + left


# -- calculator ----------------------------------------------------------------------------------------

_LARGEST = 1e15
"""Of powers: what is larger may take the memory away before it is worked out."""
_BITS, _PLACES = 4_096, 400
"""Of whole numbers on the way to a result, and of decimal places either way: the interpreter is held no longer
than it takes to multiply two such numbers."""


def _round(value: float, places: int | None = None) -> float | int:
    if places is not None and abs(places) > _PLACES:
        raise ValueError(f"round() takes at most {_PLACES} places")
    return round(value, places)


_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": math.sqrt, "abs": abs, "round": _round, "min": min, "max": max, "floor": math.floor, "ceil": math.ceil,
}  # fmt: skip
_WRITTEN = str.maketrans({"^": "**", "\u00d7": "*", "\u00f7": "/", "$": ""})
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@tool(version="1")
def calculate(expression: str) -> str:
    """Work out an arithmetic expression, such as (3 + 4) * 2.5 or 2 ** 10."""
    text = _GROUPED.sub("", expression.strip().rstrip("=").translate(_WRITTEN))
    if crowded(text):
        raise ValueError("this is not an arithmetic expression")
    try:
        value = _value(parse_python(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{expression!r} is not an arithmetic expression") from None
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _value(node: ast.expr) -> float | int:
    value = _worked_out(node)
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise ValueError("the result is too large")
    return value


def _worked_out(node: ast.expr) -> float | int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        function = _FUNCTIONS.get(node.func.id)
        if function is not None:
            return function(*map(_value, node.args))
    raise ValueError(f"{ast.unparse(node)!r} is no number and no operation known here")


def _power(base: float, exponent: float) -> float | int:
    """A power, unless it would be so large that working it out takes the memory away."""
    if abs(base) > 1 and abs(exponent) * math.log10(abs(base)) > math.log10(_LARGEST):
        raise ValueError("the result is too large")
    value = base**exponent
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")
    return value


# -- what is offered -----------------------------------------------------------------------------------


def _has_documents(problem: Problem) -> bool:
    return bool(problem.context)


BUILTIN: dict[str, tuple[Tool, ...]] = {
    "documents": tuple(replace(t, suits=_has_documents) for t in as_tools([search, lookup])),
    "calculator": as_tools([calculate]),
}
"""Names for `--tools`."""


def default_tools(problem: Problem) -> tuple[Tool, ...]:
    """What a problem gets when no tools are named: its documents, else a calculator; nothing for code."""
    if problem.environment is not None or problem.tests or problem.visible_tests:
        return ()
    return BUILTIN["documents" if problem.context else "calculator"]
