"""Finds the answer in a reply. Every evaluator takes it from here, so that all read replies alike.

A reply states its answer, in this order of preference,

1. after its last `Answer:` (also `The answer is …`, `Final answer: …`, `#### …`, `\\boxed{…}`),
2. in its last line that is not empty,
3. as a whole.
"""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

__all__ = [
    "answer_candidates",
    "extract_json",
    "final_answer",
    "last_number",
    "normalize_answer",
]

_MARKED = re.compile(
    r"(?:\b(?:final\s+)?answer\s*(?:\*\*)?\s*(?::|\bis\b:?)|^\s*####)[ \t]*(?:\*\*)?[ \t]*(?P<text>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_FENCE = re.compile(
    r"^[ \t]*(?P<mark>```+|~~~+)[ \t]*(?P<lang>[\w+-]*)[^\n]*\n(?P<body>.*?)(?:^[ \t]*(?P=mark)|\Z)",
    re.DOTALL | re.MULTILINE,
)
_NUMBER = re.compile(r"[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d)\.?)(?:[eE][-+]?\d+)?")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~\u2018\u2019\u201c\u201d\u00b4]")
_DECORATION = " \t*_`\"'"


def normalize_answer(text: str) -> str:
    """Lower case without punctuation, articles and surplus white space, as HotpotQA's scorer has it."""
    return " ".join(_ARTICLES.sub(" ", _PUNCTUATION.sub("", text.lower())).split())


def _undecorated(text: str) -> str:
    return text.strip().strip(_DECORATION).strip()


def answer_candidates(reply: str) -> tuple[str, ...]:
    """The texts of a reply that may be its answer, best first, without duplicates."""
    found: list[str] = []
    boxed = _BOXED.findall(reply)
    if boxed:
        found.append(boxed[-1])
    marked = [m["text"] for m in _MARKED.finditer(reply) if m["text"].strip()]
    if marked:
        found.append(marked[-1])
    lines = [line for line in reply.splitlines() if line.strip()]
    if lines:
        found.append(lines[-1])
    found.append(reply)
    return tuple(dict.fromkeys(t for t in map(_undecorated, found) if t))


def final_answer(reply: str) -> str:
    """The likeliest answer of a reply; empty only if the reply is."""
    return next(iter(answer_candidates(reply)), "")


def last_number(text: str) -> float | None:
    """The last number of a text; thousands may be grouped by commas. None when there is none."""
    numbers = [m for m in _NUMBER.findall(text) if any(c.isdigit() for c in m)]
    return float(numbers[-1].replace(",", "").replace("\u2212", "-")) if numbers else None


def _fenced(reply: str) -> list[tuple[str, str]]:
    return [(m["lang"].lower(), textwrap.dedent(m["body"])) for m in _FENCE.finditer(reply)]


def extract_json(reply: str) -> Any:
    """The JSON value of a reply: of its last fenced block, of the whole, or of its last object or array.

    Raises:
        ValueError: there is none.
    """
    texts = [body for _, body in reversed(_fenced(reply))] + [reply]
    for text in texts:
        try:
            return json.loads(text)
        except ValueError:
            continue
    decoder, best = json.JSONDecoder(), None
    position = 0
    while (match := re.compile(r"[{\[]").search(reply, position)) is not None:
        try:
            value, position = decoder.raw_decode(reply, match.start())
            best = (value,)
        except ValueError:
            position = match.end()
    if best is None:
        raise ValueError("the reply holds no JSON value")
    return best[0]
