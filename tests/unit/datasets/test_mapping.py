"""Fields by other names, within others, joined and in templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reflexion.datasets import open_dataset
from reflexion.errors import DatasetError
from reflexion.types import Problem


def first(path: Path, record: dict[str, Any], **mapping: str) -> Problem:
    path.write_text(json.dumps(record) + "\n")
    return open_dataset(path, mapping=mapping)[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.jsonl"


NESTED = {
    "q": {"text": "Longest river?", "lang": "en"},
    "gold": {"main": "Nile", "also": ["the Nile", "Nil"]},
    "votes": [{"text": "Nile"}, {"text": "Amazon"}],
    "a.b": "dotted",
}


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("gold.main", "Nile"),
        ("gold.also", ["the Nile", "Nil"]),
        ("gold.also.1", "Nil"),
        ("gold.also.-1", "Nil"),
        ("votes.0.text", "Nile"),
        ("votes.text", ["Nile", "Amazon"]),
        ("a.b", "dotted"),
        ("gold.main+gold.also", ["Nile", "the Nile", "Nil"]),
        ("{gold.main} ({q.lang})", "Nile (en)"),
    ],
)
def test_a_path_leads_into_a_field(path: Path, spec: str, answer: Any) -> None:
    problem = first(path, NESTED, prompt="q.text", answer=spec)
    assert (problem.prompt, problem.answer) == ("Longest river?", answer)


def test_a_path_leads_into_a_cell_of_text(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("q,gold\nRiver?,\"{'aliases': array(['Aare' 'Aar'], dtype=object)}\"\n")
    assert open_dataset(path, mapping={"prompt": "q", "answer": "gold.aliases"})[0].answer == ["Aare", "Aar"]


@pytest.mark.parametrize(("name", "answer"), [("aliases", ["Aare", "Aar"]), ("output", "['Aare', 'Aar']")])
def test_a_text_with_a_list_is_one_where_the_field_holds_several_by_its_name(
    path: Path, name: str, answer: Any
) -> None:
    assert first(path, {"ask": "River?", name: "['Aare', 'Aar']"}, prompt="ask", answer=name).answer == answer


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{story} {ask}", "Bo has 2 pens. How many?"),
        ("Read:\\n{story}\\n\\n{ask}", "Read:\nBo has 2 pens.\n\nHow many?"),
        ("{ask} Facts: {facts} Year {year}", "How many? Facts: red\nblue Year 1999"),
        ("{ask}{none}", "How many?"),
    ],
)
def test_a_template_joins_fields(path: Path, template: str, prompt: str) -> None:
    record = {"story": "Bo has 2 pens.", "ask": "How many?", "facts": ["red", "blue"], "year": 1999, "none": None}
    assert first(path, record, prompt=template).prompt == prompt


def test_texts_are_joined_line_by_line_and_lists_one_after_another(path: Path) -> None:
    record = {
        "ask": "Write g.",
        "setup": "import math",
        "checks": ["assert g(1)"],
        "more": "['assert g(2)']",
        "no": None,
    }
    assert (
        first(path, record, prompt="ask", tests="setup+checks+more+no").tests == "import math\nassert g(1)\nassert g(2)"
    )
    assert first(path, record, prompt="ask+setup").prompt == "Write g.\nimport math"


CHATS: list[tuple[Any, str]] = [
    ([{"role": "user", "content": "Hello?"}], "Hello?"),
    (
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "System: Be brief.\n\nUser: Hello?",
    ),
    ([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}], "Hi"),
    (
        [
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Yes?"},
            {"from": "human", "value": "How many?"},
            {"from": "gpt", "value": "Seven"},
        ],
        "User: Hi\n\nAssistant: Yes?\n\nUser: How many?",
    ),
    ([{"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}]}], "One\nTwo"),
    (json.dumps([{"role": "user", "content": "As text"}]), "As text"),
]


@pytest.mark.parametrize(("chat", "prompt"), CHATS, ids=range(len(CHATS)))
def test_a_chat_is_a_prompt(path: Path, chat: Any, prompt: str) -> None:
    assert first(path, {"dialog": chat, "key": "x"}, prompt="dialog", answer="key").prompt == prompt


@pytest.mark.parametrize("options", [["red", "blue"], {"A": "red", "B": "blue"}, "['red', 'blue']"])
def test_options_are_mapped(path: Path, options: Any) -> None:
    problem = first(
        path, {"ask": "Colour of the sky?", "alts": options, "right": "B"}, prompt="ask", options="alts", answer="right"
    )
    assert (problem.prompt, problem.answer) == ("Colour of the sky?\n\nA) red\nB) blue", "B")
    assert problem.evaluator == "choice"


def test_options_of_several_fields_are_kept_apart(path: Path) -> None:
    record = {"ask": "Hue of the sky?", "one": "red", "two": "blue", "three": "pink", "right": "blue"}
    for spec in ("one+two", "one + two", "three+two"):
        problem = first(path, record, prompt="ask", options=spec, answer="right")
        assert (problem.answer, problem.evaluator) == ("B", "choice")
        assert problem.prompt.endswith("B) blue")


@pytest.mark.parametrize(("target", "spec"), [("options", "one"), ("choices", "one"), ("input_output", "ask")])
def test_a_mapping_that_would_vanish_is_refused(path: Path, target: str, spec: str) -> None:
    with pytest.raises(DatasetError, match=rf":1: mapping {target}={spec}: .*'{target}'.*'plain'"):
        first(path, {"ask": "Hue?", "one": "red", "right": "red"}, prompt="ask", answer="right", **{target: spec})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gold.name", ":1: mapped field 'gold.name' is missing; 'gold' holds 'main', 'also'"),
        (
            "gold.main.first",
            ":1: mapped field 'gold.main.first' is missing; 'gold.main' is a text, which has no 'first'",
        ),
        ("gold.also.7", ":1: mapped field 'gold.also.7' is missing; 'gold.also' is a list of 2"),
        ("silver.main", ":1: mapped field 'silver' is missing; fields found: 'q', 'gold', 'votes', 'a.b'"),
        ("{gold.main} {silver}", ":1: mapped field 'silver' is missing"),
        ("gold.main+silver", ":1: mapped field 'silver' is missing"),
    ],
)
def test_what_a_mapping_does_not_find_is_named_with_its_row(path: Path, spec: str, message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        first(path, NESTED, prompt="q.text", answer=spec)
    assert f"{path}{message}" in str(caught.value)


def test_a_later_row_is_named_too(path: Path) -> None:
    rows = [{"q": "a", "gold": {"x": 1}}, {"q": "b", "gold": None}, {"q": "c", "gold": {"y": 2}}]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(DatasetError, match=r":3: mapped field 'gold.x' is missing; 'gold' holds 'y'"):
        open_dataset(path, mapping={"prompt": "q", "answer": "gold.x"})


def test_the_mapping_is_part_of_the_digest(path: Path) -> None:
    path.write_text(json.dumps(NESTED) + "\n")
    specs = ("gold.main", "gold.also", "{gold.main}", "gold.main+gold.main")
    digests = {open_dataset(path, mapping={"prompt": "q.text", "answer": spec}).digest for spec in specs}
    assert len(digests) == len(specs)
