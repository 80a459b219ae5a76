"""A run's folder: every finished episode on disk at once, and a run that can be resumed.

    runs/NAME/
        parameters.json   what the run was
        episodes.jsonl    a line per finished episode, appended as it finishes
        summary.json      its figures, once it is finished
        report.html       the same to look at, see `reflexion.report`

A line is one write of the operating system, so a process killed at any moment leaves whole lines and at
most one torn one at the end, which resuming cuts off. In memory there is an offset per episode, never
the episodes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from pydantic import ValidationError

from reflexion._files import json_bytes, storage_errors, write_atomic
from reflexion.errors import ConfigurationError, StorageError
from reflexion.run.run_names import check_run_name, default_run_name, mask_passwords
from reflexion.telemetry.summary import Summary, SummaryBuilder
from reflexion.types import Episode, Outcome

__all__ = ["IDENTITY", "EpisodeKey", "RunFolder", "check_run_name", "default_run_name", "mask_passwords"]

EpisodeKey = tuple[str, int]
"""Problem id and repeat index: one episode of a run."""

IDENTITY = (
    "dataset",
    "dataset_digest",
    "llm",
    "model",
    "reflector",
    "judge",
    "escalate",
    "strategy",
    "actor",
    "tools",
    "max_turns",
    "tool_mode",
    "evaluator",
    "max_trials",
    "temperature",
    "max_completion_tokens",
    "reflection_max_tokens",
    "judge_max_tokens",
    "tests_max_tokens",
    "reasoning_effort",
    "extra_body",
    "seed",
    "omega",
    "transfer",
    "reveal_answers",
)
"""Parameters in which a resumed run must agree with what it was; others (concurrency …) may change."""

EPISODES, PARAMETERS, SUMMARY, LOCK = "episodes.jsonl", "parameters.json", "summary.json", ".lock"
ABLATION = "ablation.json"
"""In the folder of a comparison of strategies, which is no run: see `reflexion.run.strategy_runs`."""


class RunFolder:
    """One run on disk.

    Get one with `create`, `resume` or `start` to write (one process at a time, held by a lock), or with
    `open` to read. It is a context manager; leaving it releases the lock.

    Attributes:
        path: the folder.
        parameters: what the run was started with; passwords in URLs are masked.
        repaired: what had to be mended when the run was resumed, or None.
    """

    def __init__(self, path: Path, parameters: dict[str, Any]) -> None:
        self.path = path
        self.parameters = parameters
        self.repaired: str | None = None
        self._index: dict[EpisodeKey, int] = {}
        self._unfinished: set[EpisodeKey] = set()
        self._size = 0
        self._appended = 0
        self._fd: int | None = None
        self._lock: int | None = None

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def episodes_path(self) -> Path:
        """The file of episodes."""
        return self.path / EPISODES

    @property
    def notes(self) -> tuple[str, ...]:
        """What was said of the run's verdicts before its first call."""
        given = self.parameters.get("notes")
        return tuple(map(str, given)) if isinstance(given, list) else ()

    # -- opening -------------------------------------------------------------------------------------

    @classmethod
    def create(cls, root: Path | str, name: str, *, parameters: Mapping[str, Any]) -> RunFolder:
        """Make the folder of a new run and lock it.

        Args:
            root: folder of all runs; made if missing.
            parameters: what the run is, JSON-safe. Those in `IDENTITY` are held fixed on resuming.

        Raises:
            ConfigurationError: the name is not one, or a run has it already.
            StorageError: the folder cannot be written, or another process has it.
        """
        path = Path(root) / check_run_name(name)
        if (path / PARAMETERS).exists() or (path / EPISODES).exists():
            raise ConfigurationError(f"name: {path} exists already; resume it or choose another name")
        if (path / ABLATION).exists():
            raise ConfigurationError(
                f"name: {name!r} compares strategies; resume it with --strategies, or choose another name"
            )
        run = cls(path, mask_passwords(dict(parameters)))
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            run._take_lock()
            try:
                write_atomic(path / PARAMETERS, [json_bytes(run.parameters)])
                run._open_for_append()
            except BaseException:
                run.close()
                raise
        return run

    @classmethod
    def resume(cls, root: Path | str, name: str, *, parameters: Mapping[str, Any]) -> RunFolder:
        """Lock a run that exists, to carry on with it.

        A torn last line is cut off and told of in `repaired`; its episode is not done.

        Raises:
            ConfigurationError: there is no such run, or a parameter of `IDENTITY` differs.
            StorageError: the folder cannot be read or written, a line is damaged, or another process
                has the run.
        """
        path = Path(root) / check_run_name(name)
        if not path.is_dir():
            raise ConfigurationError(f"name: there is no run {path}")
        with storage_errors(path):
            run = cls(path, _read_parameters(path))
            given = mask_passwords(dict(parameters))
            for field in IDENTITY:
                was, now = run.parameters.get(field), given.get(field)
                if was != now:
                    raise ConfigurationError(
                        f"{field}: the run {name!r} was started with {was!r}, not {now!r}; "
                        "resume it with the same value or give the new run another --name"
                    )
            run._take_lock()
            try:
                run._open_for_append()
                run._read_index(repair=True)
            except BaseException:
                run.close()
                raise
        return run

    @classmethod
    def start(cls, root: Path | str, name: str, *, parameters: Mapping[str, Any]) -> RunFolder:
        """Resume the run of this name if there is one, else create it. Raises as both do."""
        path = Path(root) / check_run_name(name)
        exists = (path / PARAMETERS).exists() or (path / EPISODES).exists()
        return (cls.resume if exists else cls.create)(root, name, parameters=parameters)

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Open a run to read it, also while another process writes it.

        Raises:
            ConfigurationError: it is not a run's folder.
            StorageError: it cannot be read, or a line is damaged.
        """
        path = Path(path)
        if not (path / EPISODES).is_file():
            if (path / ABLATION).is_file():
                raise ConfigurationError(
                    f"{path} compares strategies and is no run itself; name one of its runs: {path}-STRATEGY"
                )
            raise ConfigurationError(f"{path} is not a run's folder: it has no {EPISODES}")
        with storage_errors(path):
            run = cls(path, _read_parameters(path))
            run._read_index(repair=False)
        return run

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock and the file; harmless when called twice."""
        for fd in (self._fd, self._lock):
            if fd is not None:
                os.close(fd)
        self._fd = self._lock = None

    def _take_lock(self) -> None:
        import fcntl

        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 32).decode(errors="replace").strip() or "unknown"
            self.close()
            raise StorageError(
                f"{self.path}: another process (pid {holder}) is writing this run; wait for it or stop it, "
                "or give this run another --name"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _open_for_append(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self.episodes_path, flags, 0o644)
        self._size = os.fstat(self._fd).st_size

    def _read_index(self, *, repair: bool) -> None:
        offset, number = 0, 0
        with self.episodes_path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                self._note(*self._head(line, number), offset)
                offset += len(line)
        size = self.episodes_path.stat().st_size
        # A reader may meet a line that is just being written; only the writer may cut.
        if repair and offset < size and self._fd is not None:
            os.ftruncate(self._fd, offset)
            self.repaired = (
                f"{self.episodes_path}: line {number} was torn ({size - offset} bytes, the process was "
                "stopped while writing); it was cut off and its episode runs again"
            )
        self._size = offset

    def _head(self, line: bytes, number: int) -> tuple[EpisodeKey, str]:
        try:
            head = orjson.loads(line)
            return (str(head["problem_id"]), int(head.get("repeat", 0))), str(head["outcome"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
            raise StorageError(
                f"{self.episodes_path}: line {number} is not an episode ({exc}); "
                "remove the line and its episode is run again"
            ) from exc

    def _note(self, key: EpisodeKey, outcome: str, offset: int) -> None:
        self._index[key] = offset
        if outcome in (Outcome.SOLVED, Outcome.FAILED):
            self._unfinished.discard(key)
        else:
            self._unfinished.add(key)

    # -- episodes ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Episodes on record, each counted once."""
        return len(self._index)

    def done(self, problem_id: str, repeat: int = 0) -> bool:
        """Whether this episode is on record and need not run again: it was solved or it failed.

        Episodes that ended in an error or were stopped by a budget are not done.
        """
        key = (problem_id, repeat)
        return key in self._index and key not in self._unfinished

    def recorded(self, problem_id: str, repeat: int = 0) -> bool:
        """Whether there is a record of this episode, however it ended."""
        return (problem_id, repeat) in self._index

    def by_problem(self) -> list[EpisodeKey]:
        """The episodes on record, repeats of one problem one after another."""
        first: dict[str, int] = {}
        for problem_id, _ in self._index:
            first.setdefault(problem_id, len(first))
        return sorted(self._index, key=lambda key: (first[key[0]], key[1]))

    def append(self, episode: Episode, *, earlier: bool = False) -> None:
        """Put one finished episode on record. Safe against a kill at any moment.

        Args:
            earlier: it was worked on before this session, which only takes it over.

        Raises:
            StorageError: the disk is full or the file cannot be written; nothing of the line is left.
        """
        if self._fd is None:
            raise StorageError(f"{self.path}: the run is not open for writing")
        line = episode.model_dump_json(exclude_defaults=True).encode() + b"\n"
        with storage_errors(self.episodes_path):
            try:
                written = os.write(self._fd, line)
                while written < len(line):  # a full disk takes a part first and fails on the rest
                    written += os.write(self._fd, line[written:])
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._fd, self._size)
                raise
        self._note((episode.problem_id, episode.repeat), episode.outcome, self._size)
        self._size += len(line)
        # A mark that an episode did not run is no work done in this session.
        self._appended += episode.outcome is not Outcome.NOT_RUN and not earlier

    def episodes(self, order: Iterable[EpisodeKey] | None = None) -> Iterator[Episode]:
        """The episodes one by one, the newest record of each.

        Args:
            order: episodes to give first, in this order; those it does not name follow as recorded.

        Raises:
            StorageError: a record cannot be read.
        """
        for _, line in self.lines(order):
            yield self._parse(line)

    def lines(self, order: Iterable[EpisodeKey] | None = None) -> Iterator[tuple[EpisodeKey, bytes]]:
        """As `episodes`, but each as its line of JSON: for those who need little of it."""
        with storage_errors(self.episodes_path), self.episodes_path.open("rb") as file:
            for key in _first(order or (), self._index):
                file.seek(self._index[key])
                yield key, file.readline()

    def _parse(self, line: bytes) -> Episode:
        try:
            return Episode.model_validate_json(line)
        except ValidationError as exc:
            problem = exc.errors(include_url=False)[0]
            where = ".".join(str(p) for p in problem["loc"])
            raise StorageError(
                f"{self.episodes_path}: the episode {line[:80].decode(errors='replace')!r}… cannot be read: "
                f"{where}: {problem['msg']}; remove the line and resume the run"
            ) from exc

    # -- the end -------------------------------------------------------------------------------------

    def finish(
        self,
        order: Iterable[EpisodeKey],
        *,
        wall_seconds: float,
        peak_rss_mb: float | None = None,
        granularity: int = 1,
    ) -> Summary:
        """Sort the record by dataset order, one line per episode, and write `summary.json`.

        Both files are replaced atomically; whoever reads sees the old or the new one. Harmless when
        called again.

        Args:
            order: all episodes of the run as the dataset orders them; those without a record are
                counted as not run. Records it does not name are kept, after the others.
            wall_seconds: wall time of this session.
            peak_rss_mb: peak memory of the process tree in 10^6 bytes.
            granularity: steps to a task run.

        Returns:
            The figures. When this session had nothing left to do, wall time, throughput and memory are
            those of the session that did the work.

        Raises:
            StorageError: a file cannot be read or written; the old ones are left as they were.
        """
        if self._fd is None:
            raise StorageError(f"{self.path}: the run is not open for writing")
        plan = list(order)
        builder = SummaryBuilder()
        offsets: dict[EpisodeKey, int] = {}

        def lines() -> Iterator[bytes]:
            offset = 0
            for key, line in self.lines(plan):
                builder.add(self._parse(line))
                offsets[key] = offset
                offset += len(line)
                yield line

        with storage_errors(self.episodes_path):
            write_atomic(self.episodes_path, lines())
            os.close(self._fd)
            self._fd = None
            self._index = offsets
            self._open_for_append()
        summary = builder.build(
            run=self.name,
            dataset=str(self.parameters.get("dataset", "")),
            llm=str(self.parameters.get("llm", "")),
            strategy=str(self.parameters.get("strategy", "")),
            max_trials=self._max_trials(),
            wall_seconds=wall_seconds,
            finished=self._appended,
            problems=len({p for p, _ in plan} | {p for p, _ in offsets}),
            missing=len(set(plan) - offsets.keys()),
            peak_rss_mb=peak_rss_mb,
            granularity=granularity,
            notes=self.notes,
        )
        if not self._appended and (before := self.summary()) is not None:
            kept = ("wall_seconds", "episodes_per_minute", "peak_rss_mb", "granularity")
            summary = summary.model_copy(update={name: getattr(before, name) for name in kept})
        with storage_errors(self.path / SUMMARY):
            write_atomic(self.path / SUMMARY, [json_bytes(summary.model_dump(mode="json"))])
        return summary

    def attach(self, name: str, value: Any) -> Path:
        """Put a JSON file beside the record, atomically: `concurrency.json`, for example.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.path / name
        with storage_errors(path):
            write_atomic(path, [json_bytes(value)])
        return path

    def extend(self, name: str, entries: Sequence[Any]) -> Path:
        """Add to a JSON list beside the record: each session of a run adds its own.

        Raises:
            StorageError: it cannot be read or written.
        """
        path = self.path / name
        with storage_errors(path):
            data = path.read_bytes() if path.exists() else b"[]"
        try:
            known = orjson.loads(data)
        except orjson.JSONDecodeError:
            known = []  # what cannot be read is not worth a finished run
        return self.attach(name, [*(known if isinstance(known, list) else []), *entries])

    def _max_trials(self) -> int:
        value = self.parameters.get("max_trials", 1)
        return value if isinstance(value, int) and value >= 1 else 1

    def summary(self) -> Summary | None:
        """The figures of the finished run, or None when it is not finished.

        Raises:
            StorageError: `summary.json` cannot be read.
        """
        path = self.path / SUMMARY
        if not path.exists():
            return None
        with storage_errors(path):
            data = path.read_bytes()
        try:
            return Summary.model_validate_json(data)
        except ValidationError as exc:
            problem = exc.errors(include_url=False)[0]
            raise StorageError(
                f"{path}: {'.'.join(str(p) for p in problem['loc'])}: {problem['msg']}; "
                "remove the file and resume the run, which writes it anew"
            ) from exc


def _first(order: Iterable[EpisodeKey], known: Mapping[EpisodeKey, int]) -> Iterator[EpisodeKey]:
    """The known keys, those of `order` first; the others as they lie in the file."""
    seen: set[EpisodeKey] = set()
    for key in order:
        if key in known and key not in seen:
            seen.add(key)
            yield key
    yield from sorted(known.keys() - seen, key=known.__getitem__)


def _read_parameters(path: Path) -> dict[str, Any]:
    file = path / PARAMETERS
    try:
        found = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is not a run's folder: it has no {PARAMETERS}") from None
    except orjson.JSONDecodeError as exc:
        raise StorageError(f"{file}: line {exc.lineno}: {exc.msg}") from exc
    if not isinstance(found, dict):
        raise StorageError(f"{file}: must be a JSON object")
    return found
