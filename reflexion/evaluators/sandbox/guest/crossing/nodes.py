"""What stands in a message for more than a value."""

from __future__ import annotations

from typing import Any

__all__ = ["SINGLETONS", "Keywords", "Raw", "Theirs"]


class Keywords(dict[str, Any]):
    """The named arguments of a call."""


class Theirs:
    """An object of the other side of which only the number is known."""

    def __init__(self, number: int) -> None:
        self.number = number


class Raw:
    """A node that is encoded already."""

    def __init__(self, node: list[Any]) -> None:
        self.node = node


SINGLETONS = frozenset(
    {
        ("dataclasses", "_FIELD"), ("dataclasses", "_FIELD_CLASSVAR"), ("dataclasses", "_FIELD_INITVAR"),
        ("dataclasses", "MISSING"), ("dataclasses", "KW_ONLY"), ("inspect", "_empty"), ("inspect", "_void"),
    }
)  # fmt: skip
