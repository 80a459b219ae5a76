"""JSON files that are one value: an array, an object that wraps one, or columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from reflexion.datasets.files.lenient_json import OddRecord, parse_json
from reflexion.datasets.files.packed import PackedFile
from reflexion.datasets.files.rows import Inspect, Row, file_digest
from reflexion.errors import DatasetError

__all__ = ["JsonDocument"]

_WRAPPERS = ("data", "rows", "examples", "problems", "questions", "items", "records", "instances", "samples", "tasks")


class JsonDocument:
    """A JSON file that is one value; held in memory.

    It may be an array of objects, as HotpotQA is published; an object with such an array under one of its names
    (`data`, `rows`, `examples`, or the only array there is); SQuAD's articles; columns, as pandas writes them; or
    objects by their ids.
    """

    def __init__(self, file: PackedFile, inspect: Inspect) -> None:
        """
        Raises:
            DatasetError: the file is not JSON, or an item is not an object.
        """
        self.path = file.path
        data = file.read()
        try:
            value = parse_json(data)
        except ValueError as error:
            raise DatasetError(f"{self.path}{_line(error)}: not JSON ({error})") from error
        self._items = _records(value)
        for row in self.rows(range(len(self._items))):
            inspect(row)
        self.count = len(self._items)
        self.digest = file_digest(self.path)

    @staticmethod
    def recognises(file: PackedFile) -> bool:
        """Whether the file is one JSON value rather than lines of them, by its beginning."""
        head = file.head if file.encoding == "utf-8-sig" else file.head.decode(file.encoding, "ignore").encode()
        head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if head[:1] == b"[":
            return True
        if head[:1] != b"{" or file.suffix not in (".json", ""):
            return False
        lines = (line for _, line in file.lines() if line.strip())
        first, second = next(lines, b""), next(lines, None)
        if second is None:
            return True
        try:
            parse_json(first)
        except ValueError:
            return True
        return False

    def rows(self, order: Sequence[int]) -> Iterator[Row]:
        """The items with these positions."""
        for position in order:
            item = self._items[position]
            if not isinstance(item, dict):
                raise DatasetError(f"{self.path}: item {position + 1} is not an object")
            yield Row(position + 1, cast("dict[str, Any]", item))


def _line(error: ValueError) -> str:
    """The line an error is on, for the place; the error's own words name line and column as well."""
    lineno = getattr(error, "lineno", None)
    return f":{lineno}" if lineno is not None else ""


def _records(value: Any) -> list[Any]:
    odd = isinstance(value, OddRecord)
    if isinstance(value, list):
        items: list[Any] = cast("list[Any]", value)
    else:
        items = _unwrapped(cast("dict[str, Any]", value)) if isinstance(value, dict) else [value]
    items = [_row(item) for item in items]
    # What one object of the file has that JSON has not, another may have too.
    return [OddRecord(item) if isinstance(item, dict) else item for item in items] if odd else items


def _row(item: Any) -> Any:
    """An item as the Hub's viewer gives it has its record under `row`."""
    if isinstance(item, dict) and isinstance(row := cast("dict[str, Any]", item).get("row"), dict):
        return cast("Any", row)
    return item


def _unwrapped(value: dict[str, Any]) -> list[Any]:
    lists = {name: v for name, v in value.items() if _is_objects(v)}
    name = next((n for n in value if n.lower() in _WRAPPERS and n in lists), None)
    if name is None and len(lists) == 1 and not any(isinstance(v, str) for v in value.values()):
        name = next(iter(lists))
    if name is not None:
        return _questions(lists[name])
    columns = list(value.values())
    if len(columns) > 1 and all(isinstance(c, dict) and c for c in columns):
        keys = list(cast("dict[str, Any]", columns[0]))
        if all(k.isdecimal() for k in keys) and all(list(cast("dict[str, Any]", c)) == keys for c in columns):
            return [{name: c[key] for name, c in value.items()} for key in keys]
    if columns and all(isinstance(c, dict) and len(cast("dict[str, Any]", c)) > 1 for c in columns):
        return [{"id": name, **record} for name, record in value.items()]
    if len(columns) > 1 and all(isinstance(c, list) for c in columns):
        sizes = {len(cast("list[Any]", c)) for c in columns}
        if len(sizes) == 1 and not any(map(_is_objects, columns)):
            return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    return [value]


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in cast("list[Any]", value))


def _questions(items: list[Any]) -> list[Any]:
    """The questions of SQuAD's articles, each with its paragraph; other items as they are."""
    if not all("paragraphs" in item for item in items):
        return items
    return [
        {**qa, "context": paragraph.get("context"), "title": item.get("title")}
        for item in items
        for paragraph in item["paragraphs"]
        for qa in paragraph.get("qas", ())
    ]
