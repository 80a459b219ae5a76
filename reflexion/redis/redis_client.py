"""One pooled async Redis client for each process, URL and event loop, and commands sent in batches.

`RedisLink` is what a store talks to: a command in, its result out. Commands of one event loop that
are issued together share one round trip. When the server is lost, commands fail at once with
`RedisUnavailableError` until it is tried again; nothing waits for a server that is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit
from weakref import WeakKeyDictionary

from reflexion._grouping import Batcher
from reflexion.errors import ConfigurationError, ReflexionError, StorageError

if TYPE_CHECKING:
    import redis
    import redis.asyncio

__all__ = ["REPLY_SECONDS", "RETRY_SECONDS", "Command", "RedisAddress", "RedisLink", "RedisUnavailableError"]

logger = logging.getLogger("reflexion.cache")

Command = tuple[str | bytes | int | float, ...]
"""A Redis command and its arguments."""

CONNECT_SECONDS = 2.0
REPLY_SECONDS = 5.0
RETRY_SECONDS = (0.5, 30.0)
"""First and longest pause before a lost server is tried again."""

BATCH = 128
"""Commands of one round trip at most."""


class RedisUnavailableError(ReflexionError):
    """The server is away or refused a command. Stores go on without it; it never reaches a run."""


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis is.

    Attributes:
        url: `redis://…`, `rediss://…` or `redis+sentinel://host:port[,host:port]/service[/db]`, with
            the user and the password of the data server in front of the hosts; a sentinel's own go
            into `?sentinel_username=…&sentinel_password=…`.
        shown: the same without passwords.
    """

    url: str = field(repr=False)
    shown: str

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Read a URL.

        Raises:
            ConfigurationError: names the part that is wrong, never the password.
        """
        try:
            parts, shown = urlsplit(url), _masked(url)
        except ValueError:
            # urlsplit refuses brackets that do not match; the text may hold a password.
            raise ConfigurationError("cache: the Redis URL cannot be read; its brackets do not match") from None
        if parts.scheme not in ("redis", "rediss", "redis+sentinel"):
            raise ConfigurationError(f"cache {shown!r}: use redis://, rediss:// or redis+sentinel://")
        address = cls(url, shown)
        if parts.scheme == "redis+sentinel":
            _sentinel_parts(address)
        else:
            try:
                _ = parts.port
            except ValueError:
                raise ConfigurationError(f"cache {shown!r}: the port must be a number up to 65535") from None
            database = parts.path.strip("/")
            if database and not database.isdigit():
                raise ConfigurationError(f"cache {shown!r}: the database {database!r} must be a number, such as /0")
        return address

    def async_client(self, timeout: float) -> tuple[redis.asyncio.Redis, list[redis.asyncio.Redis]]:
        """A client, and the sentinels' clients that are to be closed with it; `timeout` in seconds."""
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.asyncio.sentinel import Sentinel

        options = self._options(Retry, timeout)
        if not self.url.startswith("redis+sentinel:"):
            return Redis.from_url(self.url, **options), []
        found = _sentinel_parts(self)
        found.sentinel_options.update(_timeouts(timeout))
        sentinel = Sentinel(found.hosts, sentinel_kwargs=found.sentinel_options, **found.options, **options)
        return sentinel.master_for(found.service), list(sentinel.sentinels)

    def sync_client(self, timeout: float) -> tuple[redis.Redis, list[redis.Redis]]:
        """The same with blocking clients, for the check when a store is opened."""
        from redis import Redis
        from redis.retry import Retry
        from redis.sentinel import Sentinel

        options = self._options(Retry, timeout)
        if not self.url.startswith("redis+sentinel:"):
            return Redis.from_url(self.url, **options), []
        found = _sentinel_parts(self)
        found.sentinel_options.update(_timeouts(timeout))
        sentinel = Sentinel(found.hosts, sentinel_kwargs=found.sentinel_options, **found.options, **options)
        return sentinel.master_for(found.service), list(sentinel.sentinels)

    @staticmethod
    def _options(retry: Callable[..., Any], timeout: float) -> dict[str, Any]:
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as RedisConnectionError

        return {
            **_timeouts(timeout),
            # Once more, at once: a server that was restarted has dropped the pooled connection.
            "retry": retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        }


@dataclass(frozen=True)
class _SentinelParts:
    hosts: list[tuple[str, int]]
    service: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def _sentinel_parts(address: RedisAddress) -> _SentinelParts:
    parts = urlsplit(address.url)
    wanted = "redis+sentinel://host:port[,host:port]/service[/db]"
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    pairs: list[tuple[str, int]] = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if ":" in host else (host, "", "26379")
        if not name or not port.isdigit():
            raise ConfigurationError(f"cache {address.shown!r}: {host!r} is no host:port; write {wanted}")
        pairs.append((name.strip("[]"), int(port)))
    if not service or not (database or "0").isdigit():
        raise ConfigurationError(f"cache {address.shown!r}: service or database is missing or wrong; write {wanted}")
    query = dict(parse_qsl(parts.query))
    options: dict[str, Any] = {"db": int(database or 0)}
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    sentinel_options: dict[str, Any] = {
        name.removeprefix("sentinel_"): value for name, value in query.items() if name.startswith("sentinel_")
    }
    return _SentinelParts(pairs, service, options, sentinel_options)


def _timeouts(timeout: float) -> dict[str, float]:
    return {"socket_connect_timeout": min(timeout, CONNECT_SECONDS), "socket_timeout": timeout}


def _masked(url: str) -> str:
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    query = urlencode(
        [(name, "***" if "password" in name.lower() else value) for name, value in parse_qsl(parts.query)], safe="*/"
    )
    netloc = f"{user}:***@{hosts}" if colon else f"{credentials}{at}{hosts}"
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


@dataclass
class _Shared:
    """A client of one event loop, and how many links use it."""

    client: redis.asyncio.Redis
    others: list[redis.asyncio.Redis]
    users: int = 0

    async def aclose(self) -> None:
        for client in (self.client, *self.others):
            await client.aclose()


@dataclass
class _Clients:
    """The clients of this process."""

    pid: int = field(default_factory=os.getpid)
    by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Shared]] = field(
        default_factory=WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Shared]]
    )


_clients = _Clients()
_clients_mutex = threading.Lock()


def _lease_client(address: RedisAddress, timeout: float) -> _Shared:
    global _clients  # noqa: PLW0603 - after a fork the parent's connections must not be used
    loop = asyncio.get_running_loop()
    with _clients_mutex:
        if _clients.pid != os.getpid():
            _clients = _Clients()
        shared = _clients.by_loop.setdefault(loop, {})
        if address.url not in shared:
            shared[address.url] = _Shared(*address.async_client(timeout))
        shared[address.url].users += 1
        return shared[address.url]


async def _return_client(address: RedisAddress, shared: _Shared) -> None:
    with _clients_mutex:
        shared.users -= 1
        if shared.users:
            return
        _clients.by_loop.get(asyncio.get_running_loop(), {}).pop(address.url, None)
    # Closing an already broken connection may complain; there is nobody it would matter to.
    with contextlib.suppress(OSError):
        await shared.aclose()


class RedisLink:
    """Sends commands and keeps watch over whether the server is there.

    One warning tells that it was lost, and one line that it is used again.

    Args:
        address: where it is.
        on_return: called when a lost server answered again; gives commands to send to it.
        retry_seconds: first and longest pause before a lost server is tried again.
        timeout: seconds a reply may take; of a client that is shared the first one's holds.
    """

    def __init__(
        self,
        address: RedisAddress,
        on_return: Callable[[], Sequence[Command]] = tuple,
        retry_seconds: tuple[float, float] = RETRY_SECONDS,
        timeout: float = REPLY_SECONDS,
    ) -> None:
        self._timeout = timeout
        self.address = address
        self._on_return = on_return
        self._first_pause, self._longest_pause = retry_seconds
        self._leases: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()
        self._batcher: Batcher[Command, Any] = Batcher(self._run, limit=BATCH)
        self._mutex = threading.Lock()
        self._lost = False
        self._pause = self._first_pause
        self._try_at = 0.0
        self._refused: set[str] = set()

    @property
    def lost(self) -> bool:
        """Whether the server was away when last asked."""
        return self._lost

    async def send(self, *commands: Command) -> list[Any]:
        """Carry commands out in order; those of other tasks may share the round trip.

        Raises:
            RedisUnavailableError: the server is away, or refused one of them.
        """
        if len(commands) == 1:
            return [await self._batcher.submit(commands[0])]
        # All are awaited before the first error is raised: a failed one must not leave others unread.
        results = await asyncio.gather(*self._batcher.submit_many(commands), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def post(self, *commands: Command) -> None:
        """Carry commands out without waiting for them, best effort."""
        for future in self._batcher.submit_many(commands):
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def mark_lost(self, reason: BaseException | str) -> None:
        """Note that the server did not answer."""
        with self._mutex:
            first, self._lost = not self._lost, True
            self._try_at = time.monotonic() + self._pause
            self._pause = min(self._longest_pause, self._pause * 2)
        if first:
            logger.warning(
                "cache: %s is not reachable (%s); steps are computed without it until it is back",
                self.address.shown,
                reason,
            )

    async def _run(self, commands: Sequence[Command]) -> list[Any]:
        from redis.exceptions import RedisError, ResponseError

        returning = self._lost
        if returning and time.monotonic() < self._try_at:
            return [RedisUnavailableError(f"{self.address.shown} is away")] * len(commands)
        extra = list(self._on_return()) if returning else []
        try:
            pipeline = self._client().pipeline(transaction=False)
            for command in (*extra, *commands):
                pipeline.execute_command(*command)
            results: list[Any] = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as exc:
            self.mark_lost(exc)
            return [RedisUnavailableError(str(exc))] * len(commands)
        if returning:
            with self._mutex:
                self._lost, self._pause = False, self._first_pause
            logger.info("cache: %s is back and used again", self.address.shown)
        answers = results[len(extra) :]
        for place, answer in enumerate(answers):
            if isinstance(answer, ResponseError):
                answers[place] = self._refusal(commands[place], answer)
        return answers

    def _refusal(self, command: Command, answer: Exception) -> Exception:
        """A command the server answered with an error: out of memory, read-only, no permission, wrong type."""
        text = str(answer)
        if "WRONGTYPE" in text or "no such key" in text:
            return WrongTypeError(text)
        kind = f"{command[0]} {text[:40]}"
        if kind not in self._refused:
            self._refused.add(kind)
            logger.warning("cache: %s refused %s (%s); going on without", self.address.shown, command[0], text)
        return RedisUnavailableError(text)

    def _client(self) -> redis.asyncio.Redis:
        loop = asyncio.get_running_loop()
        shared = self._leases.get(loop)
        if shared is None:
            shared = self._leases[loop] = _lease_client(self.address, self._timeout)
        return shared.client

    async def aclose(self) -> None:
        """Give the running event loop's client back; harmless when called twice."""
        # What was posted and not waited for still needs the connection.
        await self._batcher.drain()
        shared = self._leases.pop(asyncio.get_running_loop(), None)
        if shared is not None:
            await _return_client(self.address, shared)

    def check(self, questions: Sequence[Command]) -> list[Any] | None:
        """Ask a few things in a blocking way, when a store is opened.

        Returns:
            The answers; None when the server is away, which is told once.

        Raises:
            ConfigurationError: the server refuses the user or password.
            StorageError: the server refuses a question.
        """
        from redis.exceptions import AuthenticationError, RedisError, ResponseError

        client, others = self.address.sync_client(self._timeout)
        try:
            return [client.execute_command(*question) for question in questions]
        except AuthenticationError:
            raise ConfigurationError(
                f"cache {self.address.shown!r}: the server refuses the user or password; "
                "write redis://user:password@host:port/db (a password alone as redis://:password@…)"
            ) from None
        except ResponseError as exc:
            if "NOAUTH" in str(exc) or "NOPERM" in str(exc):
                raise ConfigurationError(f"cache {self.address.shown!r}: {exc}") from None
            raise StorageError(f"cache {self.address.shown!r}: {exc}") from None
        except (RedisError, OSError) as exc:
            self.mark_lost(exc)
            return None
        finally:
            for each in (client, *others):
                each.close()


class WrongTypeError(RedisUnavailableError):
    """Something else than an entry is stored under an entry's name."""
