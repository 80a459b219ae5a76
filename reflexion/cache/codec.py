"""Entries as bytes: one line of JSON that tells of the entry, then its content, compressed when large.

    {"format":1,"key":"…","step":"trial",…,"encoding":"zlib","size":81234}\n<content>

The first line is enough for statistics and for clearing, so that neither reads or inflates contents.
Everything is parsed as JSON and checked against the model; nothing is ever unpickled.
"""

from __future__ import annotations

import time
import zlib
from typing import Any, Literal, cast, get_args

import orjson
from pydantic import Field, ValidationError

from reflexion.cache.step_cache import FORMAT, CachedStep, CacheFilter
from reflexion.errors import ReflexionError
from reflexion.types import Frozen, StepName, Usage

__all__ = [
    "COMPRESS_ABOVE",
    "HEADER_BYTES",
    "CorruptEntryError",
    "EntryTooLargeError",
    "Header",
    "decode",
    "decode_header",
    "encode",
    "expired",
    "matches",
]

COMPRESS_ABOVE = 4096
"""Bytes of content above which it is compressed; below, the processor time costs more than it saves."""

HEADER_BYTES = 4096
"""Bytes that are read to see an entry's first line without its content."""

MAX_CONTENT_BYTES = 256 * 2**20
"""Bytes a content may inflate to: a few planted bytes must not fill the memory."""


Encoding = Literal["json", "zlib"]
ENCODINGS = frozenset(get_args(Encoding))


class CorruptEntryError(ReflexionError):
    """An entry cannot be read. Stores count it as a miss; it never reaches a run."""


class EntryTooLargeError(ReflexionError):
    """An entry is over the store's cap. Stores warn and do not keep it; it never reaches a run."""


class Header(Frozen):
    """What an entry's first line tells; the fields are `CachedStep`'s."""

    format: int
    key: str
    step: StepName
    model: str | None = None
    dataset: str = ""
    run: str = ""
    problem: str = ""
    usage: Usage = Usage()
    created: float
    expires: float | None = None
    encoding: Encoding = Field(default="json", description="`json` or `zlib` (JSON, deflated).")
    size: int = Field(ge=0, description="Bytes of the content before compression.")


def encode(entry: CachedStep, limit: int) -> bytes:
    """The bytes of an entry.

    Args:
        entry: what to write.
        limit: bytes the content may have before compression.

    Raises:
        EntryTooLargeError: names the largest field and the cap.
    """
    content = orjson.dumps([entry.value, entry.fields])
    size = len(content)
    if size > limit:
        raise EntryTooLargeError(_too_large(entry, size, limit))
    encoding = "json"
    if size > COMPRESS_ABOVE:
        # Level 1: the text of a trajectory shrinks to a third in a millisecond; higher levels gain little.
        content, encoding = zlib.compress(content, 1), "zlib"
    usage = entry.usage
    header: dict[str, Any] = {
        "format": entry.format,
        "key": entry.key,
        "step": entry.step,
        "model": entry.model,
        "dataset": entry.dataset,
        "run": entry.run,
        "problem": entry.problem,
        "usage": {
            "prompt": usage.prompt,
            "completion": usage.completion,
            "calls": usage.calls,
            "unknown": usage.unknown,
            "cost_usd": usage.cost_usd,
        },
        "created": entry.created,
        "expires": entry.expires,
        "encoding": encoding,
        "size": size,
    }
    return orjson.dumps(header) + b"\n" + content


def decode(data: bytes, key: str) -> CachedStep:
    """The entry of these bytes.

    Raises:
        CorruptEntryError: they are no entry, another key's, or a newer format's; says what is wrong.
    """
    line, newline, content = data.partition(b"\n")
    if not newline:
        raise CorruptEntryError("it has no first line of JSON")
    header = _loads(line, key)
    encoding, size = header.pop("encoding", "json"), header.pop("size", None)
    if encoding not in ENCODINGS or not isinstance(size, int):
        raise CorruptEntryError("its first line names no known encoding or no size")
    raw = _inflate(content, size) if encoding == "zlib" else content
    if len(raw) != size:
        raise CorruptEntryError(f"its content has {len(raw)} bytes, not the {size} it was written with")
    try:
        header["value"], header["fields"] = orjson.loads(raw)
        return CachedStep.model_validate(header)
    except (ValueError, TypeError) as exc:
        raise CorruptEntryError(f"its content is not an entry's: {_brief(exc)}") from None


def decode_header(line: bytes, key: str | None = None) -> Header:
    """The first line of an entry; `key` is the one it was found under, when that is known.

    Raises:
        CorruptEntryError: it is no entry, another key's, or a newer format's.
    """
    try:
        return Header.model_validate(_loads(line.partition(b"\n")[0], key))
    except ValidationError as exc:
        raise CorruptEntryError(f"its first line is not an entry's: {_brief(exc)}") from None


def _loads(line: bytes, key: str | None) -> dict[str, Any]:
    try:
        found: Any = orjson.loads(line)
    except ValueError:
        raise CorruptEntryError("its first line is not JSON") from None
    if not isinstance(found, dict):
        raise CorruptEntryError("its first line is not a JSON object")
    header = cast("dict[str, Any]", found)
    version = header.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise CorruptEntryError(f"it has format {version!r:.20}, and this version reads up to {FORMAT}")
    if key is not None and header.get("key") != key:
        raise CorruptEntryError("it belongs to another key")
    return header


def expired(entry: CachedStep | Header, now: float | None = None) -> bool:
    """Whether its time to live is over."""
    return entry.expires is not None and entry.expires <= (time.time() if now is None else now)


def matches(entry: CachedStep | Header, which: CacheFilter, now: float) -> bool:
    """Whether all conditions of a filter hold."""
    return (
        (which.step is None or entry.step == which.step)
        and (which.dataset is None or entry.dataset == which.dataset)
        and (which.model is None or entry.model == which.model)
        and (which.run is None or entry.run == which.run)
        and (which.older_than is None or now - entry.created > which.older_than)
    )


def _inflate(content: bytes, size: int) -> bytes:
    if size > MAX_CONTENT_BYTES:
        raise CorruptEntryError(f"its content claims {size} bytes")
    inflater = zlib.decompressobj()
    try:
        # One byte more than promised shows a content that is longer, without inflating all of it.
        raw = inflater.decompress(content, size + 1)
    except zlib.error as exc:
        raise CorruptEntryError(f"its content cannot be inflated: {exc}") from None
    if not inflater.eof:
        raise CorruptEntryError("its compressed content is cut off, or longer than it was written")
    return raw


def _brief(exc: Exception) -> str:
    if isinstance(exc, ValidationError):
        first = exc.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc']) or 'value'}: {first['msg']}"
    return str(exc)[:200]


def _too_large(entry: CachedStep, size: int, limit: int) -> str:
    parts: list[tuple[int, str]] = []
    groups: tuple[tuple[str, dict[str, Any]], ...] = (("value", entry.value), ("fields", entry.fields))
    for group, members in groups:
        parts += [(len(orjson.dumps(member)), f"{group}.{name}") for name, member in members.items()]
    largest, field = max(parts, default=(0, "value"))
    return (
        f"{entry.step} of problem {entry.problem!r} is not cached: {size:,} bytes, over the cap of {limit:,}; "
        f"the largest field is {field} ({largest:,} bytes). Shorten it, or raise max_entry_bytes of the cache"
    )
