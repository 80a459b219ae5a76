"""The episodic memory in one SQLite file: memory-mapped, ranked by FTS5, safe under several processes."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reflexion.errors import StorageError
from reflexion.memory.episodic_memory import MemoryLimits, MemoryStats
from reflexion.memory.similarity import CANDIDATES, NEWEST, words_of
from reflexion.memory.threaded_memory import CLEANUP_BUDGET, CLEANUP_EVERY, Page, body_of
from reflexion.types import Lesson

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SqliteStore"]

_VERSION = 1
_APPLICATION = 0x5246784D  # tells our files from other SQLite files
_MAPPED = 8 * 2**20  # what is mapped counts as the process's memory, and a long run is to stay small
_LOG_PAGES = 4000  # an add writes some forty pages; the default of 1000 would sync the disk every 25 adds

_SCHEMA = """
CREATE TABLE problems (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE,
    words TEXT NOT NULL,
    lessons INTEGER NOT NULL
);
CREATE VIRTUAL TABLE problem_words USING fts5(
    words, content='problems', content_rowid='id', tokenize="unicode61 remove_diacritics 0"
);
CREATE TABLE frequencies (word TEXT PRIMARY KEY, problems INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE lessons (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    problem INTEGER NOT NULL REFERENCES problems,
    created REAL NOT NULL,
    size INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    wins INTEGER NOT NULL,
    usefulness REAL GENERATED ALWAYS AS ((wins + 1.0) / (uses + 2)) VIRTUAL,
    body BLOB NOT NULL
);
CREATE INDEX lessons_of_problem ON lessons (problem);
CREATE INDEX lessons_by_age ON lessons (created, id);
CREATE INDEX lessons_by_use ON lessons (uses, created, id);
CREATE INDEX lessons_by_usefulness ON lessons (usefulness, created, id);
CREATE TABLE credits (
    lesson INTEGER NOT NULL, trial BLOB NOT NULL, PRIMARY KEY (lesson, trial)
) WITHOUT ROWID;
CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO totals VALUES ('entries', 0), ('problems', 0), ('bytes', 0), ('evicted', 0), ('expired', 0);
"""

_ORDER = {
    "oldest": "created, id",
    "least_used": "uses, created, id",
    "least_useful": "usefulness, created, id",
}

_MATCHES = (
    "SELECT digest, problems.words FROM (SELECT rowid AS number FROM problem_words "
    "WHERE problem_words MATCH ? ORDER BY {}) JOIN problems ON problems.id = number"
)
_BEST_MATCHES = _MATCHES.format(f"rank, rowid DESC LIMIT {CANDIDATES}")
_NEWEST_MATCHES = _MATCHES.format(f"rowid DESC LIMIT {NEWEST}")


def _is_full(folder: Path) -> bool:
    """Whether a new database does not fit any more: SQLite calls a full disk an I/O error."""
    return shutil.disk_usage(folder).free < 2**20


class SqliteStore:
    """One connection, used by one thread at a time; every call is one transaction.

    A lesson whose `add` returned survives the death of the process.
    """

    backend = "sqlite"

    def __init__(self, path: Path, limits: MemoryLimits, wait: float) -> None:
        """
        Args:
            path: the file; made with its folder when it is not there.
            limits: capacity and age.
            wait: seconds to wait for another process that holds the file.

        Raises:
            StorageError: the file cannot be opened: locked, no memory of ours, of a newer version, or
                this Python's SQLite has no FTS5.
        """
        import sqlite3

        self.failures: tuple[type[Exception], ...] = (sqlite3.Error, OSError)
        self._limits = limits
        self._sums: dict[str, int] | None = None
        self._changes: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        self._order = _ORDER[limits.eviction]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{path}: the memory cannot be opened ({error})") from error
        try:
            self._prepare(path, wait)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, path: Path, wait: float) -> None:
        import sqlite3

        try:
            self._use_wal(wait)
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(f"PRAGMA mmap_size = {_MAPPED}")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            with self._transaction():
                self._check_version(path)
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise StorageError(
                    f"{path}: the memory is locked by another process (waited {wait:g} s); "
                    "end that process or use another file"
                ) from error
            if "fts5" in str(error):
                raise StorageError(
                    "this Python's SQLite is built without FTS5, which the SQLite memory needs; "
                    "use another Python build, memory:// or redis://"
                ) from error
            mend = "; free space there, or use another folder" if _is_full(path.parent) else ""
            raise StorageError(f"{path}: the memory cannot be opened ({error}){mend}") from error
        except sqlite3.DatabaseError as error:
            raise StorageError(f"{path}: not a memory of this program ({error}); use another file") from error

    def _use_wal(self, wait: float) -> None:
        """Switch to write-ahead logging; SQLite does not wait for a lock on its own here."""
        import sqlite3

        deadline = time.monotonic() + wait
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def _check_version(self, path: Path) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0:
            for statement in _SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._db.execute(f"PRAGMA user_version = {_VERSION}")
        elif application != _APPLICATION:
            raise StorageError(f"{path}: a SQLite file of another program; use another file")
        elif version > _VERSION:
            raise StorageError(
                f"{path}: written by a newer version of this program (format {version}, this one knows "
                f"{_VERSION}); upgrade, or use another file"
            )

    @contextmanager
    def together(self) -> Generator[sqlite3.Connection, None, None]:
        """One transaction for several calls: committing costs more than most of them. An error undoes all."""
        with self._transaction() as db:
            yield db

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        if self._db.in_transaction:
            # Within `together`. A savepoint would let this call be undone alone, but FTS5 writes its index
            # out at each of them, which costs more than the rest of an add.
            yield self._db
            return
        # Taking the write lock first lets the busy timeout work; a read that turns into a write would fail at once.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._write_sums()
            self._db.execute("COMMIT")
        except BaseException:
            self._sums, self._changes, self._words = None, Counter(), Counter()
            self._db.rollback()
            raise
        self._sums = None

    # Totals and word counts are rows that nearly every call changes: within a transaction, which has the file
    # to itself, they are added up in memory and written once.

    def _count(self, **changes: int) -> None:
        self._changes.update(changes)

    def _totals(self) -> dict[str, int]:
        if not self._db.in_transaction:
            return self._stored_totals()
        if self._sums is None:
            self._sums = self._stored_totals()
        return {name: value + self._changes[name] for name, value in self._sums.items()}

    def _stored_totals(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT name, value FROM totals").fetchall())

    def _write_sums(self) -> None:
        if self._changes:
            rows = [(by, name) for name, by in self._changes.items() if by]
            self._db.executemany("UPDATE totals SET value = value + ? WHERE name = ?", rows)
            self._sums, self._changes = None, Counter()
        if self._words:
            self._db.executemany(
                "INSERT INTO frequencies VALUES (?, ?) "
                "ON CONFLICT (word) DO UPDATE SET problems = problems + excluded.problems",
                [(word, by) for word, by in self._words.items() if by],
            )
            gone = [(word,) for word, by in self._words.items() if by < 0]
            self._db.executemany("DELETE FROM frequencies WHERE word = ? AND problems <= 0", gone)
            self._words = Counter()

    def add(self, lesson: Lesson, now: float) -> bool:
        body = body_of(lesson)
        if len(body) > self._limits.bytes:
            return False
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM lessons WHERE key = ?", (lesson.key,)).fetchone():
                return False
            problem, held = self._problem_of(lesson)
            number = db.execute(
                "INSERT INTO lessons (key, problem, created, size, uses, wins, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (lesson.key, problem, lesson.created, len(body), lesson.uses, lesson.wins, body),
            ).lastrowid
            assert number is not None
            self._count(entries=1, bytes=len(body))
            if number % CLEANUP_EVERY == 0:
                self._clean(CLEANUP_BUDGET, now, number)
            if held > self._limits.per_problem:
                self._trim_problem(problem, CLEANUP_BUDGET, number)
            self._trim_total(CLEANUP_BUDGET, number)
            return True

    def _problem_of(self, lesson: Lesson) -> tuple[int, int]:
        """The row of a lesson's problem, made and indexed when it is new, and its lessons with this one."""
        row = self._db.execute("SELECT id, words, lessons FROM problems WHERE digest = ?", (lesson.problem,)).fetchone()
        if row is not None:
            self._db.execute("UPDATE problems SET lessons = lessons + 1 WHERE id = ?", (row[0],))
            if row[1]:
                return row[0], row[2] + 1
        words = words_of(lesson.prompt)
        text = " ".join(words)
        if row is None:
            number = self._db.execute(
                "INSERT INTO problems (digest, words, lessons) VALUES (?, ?, 1)", (lesson.problem, text)
            ).lastrowid
            assert number is not None
            held = 1
            self._count(problems=1)
        else:
            number, held = row[0], row[2] + 1
            if words:
                self._db.execute("UPDATE problems SET words = ? WHERE id = ?", (text, number))
        if words:
            self._db.execute("INSERT INTO problem_words (rowid, words) VALUES (?, ?)", (number, text))
            self._words.update(words)
        return number, held

    def _trim_problem(self, problem: int, budget: int, spare: int) -> int:
        (count,) = self._db.execute("SELECT lessons FROM problems WHERE id = ?", (problem,)).fetchone()
        surplus = min(budget, count - self._limits.per_problem)
        if surplus <= 0:
            return 0
        return self._drop("WHERE problem = ? AND id != ? ORDER BY " + self._order, (problem, spare), surplus, "evicted")

    def _trim_total(self, budget: int, spare: int) -> int:
        gone = 0
        while gone < budget:
            totals = self._totals()
            surplus = max(totals["entries"] - self._limits.entries, int(totals["bytes"] > self._limits.bytes))
            if surplus <= 0:
                break
            dropped = self._drop(
                "WHERE id != ? ORDER BY " + self._order, (spare,), min(surplus, budget - gone), "evicted"
            )
            if not dropped:
                break
            gone += dropped
        return gone

    def _drop(self, where: str, values: tuple[Any, ...], at_most: int, counted_as: str) -> int:
        rows = self._db.execute(
            f"SELECT id, problem, size FROM lessons {where} LIMIT ?",  # noqa: S608 - constant conditions
            (*values, at_most),
        ).fetchall()
        for number, problem, size in rows:
            self._db.execute("DELETE FROM lessons WHERE id = ?", (number,))
            self._db.execute("DELETE FROM credits WHERE lesson = ?", (number,))
            (left,) = self._db.execute(
                "UPDATE problems SET lessons = lessons - 1 WHERE id = ? RETURNING lessons", (problem,)
            ).fetchone()
            if left == 0:
                self._drop_problem(problem)
            self._count(entries=-1, bytes=-size, **{counted_as: 1})
        return len(rows)

    def _drop_problem(self, problem: int) -> None:
        (text,) = self._db.execute("SELECT words FROM problems WHERE id = ?", (problem,)).fetchone()
        if text:
            self._db.execute(
                "INSERT INTO problem_words (problem_words, rowid, words) VALUES ('delete', ?, ?)", (problem, text)
            )
            self._words.subtract(text.split())
        self._db.execute("DELETE FROM problems WHERE id = ?", (problem,))
        self._count(problems=-1)

    def _clean(self, budget: int, now: float, spare: int) -> int:
        gone = 0
        if self._limits.max_age is not None:
            gone = self._drop(
                "WHERE created <= ? AND id != ? ORDER BY created, id",
                (now - self._limits.max_age, spare),
                budget,
                "expired",
            )
        # Surplus of a problem is there only when the file was filled under a higher limit.
        surplus = self._db.execute(
            "SELECT id FROM problems WHERE lessons > ? LIMIT ?", (self._limits.per_problem, max(budget - gone, 0))
        ).fetchall()
        for (problem,) in surplus:
            gone += self._trim_problem(problem, budget - gone, spare)
        return gone + self._trim_total(budget - gone, spare)

    def of_problems(self, problems: Sequence[str]) -> list[list[Lesson]]:
        return [
            [
                _lesson(row)
                for row in self._db.execute(
                    "SELECT body, uses, wins FROM lessons WHERE problem = "
                    "(SELECT id FROM problems WHERE digest = ?) ORDER BY created, id",
                    (problem,),
                )
            ]
            for problem in problems
        ]

    def with_prefix(self, prefix: str) -> list[str]:
        rows = self._db.execute(
            "SELECT digest FROM problems WHERE digest >= ? AND substr(digest, 1, ?) = ? AND digest < ?",
            (prefix, len(prefix), prefix, prefix + "\U0010ffff"),
        )
        return [digest for (digest,) in rows]

    def frequencies(self, words: Sequence[str]) -> tuple[int, dict[str, int]]:
        self._write_sums()
        marks = ",".join("?" * len(words))
        rows = self._db.execute(
            f"SELECT word, problems FROM frequencies WHERE word IN ({marks})",  # noqa: S608 - only marks
            tuple(words),
        )
        found: dict[str, int] = dict(rows.fetchall())
        return self._totals()["problems"], found

    def candidates(self, words: Sequence[str], frequencies: Mapping[str, int]) -> dict[str, Sequence[str]]:
        few = [word for word in words if frequencies[word] <= NEWEST]
        # Ranking reads every match, so words that are everywhere are answered by the newest matches instead.
        wanted, matches = (few, _BEST_MATCHES) if few else (list(words[:1]), _NEWEST_MATCHES)
        rows = self._db.execute(matches, (" OR ".join(f'"{word}"' for word in wanted),))
        return {digest: text.split() for digest, text in rows}

    def credit(self, keys: Sequence[str], passed: bool, by: str) -> None:
        trial = hashlib.blake2b(by.encode(), digest_size=12).digest()
        with self._transaction() as db:
            for key in keys:
                row = db.execute("SELECT id FROM lessons WHERE key = ?", (key,)).fetchone()
                if row and db.execute("INSERT OR IGNORE INTO credits VALUES (?, ?)", (row[0], trial)).rowcount > 0:
                    db.execute(
                        "UPDATE lessons SET uses = uses + 1, wins = wins + ? WHERE id = ?", (int(passed), row[0])
                    )

    def page(self, start: Any, count: int) -> Page:
        after = start or (float("-inf"), 0)
        rows = self._db.execute(
            "SELECT body, uses, wins, created, id FROM lessons WHERE (created, id) > (?, ?) "
            "ORDER BY created, id LIMIT ?",
            (*after, count),
        ).fetchall()
        lessons = [_lesson(row[:3]) for row in rows]
        return Page(lessons, rows[-1][3:] if len(rows) == count else None)

    def cleanup(self, budget: int, now: float) -> int:
        with self._transaction():
            return self._clean(budget, now, spare=0)

    def clear(self) -> int:
        gone = 0
        while True:  # in portions, so that other processes get their turn
            with self._transaction():
                dropped = self._drop("ORDER BY id", (), 256, "evicted")
                self._count(evicted=-dropped)
            if not dropped:
                return gone
            gone += dropped

    def stats(self) -> MemoryStats:
        return MemoryStats(backend=self.backend, **self._totals())

    def close(self) -> None:
        self._db.close()


def _lesson(row: tuple[bytes, int, int]) -> Lesson:
    body, uses, wins = row
    return Lesson.model_validate_json(body).model_copy(update={"uses": uses, "wins": wins})
