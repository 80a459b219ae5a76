"""Published dataset formats: how each is recognised, and how a record becomes a `Problem`."""

from __future__ import annotations

from reflexion.datasets.formats.choices import CHOICE_FORMATS
from reflexion.datasets.formats.fields import Format, Record, identifier
from reflexion.datasets.formats.functions import FUNCTION_FORMATS, docstring_tests
from reflexion.datasets.formats.plain import PLAIN
from reflexion.datasets.formats.programs import PROGRAM_FORMATS
from reflexion.datasets.formats.questions import QUESTION_FORMATS, READING_FORMATS
from reflexion.datasets.unused_fields import suggested_maps
from reflexion.errors import DatasetError

__all__ = ["FORMATS", "Format", "Record", "detect", "docstring_tests", "identifier"]

FORMATS: tuple[Format, ...] = (
    *FUNCTION_FORMATS,
    *PROGRAM_FORMATS,
    *READING_FORMATS,
    *CHOICE_FORMATS,
    PLAIN,
    *QUESTION_FORMATS,
)
"""In the order in which they are tried: what has more of a form's own fields comes first."""

_NEAREST = 3
"""Formats an error tells of."""


def detect(record: Record, where: str) -> Format:
    """The format of a file, by its first record.

    Raises:
        DatasetError: naming the fields found, what they lack for the nearest formats, and a mapping that may help.
    """
    reasons: list[tuple[int, str]] = []
    for candidate in FORMATS:
        reason = candidate.lacks(record)
        if reason is None:
            return candidate
        reasons.append((_missing(candidate, record), f"{candidate.name} ({reason})"))
    nearest = [text for _, text in sorted(reasons, key=lambda r: r[0])[:_NEAREST]]
    found = ", ".join(repr(name) for name in record) or "none"
    maps = suggested_maps(record)
    cure = " ".join(maps) if any(m.startswith("--map prompt=") for m in maps) else "--map prompt=FIELD"
    raise DatasetError(
        f"{where}: unknown format; fields found: {found}; nearest: {'; '.join(nearest)}. "
        f"Name the field that holds the prompt with a mapping: {cure}"
    )


def _missing(candidate: Format, record: Record) -> int:
    """How far a record is from a format: fields it lacks, less those it has."""
    has = [any(record.get(n) is not None for n in f.names) for f in candidate.needed]
    return 2 * has.count(False) - has.count(True) + (0 if candidate is PLAIN else 1)
