"""One `AsyncOpenAI` per endpoint, key and event loop, shared by everything that speaks to it."""

from __future__ import annotations

import asyncio
import os
import weakref
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from reflexion.errors import ConfigurationError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["OPENAI_URL", "Endpoint", "answered", "note_answer", "public_url"]

OPENAI_URL = "https://api.openai.com/v1"
"""Where requests go when no base URL is given."""


def public_url(base_url: str) -> str:
    """The URL without user, password, query and trailing slash: fit for messages and cache keys.

    Raises:
        ConfigurationError: it is not the URL of an HTTP endpoint.
    """
    try:
        parts = urlsplit(base_url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigurationError(f"the endpoint's base URL cannot be parsed: {exc}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(
            "the endpoint's base URL (--base-url or OPENAI_BASE_URL) must look like "
            f"http://127.0.0.1:8000/v1, not {parts.scheme or 'nothing'}://{host or ''}"
        )
    host = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    netloc = host if port in (None, default) else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def _checked_key(key: str | None, where: str) -> str:
    key = (key or "").strip()
    if not key:
        if where == OPENAI_URL:
            raise ConfigurationError(
                "no API key for OpenAI: set OPENAI_API_KEY, name another endpoint by OPENAI_BASE_URL "
                "or --base-url, or use the embedded model with --llm local"
            )
        return "none"
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("the API key (OPENAI_API_KEY) has characters that no key has")
    return key


class _Pooled:
    def __init__(self, client: AsyncOpenAI) -> None:
        self.client = client
        self.users: set[int] = set()


_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _Pooled]] = (
    weakref.WeakKeyDictionary()
)
_answered: set[str] = set()


def answered(where: str) -> bool:
    """Whether an endpoint answered at least once in this process."""
    return where in _answered


def note_answer(where: str) -> None:
    """An endpoint answered, whatever it said."""
    _answered.add(where)


class Endpoint:
    """Where an endpoint is and the key to it. The key is in no `repr`.

    Args:
        base_url: None: `OPENAI_BASE_URL`, else OpenAI.
        api_key: None: `OPENAI_API_KEY`. Needed for OpenAI itself only.

    Raises:
        ConfigurationError: the URL or the key is unusable.
    """

    def __init__(self, base_url: str | None, api_key: str | None) -> None:
        self._url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).strip()
        self.where = public_url(self._url)
        """The URL without credentials."""
        self.key = _checked_key(api_key if api_key is not None else os.environ.get("OPENAI_API_KEY"), self.where)

    def __repr__(self) -> str:
        return f"Endpoint({self.where!r})"

    async def client(self, user: object) -> AsyncOpenAI:
        """The pooled client of the running event loop; `user` holds it until it lets go."""
        pool = _pools.setdefault(asyncio.get_running_loop(), {})
        pooled = pool.get((self._url, self.key))
        if pooled is None:
            # Loading the SDK takes a second: not on the event loop.
            await asyncio.to_thread(import_module, "openai")
            pooled = pool.get((self._url, self.key))
        if pooled is None:
            pooled = pool[self._url, self.key] = _Pooled(self._new_client())
        pooled.users.add(id(user))
        return pooled.client

    async def let_go(self, user: object) -> None:
        """Close the pooled client unless others still use it."""
        pool = _pools.get(asyncio.get_running_loop(), {})
        pooled = pool.get((self._url, self.key))
        if pooled is None or id(user) not in pooled.users:
            return
        pooled.users.discard(id(user))
        if not pooled.users:
            del pool[self._url, self.key]
            await pooled.client.close()

    def _new_client(self) -> AsyncOpenAI:
        import openai

        from reflexion.llm.transport import sharded_transport

        # Keep as many connections alive as the limiter may use: each new one costs a handshake.
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=None, max_keepalive_connections=1000)
        return openai.AsyncOpenAI(
            base_url=self._url,
            api_key=self.key,
            max_retries=0,
            timeout=None,  # callers time each attempt as a whole, which per-read timeouts do not
            http_client=openai.DefaultAsyncHttpxClient(
                limits=limits, timeout=None, transport=sharded_transport(limits)
            ),
        )
