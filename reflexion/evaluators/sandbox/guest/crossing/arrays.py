"""Arrays and tables of packages that the sandbox is let see: they cross as their data."""

from __future__ import annotations

import sys
from typing import Any

from ..failures import DecodeError

__all__ = ["PACKAGES", "put_together", "taken_apart"]

PACKAGES = ("numpy", "pandas")

Parts = tuple[str, str, tuple[Any, ...]]


def taken_apart(value: Any) -> Parts | None:
    """Package, kind and parts of an array, a number or a table; None for any other object."""
    return _array(value) if type(value).__module__.partition(".")[0] == "numpy" else _table(value)


def put_together(package: str, kind: str, parts: tuple[Any, ...]) -> Any:
    """The object that `taken_apart` took apart.

    Raises:
        DecodeError: it is none.
    """
    return (_rebuild_array if package == "numpy" else _rebuild_table)(kind, parts)


def _array(value: Any) -> tuple[str, str, tuple[Any, ...]] | None:
    """An array or a number of numpy, where that package is let in."""
    numpy = sys.modules["numpy"]
    kind: Any = type(value)
    if kind is numpy.ndarray and value.dtype.kind in "biufcSUmM":
        return "numpy", "ndarray", (value.dtype.str, value.shape, numpy.ascontiguousarray(value).tobytes())
    if kind is numpy.ndarray and value.dtype.kind == "O":
        return "numpy", "objects", (value.shape, value.ravel().tolist())
    if isinstance(value, numpy.generic) and value.dtype.kind in "biufcSUmM":
        return "numpy", "number", (value.dtype.str, value.tobytes())
    if isinstance(value, numpy.dtype) and value.kind in "biufcSUmM":
        return "numpy", "dtype", (value.str,)
    return None


def _table(value: Any) -> tuple[str, str, tuple[Any, ...]] | None:
    """A table or a column of pandas, where that package is let in and all its columns are arrays of numpy."""
    pandas = sys.modules["pandas"]
    kind: Any = type(value)
    if kind is pandas.DataFrame:
        columns = [value.iloc[:, place] for place in range(value.shape[1])]
        parts = [_column(column) for column in columns]
        labels = _labels(value.columns)
        index = _labels(value.index)
        if any(part is None for part in (*parts, labels, index)):
            return None
        return "pandas", "DataFrame", (index, labels, *parts)
    if kind is pandas.Series:
        part, index = _column(value), _labels(value.index)
        return None if part is None or index is None else ("pandas", "Series", (index, _scalar(value.name), part))
    return None


def _column(column: Any) -> Any:
    """The values of a column, or None where they are no plain array."""
    array = column.to_numpy()
    return array if type(array).__module__ == "numpy" and str(column.dtype) == str(array.dtype) else None


def _labels(index: Any) -> Any:
    """What makes an equal index: its name and values; None where it has levels or is no plain array."""
    pandas = sys.modules["pandas"]
    if type(index) is pandas.RangeIndex:
        return ("range", _scalar(index.name), index.start, index.stop, index.step)
    if type(index) is not pandas.Index:
        return None
    return ("plain", _scalar(index.name), index.to_numpy(), str(index.dtype))


def _scalar(name: Any) -> Any:
    return name if isinstance(name, str | int | float | tuple | None) else str(name)


def _rebuild_array(name: str, args: tuple[Any, ...]) -> Any:
    numpy = __import__("numpy")
    if name == "dtype":
        return numpy.dtype(_plain_kind(args[0]))
    if name == "objects":
        made = numpy.empty(len(args[1]), dtype=object)
        made[:] = args[1]
        return made.reshape(args[0])
    kind = numpy.dtype(_plain_kind(args[0]))
    if name == "number":
        return numpy.frombuffer(args[1], dtype=kind)[0]
    return numpy.frombuffer(args[2], dtype=kind).reshape(args[1]).copy()


def _plain_kind(text: Any) -> str:
    if not isinstance(text, str) or "O" in text or len(text) > 40:
        raise DecodeError(f"no kind of number: {text!r}")
    return text


def _rebuild_table(name: str, args: tuple[Any, ...]) -> Any:
    pandas = __import__("pandas")

    def index(parts: Any) -> Any:
        if parts[0] == "range":
            return pandas.RangeIndex(*parts[2:], name=parts[1])
        return pandas.Index(parts[2], name=parts[1], dtype=parts[3])

    if name == "Series":
        return pandas.Series(args[2], index=index(args[0]), name=args[1])
    made = pandas.DataFrame(dict(enumerate(args[2:])), index=index(args[0]))
    made.columns = index(args[1])
    return made
