"""The files of a local store: layout, format marker, entries, quarantine, counters. Blocking calls only.

FORMAT              {"format": 1}
entries/a/bc/KEY    one file for each entry, `abc…` being the key
tmp/                files being written, renamed when complete
corrupt/            entries that could not be read, set aside for whoever wants to know why
counters.json       look-ups by step and model
locks               one byte for each key (see `locks.py`)
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import orjson

from reflexion.cache.codec import (
    HEADER_BYTES,
    CorruptEntryError,
    EntryTooLargeError,
    Header,
    decode,
    decode_header,
    encode,
    expired,
    matches,
)
from reflexion.cache.counters import Counts, Group, Holdings, Tally, combine
from reflexion.cache.locks import FileKeyLocks, locks_of_folder
from reflexion.cache.step_cache import FORMAT, CachedStep, CacheFilter
from reflexion.errors import StorageError

__all__ = ["Folder"]

logger = logging.getLogger("reflexion.cache")

READ_BYTES = 256 * 1024
STALE_SECONDS = 3600.0
"""Age from which a file in `tmp/` is the leftover of a process that died."""
KEEP_CORRUPT = 100
"""Corrupt entries that are set aside; later ones are removed."""

_KEY = re.compile(r"[A-Za-z0-9._-]{4,200}")
_KEY_START = re.compile(r"[A-Za-z0-9]{3}")


class Folder:
    """One folder of entries, used by several threads and processes at once.

    Raises:
        StorageError: it cannot be made or written, or a newer version of this package wrote it.
    """

    def __init__(self, root: Path, max_entry_bytes: int) -> None:
        self.root = root
        self._limit = max_entry_bytes
        self._entries = str(root / "entries")
        self._tmp = str(root / "tmp")
        self._serial = itertools.count()
        self._token = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._warned: set[str] = set()
        self.counts = Counts()
        self._prepare()
        self.locks: FileKeyLocks = locks_of_folder(root / "locks")

    def _prepare(self) -> None:
        marker = self.root / "FORMAT"
        try:
            self._make()
            found: Any = orjson.loads(marker.read_bytes())
            version = found["format"]
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise StorageError(f"cache: the folder {self.root} cannot be used: {reason}") from exc
        except (ValueError, KeyError, TypeError):
            raise StorageError(
                f"cache: {marker} does not tell a format; this is no step cache. Name another folder, or remove it"
            ) from None
        if not isinstance(version, int) or version > FORMAT:
            raise StorageError(
                f"cache: {self.root} has format {version}, and this version reads up to {FORMAT}. "
                "Use a newer reflexion-on-prefect, or name another folder"
            )

    def _make(self) -> None:
        for name in ("entries", "tmp", "corrupt"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        marker = self.root / "FORMAT"
        if not marker.exists():
            self._replace(marker, orjson.dumps({"format": FORMAT}) + b"\n")

    def _path(self, key: str) -> str:
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"cache key {key[:80]!r} must be 4 to 200 letters, digits, '.', '_' or '-'")
        if _KEY_START.match(key) is None:
            raise ValueError(f"cache key {key[:80]!r} must start with three letters or digits")
        return f"{self._entries}/{key[0]}/{key[1:3]}/{key}"

    # Reading

    def read_many(self, keys: Sequence[str]) -> list[CachedStep | BaseException | None]:
        """The entry of each key, or None when it is missing, expired or unreadable."""
        now = time.time()
        return [self._read(key, now) for key in keys]

    def _read(self, key: str, now: float) -> CachedStep | BaseException | None:
        try:
            path = self._path(key)
        except ValueError as exc:
            return exc
        try:
            entry = decode(_contents(path), key)
        except FileNotFoundError:
            return None
        except CorruptEntryError as exc:
            self._set_aside(path, key, str(exc))
            return None
        except OSError as exc:
            self._warn_once("read", "cache: %s cannot be read and counts as a miss: %s", path, exc.strerror)
            return None
        return None if expired(entry, now) else entry

    def _set_aside(self, path: str, key: str, reason: str) -> None:
        """Move an unreadable entry out of the way, so that it is reported once and can be looked at."""
        self.counts.corrupt()
        kept = self.root / "corrupt"
        with contextlib.suppress(OSError):
            if len(os.listdir(kept)) < KEEP_CORRUPT:  # noqa: PTH208 - only their number is wanted
                Path(path).replace(kept / key)
            else:
                Path(path).unlink()
        logger.warning(
            "cache: entry %s… cannot be read (%s); it counts as a miss and was moved to %s", key[:12], reason, kept
        )

    # Writing

    def write_many(self, entries: Sequence[CachedStep]) -> list[BaseException | None]:
        """Write each entry completely or not at all."""
        return [self._write(entry) for entry in entries]

    def _write(self, entry: CachedStep) -> BaseException | None:
        try:
            path, data = self._path(entry.key), encode(entry, self._limit)
            try:
                self._replace(path, data)
            except FileNotFoundError:
                # Somebody removed the folder while it was in use.
                self._make()
                self._replace(path, data)
        except ValueError as exc:
            return exc
        except EntryTooLargeError as exc:
            logger.warning("cache: %s", exc)
        except OSError as exc:
            self._warn_once(
                "write", "cache: %s cannot be written, so steps are computed without it: %s", self.root, exc.strerror
            )
        return None

    def _replace(self, path: str | Path, data: bytes) -> None:
        """Put a file in place in one go: readers see the old one or the new one, never a part."""
        temporary = f"{self._tmp}/{self._token}-{next(self._serial)}"
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(file, rest) :]
            finally:
                os.close(file)
            try:
                os.replace(temporary, path)  # noqa: PTH105 - strings are quicker
            except FileNotFoundError:
                # The first entry of its subfolder; making it only now saves a look at each write.
                os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
                os.replace(temporary, path)  # noqa: PTH105 - strings are quicker
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise

    def _warn_once(self, kind: str, message: str, *args: object) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning(message, *args)

    # The whole store

    def _walk(self) -> Iterator[tuple[str, int, Header | None]]:
        """Path, size and first line of every entry; None for the line when it cannot be read."""
        for first in _subfolders(self._entries):
            for second in _subfolders(first):
                with contextlib.suppress(FileNotFoundError), os.scandir(second) as found:
                    for item in found:
                        with contextlib.suppress(FileNotFoundError):
                            yield item.path, item.stat().st_size, _header(item.path, item.name)

    def holdings(self) -> dict[Group, Holdings]:
        """What the store holds, by step and model; unreadable entries are left to `prune`."""
        now, held = time.time(), dict[Group, Holdings]()
        for _, size, header in self._walk():
            if header is not None:
                combine(held, (header.step, header.model), size, expired(header, now))
        return held

    def clear(self, which: CacheFilter) -> int:
        """Remove the entries a filter names; returns how many."""
        now = time.time()
        everything = which == CacheFilter()
        return self._remove(lambda header: everything if header is None else matches(header, which, now))

    def prune(self) -> int:
        """Remove expired entries and leftovers of dead processes, set unreadable entries aside.

        Returns:
            How many expired entries went.
        """
        now = time.time()
        for item in _files(self._tmp):
            with contextlib.suppress(OSError):
                if now - item.stat().st_mtime > STALE_SECONDS:
                    item.unlink()
        for path, _, header in self._walk():
            if header is None:
                self._set_aside(path, Path(path).name, "its first line is not an entry's")
        return self._remove(lambda header: header is not None and expired(header, now))

    def _remove(self, unwanted: Callable[[Header | None], bool]) -> int:
        removed = 0
        for path, _, header in self._walk():
            if unwanted(header):
                with contextlib.suppress(FileNotFoundError):
                    Path(path).unlink()
                    removed += 1
        return removed

    # Counters

    def flush_counts(self) -> None:
        """Add what was counted to the counters file. Best effort: a failure keeps it for the next time."""
        tallies, corrupt = self.counts.take()
        if not tallies and not corrupt:
            return
        try:
            self._update_counters(tallies, corrupt)
        except (OSError, StorageError) as exc:
            self.counts.give_back(tallies, corrupt)
            self._warn_once("counters", "cache: look-ups are not counted in %s: %s", self.root, exc)

    def counters(self) -> tuple[dict[Group, Tally], int]:
        """Everything counted over the life of the store, and the number of corrupt entries."""
        try:
            stored: Any = orjson.loads((self.root / "counters.json").read_bytes())
            tallies = {(row["step"], row["model"]): Tally(**row["tally"]) for row in stored["steps"]}
            return cast("dict[Group, Tally]", tallies), int(stored["corrupt"])
        except FileNotFoundError:
            return {}, 0
        except (ValueError, KeyError, TypeError):
            self._warn_once("counters", "cache: %s/counters.json cannot be read; counting starts anew", self.root)
            return {}, 0

    def _update_counters(self, tallies: Mapping[Group, Tally], corrupt: int) -> None:
        with self.locks.files.exclusive("counters"):
            stored, corrupt_before = self.counters()
            for group, tally in tallies.items():
                stored.setdefault(group, Tally()).add(tally)
            rows = [{"step": step, "model": model, "tally": asdict(t)} for (step, model), t in stored.items()]
            data = orjson.dumps({"steps": rows, "corrupt": corrupt_before + corrupt})
            self._replace(self.root / "counters.json", data)


def _contents(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(file, READ_BYTES)
        if len(data) < READ_BYTES:
            return data
        parts = [data]
        while data := os.read(file, READ_BYTES):
            parts.append(data)
        return b"".join(parts)
    finally:
        os.close(file)


def _header(path: str, key: str) -> Header | None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        line = os.read(file, HEADER_BYTES)
        while b"\n" not in line and (more := os.read(file, HEADER_BYTES)):
            line += more
        return decode_header(line, key)
    except CorruptEntryError:
        return None
    finally:
        os.close(file)


def _subfolders(path: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as found:
        return sorted(item.path for item in found if item.is_dir())
    return []


def _files(path: str) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return list(Path(path).iterdir())
    return []
