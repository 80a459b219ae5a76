"""Plain records: the fields of a problem by their own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from reflexion.datasets.formats.fields import (
    Field,
    Format,
    Record,
    is_anything,
    is_string,
    is_strings,
    is_text,
    lines_of,
    python_text,
)
from reflexion.datasets.formats.messages import is_prompt, prompt_text
from reflexion.datasets.formats.questions import documents_of, is_documents

__all__ = ["PLAIN"]


def _plain(record: Record) -> dict[str, Any]:
    get = record.get
    prompt, tests = record["prompt"], get("tests")
    if tests is not None:
        tests = python_text(tests)
        setup = [text for n in _SETUP if (text := python_text(get(n))).strip()]
        tests = "\n".join([*setup, tests])
    return {
        "prompt": prompt if prompt.__class__ is str and prompt[:1] != "[" else prompt_text(prompt),
        "answer": get("answer"),
        "evaluator": get("evaluator"),
        "entry_point": get("entry_point"),
        "tests": tests,
        "visible_tests": lines_of(visible) if (visible := get("visible_tests")) else (),
        "context": documents_of(context) or () if (context := get("context")) else (),
        "environment": get("environment"),
    }


_SETUP = ("test_imports", "test_setup_code")


def _is_environment(value: Any) -> bool:
    return is_text(value) or (isinstance(value, Mapping) and is_text(cast("Record", value).get("name")))


PLAIN = Format(
    "plain",
    (
        Field(("prompt",), is_prompt, "a text that is not empty", required=True),
        Field(("answer",), is_anything, "any JSON value"),
        Field(("evaluator",), is_text, "the name of an evaluator"),
        Field(("tests",), is_strings, "Python code, or a list of asserts"),
        Field(("visible_tests",), is_strings, "a list of asserts"),
        Field(("test_imports",), is_strings, "Python code"),
        Field(("test_setup_code",), is_string, "Python code"),
        Field(("entry_point",), is_text, "the name of the function under test"),
        Field(("context",), is_documents, 'a list of {"title": …, "text": …}'),
        Field(("environment",), _is_environment, 'the name of an environment, or an object with its "name"'),
    ),
    _plain,
)
"""What the names of `Problem` mean by themselves; fields it does not know become metadata."""
