"""The clients of an endpoint, one per key and event loop, shared by everything that speaks to it.

Chat completions go over connections of their own; the SDK's client, `AsyncOpenAI`, does all else, and
chat completions too where a proxy, a redirect or a URL with a user in it asks for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import weakref
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from reflexion.errors import ConfigurationError
from reflexion.keys import digest
from reflexion.llm.endpoint.connections import Connections

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["OPENAI_URL", "PROXIES", "Endpoint", "answered", "is_loopback", "note_answer", "public_url"]

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
    return urlunsplit((parts.scheme, netloc, _base_path(parts.path), "", ""))


def _base_path(path: str) -> str:
    """The path of an API; people also give that of its chat completions."""
    return path.rstrip("/").removesuffix("/chat/completions").rstrip("/")


def is_loopback(where: str) -> bool:
    """Whether an endpoint is on this machine."""
    host = urlsplit(where).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


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


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
"""Variables, in either case, that name a proxy."""


class _Pooled:
    """What the users of an endpoint share; each part is made when it is first needed."""

    def __init__(self) -> None:
        self.client: AsyncOpenAI | None = None
        self.connections: Connections | None = None
        self.users: set[int] = set()

    async def aclose(self) -> None:
        if self.connections is not None:
            await self.connections.aclose()
        if self.client is not None:
            await self.client.close()


_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str, str], _Pooled]] = (
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
        headers: sent with each request; their values are shown nowhere.

    Raises:
        ConfigurationError: the URL or the key is unusable.
    """

    def __init__(self, base_url: str | None, api_key: str | None, headers: Mapping[str, str] | None = None) -> None:
        self._url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).strip()
        self.where = public_url(self._url)
        """The URL without credentials."""
        self.key = _checked_key(api_key if api_key is not None else os.environ.get("OPENAI_API_KEY"), self.where)
        self._extra = dict(headers or {})
        self._query = urlsplit(self._url).query
        self.secrets = (self.key, *self._extra.values())
        """What no message may show."""
        self._pool_key = (self._url, self.key, digest(self._extra) if self._extra else "")

    def __repr__(self) -> str:
        return f"Endpoint({self.where!r})"

    async def client(self, user: object) -> AsyncOpenAI:
        """The pooled client of the running event loop; `user` holds it until it lets go."""
        pooled = self._pooled(user)
        if pooled.client is None:
            # Loading the SDK takes a second: not on the event loop.
            await asyncio.to_thread(import_module, "openai")
        if pooled.client is None:
            pooled.client = self._new_client()
        return pooled.client

    def connections(self, user: object) -> Connections | None:
        """The pooled connections of the running event loop, held as the client is; None: use the client."""
        if not self._plain:
            return None
        pooled = self._pooled(user)
        if pooled.connections is None:
            parts = urlsplit(self._url)
            tls = parts.scheme == "https"
            assert parts.hostname is not None
            pooled.connections = Connections(
                parts.hostname, parts.port or (443 if tls else 80), tls=tls, headers=self._headers()
            )
        return pooled.connections

    @property
    def identity(self) -> dict[str, str]:
        """What tells it from another endpoint: part of cache keys. Of a query, which may hold a key, the digest."""
        return {"base_url": self.where, **({"query": digest(self._query)[:16]} if self._query else {})}

    @cached_property
    def target(self) -> str:
        """Path and query of its chat completions."""
        path = quote(_base_path(urlsplit(self._url).path), safe="/%:@!$&'()*+,;=~")
        query = quote(self._query, safe="/%:@!$&'()*+,;=~?")
        return f"{path}/chat/completions" + (f"?{query}" if query else "")

    @cached_property
    def _keyed(self) -> bool:
        """Whether it is one of Azure's classic URLs, which take the key in a header of its own."""
        names = {name.lower() for name, _ in parse_qsl(self._query, keep_blank_values=True)}
        return "api-version" in names or "/openai/deployments/" in urlsplit(self._url).path

    @cached_property
    def _plain(self) -> bool:
        parts = urlsplit(self._url)
        more = parts.username is not None or not (parts.hostname or "").isascii()
        return not more and not any(os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES)

    def _headers(self) -> dict[str, str]:
        headers = {
            **({"api-key": self.key} if self._keyed else {"Authorization": f"Bearer {self.key}"}),
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "reflexion-on-prefect",
        }
        for header, variable in (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID")):
            value = os.environ.get(variable, "").strip()
            if value.isascii() and value.isprintable() and value:
                headers[header] = value
        given = {name.lower() for name in self._extra}
        return {name: value for name, value in headers.items() if name.lower() not in given} | self._extra

    def _pooled(self, user: object) -> _Pooled:
        pool = _pools.setdefault(asyncio.get_running_loop(), {})
        pooled = pool.setdefault(self._pool_key, _Pooled())
        pooled.users.add(id(user))
        return pooled

    async def let_go(self, user: object) -> None:
        """Close what is pooled unless others still use it."""
        pool = _pools.get(asyncio.get_running_loop(), {})
        pooled = pool.get(self._pool_key)
        if pooled is None or id(user) not in pooled.users:
            return
        pooled.users.discard(id(user))
        if not pooled.users:
            del pool[self._pool_key]
            await pooled.aclose()

    def _new_client(self) -> AsyncOpenAI:
        import openai

        from reflexion.llm.endpoint.transport import sharded_transport

        # Keep as many connections alive as the limiter may use: each new one costs a handshake.
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=None, max_keepalive_connections=1000)
        parts = urlsplit(self._url)
        return openai.AsyncOpenAI(
            base_url=parts._replace(path=_base_path(parts.path), query="", fragment="").geturl(),
            api_key=self.key,
            default_query=dict(parse_qsl(self._query, keep_blank_values=True)),
            default_headers={**({"api-key": self.key} if self._keyed else {}), **self._extra},
            max_retries=0,
            timeout=None,  # callers time each attempt as a whole, which per-read timeouts do not
            http_client=openai.DefaultAsyncHttpxClient(
                limits=limits,
                timeout=None,
                transport=sharded_transport(limits),
                event_hooks={"request": [_without_bearer]} if self._keyed else {},
            ),
        )


async def _without_bearer(request: Any) -> None:
    """Take the SDK's own header off a request whose endpoint has the key in another one."""
    request.headers.pop("Authorization", None)
