"""The connection between tests and solution: values cross as data, objects stay and are stood for.

Both sides are alike, each with a `Link` of its own. What a test does to an object of the solution (a call, an
attribute, an operator, `with`, `await`) is carried out in the solution's process; what a solution does to an object of
the tests, in the tests' process. A message may be answered by a request back, for as long as it takes.
"""

from __future__ import annotations

import enum
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, cast

from ..failures import DecodeError, Refused
from ..pipe import Channel
from .classes import BINARY, data_base, describe_class, real_class
from .exceptions import decode_exception, encode_exception, some_traceback
from .mirrors import Mirrored, Mirrors
from .nodes import SINGLETONS, Keywords, Raw, Theirs
from .operations import OPERATIONS, make_subclass
from .shared import CONTAINERS, SharedContainers, kind_of
from .values import EMPTY_CONTAINERS, MAX_DEPTH, as_object, decode_plain, library, plain_encoders, rebuild, rebuildable
from .waiting import Tasks, carried_out

__all__ = ["Link"]

_SMALL = 1 << 53


class Link:
    """One side of the connection.

    Args:
        channel: to the other side.
        first_key: 1 on one side, 2 on the other: who made a container can be told by its key.
        own_modules: names of modules whose classes and functions are this side's own, not the library's.
    """

    modules_by_name = True
    """Whether a module of the library is one here and there."""

    def __init__(self, channel: Channel, first_key: int, own_modules: frozenset[str]) -> None:
        self.channel = channel
        self.mirrors = Mirrors(self)
        self.lock = threading.RLock()
        self._own_modules = own_modules
        self._shared = SharedContainers(first_key)
        self._exports: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._next = 0
        self._told: set[int] = set()
        self._to_tell: list[Any] = []
        self._receiving = 0
        self._depth = 0
        self._singletons: dict[int, tuple[str, str]] | None = None
        self._tasks = Tasks()
        self._decoders: dict[str, Callable[..., Any]] = {
            "&": self._shared.get,
            "y": self.own,
            "kw": self._keywords,
            "T": self.class_of,
            "o": self._object,
            "D": self._data,
            "N": self.library_data,
            "R": self._rebuilt,
            "1": self._single,
            "co": self._coroutine,
            "tb": some_traceback,
            "E": lambda *parts: decode_exception(self, *parts),
            "x": self.library_value,
            "m": self.library_module,
        }
        self.operations: dict[str, Callable[..., Any]] = OPERATIONS | {
            "get": self.do_get,
            "start": self._tasks.start,
            "look": self._tasks.look,
            "describe": self._do_describe,
            "subclass": self._do_subclass,
        }

    # --- what the other side may be asked for --------------------------------------------------------------------

    def ask(self, operation: str, *args: Any) -> Any:
        """Let the other side carry out an operation; what it raises is raised here."""
        with self.lock:
            answer = self._exchange(self._message({"op": operation}, args))
            try:
                values = self._received(answer)
            finally:
                self._forget_some()
        if "e" in answer:
            raise self.raised(values[0] if values else None, answer["e"], operation)
        return values[0] if values else None

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call what stands for a function there."""
        if not kwargs:
            return self.ask("call", function, *args)
        return self.ask("call", function, *args, Keywords(kwargs))

    def operate(self, owner: Any, name: str, instance: Any, args: tuple[Any, ...]) -> Any:
        """Carry out an operator as the class `owner` there defines it."""
        result = self.ask("operate", owner, name, instance, *args)
        if self.mirrors.is_made(instance) and (name in BINARY or name in ("__neg__", "__pos__", "__abs__")):
            self.mirrors.note_made(result)
        return result

    def may(self, instance: Any, name: str, args: tuple[Any, ...]) -> bool:
        """Whether an operator may be carried out by the object it judges; the checker says more."""
        return True

    # --- messages ------------------------------------------------------------------------------------------------

    def _message(self, head: dict[str, Any], values: tuple[Any, ...]) -> dict[str, Any]:
        head["a"] = [self.encode(value) for value in values]
        self.before_sending(head)
        news = self._shared.news(self.encode, self._described)
        if news:
            head["n"] = news
        gone = self._shared.take_gone()
        if gone:
            head["d"] = gone
        if self._to_tell:
            head["c"], self._to_tell = self._to_tell, []
        released = self.mirrors.take_released()
        if released:
            head["l"] = released
        return head

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request, serve what the other side asks meanwhile, and receive the answer."""
        self.channel.send(message)
        while True:
            try:
                answer = as_object(self.channel.receive())
            except (ValueError, RecursionError) as exc:
                raise DecodeError(f"{type(exc).__name__}: {exc}") from exc
            if "op" not in answer:
                return answer
            self.serve(answer)

    def _received(self, message: dict[str, Any]) -> list[Any]:
        """As `_receive`; a message that makes no sense is never taken for what a test expects."""
        try:
            return self._receive(message)
        except Exception as exc:
            raise DecodeError(f"{type(exc).__name__}: {exc}") from exc

    def _receive(self, message: dict[str, Any]) -> list[Any]:
        """Take over what a message says of classes and containers, and its values."""
        if "d" in message:
            self._shared.drop(message["d"])
        for number in message.get("l", ()):
            self._let_go(number)
        self._receiving += 1
        try:
            for described in message.get("c", ()):
                self.mirrors.learn(described)
            if "n" in message:
                self._shared.learn(message["n"], self.decode, self._make_container)
            self.after_receiving(message)
            return [self.decode(node) for node in message.get("a", ())]
        finally:
            self._receiving -= 1

    def _forget_some(self) -> None:
        """Let go of containers that nobody holds; those of a message that is still being read are not held yet."""
        if not self._receiving:
            self._shared.forget_some()

    def before_sending(self, message: dict[str, Any]) -> None:
        """Add to a message what else the other side has to know."""

    def after_receiving(self, message: dict[str, Any]) -> None:
        """Take over what else a message says."""

    def raised(self, exception: Any, failure: Any, operation: str) -> BaseException:
        """What is raised here for an exception of the other side."""
        if not isinstance(exception, BaseException):
            raise DecodeError("what was raised is no exception")
        return exception

    def serve(self, request: dict[str, Any]) -> None:
        """Carry out a request and send its answer."""
        try:
            values = self._receive(request)
            keywords: dict[str, Any] = {}
            if values and isinstance(values[-1], Keywords):
                keywords = values.pop()
            operation = self.operations.get(request["op"])
            if operation is None:
                raise Refused(f"no operation {request['op']!r}")
            result = operation(*values, **keywords)
            message = self._message({}, (result,))
        except (DecodeError, Refused):
            raise
        except BaseException as exc:  # noqa: BLE001 - whatever is raised goes to who asked
            self.noticed(exc, request["op"])
            message = self._failure(exc)
        self.channel.send(message)
        self._forget_some()

    def noticed(self, exc: BaseException, operation: str) -> None:
        """An exception is about to cross; interruptions of judging do not."""

    def _failure(self, exc: BaseException) -> dict[str, Any]:
        return self._message({"e": self.describe_failure(exc)}, (exc,))

    def describe_failure(self, exc: BaseException) -> Any:
        """What is told of an exception beside itself."""
        return True

    # --- from values to nodes ------------------------------------------------------------------------------------

    def encode(self, value: Any) -> Any:
        """The node of a value."""
        kind = type(value)
        if value is None or kind is str or kind is bool or kind is float or (kind is int and -_SMALL < value < _SMALL):
            return value
        letter = CONTAINERS.get(kind)
        if letter is not None:
            return ["&", self._shared.name(value, letter, self.encode)]
        plain = plain_encoders.get(kind)
        if plain is not None and self._depth < MAX_DEPTH:
            self._depth += 1
            try:
                return plain(value, self.encode)
            finally:
                self._depth -= 1
        return self._encode_object(value, kind)

    def _encode_object(self, value: Any, kind: type) -> Any:
        number = self.mirrors.number(value)
        if number is not None:
            base = kind_of(kind) if not isinstance(value, type) else None
            return ["y", number] if base is None else ["&", self._shared.name(value, CONTAINERS[base], self.encode)]
        own = self._encode_own(value, kind)
        if own is not None:
            return own
        if issubclass(kind, BaseException):
            return encode_exception(self, value)
        found = self._encode_library(value, kind)
        if found is not None:
            return found
        base = data_base(kind)
        if base is not None:
            return self._encode_subclass(value, kind, base)
        return ["o", self.export(value), self.encode_class(kind)]

    def _encode_own(self, value: Any, kind: type) -> Any:
        """The node of what crosses in a way of its own; None for anything else."""
        if kind is Theirs:
            return ["y", value.number]
        if kind is Raw:
            return value.node
        if kind is types.TracebackType:
            return ["tb"]
        if kind is Keywords:
            return ["kw", *[[name, self.encode(item)] for name, item in value.items()]]
        return None

    def _encode_library(self, value: Any, kind: type) -> Any:
        """The node of what the other side has as well, or can make; None for anything else."""
        if issubclass(kind, type):
            return self._encode_class_value(value)
        if kind is types.CoroutineType:
            return ["co", self.export(value)]
        if kind is types.ModuleType:
            known = self.modules_by_name and value.__name__ in sys.modules and value.__name__ not in self._own_modules
            return ["m", value.__name__] if known else None
        named = self._library_name(value)
        if named is not None:
            self.lent(*named, value)
            return ["x", *named, self.export(value)]
        parts = rebuildable(value)
        if parts is not None:
            return ["R", parts[0], parts[1], *[self.encode(p) for p in parts[2]]]
        single = self._singleton(value)
        return None if single is None else ["1", *single]

    def _encode_subclass(self, value: Any, kind: type, base: type) -> Any:
        if base in CONTAINERS:
            return ["&", self._shared.name(value, CONTAINERS[base], self.encode)]
        data = plain_encoders[base](value, self.encode)
        if self.is_library(kind) and library(kind.__module__, kind.__qualname__) is kind:
            return ["N", kind.__module__, kind.__qualname__, data]
        return ["D", self.export(value), self.encode_class(kind), data]

    def _encode_class_value(self, value: Any) -> Any:
        if self.is_library(value) and library(value.__module__, value.__qualname__) is value:
            self.lent(value.__module__, value.__qualname__, value)
            return ["x", value.__module__, value.__qualname__, self.export(value)]
        return ["T", self.encode_class(value)]

    def encode_class(self, cls: type) -> Any:
        """What tells the other side of a class: a number it knows, a name of the library, or a description."""
        number = self.mirrors.number(cls)
        if number is not None:
            return ["h", number]
        made_of_data = data_base(cls) is not None or issubclass(cls, BaseException)
        if made_of_data and self.is_library(cls) and library(cls.__module__, cls.__qualname__) is cls:
            return ["x", cls.__module__, cls.__qualname__]
        number = self.export(cls)
        if number not in self._told:
            self._told.add(number)
            self._to_tell.append(describe_class(self, cls))  # told before all else, whatever names it first
        return number

    def _described(self, value: Any) -> Any:
        """Of a container, what its class is if it is one of its own."""
        kind = type(value)
        if kind in CONTAINERS:
            return None
        number = self.mirrors.number(value)
        return ["y", number] if number is not None else [self.export(value), self.encode_class(kind)]

    def export(self, value: Any) -> int:
        """The number under which the other side may name an object of ours."""
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = self._next
            self._exports[number] = value
            self._next += 1
        return number

    def _let_go(self, number: int) -> None:
        value = self._exports.get(number)
        if value is not None and not isinstance(value, type):
            del self._exports[number]
            self._numbers.pop(id(value), None)

    def lent(self, module: str, name: str, value: Any) -> None:
        """The other side is told of a class or function of the library by its name."""

    def is_library(self, value: Any) -> bool:
        """Whether a class or function is not of this side's own making."""
        module = getattr(value, "__module__", None)
        return isinstance(module, str) and module not in self._own_modules and not isinstance(value, Mirrored)

    def _library_name(self, value: Any) -> tuple[str, str] | None:
        """Module and name of a function of the library, if that is what it is."""
        if not callable(value):
            return None
        owner = getattr(value, "__objclass__", None)
        module = getattr(owner or value, "__module__", None)
        name = getattr(value, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(name, str) or module in self._own_modules:
            return None
        return (module, name) if library(module, name) is value else None

    def _singleton(self, value: Any) -> tuple[str, str] | None:
        if self._singletons is None or len(self._singletons) < len(SINGLETONS):
            found = ((library(m, n), (m, n)) for m, n in SINGLETONS)
            self._singletons = {id(v): name for v, name in found if v is not None}
        return self._singletons.get(id(value))

    # --- from nodes to values ------------------------------------------------------------------------------------

    def decode(self, node: Any) -> Any:
        """The value of a node.

        Raises:
            DecodeError: it is not the data of a value. Untrusted data raises nothing else.
        """
        if not isinstance(node, list):
            if isinstance(node, dict):
                raise DecodeError("an object is no value")
            return node
        parts = cast("list[Any]", node)
        try:
            plain = decode_plain.get(parts[0])
            if plain is not None:
                return plain(parts, self.decode)
            decoder = self._decoders.get(parts[0])
            if decoder is None:
                raise DecodeError(f"unknown tag {parts[0]!r}")
            return decoder(*parts[1:])
        except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError, RecursionError, KeyError) as exc:
            raise DecodeError(f"{type(exc).__name__}: {exc}") from exc

    def _make_container(self, kind: str, described: Any) -> Any:
        number, cls = described
        if number == "y":
            return self.own(cls)
        found = self.mirrors.cls(self._class_node(cls))
        if not isinstance(found, Mirrored):
            base = kind_of(found)
            if base is None:
                return EMPTY_CONTAINERS[kind]()  # a class of a module that is not known here
            return cast("Any", base).__new__(found)
        return self.mirrors.container(number, self._class_node(cls))

    def _class_node(self, described: Any) -> Any:
        """A class as `Mirrors` takes it."""
        if isinstance(described, list) and cast("list[Any]", described)[0] == "h":
            raise DecodeError("objects of our own classes do not live elsewhere")
        return described

    def own(self, number: int) -> Any:
        """The object of ours that the other side names by a number.

        Raises:
            DecodeError: there is none.
        """
        if number not in self._exports:
            raise DecodeError(f"no object {number}")
        return self._exports[number]

    def _keywords(self, *pairs: Any) -> Keywords:
        return Keywords({str(name): self.decode(item) for name, item in pairs})

    def class_of(self, described: Any) -> Any:
        """The class that is described: what stands for one there, one of the library, or one of ours."""
        if isinstance(described, list) and cast("list[Any]", described)[0] == "h":
            return self.own(cast("list[Any]", described)[1])
        return self.mirrors.cls(described)

    def _object(self, number: int, described: Any) -> Any:
        return self.mirrors.instance(number, self._class_node(described))

    def _data(self, number: int, described: Any, data: Any) -> Any:
        return self.mirrors.data(number, self._class_node(described), self.decode(data))

    def library_data(self, module: str, name: str, data: Any) -> Any:
        """What is made from data by a class of the library."""
        value = self.decode(data)
        cls = real_class(module, name)
        if cls is None or not issubclass(cls, type(value)):
            return value
        if issubclass(cls, enum.Enum):
            return cast("Any", cls)(value)
        make = cast("Any", type(value))
        return make.__new__(cls, value)

    def _rebuilt(self, module: str, name: str, *args: Any) -> Any:
        return rebuild(module, name, tuple([self.decode(a) for a in args]))

    def _single(self, module: str, name: str) -> Any:
        if (module, name) not in SINGLETONS:
            raise DecodeError(f"no value {module}.{name}")
        __import__(module)
        return library(module, name)

    def _coroutine(self, number: int) -> Any:
        return carried_out(self, Theirs(number))

    def library_value(self, module: str, name: str, number: int) -> Any:
        """What a name of the library stands for here; the checker trusts fewer of them."""
        __import__(module)
        found = library(module, name)
        return self.stand_in(number) if found is None else found

    def stand_in(self, number: int) -> Any:
        """What stands for an object there, of which only the number is known."""
        found = self.mirrors.known(number)
        if found is not None:
            return found
        return self.ask("describe", Theirs(number))

    def library_module(self, name: str) -> Any:
        """A module of the library."""
        return __import__(name, fromlist=["_"])

    # --- what the other side asks for, beside `OPERATIONS` -------------------------------------------------------

    def do_get(self, thing: Any, name: str) -> Any:
        """Read an attribute."""
        return getattr(thing, name)

    def _do_describe(self, thing: Any) -> Any:
        if isinstance(thing, type):
            return Raw(["T", self.encode_class(thing)])
        return Raw(["o", self.export(thing), self.encode_class(type(thing))])

    def _do_subclass(self, name: str, bases: list[Any], members: dict[str, Any], options: dict[str, Any]) -> Any:
        cls, names = make_subclass(name, bases, members, options, next(iter(self._own_modules)))
        number = self.export(cls)
        self._told.add(number)
        return (number, names)
