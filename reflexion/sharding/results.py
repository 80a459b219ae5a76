"""How the figures of a run that was carried out elsewhere come back: by the same URL as its episodes."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from reflexion._files import json_bytes, storage_errors, write_atomic
from reflexion.batch import BatchResult
from reflexion.errors import ConfigurationError, StorageError
from reflexion.sharding.channel import KEEP_SECONDS

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
    if scheme in ("redis", "rediss"):
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
    from redis import RedisError
    from redis.asyncio import Redis

    client = Redis.from_url(url or "", socket_timeout=10, socket_connect_timeout=5)
    try:
        await client.set(f"reflexion:result:{run}", result.model_dump_json(), ex=KEEP_SECONDS)
    except (RedisError, OSError) as exc:
        raise StorageError(f"results: Redis cannot be used ({type(exc).__name__}: {exc})") from exc
    finally:
        await client.aclose()


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
        from redis import RedisError
        from redis.asyncio import Redis

        client = Redis.from_url(url or "", socket_timeout=10, socket_connect_timeout=5)
        try:
            content = await client.get(f"reflexion:result:{run}")
        except (RedisError, OSError) as exc:
            raise StorageError(f"results: Redis cannot be used ({type(exc).__name__}: {exc})") from exc
        finally:
            await client.aclose()
    if content is None:
        raise StorageError(f"results: Redis has no result of the flow run {run}; it keeps them for 7 days")
    try:
        return BatchResult.model_validate_json(content)
    except ValidationError as exc:
        raise StorageError(
            f"results: the result of the flow run {run} cannot be read: {exc.errors()[0]['msg']}"
        ) from None
