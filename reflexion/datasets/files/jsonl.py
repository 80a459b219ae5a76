"""JSON lines: memory-mapped with an index of offsets, or streamed out of what they are packed in."""

from __future__ import annotations

import hashlib
import mmap
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from reflexion.datasets.files.lenient_json import is_inexact, parse_json
from reflexion.datasets.files.offset_index import LineIndex, load_index, store_index
from reflexion.datasets.files.packed import PackedFile
from reflexion.datasets.files.rows import Inspect, Row, file_digest, select_rows
from reflexion.errors import DatasetError

__all__ = ["MappedLines", "StreamedLines"]

_BOM = b"\xef\xbb\xbf"
_RESIDENT = 8 * 2**20
"""Bytes of the map that may be resident before they are given back."""
_FAULT = 512 * 2**10
"""Bytes one touched page may make resident: kernels map what lies around it in the page cache too."""


def _parse(path: Path, number: int, raw: bytes) -> Mapping[str, Any]:
    """The object of one line.

    Raises:
        DatasetError: it is no JSON object; names the line.
    """
    try:
        # The fast way for nearly all lines; `parse_json` tells what else there is.
        record: Any = orjson.loads(raw)
        if record.__class__ is dict:
            for value in record.values():
                kind = value.__class__
                if kind is not str and kind is not int and is_inexact(value):
                    break
            else:
                return record
    except orjson.JSONDecodeError:
        pass
    try:
        record = parse_json(raw)
    except ValueError as error:
        raise DatasetError(f"{path}:{number}: not JSON ({error}); every line must be one JSON object") from error
    if not isinstance(record, dict):
        raise DatasetError(
            f'{path}:{number}: a JSON {type(record).__name__}, not an object; write {{"prompt": "…"}} on every line'
        )
    return cast("dict[str, Any]", record)


def _strip_bom(number: int, raw: bytes) -> bytes:
    return raw.removeprefix(_BOM) if number == 1 else raw


class MappedLines:
    """A JSON lines file read through a memory map and an index of its lines.

    The first opening reads the whole file once: every line is parsed and inspected, so that a bad one
    is reported before any work starts. The index of larger files is kept for the next opening, which
    then touches neither the lines nor more of the index than it needs.
    """

    def __init__(self, path: Path, inspect: Inspect, fingerprint: str) -> None:
        """
        Args:
            path: the file.
            inspect: sees every row while the index is made, the first one also when it is loaded.
            fingerprint: of whatever `inspect` does; an index made with another one is not used.

        Raises:
            DatasetError: for a bad line, a file that cannot be read, or one that changes meanwhile.
        """
        self.path = path
        self._fingerprint = fingerprint
        loaded = load_index(path, fingerprint)
        self._scanned = loaded is None
        if loaded is None:
            self._index = self._scan(inspect)
        else:
            self._index = loaded
            for row in self.rows(range(min(1, self.count))):
                inspect(row)

    def keep_index(self) -> None:
        """Keep the index for the next opening, once the file is known to be good as a whole."""
        if self._scanned:
            store_index(self.path, self._fingerprint, self._index)

    @property
    def count(self) -> int:
        """Number of lines that are not blank."""
        return self._index.count

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self._index.digest

    def _scan(self, inspect: Inspect) -> LineIndex:
        offsets, blanks = array("Q"), array("Q")
        content = hashlib.sha256()
        position = number = 0
        with self.path.open("rb") as file:
            before = os.fstat(file.fileno())
            for raw in file:
                number += 1
                content.update(raw)
                line = raw if number > 1 else raw.removeprefix(_BOM)
                if not line or line.isspace():
                    blanks.append(len(offsets))
                else:
                    offsets.append(position)
                    inspect(Row(number, _parse(self.path, number, line)))
                position += len(raw)
            after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise self._changed()
        offsets.append(position)
        return LineIndex(offsets, blanks, content.hexdigest(), before.st_size, before.st_mtime_ns)

    def rows(self, order: Sequence[int]) -> Iterator[Row]:
        """The rows with these positions; only their own bytes are read.

        Raises:
            DatasetError: for a file that changed, or cannot be read any more.
        """
        if not order:
            return
        index = self._index
        with (
            self._open() as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            touched = 0
            for position in order:
                self._expect_unchanged(file)  # a map that outlives its file's end kills the process
                start, end = index.offsets[position], index.offsets[position + 1]
                number = index.line(position)
                raw = _strip_bom(number, data[start:end])
                touched += max(end - start, _FAULT) if not isinstance(order, range) else end - start
                if touched > _RESIDENT and hasattr(mmap, "MADV_DONTNEED"):
                    data.madvise(mmap.MADV_DONTNEED)
                    touched = 0
                yield Row(number, _parse(self.path, number, raw))

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise DatasetError(
                f"{self.path}: no longer to be read ({error.strerror or error}); put it back and resume the run"
            ) from error

    def _expect_unchanged(self, file: BinaryIO) -> None:
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._index.size, self._index.modified):
            raise self._changed()

    def _changed(self) -> DatasetError:
        return DatasetError(f"{self.path}: the file changed while it was being read; open it again")


class StreamedLines:
    """JSON lines that are packed or in another encoding: streamed, never unpacked as a whole."""

    def __init__(self, file: PackedFile, inspect: Inspect) -> None:
        """
        Raises:
            DatasetError: for a bad line or a damaged file.
        """
        self.path = file.path
        self._file = file
        self.count = 0
        for row in self._stream():
            inspect(row)
            self.count += 1
        self.digest = file_digest(self.path)

    def _stream(self) -> Iterator[Row]:
        for number, line in self._file.lines():
            if line and not line.isspace():
                yield Row(number, _parse(self.path, number, line))

    def rows(self, order: Sequence[int]) -> Iterator[Row]:
        """The rows with these positions; everything before the last of them is unpacked on the way."""
        return select_rows(self._stream(), order)
