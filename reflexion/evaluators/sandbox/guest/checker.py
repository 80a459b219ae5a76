"""The process of the trusted tests: runs them against proxies of what the solution defines.

Everything that comes from the solver is data. A value is rebuilt here and compared here. An object that is no
data stays in the solver, and a `Remote` stands for it: reading its attributes, calling, iterating and indexing
it give values again, but nothing that would let the object judge itself (`==`, `<`, `in` or arithmetic with a
plain value) ever reaches the solver.
"""

from __future__ import annotations

import ast
import builtins
import collections
import importlib
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, cast

from .channel import Channel, ChannelClosedError, MessageTooLargeError
from .judging import Interruption, compiled, run_tests
from .values import DecodeError, TooDeepError, decode, encode

__all__ = ["Unmarshallable", "check"]

_LIBRARY = frozenset(
    [
        *("bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq"),
        *("itertools", "json", "math", "operator", "random", "re", "statistics", "string", "typing"),
    ]
)
"""Modules whose names a test may take for granted because the solution imports them."""
_TYPES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, type(None))


class SolverGone(Interruption):
    """The solver ended."""


class Unmarshallable(Interruption):
    """A test hands something over that is no data."""


class Remote:
    """Stands for an object in the solver."""

    __slots__ = ("_caller", "_node")
    __hash__ = object.__hash__

    def __init__(self, caller: Caller, node: list[Any]) -> None:
        object.__setattr__(self, "_caller", caller)
        object.__setattr__(self, "_node", node)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._caller.call(self._node, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._builtin("getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._builtin("setattr", name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._caller.call(["x", "operator", "getitem"], (self, key), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        self._caller.call(["x", "operator", "setitem"], (self, key, value), {})

    def __iter__(self) -> Iterator[Any]:
        iterator = self._builtin("iter")
        return iterator if isinstance(iterator, Remote) else iter(iterator)

    def __next__(self) -> Any:
        return self._builtin("next")

    def __len__(self) -> int:
        return self._builtin("len")

    def __bool__(self) -> bool:
        return self._builtin("bool") is True

    def __float__(self) -> float:
        return self._builtin("float")

    def __int__(self) -> int:
        return self._builtin("int")

    def __str__(self) -> str:
        return self._builtin("str")

    def __repr__(self) -> str:
        return f"<{self._node[2]} object>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and (self is other or self._both("eq", other) is True)

    def __lt__(self, other: object) -> Any:
        return self._both("lt", other)

    def __le__(self, other: object) -> Any:
        return self._both("le", other)

    def __gt__(self, other: object) -> Any:
        return self._both("gt", other)

    def __ge__(self, other: object) -> Any:
        return self._both("ge", other)

    def __add__(self, other: object) -> Any:
        return self._both("add", other)

    def __sub__(self, other: object) -> Any:
        return self._both("sub", other)

    def __mul__(self, other: object) -> Any:
        return self._both("mul", other)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, Remote) and (
            self._caller.call(["x", "builtins", "isinstance"], (instance, self), {}) is True
        )

    def __contains__(self, item: object) -> bool:
        # By iteration and comparison here, never by the object's own __contains__.
        return any(item is each or item == each for each in self)

    def _builtin(self, name: str, *more: Any) -> Any:
        return self._caller.call(["x", "builtins", name], (self, *more), {})

    def _both(self, name: str, other: object) -> Any:
        """An operation of two of the solution's own objects; with anything else it is not defined."""
        if not isinstance(other, Remote):
            return NotImplemented
        return self._caller.call(["x", "operator", name], (self, other), {})


class Caller:
    """Calls into the solver."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._remotes: dict[int, Remote] = {}
        self._callbacks: dict[int, Callable[..., Any]] = {}
        self._exceptions: dict[tuple[str, str], type[BaseException]] = {}
        self._lent: dict[tuple[str, str], Any] = {("builtins", kind.__name__): kind for kind in _TYPES}
        """Library objects the solution may give back as themselves: those it got, and the types of data."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function there; exceptions are raised here as the nearest class that is known here.

        Raises:
            SolverGone: it ended.
            Unmarshallable: an argument is no data.
        """
        answer = self._ask(
            {
                "op": "call",
                "f": function,
                "a": [self._encode(a) for a in args],
                "k": {k: self._encode(v) for k, v in kwargs.items()},
            }
        )
        given: dict[str, Any] = {**{str(i): a for i, a in enumerate(args)}, **kwargs}
        for key, node in _mapping(answer.get("m")).items():
            _replace(given[key], self._decode(node))
        if "same" in answer:
            return given[answer["same"]]
        return self._decode(answer.get("r"))

    def names(self, names: list[str], entry: str | None) -> tuple[dict[str, Any], Any]:
        """What the solution has under these names, as far as tests may use it, and the function under test.

        The function is an object that stays in the solver whatever it is; `_MISSING` when there is none.
        """
        answer = self._ask({"op": "names", "names": names, "entry": entry})
        found: dict[str, Any] = {}
        for name, node in _mapping(answer.get("r")).items():
            if name in names:
                value = self._named(name, node)
                if value is not _MISSING:
                    found[name] = value
        function = self._decode(answer.get("entry"))
        return found, function if isinstance(function, Remote) else _MISSING

    def tests(self, tests: str | None, visible: list[str]) -> dict[str, Any]:
        """Let the solver run the tests itself."""
        return _mapping(self._ask({"op": "tests", "tests": tests, "visible": visible}).get("r"))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = self._exchange(request)
        except (ChannelClosedError, ConnectionError) as exc:
            raise SolverGone from exc
        except MessageTooLargeError as exc:
            raise SolverGone("OutputLimit", str(exc)) from exc
        except (ValueError, RecursionError) as exc:
            raise DecodeError(str(exc)) from exc
        if "e" in answer:
            raise self._exception(_mapping(answer["e"]))
        return answer

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request, serve what the solver asks meanwhile, and receive the answer."""
        self._channel.send(request)
        while "cb" in (answer := _mapping(self._channel.receive())):
            self._channel.send(self._call_back(answer))
        return answer

    def _call_back(self, request: dict[str, Any]) -> dict[str, Any]:
        function = self._callbacks[request["cb"]]
        try:
            args = [self._decode(a) for a in request["a"]]
            kwargs = {k: self._decode(v) for k, v in _mapping(request["k"]).items()}
            return {"r": self._encode(function(*args, **kwargs))}
        except Exception as exc:  # noqa: BLE001 - the test's function may raise anything, into the solution
            known = next(k for k in type(exc).__mro__ if k.__module__ == "builtins")
            return {"e": ["builtins", known.__name__, str(exc)]}

    def _encode(self, value: Any) -> Any:
        try:
            return encode(value, self._refer)
        except (TooDeepError, RecursionError) as exc:
            raise Unmarshallable(str(exc)) from exc

    def _refer(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return object.__getattribute__(value, "_node")
        if isinstance(value, Iterator):
            iterator = cast("Iterator[Any]", value)
            return ["it", self._export(iterator.__next__)]
        owner = getattr(value, "__objclass__", value)
        module, name = getattr(owner, "__module__", None), getattr(value, "__qualname__", None)
        if callable(value):
            library = isinstance(module, str) and module.partition(".")[0] in sys.stdlib_module_names
            if library and isinstance(name, str) and _lookup(cast(str, module), name) is value:
                self._lent[cast(str, module), name] = value
                return ["x", module, name]
            if not isinstance(value, type):
                return ["cb", self._export(value)]
        raise Unmarshallable(f"an object of the class {type(value).__name__}")

    def _export(self, function: Callable[..., Any]) -> int:
        number = len(self._callbacks)
        self._callbacks[number] = function
        return number

    def _decode(self, node: Any) -> Any:
        return decode(node, self._resolve)

    def _resolve(self, parts: list[Any]) -> Any:
        match parts:
            case ["x", str(module), str(name), int(number)]:
                lent = self._lent.get((module, name), _MISSING)
                return self._resolve(["h", number, name]) if lent is _MISSING else lent
            case ["h", int(number), str(kind)]:
                return self._remotes.setdefault(number, Remote(self, ["h", number, kind[:100]]))
            case ["cb", int(number)]:
                return self._callbacks[number]
            case _:
                raise DecodeError(f"unknown tag {parts[0]!r}")

    def _named(self, name: str, node: Any) -> Any:
        """A name of the solution's that the tests use without defining it.

        What the solution claims to have from the standard library is taken from here, and only if the
        claim is what the name itself says: else it could pass off something that equals everything.
        """
        match node:
            case ["E", list(lineage)]:
                return self._exception_class(cast("list[Any]", lineage))
            case ["m", str(module)]:
                return importlib.import_module(module) if module == name and module in _LIBRARY else _MISSING
            case ["x", str(module), str(qualname)]:
                library = module.lstrip("_") in _LIBRARY and qualname == name
                return _lookup(module, qualname) if library else _MISSING
            case _:
                return self._decode(node)

    def _exception(self, fields: dict[str, Any]) -> BaseException:
        kind = self._exception_class(fields.get("lineage"))
        try:
            args = tuple(self._decode(a) for a in fields.get("args") or [])
            exc = kind(*args)
        except Exception:  # noqa: BLE001 - constructors differ; the arguments are untrusted
            exc = kind.__new__(kind)
        exc.reflexion_failure = _failure(_mapping(fields.get("failure")))  # pyright: ignore[reportAttributeAccessIssue]
        return exc

    def _exception_class(self, lineage: Any) -> type[BaseException]:
        """The exception class here that stands for one there; its own classes are made up as needed."""
        try:
            pairs = [(str(module), str(name)) for module, name in lineage[:50]]
        except (TypeError, ValueError) as exc:
            raise DecodeError("an exception without its classes") from exc
        for position, (module, name) in enumerate(pairs):
            known = self._exceptions.get((module, name)) or _known_exception(module, name)
            if known is None:
                continue
            for own in reversed(pairs[:position]):
                made = cast(type[BaseException], type(own[1], (known,), {}))
                known = self._exceptions[own] = made
            return known
        return Exception


_MISSING = object()


def _known_exception(module: str, name: str) -> type[BaseException] | None:
    if module != "builtins" and module.partition(".")[0] not in _LIBRARY:
        return None
    found = _lookup(module, name)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _lookup(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, _MISSING)
    return found


def _mapping(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DecodeError("not an object")
    return cast("dict[str, Any]", value)


def _replace(target: Any, value: Any) -> None:
    """Give a container the contents it has after the call, as if the solution had changed it itself."""
    if not isinstance(target, type(value)):
        raise DecodeError("an argument changed its type")
    if isinstance(target, list | bytearray):
        target[:] = value
    elif isinstance(target, collections.deque):
        items = cast("collections.deque[Any]", target)
        items.clear()
        items.extend(value)
    elif isinstance(target, dict | set):
        target.clear()
        target.update(value)


def _failure(fields: dict[str, Any]) -> dict[str, Any]:
    line = fields.get("line")
    return {
        "kind": str(fields.get("kind") or "Exception")[:100],
        "message": str(fields.get("message") or "")[:500],
        "line": line if isinstance(line, int) else None,
        "source": str(fields.get("source") or "")[:200],
        "origin": "load" if fields.get("origin") == "load" else "solution",
    }


def check(job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Judge a job: `{"load", "hidden", "visible", "gone", "unmarshallable"}` as far as it came."""
    verdict: dict[str, Any] = {"load": None, "hidden": None, "visible": []}
    try:
        loaded = _mapping(channel.receive()).get("load")
        if loaded is not None:
            return {**verdict, "load": {**_failure(_mapping(loaded)), "origin": "load"}}
        caller = Caller(channel)
        # Compiled once, for its names and for running it.
        tests = compiled(job["tests"]) if job["tests"] and not job["in_process"] else None
        namespace, entry = _namespace(job, tests, caller)
        if job["entry_point"] and entry is _MISSING:
            return {**verdict, "load": _missing(job["entry_point"])}
        if job["in_process"]:
            return {**verdict, **_plausible(caller.tests(job["tests"], job["visible"]), job)}
        # Judged one by one, so that what was found before the solver ended is not lost.
        verdict["hidden"] = run_tests(tests, [], namespace)["hidden"]
        for test in job["visible"]:
            verdict["visible"] += run_tests(None, [test], namespace)["visible"]
    except (SolverGone, ChannelClosedError) as exc:
        verdict["gone"] = [str(a) for a in exc.args]
    except Unmarshallable as exc:
        verdict["unmarshallable"] = str(exc)
    except (DecodeError, ValueError, MessageTooLargeError) as exc:
        verdict["gone"] = ["Forged", f"the solution's process sent what is no value: {exc}"]
    return verdict


def _missing(name: str) -> dict[str, Any]:
    message = f"the code does not define {name!r}, which the tests call"
    return {"kind": "NameError", "message": message, "line": None, "source": "", "origin": "load"}


def _plausible(outcomes: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """Outcomes from the solver's own process, in the form outcomes have."""

    def outcome(value: Any) -> dict[str, Any]:
        fields = _mapping(value)
        shown = {k: str(fields[k])[:300] for k in ("got", "wanted") if k in fields}
        failure = fields.get("failure")
        if failure is not None:
            failure = {**_failure(_mapping(failure)), "origin": "test"}
        return {"passed": fields.get("passed") is True, "failure": failure, **shown}

    hidden = outcome(outcomes.get("hidden")) if job["tests"] else None
    visible = cast("list[Any]", outcomes.get("visible") or [])[: len(job["visible"])]
    return {"hidden": hidden, "visible": [outcome(v) for v in visible]}


def _namespace(job: dict[str, Any], tests: CodeType | str | None, caller: Caller) -> tuple[dict[str, Any], Any]:
    """The names tests see: their own, the prompt's imports and helpers, then the solution's; and its function."""
    name = job["entry_point"]
    if job["in_process"]:
        return {}, caller.names([], name)[1] if name else _MISSING
    namespace: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    prelude: dict[str, Any] = {}
    if job["prelude"]:
        exec(compile(job["prelude"], "<prompt>", "exec", dont_inherit=True), prelude)  # noqa: S102 - the dataset's code
    trusted = {k: v for k, v in prelude.items() if not k.startswith("__") and not _own_class(v)}
    used = _names_of(tests) if isinstance(tests, CodeType) else set[str]()
    used |= _names_used(job["visible"])
    wanted = sorted(n for n in used - trusted.keys() - vars(builtins).keys() - {name} if not n.startswith("__"))
    namespace |= {k: v for k, v in prelude.items() if not k.startswith("__")}
    found, entry = caller.names(wanted, name) if wanted or name else ({}, _MISSING)
    namespace |= found
    if name:
        namespace[name] = entry
    return namespace, entry


def _own_class(value: Any) -> bool:
    """A class of the prompt: its objects are the solution's, which has the class as well."""
    return (
        isinstance(value, type)
        and value.__module__ == "builtins"
        and getattr(builtins, value.__name__, None) is not value
    )


def _names_of(code: CodeType) -> set[str]:
    """All names in compiled tests; those of attributes among them, for which the solution is asked in vain."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_of(constant)
    return names


def _names_used(sources: list[str]) -> set[str]:
    names: set[str] = set()
    for source in sources:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue  # running it will tell
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names
