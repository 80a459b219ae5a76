"""Properties of cache keys: canonical, sensitive to every value, and explainable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexion.keys import canonical, differences, digest

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


@given(FIELDS)
def test_the_order_of_fields_does_not_matter(fields: dict[str, object]) -> None:
    assert digest(fields) == digest(dict(reversed(fields.items())))


@given(FIELDS, FIELDS)
def test_keys_are_equal_exactly_when_the_canonical_forms_are(a: dict[str, object], b: dict[str, object]) -> None:
    assert (digest(a) == digest(b)) == (canonical(a) == canonical(b))


@given(FIELDS)
def test_equal_fields_have_no_differences(fields: dict[str, object]) -> None:
    assert differences(fields, dict(fields)) == []


@given(FIELDS, st.text(max_size=4), SCALARS.filter(lambda v: v is not None))
def test_a_changed_field_is_named(fields: dict[str, object], name: str, value: object) -> None:
    changed = {**fields, name: [value, "changed"]}
    if digest(changed) != digest(fields):
        assert any(path.split(".")[0] == name.split(".", maxsplit=1)[0] for path, _, _ in differences(fields, changed))


def test_whole_floats_and_integers_are_one_value() -> None:
    assert digest({"temperature": 0}) == digest({"temperature": 0.0})
    assert digest({"temperature": 0}) != digest({"temperature": False})


@pytest.mark.parametrize("value", [object(), float("nan"), float("inf"), b"bytes"])
def test_what_json_cannot_express_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        digest({"x": value})


def test_nested_fields_are_named_by_their_path() -> None:
    a = {"model": {"name": "gpt-4"}, "sampling": {"temperature": 0}}
    b = {"model": {"name": "gpt-4"}, "sampling": {"temperature": 0.2}}
    assert differences(a, b) == [("sampling.temperature", 0, 0.2)]
