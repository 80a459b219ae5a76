"""Rows out of tables: CSV, Parquet and Arrow."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any, cast

import orjson

from reflexion.datasets.files.lenient_json import OddRecord
from reflexion.datasets.files.packed import PackedFile
from reflexion.datasets.files.rows import Inspect, Row, file_digest, select_rows
from reflexion.errors import DatasetError

__all__ = ["ColumnarRows", "CsvRows", "plain_record"]

_CELL = 2**31 - 1
"""Characters of one cell at most: what the reader of CSV can be told on every machine."""

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def _is_blank(cell: str) -> bool:
    return not cell.strip()


class CsvRows:
    """A CSV file with a header line; empty cells count as absent, and empty rows and columns are left out."""

    def __init__(self, file: PackedFile, inspect: Inspect, delimiter: str) -> None:
        """
        Raises:
            DatasetError: for a wrong delimiter, a row with too few or too many fields, or a file that
                is not UTF-8.
        """
        self.path = file.path
        self._file = file
        self._delimiter = delimiter
        self.count = 0
        for row in self._stream():
            inspect(row)
            self.count += 1
        self.digest = file_digest(self.path)

    def _stream(self) -> Iterator[Row]:
        csv.field_size_limit(_CELL)
        number = 1
        with self._file.open_text() as text:
            try:
                first = text.readline()
                # A blank after the delimiter is the writer's, not part of the names: `prompt, "answer"`.
                reader = csv.reader(
                    chain([first], text),
                    delimiter=self._delimiter,
                    strict=True,
                    skipinitialspace=f"{self._delimiter} " in first,
                )
                header = [name.strip() for name in next(reader, [])]
                self._check_header(header)
                for cells in reader:
                    number += 1
                    if any(cells) and not all(map(_is_blank, cells)):
                        yield Row(number, self._record(number, header, cells))
            except csv.Error as error:
                raise DatasetError(f"{self.path}: row {number + 1} is not CSV ({error})") from error
            except UnicodeDecodeError as error:
                raise DatasetError(
                    f"{self.path}: not UTF-8 after row {number} ({error.reason}); save it as UTF-8"
                ) from error

    def _check_header(self, header: Sequence[str]) -> None:
        if len(header) == 1:
            for other, name in _DELIMITERS.items():
                if other != self._delimiter and other in header[0]:
                    raise DatasetError(
                        f"{self.path}: row 1 is the single field {header[0]!r}, separated by {name} where "
                        f"{_DELIMITERS[self._delimiter]} are expected; save it with "
                        f"{_DELIMITERS[self._delimiter]}" + (" or name it .tsv" if other == "\t" else "")
                    )
        twice = next((name for i, name in enumerate(header) if name and name in header[:i]), None)
        if twice is not None:
            raise DatasetError(f"{self.path}: row 1 names the field {twice!r} twice")

    def _record(self, number: int, header: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
        if len(cells) > len(header):
            cells = [*cells[: len(header)], *(c for c in cells[len(header) :] if c.strip())]
        if len(cells) != len(header):
            field = header[len(cells)] if len(cells) < len(header) else cells[len(header)]
            problem = f"field {field!r} is missing" if len(cells) < len(header) else f"{field!r} is one too many"
            raise DatasetError(
                f"{self.path}: row {number} has {len(cells)} fields, the header {len(header)}: {problem}; "
                "put quotes around texts that contain the delimiter"
            )
        if "" in header:
            self._check_nameless(number, header, cells)
        return {name: cell or None for name, cell in zip(header, cells, strict=True) if name}

    def _check_nameless(self, number: int, header: Sequence[str], cells: Sequence[str]) -> None:
        for place, (name, cell) in enumerate(zip(header, cells, strict=True), 1):
            # The first column of data frames is their index.
            if not name and cell.strip() and not (place == 1 and cell.strip().isdecimal()):
                raise DatasetError(
                    f"{self.path}: row {number} holds {cell[:40]!r} in column {place}, which row 1 does not name"
                )

    def rows(self, order: Sequence[int]) -> Iterator[Row]:
        """The rows with these positions; everything before the last of them is read on the way."""
        return select_rows(self._stream(), order)


class ColumnarRows:
    """A Parquet, Arrow or Feather file, read in batches with pyarrow."""

    _BATCH = 1024

    def __init__(self, file: PackedFile, inspect: Inspect) -> None:
        """
        Raises:
            DatasetError: pyarrow is not installed, or the file is none of these.
        """
        self.path = file.path
        self._file = file
        self.count = 0
        for row in self._stream():
            inspect(row)
            self.count += 1
        self.digest = file_digest(self.path)

    def _stream(self) -> Iterator[Row]:
        try:
            from pyarrow import ArrowException
        except ImportError as error:
            raise DatasetError(
                f"{self.path}: reading {self._kind} needs the package pyarrow; run: pip install pyarrow"
            ) from error
        number = 0
        try:
            for records in self._batches():
                for record in records:
                    number += 1
                    yield Row(number, plain_record(record))
        except ArrowException as error:
            raise DatasetError(
                f"{self.path}: not {self._article} {self._kind} file, or damaged at row {number + 1} ({error})"
            ) from error

    @property
    def _kind(self) -> str:
        return "Parquet" if self._file.suffix in (".parquet", ".pq", "") else "Arrow"

    @property
    def _article(self) -> str:
        return "a" if self._kind == "Parquet" else "an"

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        source: Any = self.path if self._file.packing is None else io.BytesIO(self._file.read())
        if self._kind == "Parquet":
            from pyarrow.parquet import ParquetFile

            with ParquetFile(source) as file:
                for batch in file.iter_batches(batch_size=self._BATCH):
                    yield batch.to_pylist()
            return
        from pyarrow import ArrowInvalid, ipc

        stream = source if isinstance(source, io.BytesIO) else str(source)
        try:
            reader: Any = ipc.open_file(stream)
            numbers = range(reader.num_record_batches)
            batches: Iterator[Any] = (reader.get_batch(i) for i in numbers)
        except ArrowInvalid:
            if isinstance(stream, io.BytesIO):
                stream.seek(0)
            from pyarrow import OSFile

            batches = iter(ipc.open_stream(stream if isinstance(stream, io.BytesIO) else OSFile(stream)))
        for batch in batches:
            yield batch.to_pylist()

    def rows(self, order: Sequence[int]) -> Iterator[Row]:
        """The rows with these positions; everything before the last of them is read on the way."""
        return select_rows(self._stream(), order)


def plain_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of a table as JSON has it: dates, decimals and bytes as texts, what is no number as absent."""
    try:
        plain: dict[str, Any] = orjson.loads(orjson.dumps(record, default=_as_text, option=orjson.OPT_NON_STR_KEYS))
    except orjson.JSONEncodeError:  # a whole number beyond 64 bits, as decimals may hold
        return OddRecord({name: _plain(value) for name, value in record.items()})
    infinite = {n: v for n, v in record.items() if v.__class__ is float and math.isinf(v)}
    return OddRecord(plain | infinite) if infinite else plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in cast("list[Any]", value)]
    return value if value is None or isinstance(value, str | int | float | bool) else _as_text(value)


def _as_text(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else str(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
