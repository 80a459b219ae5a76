"""What a format is: its fields, the checks of a record against them, and how a record becomes a `Problem`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, TypeGuard, cast

from reflexion.datasets.text_cells import as_list, read_cell
from reflexion.errors import DatasetError
from reflexion.types import Problem

__all__ = [
    "Field",
    "Format",
    "Record",
    "Unfit",
    "identifier",
    "is_anything",
    "is_string",
    "is_strings",
    "is_text",
    "json_safe",
    "keep",
    "lines_of",
    "python_text",
]

Record = Mapping[str, Any]

OWN_SOLUTIONS = (
    "own_solution",
    "canonical_solution",
    "reference_solution",
    "solution_code",
    "code",
    "solution",
    "completion",
)
"""What records call a solution of their own; the first one present counts."""


class Unfit(ValueError):
    """A record whose fields are right one by one and make no problem together."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a format: its names, of which the first one present counts, and what it must hold."""

    names: tuple[str, ...]
    accepts: Callable[[Any], bool]
    wanted: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write problems down."""

    name: str
    fields: tuple[Field, ...]
    build: Callable[[Record], dict[str, Any]]
    """Turns a checked record into fields of `Problem`, without `id` and without what is left over."""
    selective: bool = False
    """Whether `build` may raise `Unfit`: then it is tried on every record when a file is opened."""
    note: str = ""
    """What a user should know about verdicts on such a file, or nothing."""
    by_name: dict[str, Field] = dataclass_field(init=False)
    needed: tuple[Field, ...] = dataclass_field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {name: f for f in self.fields for name in f.names})
        object.__setattr__(self, "needed", tuple(f for f in self.fields if f.required))

    def lacks(self, record: Record) -> str | None:
        """Why a record is not of this format, or None."""
        absent = ["/".join(f.names) for f in self.fields if f.required and _get(record, f) is None]
        if absent:
            return "no " + ", no ".join(repr(name) for name in absent)
        return next((f"{_name(record, f)!r} is not {f.wanted}" for f in self.fields if not _fits(record, f)), None)

    def check(self, record: Record, path: Path, number: int) -> None:
        """Raise when a record cannot become a problem.

        Raises:
            DatasetError: naming the line and the field.
        """
        if not self._is_plainly_right(record):
            self._explain(record, f"{path}:{number}")
        if self.selective:
            try:
                self.build(record)
            except Unfit as error:
                raise DatasetError(f"{path}:{number}: {error}") from None

    def _is_plainly_right(self, record: Record) -> bool:
        """The quick answer for the millions of good records; False: look closer."""
        for name, value in record.items():
            field = self.by_name.get(name)
            if field is not None and value is not None and not field.accepts(value):
                return False
        for field in self.needed:
            for name in field.names:
                if record.get(name) is not None:
                    break
            else:
                return False
        identifier = _raw_id(record)
        return identifier is None or (identifier.__class__ in (str, int) and identifier != "")

    def _explain(self, record: Record, where: str) -> None:
        for field in self.fields:
            if not _fits(record, field):
                value = _get(record, field)
                if value is None:
                    raise DatasetError(
                        f"{where}: field {'/'.join(field.names)!r} is missing; it must be {field.wanted}"
                    )
                raise DatasetError(
                    f"{where}: field {_name(record, field)!r} must be {field.wanted}, not {_show(value)}"
                )
        value = _raw_id(record)
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int) or value == ""):
            raise DatasetError(f"{where}: field 'id' must be a text or a whole number, not {_show(value)}")

    def problem(self, record: Record, number: int, *, odd: bool = False) -> Problem:
        """The problem of a checked record; fields the format does not know become metadata.

        Args:
            odd: whether it may hold numbers that JSON has not.
        """
        given = record.get("metadata")
        metadata = {} if given is None else _metadata(given)
        metadata |= {k: v for k, v in record.items() if k not in self.by_name and k not in _OWN and v is not None}
        built = self.build(record)
        metadata |= built.pop("metadata", {})
        if built.get("tests"):
            _set_own_solution(metadata, record, built)
        if odd:
            metadata = cast("dict[str, Any]", json_safe(metadata))
            built["answer"] = json_safe(built.get("answer"))
        return Problem(id=identifier(record, number), metadata=metadata, **built)


def _metadata(given: Any) -> dict[str, Any]:
    value = read_cell(given) if isinstance(given, str) else given
    return dict(cast("Record", value)) if isinstance(value, Mapping) else {"metadata": given}


def _set_own_solution(metadata: dict[str, Any], record: Record, built: dict[str, Any]) -> None:
    """Keep a record's own solution under one name, whatever the record calls it."""
    if "own_solution" in metadata:
        return
    name = next((n for n in OWN_SOLUTIONS if is_text(metadata.get(n))), None)
    if name is not None:
        metadata["own_solution"] = whole_solution(metadata.pop(name), record.get("prompt"), built.get("entry_point"))


def whole_solution(solution: str, prompt: Any, name: str | None) -> str:
    """A solution that runs by itself: a bare body is put under the prompt's head, imports above a whole one."""
    if not name or not isinstance(prompt, str) or f"def {name.rpartition('.')[2]}" not in prompt:
        return solution
    if f"def {name.rpartition('.')[2]}" not in solution:
        return prompt.rstrip("\n") + "\n" + solution if solution[:1].isspace() else prompt + solution
    lines = prompt.splitlines(keepends=True)
    head = next((i for i, line in enumerate(lines) if line.startswith(("def ", "async def ", "class ", "@"))), 0)
    return "".join(line for line in lines[:head] if line.startswith(("import ", "from "))) + solution


_IDS = ("id", "_id", "task_id")
_OWN = frozenset((*_IDS, "metadata"))


def _raw_id(record: Record) -> Any:
    for name in _IDS:
        value = record.get(name)
        if value is not None:
            return value
    return None


def identifier(record: Record, number: int) -> str:
    """A record's id: `id`, `_id` or `task_id`, else the number of its line."""
    value = _raw_id(record)
    return str(number if value is None else value)


def _name(record: Record, field: Field) -> str:
    return next((n for n in field.names if record.get(n) is not None), field.names[0])


def _get(record: Record, field: Field) -> Any:
    return record.get(_name(record, field))


def _fits(record: Record, field: Field) -> bool:
    value = _get(record, field)
    return not field.required if value is None else field.accepts(value)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it is a text that is not empty."""
    return isinstance(value, str) and bool(value.strip())


def is_string(value: Any) -> bool:
    """Whether it is a text."""
    return isinstance(value, str)


def is_strings(value: Any) -> bool:
    """Whether it is a text or a list of texts."""
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(v, str) for v in cast("list[Any]", value))
    )


def is_anything(value: Any) -> bool:
    """True."""
    return True


def keep(record: Record, name: str) -> dict[str, Any]:
    """The field as it is, if the record has it."""
    return {name: record[name]} if record.get(name) is not None else {}


def lines_of(value: Any) -> tuple[str, ...]:
    """A list of texts, a list in a text cell, or the lines of a text; blank ones left out."""
    if isinstance(value, str):
        items = as_list(value) if value.lstrip()[:1] == "[" else None
        value = items if items is not None and is_strings(items) else value.splitlines()
    return tuple(line for line in cast("list[str]", value or []) if line.strip())


def python_text(value: Any) -> str:
    """Python code out of a text, a list of statements, or such a list in a text cell."""
    if isinstance(value, str):
        items = as_list(value) if value.lstrip()[:1] == "[" else None
        if items is None or not items or not is_strings(items):
            return value
        value = items
    return "\n".join(cast("list[str]", value or []))


def json_safe(value: Any) -> Any:
    """The value with whole numbers beyond 64 bits and infinities as texts, and None for what is no number."""
    if isinstance(value, dict):
        return {k: json_safe(v) for k, v in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [json_safe(v) for v in cast("list[Any]", value)]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
