"""The process of the untrusted solution: loads it, and answers calls with values.

Nothing here is a barrier against the code it runs; it shares its interpreter. It needs to be none, since all
it can do is to answer.
"""

from __future__ import annotations

import collections
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .channel import Channel, MessageTooLargeError
from .judging import SOLUTION, describe_failure, run_tests
from .values import DecodeError, TooDeepError, decode, encode

__all__ = ["solve"]

_MUTABLE = (
    list,
    dict,
    set,
    bytearray,
    collections.deque,
    collections.Counter,
    collections.OrderedDict,
    collections.defaultdict,
)


def solve(code: str, channel: Channel) -> None:
    """Load the solution and answer the checker until it hangs up."""
    _Solver(code, channel).run()


class _Solver:
    def __init__(self, code: str, channel: Channel) -> None:
        self._code = code
        self._channel = channel
        # The namespace is a real module, since dataclasses and pickles look theirs up by name.
        self._module = type(sys)("solution")
        self._objects: list[Any] = []
        self._ids: dict[int, int] = {}
        self._callbacks: dict[int, int] = {}

    def run(self) -> None:
        namespace = self._module.__dict__
        sys.modules["solution"] = self._module
        try:
            exec(compile(self._code, SOLUTION, "exec", dont_inherit=True), namespace)  # noqa: S102 - what this process is for
        except BaseException as exc:  # noqa: BLE001 - whatever the solution raises
            self._channel.send({"load": describe_failure(exc, "load", self._code)})
            return
        self._channel.send({"load": None})
        operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "names": self._names,
            "call": self._call,
            "tests": self._tests,
        }
        while True:
            request = self._channel.receive()
            self._answer(operations[request["op"]], request)

    def _answer(self, operation: Callable[[dict[str, Any]], Any], request: dict[str, Any]) -> None:
        try:
            answer = operation(request)
        except BaseException as exc:  # noqa: BLE001 - whatever the solution raises
            answer = {"e": self._exception(exc)}
        try:
            self._channel.send(answer)
        except MessageTooLargeError as exc:
            self._channel.send({"e": self._exception(exc)})

    def _names(self, request: dict[str, Any]) -> Any:
        namespace, entry = self._module.__dict__, request["entry"]
        found = {n: self._named(namespace[n]) for n in request["names"] if n in namespace}
        return {"r": found, "entry": self._handle(namespace[entry]) if entry in namespace else None}

    def _named(self, value: Any) -> Any:
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["E", _lineage(value)]
        if isinstance(value, type(sys)):
            return ["m", value.__name__]
        library = _library_name(value)
        return self._encode(value) if library is None else ["x", *library]

    def _call(self, request: dict[str, Any]) -> Any:
        function = self._decode(request["f"])
        args = [self._decode(a) for a in request["a"]]
        kwargs = {k: self._decode(v) for k, v in request["k"].items()}
        result = function(*args, **kwargs)
        answer: dict[str, Any] = {}
        changed: dict[str, Any] = {}
        for key, value, before in [
            *((str(i), v, n) for i, (v, n) in enumerate(zip(args, request["a"], strict=True))),
            *((k, v, request["k"][k]) for k, v in kwargs.items()),
        ]:
            if type(value) in _MUTABLE:
                after = self._encode(value)
                if after != before:
                    changed[key] = after
                if value is result:
                    answer["same"] = key
        if changed:
            answer["m"] = changed
        if "same" not in answer:
            answer["r"] = self._encode(result)
        return answer

    def _tests(self, request: dict[str, Any]) -> Any:
        return {"r": run_tests(request["tests"], request["visible"], self._module.__dict__, self._code)}

    def _encode(self, value: Any) -> Any:
        try:
            return encode(value, self._refer)
        except (TooDeepError, RecursionError):
            return self._handle(value)

    def _refer(self, value: Any) -> Any:
        if id(value) in self._callbacks:
            return ["cb", self._callbacks[id(value)]]
        handle = self._handle(value)
        library = _library_name(value)
        return handle if library is None else ["x", *library, handle[1]]

    def _handle(self, value: Any) -> Any:
        number = self._ids.get(id(value))
        if number is None:
            number = self._ids[id(value)] = len(self._objects)
            self._objects.append(value)
        return ["h", number, type(value).__name__[:100]]

    def _decode(self, node: Any) -> Any:
        return decode(node, self._resolve)

    def _resolve(self, parts: list[Any]) -> Any:
        match parts:
            case ["h", int(number), *_]:
                return self._objects[number]
            case ["x", str(module), str(name)]:
                found: Any = importlib.import_module(module)
                for part in name.split("."):
                    found = getattr(found, part)
                return found
            case ["cb", int(number)]:
                return self._callback(number)
            case ["it", int(number)]:
                return self._iterator(self._callback(number))
            case _:
                raise DecodeError(f"unknown tag {parts[0]!r}")

    def _callback(self, number: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            arguments = {"a": [self._encode(a) for a in args], "k": {k: self._encode(v) for k, v in kwargs.items()}}
            self._channel.send({"cb": number, **arguments})
            while True:
                message = self._channel.receive()
                if "op" in message:  # the function it calls may call back into the solution
                    self._answer(self._call, message)
                    continue
                if "e" in message:
                    module, name, text = message["e"]
                    kind = getattr(importlib.import_module(module), name)
                    raise kind(text)
                return self._decode(message["r"])

        self._callbacks[id(call)] = number
        self._objects.append(call)  # keeps its id from being given away
        return call

    @staticmethod
    def _iterator(step: Callable[[], Any]) -> Iterator[Any]:
        while True:
            try:
                value = step()
            except StopIteration:
                return
            yield value

    def _exception(self, exc: BaseException) -> dict[str, Any]:
        failure = describe_failure(exc, "solution", self._code)
        try:
            args = [self._encode(a) for a in exc.args]
        except Exception:  # noqa: BLE001 - the arguments are whatever the solution put there
            args = [failure["message"]]
        return {"lineage": _lineage(type(exc)), "args": args, "failure": failure}


def _library_name(value: Any) -> tuple[str, str] | None:
    """Module and name of a function or class that is not the solution's own."""
    if not callable(value):
        return None
    owner = getattr(value, "__objclass__", value)
    module, name = getattr(owner, "__module__", None), getattr(value, "__qualname__", None)
    return (module, name) if isinstance(module, str) and isinstance(name, str) and module != "solution" else None


def _lineage(kind: type[BaseException]) -> list[tuple[str, str]]:
    return [(base.__module__, base.__qualname__) for base in kind.__mro__ if base not in (object, BaseException)]
