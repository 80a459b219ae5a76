"""Whose verdict: what is said of problems without a reference, before the first call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reflexion.datasets import open_dataset
from reflexion.datasets.unused_fields import suggested_maps, tally_inferred, verdict_notes
from reflexion.testing import ScriptedEndpoint
from tests.support.commands import Command, command_in


def notes(
    path: Path, *records: dict[str, Any], judge: str = "m", asked: bool = False, **options: Any
) -> tuple[str, ...]:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    dataset = open_dataset(path, **options)
    return verdict_notes(dataset, tally_inferred(dataset, asked=asked), actor="m", judge=judge)


@pytest.mark.parametrize(
    ("fields", "maps"),
    [
        ({"expected": "x"}, ["--map answer=expected"]),
        ({"goldLabel": 4}, ["--map answer=goldLabel"]),
        ({"refrence": "x"}, ["--map answer=refrence"]),
        ({"target": ["x"], "level": "hard"}, ["--map answer=target"]),
        ({"reward": {"ground_truth": "x", "style": "rule"}}, ["--map answer=reward.ground_truth"]),
        ({"unit_tests": "assert f(1) == 2"}, ["--map tests=unit_tests"]),
        ({"verify": ["assert f(1) == 2"]}, ["--map tests=verify"]),
        ({"spec": "class T(unittest.TestCase):\n    pass"}, ["--map tests=spec"]),
        ({"my cases": [{"input": "1", "output": "2"}], "code": "x"}, ["--map 'tests=my cases'"]),
        ({"test": "assert f(1)", "canonical_solution": "x"}, ["--map tests=test", "--map answer=canonical_solution"]),
        ({"code": "x", "canonical_solution": "    return a + b"}, []),
        ({"solution": "def f(x):\n    return x"}, []),
        (
            {"chat": [{"role": "user", "content": "Hue?"}, {"role": "assistant", "content": "Red"}]},
            ["--map answer=chat.-1.content"],
        ),
        ({"level": "hard", "source": "web", "seed": 3}, []),
        ({"expected": None, "label": ""}, []),
    ],
)
def test_fields_that_look_like_a_reference(fields: dict[str, Any], maps: list[str]) -> None:
    assert suggested_maps(fields, ("tests", "answer")) == maps


def test_a_file_without_a_reference_is_told_of_with_the_mapping_that_cures_it(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    [note] = notes(path, {"prompt": "a", "expected": "x"}, {"prompt": "b", "expected": "y"})
    assert note == (
        "no reference was found in any of 2 problems (row 1 has neither answer nor tests): the model m judges its own "
        "answers. Unused field 'expected' looks like a reference: --map answer=expected"
    )
    assert notes(path, {"prompt": "a", "expected": "x"}, mapping={"answer": "expected"}) == ()


@pytest.mark.parametrize("empty", ["answer", "tests", "visible_tests"])
def test_an_empty_field_is_told_of(tmp_path: Path, empty: str) -> None:
    [note] = notes(tmp_path / "d.jsonl", {"prompt": "a", empty: None, "level": 1}, judge="stronger")
    assert f"(row 1 has an empty {empty!r}): the model stronger judges." in note
    assert "Unused fields: 'level'" in note and "--map answer=FIELD" in note


def test_problems_judged_in_several_ways_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "answer": "x"} for i in range(16)]
    path = tmp_path / "d.jsonl"
    [note] = notes(path, *rows, {"prompt": "q", "answer": None}, {"prompt": "r"})
    assert note.startswith(
        "the problems are judged in several ways: 16 by exact, and 2 without a reference (row 17 has"
    )
    [note] = notes(path, *rows, {"prompt": "w", "tests": "assert f(1)"})
    assert note == "the problems are judged in several ways: 16 by exact, 1 by python"
    asking = {"prompt": "w", "answer": "y", "evaluator": "contains"}
    [note] = notes(path, asking, {"prompt": "q"})
    assert "1 as they themselves ask, and 1 without a reference (row 2" in note


def test_nothing_is_said_where_verdicts_are_as_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    assert notes(path, {"prompt": "a"}, asked=True) == ()
    assert notes(path, {"prompt": "a", "evaluator": "judge"}) == ()
    assert notes(path, {"prompt": "a", "answer": "x"}, {"prompt": "b", "answer": "y"}) == ()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    return command_in(tmp_path, capsys, monkeypatch)


def test_it_is_said_before_the_first_call_and_kept_with_the_run(
    command: Command, openai_endpoint: ScriptedEndpoint, isolated: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    openai_endpoint.answer = lambda prompt: said.append(prompt) or '{"passed": true, "score": 10, "reason": "r"}'
    (tmp_path / "q.jsonl").write_text('{"prompt": "Say ho.", "gold": "ho"}\n')
    ended = command("eval", "q.jsonl", "--llm", "mock", "--direct", "--max-trials", "1", "--name", "r", "--json")
    [note] = json.loads(ended.out)["notes"]
    assert "the model mock judges its own answers" in note and "--map answer=gold" in note
    assert ended.err.splitlines()[0] == f"Note: {note}" and said
    folder = isolated / "runs" / "r"
    assert json.loads((folder / "summary.json").read_text())["notes"] == [note]
    assert json.loads((folder / "parameters.json").read_text())["notes"] == [note]
    cured = command("eval", "q.jsonl", "--llm", "mock", "--direct", "--map", "answer=gold", "--name", "s", "--json")
    assert json.loads(cured.out)["notes"] == [] and "Note:" not in cured.err
