"""Containers that both sides hold: what one side changes in them, the other side sees with the next message.

A list that a test hands over is one list in plain Python. Here it is two, one in each process, under one key. Before
a message goes out, every container under a key is compared with what the other side last saw of it, and its contents
go along if they differ. So arguments changed in place, rows shared by two matrices, attributes and globals that tests
read or write behave as in one process.
"""

from __future__ import annotations

import binascii
import collections
import sys
from collections.abc import Callable, Iterable, Iterator
from operator import is_
from typing import Any, cast

from ..failures import DecodeError
from .values import EMPTY_CONTAINERS, OrderedSet, same_order

__all__ = ["CONTAINERS", "Shared", "SharedContainers", "kind_of"]

CONTAINERS: dict[type, str] = {
    list: "l",
    dict: "d",
    set: "s",
    bytearray: "B",
    collections.deque: "q",
    collections.Counter: "C",
    collections.OrderedDict: "O",
    collections.defaultdict: "D",
    OrderedSet: "s",
}
_SUBCLASSED = (
    collections.Counter, collections.OrderedDict, collections.defaultdict, dict, list, set, bytearray,
    collections.deque,
)  # fmt: skip
_KEPT, _KEPT_ITEMS = 64, 200_000
"""Containers, and items in them, that are kept in step although no recent message named them."""


def kind_of(cls: type) -> type | None:
    """The container class that a class is made from, or None."""
    return next((base for base in _SUBCLASSED if issubclass(cls, base)), None)


class Shared:
    """A container under a key, and what the other side last saw of it."""

    __slots__ = ("kind", "seen", "value")

    def __init__(self, value: Any, kind: str) -> None:
        self.value = value
        self.kind = kind
        self.seen: Any = None

    def note(self) -> None:
        """The other side has seen it as it is now."""
        self.seen = self._contents()

    def changed(self) -> bool:
        """Whether it is no longer what the other side last saw; one that is still being filled is not."""
        seen = self.seen
        if seen is None:
            return False
        if self.kind == "B":
            return bytes(self.value) != seen
        if self.kind in "dCOD":
            keys, values = seen
            value = self.value
            return not (
                dict.__len__(value) == len(keys)
                and all(map(is_, dict.keys(value), keys))
                and all(map(is_, dict.values(value), values))
            )
        return not (len(seen) == self._length() and all(map(is_, self._iterate(), seen)))

    def items(self) -> Iterable[Any]:
        """What it holds, keys and values alike."""
        if self.kind == "B":
            return ()
        if self.kind in "dCOD":
            return _flat(self.value)
        return list(self._iterate())

    def encoded(self, sub: Callable[[Any], Any]) -> list[Any]:
        """Its contents as data."""
        if self.kind == "B":
            return [binascii.b2a_base64(self.value, newline=False).decode()]
        head: list[Any] = []
        if self.kind == "q":
            head = [self.value.maxlen]
        elif self.kind == "D":
            head = [sub(self.value.default_factory)]
        return head + [item if item.__class__ in _ITSELF else sub(item) for item in self.items()]

    def fill(self, parts: list[Any], sub: Callable[[Any], Any]) -> None:
        """Give it the contents that the other side says it has."""
        value, kind = self.value, self.kind
        if kind == "B":
            value[:] = binascii.a2b_base64(parts[0])
            return
        items = [item if item.__class__ in _ITSELF else sub(item) for item in parts]
        if kind == "l":
            list.__setitem__(value, slice(None), items)
        elif kind == "s":
            set.clear(value)
            set.update(value, items)
        elif kind == "q":
            if value.maxlen != items[0]:
                raise DecodeError("the length of a deque changed")
            collections.deque.clear(value)
            collections.deque.extend(value, items[1:])
        else:
            if kind == "D":
                value.default_factory = items.pop(0)
            base = _BASES[kind]
            base.clear(value)
            pairs = iter(items)
            for key, item in zip(pairs, pairs, strict=True):
                base.__setitem__(value, key, item)

    def _contents(self) -> Any:
        if self.kind == "B":
            return bytes(self.value)
        if self.kind in "dCOD":
            return list(dict.keys(self.value)), list(dict.values(self.value))
        return list(self._iterate())

    def _iterate(self) -> Iterator[Any]:
        base: Any = _BASES[self.kind]
        return base.__iter__(self.value)

    def _length(self) -> int:
        base: Any = _BASES[self.kind]
        return base.__len__(self.value)


_ITSELF = frozenset({bool, str, float, type(None)})
_BASES: dict[str, Any] = {kind: cls for cls, kind in CONTAINERS.items()} | {"C": dict, "D": dict, "s": set}


def _flat(value: Any) -> Iterator[Any]:
    for key, item in dict.items(value):
        yield key
        yield item


class SharedContainers:
    """All containers under a key, on one side."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._by_key: dict[int, Shared] = {}
        self._keys: dict[int, int] = {}
        self._named: set[int] = set()
        self._queue: list[int] = []
        self._gone: dict[int, Shared] = {}

    def key_of(self, value: Any) -> int | None:
        """The key of a container, if it has one."""
        return self._keys.get(id(value))

    def get(self, key: int) -> Any:
        """The container under a key.

        Raises:
            DecodeError: there is none.
        """
        found = self._found(key)
        if found is None:
            raise DecodeError(f"no container {key}")
        self._named.add(key)
        return found.value

    def _found(self, key: int) -> Shared | None:
        """A container; one that was let go of is taken back, since the other side has not heard of that yet."""
        gone = self._gone.pop(key, None)
        if gone is not None:
            self._by_key[key] = gone
            self._keys.setdefault(id(gone.value), key)
        return self._by_key.get(key)

    def name(self, value: Any, kind: str, encode: Callable[[Any], Any]) -> int:
        """The key of a container that a message names; its contents go along if they are news."""
        key = self._keys.get(id(value))
        if key is None:
            key = self._next
            self._next += 2
            self._put(key, value, kind)
            self._queue.append(key)
            self._named.add(key)
        elif key not in self._named:
            self._named.add(key)
            self._look_within(key, encode)
        return key

    def _put(self, key: int, value: Any, kind: str) -> Shared:
        shared = self._by_key[key] = Shared(value, kind)
        self._keys[id(value)] = key
        return shared

    def _look_within(self, key: int, encode: Callable[[Any], Any]) -> None:
        """Make sure that what a known container holds is known as well; else its contents go along again."""
        before = len(self._queue)
        for item in self._by_key[key].items():
            if item.__class__ not in _ITSELF and item.__class__ is not int:
                encode(item)
        if len(self._queue) > before and key not in self._queue:
            self._queue.append(key)

    def news(self, encode: Callable[[Any], Any], describe: Callable[[Any], Any]) -> list[Any]:
        """All that the other side has to learn of containers, as nodes."""
        for key, shared in list(self._by_key.items()):
            if key not in self._queue and shared.changed():
                self._queue.append(key)
        nodes: list[Any] = []
        done = 0
        while done < len(self._queue):
            key = self._queue[done]
            done += 1
            shared = self._by_key[key]
            contents = shared.encoded(encode)
            nodes.append([key, shared.kind, describe(shared.value), *contents])
            shared.note()
        self._queue = []
        return nodes

    def learn(self, nodes: Any, decode: Callable[[Any], Any], make: Callable[[str, Any], Any]) -> None:
        """Take over what the other side says of its containers.

        Args:
            nodes: as `news` made them.
            decode: from a node to its value.
            make: an empty container of a kind, or of the class it is described by.

        Raises:
            DecodeError: it is not what `news` makes.
        """
        filled: list[tuple[Shared, list[Any]]] = []
        for node in cast("list[list[Any]]", nodes):
            key, kind, described, *parts = node
            shared = self._found(key)
            if shared is None:
                if kind == "s" and not described:
                    items = [item if item.__class__ in _ITSELF else decode(item) for item in parts]
                    shared = self._put(key, same_order(items, set), kind)
                elif kind == "q" and not described:
                    shared = self._put(key, collections.deque(maxlen=parts[0]), kind)
                else:
                    shared = self._put(key, make(kind, described) if described else EMPTY_CONTAINERS[kind](), kind)
            elif shared.kind != kind:
                raise DecodeError("a container changed its type")
            self._named.add(key)
            filled.append((shared, parts))
        for shared, parts in filled:
            shared.seen = None
            shared.fill(parts, decode)
        for shared, _ in filled:
            shared.note()

    def forget_some(self) -> None:
        """Let go of what nobody else holds here, and of all but the last ones that messages named."""
        for key in [k for k, s in self._by_key.items() if k not in self._named and sys.getrefcount(s.value) <= 2]:
            self._forget(key)
        old = [k for k in self._by_key if k not in self._named]
        items = sum(len(self._by_key[k].seen or ()) for k in old)
        while old and (len(old) > _KEPT or items > _KEPT_ITEMS):
            key = old.pop(0)
            items -= len(self._by_key[key].seen or ())
            self._forget(key)
        for key in self._named:  # the last ones stand last
            if key in self._by_key:
                self._by_key[key] = self._by_key.pop(key)
        self._named.clear()

    def _forget(self, key: int) -> None:
        shared = self._by_key[key]
        self.drop([key])
        self._gone[key] = shared

    def drop(self, keys: Iterable[int]) -> None:
        """Keep these in step no longer."""
        for key in keys:
            shared = self._by_key.pop(key, None)
            if shared is not None:
                self._keys.pop(id(shared.value), None)

    def take_gone(self) -> list[int]:
        """Keys let go of since last asked; the other side drops them too."""
        gone, self._gone = list(self._gone), {}
        return gone
