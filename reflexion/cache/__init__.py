"""The step cache: local folder or Redis, time to live, and one computation for identical steps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from reflexion.cache.step_cache import CachedStep, CacheFilter, CacheStats, StepCache, StepCacheStats
from reflexion.errors import ConfigurationError

if TYPE_CHECKING:
    from reflexion.cache.flight import compute_once
    from reflexion.cache.local_store import LocalStepCache
    from reflexion.cache.process_cache import MemoryStepCache, NullCache
    from reflexion.cache.redis_store import RedisStepCache
    from reflexion.cache.ttl import TTL, parse_ttl

__all__ = [
    "TTL",
    "CacheFilter",
    "CacheStats",
    "CachedStep",
    "LocalStepCache",
    "MemoryStepCache",
    "NullCache",
    "RedisStepCache",
    "StepCache",
    "StepCacheStats",
    "compute_once",
    "default_folder",
    "open_cache",
    "parse_ttl",
]

_HOMES = {
    "LocalStepCache": "local_store",
    "MemoryStepCache": "process_cache",
    "NullCache": "process_cache",
    "RedisStepCache": "redis_store",
    "TTL": "ttl",
    "compute_once": "flight",
    "parse_ttl": "ttl",
}

_SCHEMES = "a folder, file://FOLDER, redis://, rediss://, redis+sentinel://, memory: or none:"


def __getattr__(name: str) -> Any:
    """Import a store when it is first asked for: most runs need one of them."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def default_folder() -> Path:
    """The local store's folder: `reflexion/steps` in `$XDG_CACHE_HOME` or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "reflexion" / "steps"


def open_cache(url: str | None = None, **options: Any) -> StepCache:
    """Open a step cache.

    Opening Redis asks it one question in a blocking way, so that a wrong password shows at once; when
    it is not there at all, that is told once and the cache works as soon as it is.

    Args:
        url: a folder, `file://FOLDER`, `redis://[user:password@]host:port/db`, `rediss://…`,
            `redis+sentinel://host:port[,host:port]/service[/db]`, `memory:` or `none:`. None:
            `REFLEXION_CACHE`, else the user's cache folder.
        options: of the store: `max_entry_bytes`; of Redis also `namespace`, `lock_lease`,
            `retry_seconds` and `timeout`; of `memory:` also `max_entries`.

    Raises:
        ConfigurationError: the URL, an option or the password is wrong.
        StorageError: the store cannot be used, or a newer version wrote it.
    """
    where = (url or os.environ.get("REFLEXION_CACHE", "")).strip() or str(default_folder())
    for name in ("max_entry_bytes", "max_entries"):
        if name in options and (not isinstance(options[name], int) or options[name] < 1):
            raise ConfigurationError(f"cache: {name} is {options[name]!r}; it must be a whole number of 1 or more")
    try:
        return _open(where, options)
    except TypeError as exc:
        # The stores' constructors name the option they do not know.
        if "unexpected keyword argument" not in str(exc):
            raise
        raise ConfigurationError(f"cache: {str(exc).rpartition(' ')[2]} is no option of this kind of cache") from None


def _open(where: str, options: dict[str, Any]) -> StepCache:
    scheme, colon, _ = where.partition(":")
    scheme = scheme.lower()
    if scheme in ("redis", "rediss", "redis+sentinel") and "://" in where:
        from reflexion.cache.redis_store import RedisStepCache

        return RedisStepCache(where, **options)
    if where in ("memory:", "memory://"):
        from reflexion.cache.process_cache import MemoryStepCache

        return MemoryStepCache(**options)
    if where in ("none:", "none://"):
        from reflexion.cache.process_cache import NullCache

        return NullCache(**options)
    if scheme == "file" and colon:
        parts = urlsplit(where)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ConfigurationError(f"cache {where!r}: write file:///absolute/folder")
        where = unquote(parts.path)
    elif "://" in where or scheme in ("redis", "rediss"):
        # Only the scheme is shown: what follows may hold a password.
        raise ConfigurationError(f"cache {scheme + '://…'!r}: the scheme {scheme!r} is not known; use {_SCHEMES}")
    from reflexion.cache.local_store import LocalStepCache

    return LocalStepCache(where, **options)
