"""The offset index of large files: kept, used, and noticed to be out of date."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from reflexion.datasets import open_dataset
from reflexion.datasets.files import jsonl, offset_index
from reflexion.errors import DatasetError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every file is large enough for its index to be kept, in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(offset_index, "_WORTH_KEEPING", 1)
    return tmp_path / "cache" / "reflexion" / "datasets"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    lines = [json.dumps({"id": f"t{i}", "prompt": f"p{i}"}) for i in range(1000)]
    lines.insert(500, "")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of all lines that are parsed."""
    numbers: list[int] = []
    parse = jsonl._parse

    def counting(path: Path, number: int, raw: bytes) -> Any:
        numbers.append(number)
        return parse(path, number, raw)

    monkeypatch.setattr(jsonl, "_parse", counting)
    return numbers


def test_a_second_opening_reads_one_line(cache: Path, data: Path, parsed: list[int]) -> None:
    first = open_dataset(data)
    assert len(parsed) == 1000
    assert len(list(cache.iterdir())) == 1
    parsed.clear()
    second = open_dataset(data)
    assert parsed == [1]
    assert (len(second), second.digest) == (1000, first.digest)
    assert [p.prompt for p in second] == [f"p{i}" for i in range(1000)]


def test_a_shard_reads_its_own_lines_and_no_others(cache: Path, data: Path, parsed: list[int]) -> None:
    open_dataset(data)
    shard = open_dataset(data).shard(3, 4)
    parsed.clear()
    assert [p.id for p in shard] == [f"t{i}" for i in range(750, 1000)]
    # The blank line counts as a line.
    assert parsed == list(range(752, 1002))


def test_small_files_leave_nothing_behind(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    open_dataset(data)
    assert not (tmp_path / "cache").exists()


def test_a_changed_file_is_noticed(cache: Path, data: Path) -> None:
    open_dataset(data)
    with data.open("a") as file:
        file.write('{"prompt": "one more"}\n')
    assert len(open_dataset(data)) == 1001
    with data.open("a") as file:
        file.write("{broken\n")
    with pytest.raises(DatasetError, match=":1003: not JSON"):
        open_dataset(data)


def test_a_change_that_keeps_size_and_time_is_noticed_at_both_ends(cache: Path, data: Path) -> None:
    digest = open_dataset(data).digest
    facts = data.stat()
    text = data.read_text()
    data.write_text(text.replace('"p999"', '"q999"'))
    os.utime(data, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    changed = open_dataset(data)
    assert changed.digest != digest
    assert changed[999].prompt == "q999"


@pytest.mark.parametrize("damage", ["truncate", "empty", "garbage", "header"])
def test_a_damaged_index_is_made_anew(cache: Path, data: Path, damage: str) -> None:
    open_dataset(data)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncate": whole[:-8],
            "empty": b"",
            "garbage": b"\0" * 4096,
            "header": whole.replace(b'"lines"', b'"minds"'),
        }[damage]
    )
    assert len(open_dataset(data)) == 1000
    assert path.read_bytes() == whole


def test_another_mapping_has_another_index(cache: Path, data: Path) -> None:
    open_dataset(data)
    mapped = open_dataset(data, mapping={"prompt": "id"})
    assert mapped[3].prompt == "t3"
    assert len(list(cache.iterdir())) == 2
    assert open_dataset(data)[3].prompt == "p3"


def test_a_bad_line_leaves_no_index(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}\n')
    for _ in range(2):
        with pytest.raises(DatasetError, match=":2: id 'x' is already used on line 1"):
            open_dataset(path)
    assert not cache.exists()


def test_without_a_place_for_the_index_it_is_made_each_time(
    cache: Path, data: Path, parsed: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert len(open_dataset(data)) == 1000
    assert len(parsed) == 2000
