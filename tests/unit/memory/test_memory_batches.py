"""Calls that share a transaction: each keeps its own fate."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from reflexion.memory import MemoryLimits, open_memory
from reflexion.memory.sqlite_memory import SqliteStore
from reflexion.types import Lesson


def lesson(number: int) -> Lesson:
    return Lesson(key=f"k{number}", problem=f"p{number}", episode=f"r/{number}/0", trial=1, text=f"lesson {number}")


async def test_one_that_fails_takes_nothing_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = open_memory(str(tmp_path / "memory.sqlite"), MemoryLimits())
    count = SqliteStore._count

    def fail_for_one(self: SqliteStore, **changes: int) -> None:
        # In the middle of its transaction: the lesson's row is there already, the totals are not.
        newest = self._db.execute("SELECT key FROM lessons ORDER BY id DESC LIMIT 1").fetchone()
        if newest == ("k7",):
            raise sqlite3.OperationalError("disk I/O error")
        count(self, **changes)

    monkeypatch.setattr(SqliteStore, "_count", fail_for_one)
    added = await asyncio.gather(*(memory.add(lesson(n)) for n in range(20)))
    monkeypatch.undo()

    assert added == [n != 7 for n in range(20)]
    assert sorted(x.key for x in await memory.lessons()) == sorted(f"k{n}" for n in range(20) if n != 7)
    assert (await memory.stats()).entries == 19
    await memory.aclose()


async def test_what_was_kept_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    memory = open_memory(str(path), MemoryLimits())
    await asyncio.gather(*(memory.add(lesson(n)) for n in range(300)))
    # Seen by another connection at once: nothing waits for the memory to be closed.
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM lessons").fetchone() == (300,)
    other.close()
    await memory.aclose()
