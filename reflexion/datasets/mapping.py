"""Mapping a file's fields to ours: names, nested names, templates and joins."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from reflexion.datasets.formats.fields import Record
from reflexion.datasets.text_cells import read_cell
from reflexion.errors import DatasetError

__all__ = ["FieldMap"]

_SLOT = re.compile(r"\{([^{}]+)\}")
_ABSENT = object()
_SEVERAL = frozenset(("options", "choices", "endings"))
"""Targets that hold several texts, which a join keeps apart."""


class FieldMap:
    """Gives records our names.

    What a target is made of is one of: a field's name; a path into it (`answer.aliases`, `answers.text.0`; through
    a list of objects it collects); a template (`{Body} {Question}`, where `\\n` breaks the line); several joined
    by `+` (`test_list+challenge_test_list`: lists one after another, texts line by line, and options each by
    itself). A field whose own name
    looks like one of these is taken by its name.
    """

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self.mapping = dict(mapping)
        self._used = {name for spec in self.mapping.values() for name in _whole_names(spec)}

    def __bool__(self) -> bool:
        return bool(self.mapping)

    def apply(self, record: Record, where: str, *, first: bool = False) -> Record:
        """The record with our names; what was used as a whole goes by them only.

        Args:
            where: file and row, for the message.
            first: whether a plain name that is missing is an error: it may be absent in later rows.

        Raises:
            DatasetError: names the row and the field that is missing.
        """
        kept = {k: v for k, v in record.items() if k not in self._used and k not in self.mapping}
        for ours, spec in self.mapping.items():
            value = self._value(record, spec, where, first, apart=ours in _SEVERAL)
            if value is not _ABSENT:
                kept[ours] = value
        return kept

    def _value(self, record: Record, spec: str, where: str, first: bool, *, apart: bool = False) -> Any:
        if spec in record:
            return record[spec]
        if _SLOT.search(spec):
            return _SLOT.sub(lambda slot: _text(self._named(record, slot[1].strip(), where)), spec.replace("\\n", "\n"))
        if "+" in spec:
            return _joined([self._named(record, part.strip(), where) for part in spec.split("+")], apart=apart)
        if "." in spec:
            return _walk(record, spec, where)
        if first:
            raise _missing(where, spec, record)
        return _ABSENT

    def _named(self, record: Record, name: str, where: str) -> Any:
        if name in record:
            return record[name]
        if "." in name:
            return _walk(record, name, where)
        raise _missing(where, name, record)


def _whole_names(spec: str) -> list[str]:
    if slots := _SLOT.findall(spec):
        return [spec, *(slot.strip() for slot in slots)]
    return [spec, *(part.strip() for part in spec.split("+"))]


def _missing(where: str, name: str, record: Record, inside: str = "") -> DatasetError:
    found = ", ".join(repr(n) for n in record) or "none"
    place = f"; {inside!r} holds {found}" if inside else f"; fields found: {found}"
    return DatasetError(f"{where}: mapped field {name!r} is missing{place}")


def _walk(record: Record, path: str, where: str) -> Any:
    """What stands at a path; a field that is null, or absent in this row, is absent."""
    parts = path.split(".")
    # A field's own name may hold dots: the longest that there is begins the path.
    size = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in record), 0)
    if not size:
        raise _missing(where, parts[0], record)
    value: Any = record[".".join(parts[:size])]
    for depth in range(size, len(parts)):
        if value is None:
            return None
        value = _step(value, parts[depth], path, ".".join(parts[:depth]), where)
    return value


def _step(value: Any, part: str, path: str, inside: str, where: str) -> Any:
    if isinstance(value, str):
        value = read_cell(value) or value
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        if part in fields:
            return fields[part]
        raise _missing(where, path, fields, inside)
    if isinstance(value, list):
        items = cast("list[Any]", value)
        if part.lstrip("-").isdecimal():
            if -len(items) <= int(part) < len(items):
                return items[int(part)]
            raise DatasetError(f"{where}: mapped field {path!r} is missing; {inside!r} is a list of {len(items)}")
        if items and all(isinstance(item, dict) for item in items):
            return [_step(item, part, path, inside, where) for item in items]
    kind = "a list" if isinstance(value, list) else "a text" if isinstance(value, str) else type(value).__name__
    raise DatasetError(f"{where}: mapped field {path!r} is missing; {inside!r} is {kind}, which has no {part!r}")


def _text(value: Any) -> str:
    """A value within a template."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in cast("list[Any]", value)):
        return "\n".join(cast("list[str]", value))
    return json.dumps(value, ensure_ascii=False)


def _joined(values: list[Any], *, apart: bool = False) -> Any:
    """Lists one after another; texts line by line, or each by itself where the target holds several."""
    parts = [read_cell(v) or v if isinstance(v, str) else v for v in values]
    present = [p for p in parts if p is not None and p != ""]
    if apart or any(isinstance(p, list) for p in present):
        return [item for p in present for item in (cast("list[Any]", p) if isinstance(p, list) else [p])]
    return "\n".join(_text(p) for p in present)
