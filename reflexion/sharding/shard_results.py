"""How the figures of a run that was carried out elsewhere come back: by the same URL as its episodes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from reflexion._files import json_bytes, storage_errors, write_atomic
from reflexion.errors import ConfigurationError, StorageError
from reflexion.run.batch_run import BatchResult
from reflexion.sharding.channel import KEEP_SECONDS, REPLY_SECONDS

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["get_result", "put_result"]

FILE = "result.json"


def _place(url: str | None, run: str, folder: Path) -> Path | None:
    """The file of a result; None: it is in Redis.

    Raises:
        ConfigurationError: the URL is of no known form.
    """
    if url is None:
        return folder / FILE
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("redis", "rediss", "redis+sentinel"):
        return None
    if scheme in ("", "file"):
        root = Path(url.removeprefix("file://") if scheme else url).expanduser()
        return root.resolve() / f"{run}.json"
    raise ConfigurationError(f"results {scheme}://…: unknown form; use a path, file://, redis:// or rediss://")


async def put_result(result: BatchResult, url: str | None, run: str) -> None:
    """Leave the result of a flow run where who submitted it looks.

    Args:
        url: where results travel; None: the run's folder.
        run: id of the flow run.

    Raises:
        StorageError: it cannot be written.
    """
    path = _place(url, run, result.folder)
    if path is not None:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, [json_bytes(result.model_dump(mode="json"))])
        return
    async with _redis(url or "") as client:
        await client.set(f"reflexion:result:{run}", result.model_dump_json(), ex=KEEP_SECONDS)


@asynccontextmanager
async def _redis(url: str) -> AsyncGenerator[Redis]:
    """A client for one request; what it raises names no password."""
    from redis import RedisError

    from reflexion.redis.redis_client import RedisAddress

    client, sentinels = RedisAddress.parse(url).async_client(REPLY_SECONDS)
    try:
        yield client
    except (RedisError, OSError) as exc:
        raise StorageError(f"results: Redis cannot be used ({type(exc).__name__}: {exc})") from exc
    finally:
        for one in (client, *sentinels):
            await one.aclose()


async def get_result(url: str | None, run: str, folder: Path) -> BatchResult:
    """The result of a flow run that has ended.

    Raises:
        StorageError: it is not there, or cannot be read.
    """
    path = _place(url, run, folder)
    if path is not None:
        with storage_errors(path):
            content: bytes | str | None = path.read_bytes()
    else:
        async with _redis(url or "") as client:
            content = await client.get(f"reflexion:result:{run}")
    if content is None:
        raise StorageError(f"results: Redis has no result of the flow run {run}; it keeps them for 7 days")
    try:
        return BatchResult.model_validate_json(content)
    except ValidationError as exc:
        raise StorageError(
            f"results: the result of the flow run {run} cannot be read: {exc.errors()[0]['msg']}"
        ) from None
