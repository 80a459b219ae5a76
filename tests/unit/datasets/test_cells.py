"""Lists and objects that stand as text in a cell."""

from __future__ import annotations

from typing import Any

import pytest

from reflexion.datasets.text_cells import as_list, read_cell


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['assert f(1) == 2', \"assert f('a') == 'b'\"]", ["assert f(1) == 2", "assert f('a') == 'b'"]),
        ('["assert f(1)", "assert f(2)"]', ["assert f(1)", "assert f(2)"]),
        ("('x', 'y')", ["x", "y"]),
        ("  [1, -2.5, None, True]\n", [1, -2.5, None, True]),
        ("{'value': 'Bern', 'aliases': ['Berne']}", {"value": "Bern", "aliases": ["Berne"]}),
        ('{"a": null}', {"a": None}),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("[1 2\n 3]", [1, 2, 3]),
        ("[list(['a'])]", None),
        ("{'text': array(['Rhine', 'Rhein'], dtype=object), 'n': array([7])}", {"text": ["Rhine", "Rhein"], "n": [7]}),
        ("array(['one', 'two'], dtype=object)", ["one", "two"]),
        ("[nan, 1]", None),
        ("[]", []),
        ("[x for x in y]", None),
        ("[__import__('os').getcwd()]", None),
        ("['a' ... 'z']", None),
        ("[open] brackets", None),
        ("plain text", None),
        ("", None),
        ("[" * 5000, None),
    ],
)
def test_literals_are_read_and_nothing_is_carried_out(text: str, value: Any) -> None:
    read = read_cell(text)
    if text.startswith("[nan"):
        assert isinstance(read, list) and read[0] != read[0] and read[1] == 1
    else:
        assert read == value


def test_a_list_is_one_already_or_stands_in_a_cell() -> None:
    assert as_list(["a"]) == ["a"]
    assert as_list("['a']") == ["a"]
    assert as_list("{'a': 1}") is None
    assert as_list("a") is None
    assert as_list(3) is None
