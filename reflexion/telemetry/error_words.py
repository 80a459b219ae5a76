"""The words of errors, kept short and harmless enough for a table."""

from __future__ import annotations

from reflexion.types import EpisodeError

__all__ = ["ErrorWords", "harmless", "in_short"]

LONGEST = 200
"""Characters of one message that are told."""

CLASSES = 5
"""Classes of errors whose words are told."""


def in_short(text: str, limit: int = LONGEST) -> str:
    """A text on one line of at most `limit` characters; what a terminal would carry out stands there as its escape.

    An endpoint or a model wrote it: it may move a cursor, turn the writing direction or hide a part of itself.
    """
    # No character gets shorter, so what lies far beyond the limit need not be looked at.
    shown = harmless(" ".join(text[: 10 * limit].split()))
    return shown if len(shown) <= limit and len(text) <= 10 * limit else f"{shown[: limit - 1].rstrip()}…"


def harmless(text: str) -> str:
    """A text as it may be printed: what a terminal would carry out stands there as its escape; lines stay lines."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


class ErrorWords:
    """Counts the errors that ended episodes by class, and keeps the first message of each."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._words: dict[str, str] = {}

    def add(self, error: EpisodeError) -> None:
        """Count one more error."""
        self._counts[error.kind] = self._counts.get(error.kind, 0) + 1
        if not self._words.get(error.kind):
            self._words[error.kind] = in_short(error.message)

    @property
    def counts(self) -> dict[str, int]:
        """Errors by class, in the order of their names."""
        return dict(sorted(self._counts.items()))

    @property
    def told(self) -> dict[str, str]:
        """The words of the most frequent classes, these first; a class that never had any is left out."""
        ranked = sorted((name for name, words in self._words.items() if words), key=lambda n: (-self._counts[n], n))
        return {name: self._words[name] for name in ranked[:CLASSES]}
