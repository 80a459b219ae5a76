"""Files as they come: packed, in other encodings, wrapped, out of Excel, with numbers of any size."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reflexion.datasets import open_dataset
from reflexion.errors import DatasetError
from reflexion.keys import digest

RECORDS: list[dict[str, Any]] = [{"id": f"n{i}", "prompt": f"Größe {i}?", "answer": str(i)} for i in range(3)]


def zipped(data: bytes, name: str, *more: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._d", "noise")
        for member in (name, *more):
            archive.writestr(member, data)
    return out.getvalue()


def as_lines() -> bytes:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in RECORDS).encode()


def as_table(delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, RECORDS[0].keys(), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(RECORDS)
    return out.getvalue().encode()


def as_parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(RECORDS), out)
    return out.getvalue()


def as_arrow() -> bytes:
    import pyarrow as pa

    table, out = pa.Table.from_pylist(RECORDS), io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


KINDS: dict[str, Callable[[], bytes]] = {
    "d.jsonl": as_lines,
    "d.json": lambda: json.dumps(RECORDS, ensure_ascii=False, indent=2).encode(),
    "d.csv": as_table,
    "d.tsv": lambda: as_table("\t"),
    "d.parquet": as_parquet,
    "d.arrow": as_arrow,
}
PACKED: dict[str, Callable[[bytes, str], bytes]] = {
    "": lambda data, name: data,
    ".gz": lambda data, name: gzip.compress(data),
    ".bz2": lambda data, name: bz2.compress(data),
    ".xz": lambda data, name: lzma.compress(data),
    ".zip": zipped,
}


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_in_every_packing(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / (name + suffix)
    path.write_bytes(PACKED[suffix](KINDS[name](), name))
    dataset = open_dataset(path)
    assert [(p.id, p.prompt, p.answer) for p in dataset] == [(r["id"], r["prompt"], r["answer"]) for r in RECORDS]
    assert [p.id for p in dataset.shard(1, 3)] == ["n1"]
    assert sorted(p.id for p in open_dataset(path, shuffle_seed=3)) == ["n0", "n1", "n2"]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zip"])
def test_a_packing_is_known_by_its_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(PACKED[suffix](as_lines(), "inner.jsonl"))
    assert len(open_dataset(path)) == 3


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv"])
def test_texts_are_read_in_their_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    path = tmp_path / name
    path.write_bytes(KINDS[name]().decode().encode(encoding))
    assert [p.prompt for p in open_dataset(path)] == [r["prompt"] for r in RECORDS]
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [p.id for p in open_dataset(packed)] == ["n0", "n1", "n2"]


COLUMNS = {name: [r[name] for r in RECORDS] for name in RECORDS[0]}
WRAPPED: dict[str, Any] = {
    "data": {"data": RECORDS},
    "version and examples": {"version": "1.0", "examples": RECORDS},
    "the only list": {"my_set": RECORDS, "count": 3},
    "the viewer of the Hub": {
        "features": [{"name": "id"}],
        "rows": [{"row_idx": i, "row": r} for i, r in enumerate(RECORDS)],
    },
    "columns of a data frame": {k: {str(i): v for i, v in enumerate(c)} for k, c in COLUMNS.items()},
    "lists as columns": COLUMNS,
    "by id": {r["id"]: {k: v for k, v in r.items() if k != "id"} for r in RECORDS},
}


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("indent", [None, 1])
def test_json_that_is_wrapped(tmp_path: Path, form: str, indent: int | None) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(WRAPPED[form], indent=indent))
    assert [(p.id, p.prompt) for p in open_dataset(path)] == [(r["id"], r["prompt"]) for r in RECORDS]


def test_squad_s_articles_are_questions(tmp_path: Path) -> None:
    asked = [{"id": f"q{i}", "question": f"Q{i}?", "answers": [{"text": "Bern", "answer_start": 0}]} for i in range(2)]
    articles = [{"title": "Bern", "paragraphs": [{"context": "Bern is a city.", "qas": asked}]}]
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"version": "1.1", "data": articles}))
    dataset = open_dataset(path)
    assert (dataset.format, [p.id for p in dataset]) == ("SQuAD", ["q0", "q1"])
    assert dataset[0].context[0].text == "Bern is a city."


@pytest.mark.parametrize(
    "text", ['{"prompt": "p",\n "answer": "a"}', '{"prompt": "p", "answer": "a"}', '{"prompt": "p"}\n{"prompt": "q"}']
)
def test_json_that_is_one_record_or_lines_of_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(text)
    assert open_dataset(path)[0].prompt == "p"
    assert len(open_dataset(path)) == text.count('"prompt"')


BIG = 987654321098765432109876543210


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        (f'{{"prompt": "p", "answer": {BIG}}}', "answer", str(BIG)),
        (f'{{"prompt": "p", "answer": [-{BIG}, 1.5]}}', "answer", [f"-{BIG}", 1.5]),
        ('{"prompt": "p", "answer": 18446744073709551616}', "answer", "18446744073709551616"),
        ('{"prompt": "p", "answer": 9007199254740993}', "answer", 9007199254740993),
        ('{"prompt": "p", "answer": ' + "7" * 6000 + "}", "answer", "7" * 6000),
        (f'{{"prompt": "p", "id": {BIG}}}', "id", str(BIG)),
        ('{"prompt": "p", "answer": Infinity}', "answer", "Infinity"),
        ('{"prompt": "p", "answer": -Infinity}', "answer", "-Infinity"),
        ('{"prompt": "p", "answer": NaN}', "answer", None),
        ('{"prompt": "p", "answer": 1e400}', "answer", "Infinity"),
        ('{"prompt": "p", "answer": 1.5e300}', "answer", 1.5e300),
        ('{"prompt": "half \\ud83d pair"}', "prompt", "half \ufffd pair"),
        ('{"prompt": "whole \\ud83d\\ude00 pair"}', "prompt", "whole \U0001f600 pair"),
        ('{"prompt": "tab\there"}', "prompt", "tab\there"),
        ('{"prompt": "p", "metadata": "hard"}', "metadata", {"metadata": "hard"}),
        ('{"prompt": "p", "metadata": "{\'level\': 3}"}', "metadata", {"level": 3}),
        (f'{{"prompt": "p", "metadata": ["a"], "size": {BIG}}}', "metadata", {"metadata": ["a"], "size": str(BIG)}),
    ],
)
@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.jsonl.gz"])
def test_values_that_are_not_everyday_json(tmp_path: Path, name: str, text: str, field: str, value: Any) -> None:
    path = tmp_path / name
    data = (f"[{text}]" if name == "d.json" else f"{text}\n").encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    problem = open_dataset(path)[0]
    assert getattr(problem, field) == value
    assert digest(problem.content()) == problem.digest
    assert problem.model_validate_json(problem.model_dump_json()) == problem


@pytest.mark.parametrize(
    "text",
    [
        "prompt,answer,,\nQ,x,,\n",
        "prompt,answer\n\nQ,x\n,\n , \n",
        "prompt, answer\nQ, x\n",
        'prompt, answer\n"Q", "x"\n',
        " prompt ,answer \nQ,x\n",
        ",prompt,answer\n0,Q,x\n",
        "prompt,answer\nQ,x,,\n",
        "\ufeffprompt,answer\r\nQ,x\r\n",
    ],
)
def test_tables_as_spreadsheets_leave_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(text.encode())
    assert [(p.prompt, p.answer, p.metadata) for p in open_dataset(path)] == [("Q", "x", {})]


def test_a_cell_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f'prompt,answer\n"{"long, " * 60_000}",x\n')
    assert len(open_dataset(path)[0].prompt) == 360_000


def test_columns_of_a_table_that_json_has_not(tmp_path: Path) -> None:
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "d.parquet"
    columns = {
        "prompt": ["p", "q", "r"],
        "answer": [float("nan"), float("-inf"), 2.5],
        "exact": pa.array([Decimal(BIG), Decimal("1"), Decimal("3")], pa.decimal128(38, 0)),
        "raw": [b"abc", None, b"\xff"],
    }
    pq.write_table(pa.table(columns), path)
    problems = list(open_dataset(path))
    assert [p.answer for p in problems] == [None, "-Infinity", 2.5]
    assert problems[0].metadata == {"exact": str(BIG), "raw": "abc"}
    assert [p.metadata["exact"] for p in problems[1:]] == [1, 3]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("d.xlsx", zipped(b"", "xl/workbook.xml"), "an Excel workbook; save it there as CSV UTF-8"),
        ("d.jsonl.zst", b"\x28\xb5\x2f\xfd", "packed by Zstandard; unpack it with: zstd -d"),
        ("d.pkl", b"\x80\x04.", "a pickle, which could run code when read"),
        ("d.tar.gz", gzip.compress(b"x", mtime=0), "an archive of files; unpack it and name one of them"),
        ("d.db", b"SQLite format 3", "a database; export a query"),
        ("d.zip", zipped(b"{}", "a.jsonl", "b.jsonl"), "the archive holds 2 files (a.jsonl, b.jsonl)"),
        ("d.zip", b"PK\x05\x06" + bytes(18), "the archive is empty"),
        ("d.jsonl.xz", lzma.compress(as_lines())[:-20], "damaged xz"),
        ("d.csv.bz2", bz2.compress(as_table())[:-10], "damaged bzip2"),
        ("d.json.zip", b"PK\x03\x04 and no more", "damaged zip"),
        ("d.jsonl", b'{"prompt": "Z\xe4hle"}\n', ":1: not JSON (not UTF-8 at byte 13: save the file as UTF-8)"),
        ("d.json", b'{"data": [{"prompt": "a"}, 3]}', "unknown format"),
        ("d.csv", b"prompt,,answer\nQ,lost,x\n", "row 2 holds 'lost' in column 2, which row 1 does not name"),
    ],
)
def test_what_is_not_read_is_named_with_its_cure(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        open_dataset(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)


def test_what_lies_beside_the_data_of_an_archive_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "d.zip"
    path.write_bytes(zipped(as_table(), "riddles/all.csv", "riddles/LICENSE", "riddles/about.txt"))
    assert len(open_dataset(path)) == len(as_table().splitlines()) - 1


@pytest.mark.parametrize("url", ["sqlite:///d.db", "postgresql://me:secret@host/db", "mysql+pymysql://host/db"])
def test_a_database_s_url_is_answered_with_the_way_out(url: str) -> None:
    with pytest.raises(DatasetError, match="export the query to a file") as caught:
        open_dataset(url)
    assert "secret" not in str(caught.value)
