"""Files that are either whole or not there, and errors that name them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from reflexion.errors import StorageError

__all__ = ["json_bytes", "storage_errors", "write_atomic"]


def json_bytes(value: Any) -> bytes:
    """Indented JSON that ends in a line break."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@contextmanager
def storage_errors(path: Path) -> Generator[None]:
    """Turn the operating system's errors into one that names the path.

    Raises:
        StorageError: for any OSError inside.
    """
    try:
        yield
    except OSError as exc:
        at = exc.filename or path
        raise StorageError(f"{at}: {exc.strerror or exc}") from exc


def write_atomic(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file beside its place and put it there in one step; nothing is left when it fails."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
