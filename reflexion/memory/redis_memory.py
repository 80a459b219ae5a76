"""The episodic memory in Redis, shared by workers; every change is one script, so it is atomic."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.resources import files
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from reflexion.errors import ConfigurationError, StorageError
from reflexion.memory.episodic_memory import MemoryLimits, MemoryStats
from reflexion.memory.similarity import CANDIDATES, NEWEST, words_of
from reflexion.memory.threaded_memory import CLEANUP_BUDGET, CLEANUP_EVERY, Page, body_of
from reflexion.types import Lesson

__all__ = ["RedisStore"]

_FORMAT = "1"
_NEVER = 0.0


class RedisStore:
    """Lessons in a handful of keys under one prefix.

    With an age limit Redis itself forgets everything once nothing was added for that long; what is
    older in a memory that is in use goes with the clean-ups.
    """

    backend = "redis"

    def __init__(self, url: str, limits: MemoryLimits, wait: float) -> None:
        """
        Args:
            url: `redis://` or `rediss://`, with an optional `prefix` in its query.
            limits: capacity and age.
            wait: seconds to wait for a connection and for a reply.

        Raises:
            ConfigurationError: the URL is malformed.
            StorageError: Redis cannot be reached, refuses the password, or holds a newer format.
        """
        import redis

        self.failures: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        address, prefix = _split_prefix(url)
        # In a cluster the braces keep all keys of one memory in one slot.
        self._prefix = "{" + prefix + "}:"
        self._limits = limits
        shown = _without_password(address)
        try:
            self._client = redis.Redis.from_url(
                address, decode_responses=True, socket_timeout=wait, socket_connect_timeout=wait
            )
        except ValueError as error:
            raise ConfigurationError(f"memory {shown}: not a Redis URL ({error})") from error
        try:
            self._check_format(shown)
        except BaseException as error:
            self._client.close()
            if isinstance(error, TypeError):  # an option in the query that no connection has
                raise ConfigurationError(f"memory {shown}: not a Redis URL ({error})") from error
            if isinstance(error, redis.AuthenticationError):
                raise StorageError(f"memory {shown}: Redis refuses the password ({error})") from error
            if isinstance(error, self.failures):
                raise StorageError(f"memory {shown}: Redis cannot be used ({error})") from error
            raise
        source = files("reflexion.memory").joinpath("redis_memory.lua").read_text(encoding="utf-8")
        self._script = self._client.register_script(source)

    def _check_format(self, shown: str) -> None:
        self._client.set(self._prefix + "format", _FORMAT, nx=True)
        found = self._client.get(self._prefix + "format")
        if found != _FORMAT:
            raise StorageError(
                f"memory {shown}: format {found}, this version knows {_FORMAT}; upgrade, or choose another "
                "memory with ?prefix=NAME"
            )

    def _call(self, action: str, *args: str | float | bytes) -> Any:
        limits = self._limits
        common = (limits.per_problem, limits.entries, limits.bytes, limits.max_age or _NEVER, limits.eviction)
        return self._script(keys=[self._prefix], args=[action, *common, *args])

    def together(self) -> AbstractContextManager[object]:
        """Nothing is gained by it here."""
        return nullcontext()

    def add(self, lesson: Lesson, now: float) -> bool:
        body = body_of(lesson)
        if len(body) > self._limits.bytes:
            return False
        words = " ".join(words_of(lesson.prompt))
        added = self._call(
            "add",
            *(now, lesson.key, lesson.problem, repr(lesson.created), lesson.uses, lesson.wins),
            *(words, body, NEWEST, CLEANUP_EVERY, CLEANUP_BUDGET),
        )
        return bool(added)

    def of_problems(self, problems: Sequence[str]) -> list[list[Lesson]]:
        with self._client.pipeline(transaction=False) as pipe:
            for problem in problems:
                pipe.zrange(f"{self._prefix}problem:{problem}", 0, -1)
            groups = cast("list[list[str]]", pipe.execute())
        lessons = self._lessons([key for group in groups for key in group])
        # A group is in the order of adding, which settles the order of equal ages.
        return [sorted((lessons[k] for k in g if k in lessons), key=lambda x: x.created) for g in groups]

    def _lessons(self, keys: Sequence[str]) -> dict[str, Lesson]:
        if not keys:
            return {}
        with self._client.pipeline(transaction=True) as pipe:
            for name in ("lessons", "uses", "wins"):
                pipe.hmget(self._prefix + name, list(keys))
            bodies, uses, wins = cast("list[list[str | None]]", pipe.execute())
        return {
            key: Lesson.model_validate_json(body).model_copy(update={"uses": int(used or 0), "wins": int(won or 0)})
            for key, body, used, won in zip(keys, bodies, uses, wins, strict=True)
            if body is not None
        }

    def with_prefix(self, prefix: str) -> list[str]:
        escaped = "".join(f"\\{c}" if c in "*?[]\\" else c for c in prefix)
        found = self._client.zscan_iter(self._prefix + "sizes", match=escaped + "*", count=1000)
        return [problem for problem, _ in cast("Any", found)]

    def frequencies(self, words: Sequence[str]) -> tuple[int, dict[str, int]]:
        if not words:
            return 0, {}
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zcard(self._prefix + "sizes")
            pipe.hmget(self._prefix + "frequencies", list(words))
            total, counts = cast("tuple[int, list[str | None]]", pipe.execute())
        return total, {word: int(count) for word, count in zip(words, counts, strict=True) if count}

    def candidates(self, words: Sequence[str], frequencies: Mapping[str, int]) -> dict[str, Sequence[str]]:
        # Counting where the index is saves carrying it over.
        found = cast("list[str]", self._call("candidates", NEWEST, CANDIDATES, *words))
        return {problem: text.split() for problem, text in zip(found[::2], found[1::2], strict=True)}

    def credit(self, keys: Sequence[str], passed: bool, by: str) -> None:
        trial = hashlib.blake2b(by.encode(), digest_size=12).hexdigest()
        self._call("credit", trial, int(passed), *keys)

    def page(self, start: Any, count: int) -> Page:
        lowest, passed_over = start or ("-inf", 0)
        found = cast(
            "list[tuple[str, float]]",
            self._client.zrangebyscore(
                self._prefix + "age", lowest, "+inf", start=passed_over, num=count, withscores=True
            ),
        )
        lessons = self._lessons([key for key, _ in found])
        if len(found) < count:
            return Page(list(lessons.values()), None)
        last = found[-1][1]
        same = sum(score == last for _, score in found)
        return Page(list(lessons.values()), (last, same + (passed_over if last == lowest else 0)))

    def cleanup(self, budget: int, now: float) -> int:
        return int(self._call("cleanup", now, budget))

    def clear(self) -> int:
        gone = 0
        while dropped := int(self._call("clear", 256)):  # in portions: a script holds up all other clients
            gone += dropped
        return gone

    def stats(self) -> MemoryStats:
        with self._client.pipeline(transaction=True) as pipe:
            pipe.zcard(self._prefix + "age")
            pipe.zcard(self._prefix + "sizes")
            pipe.hmget(self._prefix + "counts", ["bytes", "evicted", "expired"])
            entries, problems, counts = cast("tuple[int, int, list[str | None]]", pipe.execute())
        size, evicted, expired = (int(count or 0) for count in counts)
        return MemoryStats(
            backend=self.backend, entries=entries, problems=problems, bytes=size, evicted=evicted, expired=expired
        )

    def close(self) -> None:
        self._client.close()


def _split_prefix(url: str) -> tuple[str, str]:
    """The URL for the client, and the prefix of our keys."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query)
    prefix = next((value for name, value in query if name == "prefix"), "reflexion:memory")
    rest = urlencode([(name, value) for name, value in query if name != "prefix"])
    return urlunsplit(parts._replace(query=rest)), prefix


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
