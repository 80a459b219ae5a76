"""Published formats are recognised by their fields."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from reflexion.datasets import open_dataset
from reflexion.datasets.formats import docstring_tests
from reflexion.errors import ConfigurationError, DatasetError
from reflexion.types import Document

MBPP = {
    "text": "Write a function to add two numbers.",
    "code": "def helper(x):\n    return x\n\ndef add(a, b):\n    return helper(a) + b",
    "task_id": 601,
    "test_setup_code": "import math",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert math.isclose(add(0.5, 1), 1.5)"],
    "challenge_test_list": ["assert add(-1, 1) == 0"],
}
GSM8K = {
    "question": "Ann has 3 apples and buys 1,000 more. How many?",
    "answer": "3 + 1000 = <<3+1000=1003>>1003\n#### 1,003",
}
HOTPOT = {
    "_id": "5a8b",
    "question": "Which river flows through the town?",
    "answer": "Emme",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Town", 0]],
    "context": [["Town", ["The town lies on the Emme.", " It is small."]], ["Emme", ["A river."]]],
}
DOCUMENTS = (
    Document(title="Town", text="The town lies on the Emme. It is small."),
    Document(title="Emme", text="A river."),
)


def one(path: Path, *records: Any, **options: Any):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return open_dataset(path, **options)


def test_mbpp(tmp_path: Path) -> None:
    dataset = one(tmp_path / "mbpp.jsonl", MBPP)
    problem = dataset[0]
    assert (dataset.format, problem.id, problem.entry_point) == ("MBPP", "601", "add")
    assert (
        problem.prompt
        == "Write a function to add two numbers.\n\nYour code should pass this test:\nassert add(1, 2) == 3"
    )
    assert problem.visible_tests == ("assert add(1, 2) == 3",)
    assert problem.tests is not None
    scope: dict[str, Any] = {}
    exec(MBPP["code"], scope)  # type: ignore[arg-type]
    exec(problem.tests, scope)
    assert problem.tests.count("assert") == 3, "the harder tests count only where they are asked for"
    asked = one(tmp_path / "both.jsonl", MBPP, mapping={"test_list": "test_list+challenge_test_list"})[0]
    assert asked.tests is not None and asked.tests.endswith("assert add(-1, 1) == 0\n")
    assert problem.metadata == {"own_solution": MBPP["code"]}
    assert "add(0, 0)" not in problem.prompt


def test_mbpp_sanitized_names_the_text_prompt(tmp_path: Path) -> None:
    record = {"prompt" if k == "text" else k: v for k, v in MBPP.items() if k not in ("test_setup_code",)}
    problem = one(tmp_path / "d.jsonl", record | {"test_imports": ["import math"]})[0]
    assert problem.prompt.startswith("Write a function to add")
    assert problem.tests is not None and problem.tests.startswith("import math\nassert add")


def test_gsm8k(tmp_path: Path) -> None:
    dataset = one(tmp_path / "d.jsonl", GSM8K)
    problem = dataset[0]
    assert (dataset.format, problem.answer, problem.evaluator) == ("GSM8K", "1003", "numeric")
    assert problem.prompt == GSM8K["question"]
    assert problem.metadata["rationale"] == "3 + 1000 = <<3+1000=1003>>1003"


def test_hotpot_as_json_lines_and_as_the_published_array(tmp_path: Path) -> None:
    lines = one(tmp_path / "d.jsonl", HOTPOT)
    path = tmp_path / "hotpot_dev_distractor_v1.json"
    path.write_text(json.dumps([HOTPOT, HOTPOT | {"_id": "other"}], indent=1))
    array = open_dataset(path)
    for dataset in (lines, array):
        problem = dataset[0]
        assert (dataset.format, problem.id, problem.answer) == ("HotpotQA", "5a8b", "Emme")
        assert problem.context == DOCUMENTS
        assert problem.metadata["level"] == "hard"
    assert [p.id for p in array.shard(1, 2)] == ["other"]


def test_hotpot_with_columns_as_the_hub_gives_it(tmp_path: Path) -> None:
    columns = {"title": ["Town", "Emme"], "sentences": [c[1] for c in HOTPOT["context"]]}  # type: ignore[index]
    record = {"id": "x", "question": "q", "answer": "a", "context": columns}
    assert one(tmp_path / "d.jsonl", record)[0].context == DOCUMENTS


def test_human_eval(tmp_path: Path) -> None:
    record = {
        "task_id": "T/0",
        "prompt": 'def inc(x):\n    """Add one.\n    >>> inc(1)\n    2\n    """\n',
        "entry_point": "inc",
        "canonical_solution": "    return x + 1\n",
        "test": "def check(candidate):\n    assert candidate(2) == 3\n",
    }
    dataset = one(tmp_path / "d.jsonl", record)
    problem = dataset[0]
    assert (dataset.format, problem.visible_tests) == ("HumanEval", ("assert inc(1) == 2",))
    assert problem.tests is not None
    assert problem.tests.endswith("check(inc)\n")
    scope: dict[str, Any] = {}
    exec(record["prompt"] + record["canonical_solution"] + "\n" + problem.tests, scope)


@pytest.mark.parametrize(
    ("docstring", "tests"),
    [
        (">>> f(1)\n    2\n    >>> f(2) + 1\n    'a'", ("assert f(1) == 2", "assert f(2) + 1 == 'a'")),
        (">>> print(f(1))\n    one", ()),
        (">>> g(1)\n    2", ()),
        (">>> x = f(1)\n    >>> x\n    2", ()),
        (">>> f(0)\n    Traceback (most recent call last):\n    ValueError", ()),
        ("no example", ()),
        (">>>f(1)\n    2", ()),
    ],
)
def test_docstring_examples_become_asserts_where_they_parse(docstring: str, tests: tuple[str, ...]) -> None:
    assert docstring_tests(f'def f(x):\n    """ {docstring}\n    """\n', "f") == tests


def test_code_that_does_not_parse_has_no_visible_tests() -> None:
    assert docstring_tests("def f(x:\n", "f") == ()


def test_fields_are_mapped(tmp_path: Path) -> None:
    dataset = one(
        tmp_path / "d.jsonl",
        {"question": "q1", "label": "a1", "prompt": "unused"},
        {"question": "q2", "label": "a2"},
        mapping={"prompt": "question", "answer": "label"},
    )
    assert [(p.prompt, p.answer) for p in dataset] == [("q1", "a1"), ("q2", "a2")]
    assert dataset[0].metadata == {}


def test_a_mapping_that_fits_nothing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r":1: mapped field 'q' is missing; fields found: 'question'"):
        one(tmp_path / "d.jsonl", {"question": "x"}, mapping={"prompt": "q"})
    with pytest.raises(ConfigurationError, match="mapping promt=question: no field 'promt'"):
        one(tmp_path / "d.jsonl", {"question": "x"}, mapping={"promt": "question"})
    with pytest.raises(DatasetError, match=r":2: field 'prompt' is missing"):
        one(tmp_path / "d.jsonl", {"question": "x"}, {"other": "x"}, mapping={"prompt": "question"})


def test_an_unknown_format_says_what_was_tried_and_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        one(tmp_path / "d.jsonl", {"riddle": "x", "gold_label": "y"})
    assert "fields found: 'riddle', 'gold_label'; nearest: plain (no 'prompt'); " in str(caught.value)
    assert "--map prompt=FIELD" in str(caught.value)


@pytest.mark.parametrize(
    ("record", "maps"),
    [
        ({"instruction": "Say hi.", "output": "hi"}, "--map prompt=instruction --map answer=output"),
        ({"user_question": "x", "gold": 3}, "--map prompt=user_question --map answer=gold"),
        ({"task": {"text": "Add.", "checks": ["assert f(1) == 2"]}}, "--map prompt=task.text --map tests=task.checks"),
    ],
)
def test_an_unknown_format_proposes_mappings_by_name_and_content(
    tmp_path: Path, record: dict[str, Any], maps: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        one(tmp_path / "d.jsonl", record)
    assert str(caught.value).endswith(maps)
    proposed = dict(part.split("=") for part in maps.split("--map ") if part)
    assert one(tmp_path / "d.jsonl", record, mapping={k: v.strip() for k, v in proposed.items()})[0].prompt


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (MBPP | {"test_list": []}, ":2: field 'test_list' must be a list of asserts, not []"),
        (MBPP | {"code": None}, ":2: field 'code' is missing"),
    ],
)
def test_a_bad_record_of_a_known_format(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        one(tmp_path / "d.jsonl", MBPP, record | {"task_id": 2})
    assert message in str(caught.value)


def test_json_that_is_no_array_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('[{"prompt": "a"},\n 3]')
    with pytest.raises(DatasetError, match="item 2 is not an object"):
        open_dataset(path)
    path.write_text('[{"prompt": "a"},\n oops]')
    with pytest.raises(DatasetError, match=r"d\.json:2: not JSON"):
        open_dataset(path)
    path.write_text('{"prompt": "one object is one line"}')
    assert len(open_dataset(path)) == 1


CSV = 'id,prompt,answer,level\n1,"Two\nlines, one cell",4,\n\n2,Plain,5,hard\n'


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(CSV, encoding="utf-8-sig")
    dataset = open_dataset(path)
    assert [(p.id, p.prompt, p.answer) for p in dataset] == [("1", "Two\nlines, one cell", "4"), ("2", "Plain", "5")]
    assert dataset[0].metadata == {}
    assert dataset[1].metadata == {"level": "hard"}
    assert [p.id for p in dataset.shard(1, 2)] == ["2"]
    assert {p.id for p in open_dataset(path, shuffle_seed=1)} == {"1", "2"}


def test_tsv(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text("prompt\tanswer\none, two\t3\n")
    assert open_dataset(path)[0].prompt == "one, two"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "prompt;answer\na;b\n",
            "row 1 is the single field 'prompt;answer', separated by semicolons where commas are expected",
        ),
        ("prompt\tanswer\na\tb\n", "separated by tabs where commas are expected; save it with commas or name it .tsv"),
        ("prompt,answer\na,b\nc\n", "row 3 has 1 fields, the header 2: field 'answer' is missing"),
        ("prompt,answer\na,b,c\n", "row 2 has 3 fields, the header 2: 'c' is one too many"),
        ("prompt,answer\n,b\n", "unknown format"),
        ("prompt,answer\na,b\n,c\n", ":3: field 'prompt' is missing"),
        ("prompt,prompt\na,b\n", "row 1 names the field 'prompt' twice"),
        ('prompt,answer\n"a,b\n', "row 2 is not CSV"),
        ("prompt\n", "the dataset is empty"),
        ("", "the dataset is empty"),
    ],
)
def test_a_bad_csv_is_named_by_row_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(text)
    with pytest.raises(DatasetError) as caught:
        open_dataset(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_csv_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes("prompt\nZähle\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="not UTF-8"):
        open_dataset(path)


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "d.parquet"
    day = datetime.date(2024, 2, 29)
    records = [{"question": f"q{i}", "answer": f"#### {i}", "day": day, "tag": None if i else "x"} for i in range(2500)]
    pq.write_table(pa.Table.from_pylist(records), path)
    dataset = open_dataset(path)
    assert (len(dataset), dataset.format) == (2500, "GSM8K")
    assert [p.answer for p in dataset.shard(4, 5)] == [str(i) for i in range(2000, 2500)]
    assert dataset[0].metadata == {"rationale": "", "day": "2024-02-29", "tag": "x"}
    assert "tag" not in dataset[1].metadata


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(DatasetError, match=r"d\.parquet: not a Parquet file"):
        open_dataset(path)


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DatasetError, match=r"d\.parquet: reading Parquet needs the package pyarrow; run: pip install pyarrow"
    ):
        open_dataset(path)
