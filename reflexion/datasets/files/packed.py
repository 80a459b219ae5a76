"""What a file is under its wrapping: compression, encoding and kind, told by its content before its name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO, Literal, cast

from reflexion.errors import DatasetError

__all__ = ["PackedFile", "Packing"]

Packing = Literal["gzip", "bzip2", "xz", "zip"]

_MAGIC: tuple[tuple[bytes, Packing], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
)
_SUFFIXES: dict[str, Packing] = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zip": "zip"}
_BOMS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_UNREAD = {
    ".xlsx": "an Excel workbook; save it there as CSV UTF-8",
    ".xlsm": "an Excel workbook; save it there as CSV UTF-8",
    ".xls": "an Excel workbook; save it there as CSV UTF-8",
    ".ods": "a spreadsheet; save it there as CSV in UTF-8",
    ".zst": "packed by Zstandard; unpack it with: zstd -d",
    ".7z": "packed by 7-Zip; unpack it first",
    ".rar": "packed by RAR; unpack it first",
    ".tar": "an archive of files; unpack it and name one of them",
    ".tgz": "an archive of files; unpack it and name one of them",
    ".pkl": "a pickle, which could run code when read; save it as JSON lines or Parquet",
    ".pickle": "a pickle, which could run code when read; save it as JSON lines or Parquet",
    ".npy": "NumPy's own form; save it as JSON lines or Parquet",
    ".npz": "NumPy's own form; save it as JSON lines or Parquet",
    ".db": 'a database; export a query: sqlite3 -header -csv FILE "SELECT …" > problems.csv',
    ".sqlite": 'a database; export a query: sqlite3 -header -csv FILE "SELECT …" > problems.csv',
    ".sqlite3": 'a database; export a query: sqlite3 -header -csv FILE "SELECT …" > problems.csv',
    ".yaml": "YAML; save it as JSON lines",
    ".yml": "YAML; save it as JSON lines",
    ".xml": "XML; save it as JSON lines",
}
_DATA = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather"})
"""How names of what is read end; a file alone in its archive is told by its content."""
_NOISE = ("__MACOSX/", ".DS_Store", "Thumbs.db")
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)


class PackedFile:
    """A file that may be packed and in another encoding.

    Attributes:
        path: the file itself.
        packing: how it is packed, or None.
        suffix: of what is inside, lower case, as `.csv`.
        encoding: of a text inside: `utf-8-sig`, `utf-16…` or `utf-32…`.
        head: the first bytes inside.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DatasetError: it is of a kind that is not read, or damaged.
        """
        self.path = path
        with path.open("rb") as file:
            magic = file.read(8)
        name = PurePath(path.name.lower())
        self.packing: Packing | None = next((kind for start, kind in _MAGIC if magic.startswith(start)), None)
        self.packing = self.packing or _SUFFIXES.get(name.suffix)
        if self.packing == "zip" and name.suffix in _UNREAD:
            raise self._unread(name.suffix)
        self._member = self._only_member() if self.packing == "zip" else None
        if self._member is not None:
            name = PurePath(self._member.lower())
        elif self.packing is not None and name.suffix in _SUFFIXES:
            name = name.with_suffix("")
        self.suffix = name.suffix
        if self.suffix in _UNREAD:
            raise self._unread(self.suffix)
        with self.open() as file:
            self.head = file.read(4096)
        self.encoding = _encoding(self.head)

    def _unread(self, suffix: str) -> DatasetError:
        return DatasetError(f"{self.path}: {_UNREAD[suffix]}")

    @property
    def plain(self) -> bool:
        """Whether the file is what it holds: UTF-8 and not packed."""
        return self.packing is None and self.encoding == "utf-8-sig"

    def _only_member(self) -> str:
        with self._damage(0), zipfile.ZipFile(self.path) as archive:
            names = [i.filename for i in archive.infolist() if not i.is_dir()]
            names = [n for n in names if not n.startswith(_NOISE) and not n.endswith(_NOISE)]
            # A licence or a word on the data may lie beside them.
            names = [n for n in names if PurePath(n.lower()).suffix in _DATA] or names
            if not names:
                raise DatasetError(f"{self.path}: the archive is empty")
            if len(names) != 1:
                listed = ", ".join(names[:5])
                raise DatasetError(
                    f"{self.path}: the archive holds {len(names)} files ({listed}); unpack it and name one of them"
                )
            if archive.getinfo(names[0]).flag_bits & 1:
                raise DatasetError(f"{self.path}: the archive has a password; unpack it first")
            return names[0]

    @contextmanager
    def open(self) -> Generator[BinaryIO]:
        """What is inside, as bytes, from its start.

        Raises:
            DatasetError: the file is damaged; what is read in the `with` block may raise it too.
        """
        with self._damage(0):
            if self.packing == "zip":
                with zipfile.ZipFile(self.path) as archive, archive.open(self._member or "") as file:
                    yield cast("BinaryIO", file)
                return
            opener = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}.get(self.packing or "", open)
            with opener(self.path, "rb") as file:
                yield cast("BinaryIO", file)

    @contextmanager
    def open_text(self) -> Generator[io.TextIOWrapper]:
        """What is inside, as text, line ends as they are."""
        with self.open() as file:
            text = io.TextIOWrapper(file, encoding=self.encoding, newline="")
            try:
                yield text
            finally:
                text.detach()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines inside as UTF-8 without a byte order mark, numbered from 1.

        Raises:
            DatasetError: the file is damaged, or its encoding is; names the line.
        """
        number = 0
        try:
            with self.open() as file:
                if self.encoding == "utf-8-sig":
                    for number, raw in enumerate(file, 1):
                        yield number, raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                else:
                    text = io.TextIOWrapper(file, encoding=self.encoding, newline="\n")
                    for number, line in enumerate(text, 1):
                        yield number, line.encode("utf-8", "surrogatepass")
        except UnicodeError as error:
            raise DatasetError(f"{self.path}:{number + 1}: not {self.encoding} ({error})") from error
        except DatasetError as error:
            if isinstance(error.__cause__, _DAMAGED):
                raise self._damaged(number, error.__cause__) from error.__cause__
            raise

    @contextmanager
    def _damage(self, number: int) -> Generator[None]:
        try:
            yield
        except _DAMAGED as error:
            raise self._damaged(number, error) from error

    def _damaged(self, number: int, error: BaseException) -> DatasetError:
        where = f"{self.path}:{number + 1}" if number else f"{self.path}"
        return DatasetError(f"{where}: damaged {self.packing or 'file'} ({error}); fetch or pack the file again")

    def read(self) -> bytes:
        """Everything inside as UTF-8 without a byte order mark.

        Raises:
            DatasetError: the file is damaged, or its encoding is.
        """
        with self.open() as file:
            data = file.read()
        if self.encoding == "utf-8-sig":
            return data.removeprefix(b"\xef\xbb\xbf")
        try:
            return data.decode(self.encoding).encode("utf-8", "surrogatepass")
        except UnicodeError as error:
            raise DatasetError(f"{self.path}: not {self.encoding} ({error})") from error


def _encoding(head: bytes) -> str:
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    # Without a mark: texts of this kind begin with a sign of ASCII, whose other bytes are zero.
    if len(head) >= 4 and head[0] and not head[1] and head[2] and not head[3]:
        return "utf-16-le"
    if len(head) >= 4 and not head[0] and head[1] and not head[2] and head[3]:
        return "utf-16-be"
    return "utf-8-sig"
