"""Lessons out of a memory and into another one, as JSON lines."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from pydantic import ValidationError

from reflexion.errors import DatasetError, StorageError
from reflexion.memory.episodic_memory import Memory
from reflexion.types import Lesson

__all__ = ["Imported", "export_lessons", "import_lessons"]


class Imported(NamedTuple):
    """What came of an import."""

    added: int
    known: int
    """Lines whose lesson was there already, or is too large for the memory."""


async def export_lessons(memory: Memory, path: Path) -> int:
    """Write all lessons, oldest first, one JSON object a line; returns how many.

    The file appears whole or not at all.

    Raises:
        StorageError: the memory cannot be read or the file not be written.
    """
    count = 0
    try:
        with _replacing(path) as file:
            async for lesson in memory.export():
                file.write(lesson.model_dump_json() + "\n")
                count += 1
    except OSError as error:
        raise StorageError(f"{path}: the lessons cannot be written ({error.strerror or error})") from error
    return count


@contextmanager
def _replacing(path: Path) -> Generator[TextIO, None, None]:
    """A file that takes the place of `path` when all went well, and is gone when not."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


async def import_lessons(memory: Memory, path: Path) -> Imported:
    """Add the lessons of a file that `export_lessons` wrote; counters and ages come along.

    Every line is checked before the first one is added. Importing twice adds nothing twice.

    Raises:
        DatasetError: the file is missing, or a line is wrong; names the line and the field.
    """
    for _ in _read(path):
        pass
    added = known = 0
    for lesson in _read(path):
        if await memory.add(lesson):
            added += 1
        else:
            known += 1
    return Imported(added, known)


def _read(path: Path) -> Iterator[Lesson]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    yield _lesson(path, number, line)
    except OSError as error:
        raise DatasetError(f"{path}: the lessons cannot be read ({error.strerror or error})") from error


def _lesson(path: Path, number: int, line: bytes) -> Lesson:
    try:
        return Lesson.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f"{path}:{number}: " + (f"field {field!r}: " if field else "")
        raise DatasetError(f"{where}{first['msg']}; each line must be a lesson as 'memory export' writes it") from error
