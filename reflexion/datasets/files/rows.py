"""What every file kind gives: numbered rows, and the checks of the first pass over them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from reflexion.errors import DatasetError

__all__ = ["Inspect", "Row", "RowSource", "UniqueIds", "file_digest", "select_rows"]


class Row(NamedTuple):
    """One record and the number of the line (or row) it stands on, counted from 1."""

    number: int
    record: Mapping[str, Any]


Inspect = Callable[[Row], None]
"""Called once for every row when a file is opened; raises `DatasetError` for a bad one."""


class RowSource(Protocol):
    """A file whose rows can be read again and again, in any order."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def count(self) -> int:
        """Number of rows."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the file's content, as 64 hexadecimal digits."""
        ...

    def rows(self, order: Sequence[int]) -> Iterator[Row]:
        """The rows with these positions (from 0), in this order."""
        ...


def select_rows(rows: Iterable[Row], order: Sequence[int]) -> Iterator[Row]:
    """The rows with the positions `order` out of a stream that can only be read forwards.

    Rising positions stream; any other order holds the selected rows in memory.
    """
    if isinstance(order, range) and order.step == 1:
        yield from islice(rows, order.start, order.stop)
    elif all(a < b for a, b in pairwise(order)):
        wanted = iter(order)
        following = next(wanted, None)
        for position, row in enumerate(rows):
            if following is None:
                return
            if position == following:
                yield row
                following = next(wanted, None)
    else:
        chosen = set(order)
        held = {position: row for position, row in enumerate(rows) if position in chosen}
        for position in order:
            yield held[position]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class UniqueIds:
    """Finds ids given twice, in eight bytes an id.

    Only hashes are kept, spread over buckets that are looked at one at a time. Two ids of one hash
    are no verdict yet: `verdict` reads the ids again to name the lines.
    """

    _BUCKETS = 64  # a power of two

    def __init__(self) -> None:
        self._hashes = [array("q") for _ in range(self._BUCKETS)]

    def add(self, identifier: str) -> None:
        """Note one id."""
        value = hash(identifier)
        self._hashes[value & (self._BUCKETS - 1)].append(value)

    def verdict(self, path: Path, again: Callable[[], Iterable[tuple[int, str]]]) -> None:
        """Raise when an id was given twice.

        Args:
            path: the file, for the message.
            again: gives every `(line, id)` once more; called only on suspicion.

        Raises:
            DatasetError: naming the id and both lines.
        """
        suspects: set[int] = set()
        for bucket in self._hashes:
            if len(set(bucket)) != len(bucket):
                seen: set[int] = set()
                suspects.update(v for v in bucket if v in seen or seen.add(v))
        if not suspects:
            return
        first: dict[str, int] = {}
        for number, identifier in again():
            if hash(identifier) not in suspects:
                continue
            if identifier in first:
                raise DatasetError(
                    f"{path}:{number}: id {identifier!r} is already used on line {first[identifier]}; "
                    "give every problem its own id, or leave the ids out to use line numbers"
                )
            first[identifier] = number
