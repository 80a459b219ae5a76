"""The offset index of a JSON lines file, and where it is kept between openings."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import sys
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from reflexion.keys import digest

__all__ = ["LineIndex", "load_index", "store_index"]

_MAGIC = b"reflexion-index-1-" + sys.byteorder[:3].encode() + b"\n"
_WORD = 8
_EDGE = 64 * 2**10
_WORTH_KEEPING = 8 * 2**20
"""Bytes below which a file is indexed faster than the bookkeeping is worth."""


@dataclass(frozen=True, slots=True)
class LineIndex:
    """Where every line that is not blank starts.

    `offsets` has one entry more than there are lines, the file's size. `blanks` has one entry for
    each blank line: the number of lines counted before it.
    """

    offsets: Sequence[int]
    blanks: Sequence[int]
    digest: str
    size: int
    modified: int

    @property
    def count(self) -> int:
        """Number of lines that are not blank."""
        return len(self.offsets) - 1

    def line(self, position: int) -> int:
        """Line number, from 1, of the line at `position`, from 0."""
        return position + 1 + bisect_right(self.blanks, position)


def _edges(path: Path, size: int) -> str:
    """Digest of a file's first and last 64 KiB: notices a change that kept size and time."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        content.update(file.read(_EDGE))
        file.seek(max(0, size - _EDGE))
        content.update(file.read(_EDGE))
    return content.hexdigest()


def _place(path: Path, fingerprint: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "reflexion" / "datasets" / f"{digest([str(path.resolve()), fingerprint])[:32]}.idx"


def load_index(path: Path, fingerprint: str) -> LineIndex | None:
    """The kept index of a file, memory-mapped; None when there is none, or the file has changed since.

    A change is noticed by size, modification time and the content of both ends of the file.
    """
    facts = path.stat()
    if facts.st_size < _WORTH_KEEPING:
        return None
    try:
        with _place(path, fingerprint).open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError, RuntimeError):  # no index, an empty one, or no home directory
        return None
    header = _header(data)
    if header is None or (header["size"], header["modified"]) != (facts.st_size, facts.st_mtime_ns):
        return None
    if header["edges"] != _edges(path, facts.st_size):
        return None
    words = memoryview(data)[header["start"] :].cast("Q")
    lines = header["lines"] + 1
    return LineIndex(words[:lines], words[lines:], header["digest"], facts.st_size, facts.st_mtime_ns)


def _header(data: mmap.mmap) -> dict[str, Any] | None:
    """The header of a whole and undamaged index file, else None: it is then made anew."""
    if data[: len(_MAGIC)] != _MAGIC:
        return None
    end = data.find(b"\n", len(_MAGIC), len(_MAGIC) + 4096)
    try:
        header = orjson.loads(data[len(_MAGIC) : end])
        start = end + 1
        whole = len(data) == start + _WORD * (header["lines"] + 1 + header["blanks"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return {**header, "start": start} if end > 0 and whole else None


def store_index(path: Path, fingerprint: str, index: LineIndex) -> None:
    """Keep the index of a larger file under the user's cache folder, written atomically.

    Best effort: without a place to write it is made again next time.
    """
    if index.size < _WORTH_KEEPING:
        return
    header = {
        "size": index.size,
        "modified": index.modified,
        "edges": _edges(path, index.size),
        "digest": index.digest,
        "lines": index.count,
        "blanks": len(index.blanks),
    }
    with contextlib.suppress(OSError, RuntimeError):
        place = _place(path, fingerprint)
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=place.stem)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_MAGIC + orjson.dumps(header) + b"\n")
                file.write(memoryview(array("Q", index.offsets)))
                file.write(memoryview(array("Q", index.blanks)))
                file.flush()
                os.fsync(file.fileno())  # an index of the right length but without its content would mislead
            Path(name).replace(place)
        finally:
            Path(name).unlink(missing_ok=True)
