"""Rows out of CSV, Parquet and JSON arrays."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import orjson

from reflexion.datasets.rows import Inspect, Row, file_digest, select_rows
from reflexion.errors import DatasetError

__all__ = ["CsvRows", "JsonArray", "ParquetRows"]

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class CsvRows:
    """A CSV file with a header line; empty cells count as absent."""

    def __init__(self, path: Path, inspect: Inspect, delimiter: str) -> None:
        """
        Raises:
            DatasetError: for a wrong delimiter, a row with too few or too many fields, or a file that
                is not UTF-8.
        """
        self.path = path
        self._delimiter = delimiter
        self.count = 0
        for row in self._stream():
            inspect(row)
            self.count += 1
        self.digest = file_digest(path)

    def _stream(self) -> Iterator[Row]:
        number = 1
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            try:
                header = next(reader, [])
                self._check_header(header)
                for cells in reader:
                    number += 1
                    if cells:
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
        twice = next((name for i, name in enumerate(header) if name in header[:i]), None)
        if twice is not None:
            raise DatasetError(f"{self.path}: row 1 names the field {twice!r} twice")

    def _record(self, number: int, header: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
        if len(cells) != len(header):
            field = header[len(cells)] if len(cells) < len(header) else cells[len(header)]
            problem = f"field {field!r} is missing" if len(cells) < len(header) else f"{field!r} is one too many"
            raise DatasetError(
                f"{self.path}: row {number} has {len(cells)} fields, the header {len(header)}: {problem}; "
                "put quotes around texts that contain the delimiter"
            )
        return {name: cell for name, cell in zip(header, cells, strict=True) if cell}

    def rows(self, order: Sequence[int]) -> Iterator[Row]:
        """The rows with these positions; everything before the last of them is read on the way."""
        return select_rows(self._stream(), order)


class JsonArray:
    """A JSON file that is one array of objects, as HotpotQA is published; held in memory."""

    def __init__(self, path: Path, inspect: Inspect) -> None:
        """
        Raises:
            DatasetError: the file is not JSON, or an item is not an object.
        """
        self.path = path
        try:
            items: Any = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise DatasetError(f"{path}:{error.lineno}: not JSON ({error.msg}, column {error.colno})") from error
        self._items = cast("list[Any]", items)
        for row in self.rows(range(len(self._items))):
            inspect(row)
        self.count = len(self._items)
        self.digest = file_digest(path)

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether the file's first character opens an array."""
        with path.open("rb") as file:
            return file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["

    def rows(self, order: Sequence[int]) -> Iterator[Row]:
        """The items with these positions."""
        for position in order:
            item = self._items[position]
            if not isinstance(item, dict):
                raise DatasetError(f"{self.path}: item {position + 1} is not an object")
            yield Row(position + 1, cast("dict[str, Any]", item))


class ParquetRows:
    """A Parquet file, read in batches with pyarrow."""

    _BATCH = 1024

    def __init__(self, path: Path, inspect: Inspect) -> None:
        """
        Raises:
            DatasetError: pyarrow is not installed, or the file is not Parquet.
        """
        self.path = path
        self.count = 0
        for row in self._stream():
            inspect(row)
            self.count += 1
        self.digest = file_digest(path)

    def _stream(self) -> Iterator[Row]:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise DatasetError(
                f"{self.path}: reading Parquet needs the package pyarrow; run: pip install pyarrow"
            ) from error
        number = 0
        try:
            with ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=self._BATCH):
                    for record in batch.to_pylist():
                        number += 1
                        # Dates, decimals and bytes have no JSON: they become text.
                        plain = orjson.loads(orjson.dumps(record, default=str, option=orjson.OPT_NON_STR_KEYS))
                        yield Row(number, {k: v for k, v in plain.items() if v is not None})
        except ArrowException as error:
            raise DatasetError(f"{self.path}: not a Parquet file, or damaged at row {number + 1} ({error})") from error

    def rows(self, order: Sequence[int]) -> Iterator[Row]:
        """The rows with these positions; everything before the last of them is read on the way."""
        return select_rows(self._stream(), order)
