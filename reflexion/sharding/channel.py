"""How a shard's episodes reach the run they belong to: through a shared folder, or through Redis.

Never through Prefect's database. A channel is chosen by a URL and holds for each shard its episodes, a
sign of life, how its last attempt ended, and what it is told to do. Everything on it may be written
twice or lost, and nothing depends on it: a shard sends again what is missing, and the run takes each
episode once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol, cast

import orjson
from pydantic import Field, ValidationError

from reflexion._files import json_bytes, storage_errors, write_atomic
from reflexion.errors import ConfigurationError, StorageError
from reflexion.run.run_folder import EPISODES
from reflexion.types import Frozen

__all__ = ["Channel", "EndNote", "FolderChannel", "Orders", "RedisChannel", "open_channel"]

KEEP_SECONDS = 7 * 86_400
"""How long Redis keeps the episodes of a run in shards: time enough to resume it."""

REPLY_SECONDS = 10.0

PAGE = 1000


class Orders(Frozen):
    """What a shard is told."""

    attempt: int = 1
    """The attempt that has the shard; an earlier one gives way."""
    stop: bool = False


class EndNote(Frozen):
    """How an attempt ended."""

    attempt: int
    outcome: Literal["completed", "stopped", "failed"]
    kind: str = Field(default="", description="Class of the error.")
    message: str = ""
    peak_rss_mb: float | None = None


class Channel(Protocol):
    """What shards and their run tell each other. Shards are named as their folders are."""

    keeps_folders: bool
    """Whether the shards' own folders are where the run reads: then nothing need be sent."""

    async def send(self, shard: str, lines: Sequence[bytes]) -> int:
        """Add episodes; gives how many lines the shard's list has now."""
        ...

    async def beat(self, shard: str, sign: str) -> Orders:
        """Give a sign of life, and hear what to do."""
        ...

    async def end(self, shard: str, note: EndNote) -> None:
        """Tell how an attempt ended."""
        ...

    async def order(self, shard: str, orders: Orders) -> None:
        """Tell a shard what to do."""
        ...

    async def read(self, shard: str) -> list[bytes]:
        """Episodes that were added since the last call, some of them perhaps again."""
        ...

    async def sign(self, shard: str) -> tuple[str | None, EndNote | None]:
        """The last sign of life, and how the last attempt ended."""
        ...

    async def clear(self, shards: Sequence[str], *, episodes: bool) -> None:
        """Remove what an earlier session said of these shards; on request what they sent, too."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


def open_channel(url: str | None, *, folder: Path, run: str, token: str) -> Channel:
    """The channel of a run.

    Args:
        url: a path or `file://` of a folder that all machines share, `redis://…` or `rediss://…`; None:
            `folder`.
        folder: the run's own folder.
        run: its name.
        token: tells runs of the same name apart.

    Raises:
        ConfigurationError: the URL is of no known form.
    """
    if url is None:
        return FolderChannel(folder / "shards")
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("redis", "rediss", "redis+sentinel"):
        return RedisChannel(url, f"reflexion:results:{run}:{token}")
    if scheme in ("", "file"):
        root = Path(url.removeprefix("file://") if scheme else url).expanduser()
        return FolderChannel(root.resolve() / f"{run}-{token}")
    raise ConfigurationError(
        f"results {scheme}://…: unknown form; use the path of a folder that all machines share, file://, "
        "redis:// or rediss://"
    )


class FolderChannel:
    """The shards' own folders, in a place that the run can read."""

    keeps_folders = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[str, tuple[int, int]] = {}

    async def send(self, shard: str, lines: Sequence[bytes]) -> int:
        return 0  # its episodes.jsonl is what the run reads

    async def beat(self, shard: str, sign: str) -> Orders:
        folder = self.root / shard
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / "alive", [sign.encode()])
        return _orders(_content(folder / "orders.json"))

    async def end(self, shard: str, note: EndNote) -> None:
        self._write(shard, "end.json", note)

    async def order(self, shard: str, orders: Orders) -> None:
        self._write(shard, "orders.json", orders)

    async def read(self, shard: str) -> list[bytes]:
        path = self.root / shard / EPISODES
        try:
            with path.open("rb") as file:
                inode, size = (info := os.fstat(file.fileno())).st_ino, info.st_size
                before, offset = self._read.get(shard, (0, 0))
                if inode != before or size < offset:
                    offset = 0  # it was sorted at the end of an attempt, and is another file
                file.seek(offset)
                lines: list[bytes] = []
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # it is just being written
                    lines.append(line)
                    offset += len(line)
                self._read[shard] = (inode, offset)
                return lines
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise StorageError(f"{path}: {exc.strerror or exc}") from exc

    async def sign(self, shard: str) -> tuple[str | None, EndNote | None]:
        alive = _content(self.root / shard / "alive")
        return alive.decode() if alive is not None else None, _end_note(_content(self.root / shard / "end.json"))

    async def clear(self, shards: Sequence[str], *, episodes: bool) -> None:
        for shard in shards:
            for name in ("alive", "end.json", "orders.json"):
                with suppress(OSError):
                    (self.root / shard / name).unlink()
            if episodes:
                shutil.rmtree(self.root / shard, ignore_errors=True)

    async def aclose(self) -> None:
        """There is nothing to close."""

    def _write(self, shard: str, name: str, value: Frozen) -> None:
        folder = self.root / shard
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / name, [json_bytes(value.model_dump(mode="json"))])


class RedisChannel:
    """Lists and values in Redis, for machines that share no folder."""

    keeps_folders = False

    def __init__(self, url: str, prefix: str) -> None:
        """
        Raises:
            ConfigurationError: the URL is malformed.
        """
        from reflexion.redis.redis_client import RedisAddress

        self._client, self._sentinels = RedisAddress.parse(url).async_client(REPLY_SECONDS)
        self._prefix = prefix
        self._offsets: dict[str, int] = {}

    def _key(self, shard: str, what: str) -> str:
        return f"{self._prefix}:{shard}:{what}"

    async def send(self, shard: str, lines: Sequence[bytes]) -> int:
        key = self._key(shard, "episodes")
        async with self._failures(), self._client.pipeline(transaction=False) as pipe:
            if lines:
                pipe.rpush(key, *lines)
                pipe.expire(key, KEEP_SECONDS)
            pipe.llen(key)
            return int((await pipe.execute())[-1])

    async def beat(self, shard: str, sign: str) -> Orders:
        async with self._failures(), self._client.pipeline(transaction=False) as pipe:
            pipe.set(self._key(shard, "alive"), sign, ex=KEEP_SECONDS)
            pipe.get(self._key(shard, "orders"))
            return _orders((await pipe.execute())[-1])

    async def end(self, shard: str, note: EndNote) -> None:
        async with self._failures():
            await self._client.set(self._key(shard, "end"), note.model_dump_json(), ex=KEEP_SECONDS)

    async def order(self, shard: str, orders: Orders) -> None:
        async with self._failures():
            await self._client.set(self._key(shard, "orders"), orders.model_dump_json(), ex=KEEP_SECONDS)

    async def read(self, shard: str) -> list[bytes]:
        key, lines = self._key(shard, "episodes"), list[bytes]()
        async with self._failures():
            offset = self._offsets.get(shard, 0)
            if offset > int(await self._client.llen(key)):
                offset = 0  # Redis was restarted empty, and the shard sends again
            while True:
                page = cast("list[bytes]", await self._client.lrange(key, offset, offset + PAGE - 1))
                lines += page
                offset += len(page)
                self._offsets[shard] = offset
                if len(page) < PAGE:
                    return lines

    async def sign(self, shard: str) -> tuple[str | None, EndNote | None]:
        async with self._failures():
            keys = self._key(shard, "alive"), self._key(shard, "end")
            alive, end = cast("list[bytes | None]", await self._client.mget(*keys))
            return alive.decode() if alive is not None else None, _end_note(end)

    async def clear(self, shards: Sequence[str], *, episodes: bool) -> None:
        kinds = ("alive", "end", "orders", *(("episodes",) if episodes else ()))
        keys = [self._key(shard, what) for shard in shards for what in kinds]
        if keys:
            async with self._failures():
                await self._client.delete(*keys)
        self._offsets.clear()

    async def aclose(self) -> None:
        from redis import RedisError

        for client in (self._client, *self._sentinels):
            with suppress(RedisError, OSError):
                await client.aclose()

    def _failures(self) -> _RedisFailures:
        return _RedisFailures()


class _RedisFailures:
    """Turns what Redis' client raises into one error, without its URL."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from redis import RedisError

        if isinstance(error, RedisError | OSError):
            raise StorageError(f"results: Redis cannot be used ({type(error).__name__}: {error})") from error


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _orders(content: bytes | None) -> Orders:
    with suppress(ValidationError):
        return Orders.model_validate_json(content or b"{}")
    return Orders()


def _end_note(content: bytes | None) -> EndNote | None:
    if content is None:
        return None
    with suppress(ValidationError, orjson.JSONDecodeError):
        return EndNote.model_validate_json(content)
    return None
