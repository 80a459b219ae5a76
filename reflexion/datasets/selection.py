"""Conditions on problems: `level=hard`, `id~^HumanEval/1`, or a function."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from reflexion.errors import ConfigurationError
from reflexion.types import Problem

__all__ = ["Condition", "Where", "parse_where"]

Condition = Callable[[Problem], bool]
Where = str | Sequence[str] | Condition
"""One condition, several that must all hold, or a function of the problem."""

_SHAPE = re.compile(r"\s*([\w.-]+?)\s*(!=|=|~)\s*(.*?)\s*", re.DOTALL)
_FIELDS = frozenset(Problem.model_fields)


def parse_where(where: Where | None) -> Condition | None:
    """A condition out of text.

    `FIELD=VALUE`, `FIELD!=VALUE` and `FIELD~REGEX` compare a field of the problem, or else of its
    metadata (`a.b` looks into objects), as text. A field that is not there is the empty text.

    Raises:
        ConfigurationError: a condition has another shape, or its regular expression does not compile.
    """
    if where is None or callable(where):
        return where
    conditions = [_parse(text) for text in ([where] if isinstance(where, str) else where)]
    return (lambda problem: all(c(problem) for c in conditions)) if conditions else None


def _parse(text: str) -> Condition:
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise ConfigurationError(f"condition {text!r}: write FIELD=VALUE, FIELD!=VALUE or FIELD~REGEX")
    field, operator, value = shape.groups()
    if operator == "~":
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise ConfigurationError(f"condition {text!r}: not a regular expression ({error})") from error
        return lambda problem: pattern.search(_text(problem, field)) is not None
    return lambda problem: (_text(problem, field) == value) is (operator == "=")


def _text(problem: Problem, field: str) -> str:
    value: Any = getattr(problem, field) if field in _FIELDS else problem.metadata
    if field not in _FIELDS:
        for part in field.removeprefix("metadata.").split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)
