"""Lessons as JSON lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from reflexion.errors import DatasetError, StorageError
from reflexion.memory import open_memory
from reflexion.memory.transfer import export_lessons, import_lessons
from tests.unit.memory.lessons import Open, lesson


async def test_lessons_travel_with_their_counters(opened: Open, tmp_path: Path) -> None:
    memory, path = opened(), tmp_path / "lessons.jsonl"
    for number in range(5):
        await memory.add(lesson(number, problem=f"p{number % 2}", prompt="Zähle"))
    await memory.credit(["k3"], passed=True, by="t")
    before = await memory.lessons()
    assert await export_lessons(memory, path) == 5
    assert len(path.read_text(encoding="utf-8").splitlines()) == 5
    other = open_memory("memory://")
    assert await import_lessons(other, path) == (5, 0)
    assert await other.lessons() == before
    assert await import_lessons(memory, path) == (0, 5)
    assert await memory.lessons() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "lessons.jsonl:2: Invalid JSON"),
        ('{"key": "k"}', "lessons.jsonl:2: field 'problem': Field required"),
        ("[1]", "lessons.jsonl:2: Input should be an object"),
        (lesson(1).model_dump_json().replace('"trial":1', '"trial":0'), "lessons.jsonl:2: field 'trial'"),
    ],
)
async def test_a_bad_line_is_named_and_nothing_is_imported(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "lessons.jsonl"
    path.write_text(lesson(0).model_dump_json() + "\n" + line + "\n")
    memory = open_memory("memory://")
    with pytest.raises(DatasetError) as caught:
        await import_lessons(memory, path)
    assert message in str(caught.value)
    assert await memory.lessons() == []


async def test_a_missing_file_and_a_missing_folder(tmp_path: Path) -> None:
    memory = open_memory("memory://")
    with pytest.raises(DatasetError, match="cannot be read"):
        await import_lessons(memory, tmp_path / "none.jsonl")
    with pytest.raises(StorageError, match="cannot be written"):
        await export_lessons(memory, tmp_path / "none" / "lessons.jsonl")
    assert list(tmp_path.iterdir()) == []
