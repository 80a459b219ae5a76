"""Replies that must have a form: a pattern, a JSON schema."""

from __future__ import annotations

from typing import Any

import pytest

from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.reading.json_values import extract_json
from reflexion.types import Evaluation, Problem, Trial

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
PERSON = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


async def judge(spec: str, answer: Any, reply: str, **options: Any) -> Evaluation:
    problem = Problem(id="p", prompt="?", answer=answer)
    evaluator = resolve_evaluator(spec, problem, **options)
    assert evaluator.check(problem) is None
    return await evaluator.evaluate(problem, Trial(index=1, answer=reply))


def refusal(spec: str, answer: Any) -> str | None:
    problem = Problem(id="p", prompt="?", answer=answer)
    return resolve_evaluator(spec, problem).check(problem)


@pytest.mark.parametrize(
    ("pattern", "reply", "right"),
    [
        (r"^\d{3}-\d{4}$", "555-0123", True),
        (r"^\d{3}-\d{4}$", "Call this one:\n555-0123", True),
        (r"^\d{3}-\d{4}$", "Answer: 555-0123", True),
        (r"^\d{3}-\d{4}$", "5550123", False),
        (r"^Answer: \d+$", "Well.\nAnswer: 12", True),
        (r"(?s)^Dear .*Yours$", "Dear Ann,\nthe answer is yes.\nYours", True),
        (r"Rome", "Rome? No.\nAnswer: Oslo", False),
        (r"(?i)oslo", "It's OSLO", True),
    ],
)
async def test_patterns(pattern: str, reply: str, right: bool) -> None:
    assert (await judge("regex", pattern, reply)).passed is right


@pytest.mark.parametrize("pattern", [r"^(a|aa)+$", r"(x+x+)+y", r"^(\w+\s?)*$"])
async def test_a_pattern_with_too_many_ways_is_given_up(pattern: str) -> None:
    reply = {"(x": "x" * 5_000}.get(pattern[:2], "a" * 60 + "!")
    verdict = await judge("regex", pattern, reply)
    assert not verdict.passed and verdict.failure_class in ("PatternTimeout", "WrongAnswer")


@pytest.mark.parametrize(
    ("schema", "reply", "right"),
    [
        (PERSON, '```json\n{"name": "Ann"}\n```', True),
        (PERSON, 'Here it is: {"name": "Ann"}. Anything else?', True),
        (PERSON, '{"nom": "Ann"}', False),
        (PERSON, "Ann", False),
        ({"type": "integer"}, "Answer: 12", True),
        ({"type": "number"}, "NaN", False),
        ({"type": "string", "format": "date"}, '"2024-02-29"', True),
        ({"type": "string", "format": "date"}, '"2023-02-29"', False),
        ({"type": "string", "format": "email"}, '"ann"', False),
        ({"type": "string", "format": "date-time"}, '"2024-02-29T10:00:00Z"', True),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "array"}}}, "[1]", True),
        ({"$schema": DRAFT_7, "$ref": "#/definitions/n", "definitions": {"n": {"type": "array"}}}, "1", False),
        ({"const": 900719925474099312345}, "900719925474099312345", True),
        ({"const": 900719925474099312345}, "900719925474099312346", False),
        ({"type": "array"}, "[" * 1_000 + "]" * 1_000, False),
        ({"type": "object"}, '{"a":' * 1_000 + "1" + "}" * 1_000, False),
        ({"type": "integer"}, "9" * 6_000, False),
        ({"type": "string"}, '"\ud83d"', False),
        ({"type": "string", "pattern": "^(a+)+$"}, '"' + "a" * 50 + '!"', False),
        ({"patternProperties": {"^(a|aa)+$": {"type": "integer"}}}, '{"' + "a" * 50 + '!": "x"}', True),
    ],
)
async def test_schemas(schema: Any, reply: str, right: bool) -> None:
    verdict = await judge("json_schema", schema, reply)
    assert verdict.passed is right
    assert right or verdict.failure_class in ("NoJson", "SchemaError")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/person.json"},
        {"$ref": "file:///etc/hostname"},
        {"properties": {"a": {"$ref": "person.json"}}},
        {"$schema": "http://127.0.0.1:9/meta.json"},
    ],
)
def test_a_schema_elsewhere_is_never_fetched(schema: Any) -> None:
    reason = refusal("json_schema", schema)
    assert reason is not None and "fetched" in reason and "$defs" in reason and "\n" not in reason


@pytest.mark.parametrize(
    ("spec", "answer", "named"),
    [
        ("regex", "(", "regular expression"),
        ("regex", "[", "regular expression"),
        ("regex", "", "empty"),
        ("json_schema", "x", "JSON schema"),
        ("json_schema", {"type": 5}, "JSON schema"),
        ("json_schema", {"$ref": "#/$defs/absent"}, "JSON schema"),
        ("json_schema", {"pattern": "("}, "JSON schema"),
        ("json_schema", False, "no value satisfies"),
        ("json_schema", {"not": {}}, "no value satisfies"),
    ],
)
def test_what_cannot_be_judged_is_said_beforehand(spec: str, answer: Any, named: str) -> None:
    reason = refusal(spec, answer)
    assert reason is not None and named in reason and "'answer'" in reason


@pytest.mark.parametrize("schema", [{"const": 8712}, {"enum": [8712]}, {"anyOf": [{"const": 8712}]}])
async def test_a_schemas_constants_are_the_answer(schema: Any) -> None:
    hidden = await judge("json_schema", schema, "5")
    assert not hidden.passed and "8712" not in hidden.feedback
    if "anyOf" not in schema:
        assert "8712" in (await judge("json_schema", schema, "5", reveal_answers=True)).feedback


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ('Sure:\n```json\n{"a": 1}\n```\nSee [1].', {"a": 1}),
        ('```\n{"a": 1}\n```\nthen\n```json\n{"a": 2}\n```', {"a": 2}),
        ('First {"a": [1]}, then {"b": 2}, done', {"b": 2}),
        (' 5" pipes, {"a": "}"} and so on', {"a": "}"}),
        ('{see {"a": 1}}', {"a": 1}),
        (" 5 ", 5),
        ('"five"', "five"),
    ],
)
def test_json_is_found_wherever_it_stands(reply: str, value: Any) -> None:
    assert extract_json(reply) == value


@pytest.mark.parametrize("reply", ["nothing", "{", "[1, 2", '{"a": NaN}', "[1e999]", "{'a': 1}", "[" * 1_000])
def test_what_is_no_json(reply: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|deep"):
        extract_json(reply)
