"""The process of the trusted tests: runs them against stand-ins for what the solution defines.

Everything that comes from the solver is data or stands for an object there. A value is rebuilt here and compared
here. An object judges itself only where a test is about its class: the class has a name that the tests use, and the
test made the object. Anything else that the solution returns cannot say that it equals a plain value.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import sys
import types
from typing import Any, cast

from .crossing.classes import BINARY, COMPARISONS, data_base
from .crossing.link import Link
from .crossing.mirrors import Mirrored
from .crossing.values import as_object, keep_order, library
from .failures import DecodeError, Refused
from .pipe import Channel, ChannelClosedError, MessageTooLargeError
from .surroundings import Surroundings
from .test_running import Interruption, compiled, run_units, run_visible

__all__ = ["check"]

_OWN_MODULES = frozenset({"tests", "__main__"})
_TYPES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, type(None), object)
_VALUES = {
    "collections": ("Counter", "OrderedDict", "defaultdict", "deque"),
    "fractions": ("Fraction",),
    "decimal": ("Decimal",),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "uuid": ("UUID",),
    "pathlib": ("Path", "PosixPath", "PurePath", "PurePosixPath"),
}
"""Classes of the library that a solution may return as themselves: calling them carries out nothing else."""
_READABLE = frozenset({"__name__", "__qualname__", "__doc__", "__module__", "__class__", "__dict__", "__len__"})
_FIXED = (type, types.FunctionType, types.ModuleType, types.MethodType)
"""Objects of the tests whose attributes a solution can neither list nor change."""
_INSIDES = ("gi_", "cr_", "ag_", "tb_", "f_", "co_", "func_")
_STEPPING = frozenset({"send", "throw", "close", "__next__", "__anext__", "asend", "athrow", "aclose"})


class SolverGone(Interruption):
    """The solver ended."""


class Stopped(Interruption):
    """The solution raised what is no answer to a test: an exit, a skipped test, the end of an iterator."""


class CheckerLink(Link):
    """The tests' side of the connection.

    Args:
        channel: to the solver.
        plan: which names the tests take from the solution, which of them stand for classes that the tests are about,
            and which exceptions the tests speak of.
        surroundings: what the tests set up around the solution.
    """

    def __init__(self, channel: Channel, plan: dict[str, Any], surroundings: Surroundings) -> None:
        super().__init__(channel, 2, _OWN_MODULES)
        self._wanted = frozenset(plan["wanted"])
        self.used = 0
        self.namespace: dict[str, Any] = {}
        self.broken: BaseException | None = None
        self._tested_names = frozenset(plan["tested"])
        self._tested: dict[type, bool] = {}
        self._tested_classes: set[int] = set()
        self._expected = frozenset(plan["expected"])
        self._stepping = False
        self._surroundings = surroundings
        self._lent: dict[tuple[str, str], Any] = {("builtins", kind.__name__): kind for kind in _TYPES}
        self.operations |= {
            "input": surroundings.read_input,
            "stdin": surroundings.read_stdin,
        }
        del self.operations["subclass"]
        self.operations |= {"set": self._do_set, "del": self._do_del}

    # --- what the solution may do for itself, and what it may not ------------------------------------------------

    def learn_tested(self) -> None:
        """Note which classes the names stand for that the tests are about."""
        for name in self._tested_names:
            value = self.namespace.get(name)
            number = self.mirrors.number(value)
            if isinstance(value, Mirrored) and number is not None:
                self._tested_classes.add(id(value))
        self._tested.clear()

    def _is_tested(self, cls: type) -> bool:
        found = self._tested.get(cls)
        if found is None:
            found = self._tested[cls] = any(id(c) in self._tested_classes for c in cls.__mro__)
        return found

    def may(self, instance: Any, name: str, args: tuple[Any, ...]) -> bool:
        cls = type(instance)
        tested = self._is_tested(cls)
        if name in COMPARISONS or name in BINARY:
            if args and self.mirrors.number(args[0]) is not None:
                return tested or data_base(cls) is None
            return tested and self.mirrors.is_made(instance)
        if tested:
            return True
        if name == "__contains__":
            return False
        base = data_base(cls)
        return base is None or not hasattr(base, name)

    def library_value(self, module: str, name: str, number: int) -> Any:
        found = self._lent.get((module, name))
        if found is None:
            known = library(module, name)
            if name in _VALUES.get(module, ()) or (isinstance(known, type) and issubclass(known, BaseException)):
                found = known
        return self.stand_in(number) if found is None else found

    def lent(self, module: str, name: str, value: Any) -> None:
        self._lent[module, name] = value

    def library_data(self, module: str, name: str, data: Any) -> Any:
        if module.partition(".")[0] in ("unittest", "doctest"):
            return self.decode(data)
        return super().library_data(module, name, data)

    def library_module(self, name: str) -> Any:
        raise DecodeError(f"no module {name}")

    def do_get(self, thing: Any, name: str) -> Any:
        """Read an attribute of an object of the tests; what leads to the tests themselves is not to be had."""
        hidden = name.startswith("__") and name not in _READABLE
        if hidden or name.startswith(_INSIDES):
            raise AttributeError(name)
        if name == "__dict__":
            if isinstance(thing, _FIXED):
                raise AttributeError(name)
            return dict(vars(thing))
        return getattr(thing, name)

    def _do_set(self, thing: Any, name: str, value: Any) -> None:
        self._refuse_changes(thing, name)
        setattr(thing, name, value)

    def _do_del(self, thing: Any, name: str) -> None:
        self._refuse_changes(thing, name)
        delattr(thing, name)

    @staticmethod
    def _refuse_changes(thing: Any, name: str) -> None:
        """A solution may change the objects it is given, not what they can do: that would judge for the tests."""
        if isinstance(thing, _FIXED) or name.startswith("__") or callable(getattr(type(thing), name, None)):
            raise AttributeError(f"{name!r} of an object of the tests cannot be changed")

    # --- messages ------------------------------------------------------------------------------------------------

    def ask(self, operation: str, *args: Any) -> Any:
        if operation not in ("names", "text", "describe"):
            self.used += 1
        try:
            return super().ask(operation, *args)
        except (ChannelClosedError, ConnectionError) as exc:
            raise SolverGone from exc
        except MessageTooLargeError as exc:
            raise SolverGone("OutputLimit", str(exc)) from exc

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = self.mirrors.is_maker(function)
        self._stepping = self.mirrors.known_as(function) in _STEPPING
        result = super().call(function, args, kwargs)
        if made:
            self.mirrors.note_made(result)
        return result

    def raised(self, exception: Any, failure: Any, operation: str) -> BaseException:
        found = super().raised(exception, failure, operation)
        failure = _failure(cast("dict[str, Any]", failure) if isinstance(failure, dict) else {})
        found.reflexion_failure = failure  # type: ignore[attr-defined]
        names = {cls.__name__ for cls in type(found).__mro__}
        ends = operation != "call" or self._stepping
        if isinstance(found, StopIteration | StopAsyncIteration):
            if not ends and not names & self._expected:
                stopped = RuntimeError(f"the solution raised {type(found).__name__}")
                stopped.reflexion_failure = failure  # type: ignore[attr-defined]
                return stopped
        elif (not isinstance(found, Exception) or _steers_tests(type(found))) and not names & self._expected:
            stopped = Stopped(type(found).__name__)
            stopped.reflexion_failure = failure  # type: ignore[attr-defined]
            return stopped
        return found

    def noticed(self, exc: BaseException, operation: str) -> None:
        if isinstance(exc, Interruption):
            raise exc
        if isinstance(exc, AssertionError) and "AssertionError" not in self._expected:
            # What a test asserts within a function that it hands over cannot be caught by the solution.
            self.broken = self.broken or exc

    def before_sending(self, message: dict[str, Any]) -> None:
        self._surroundings.tell(message, self.encode)

    def after_receiving(self, message: dict[str, Any]) -> None:
        self._surroundings.hear(message)
        for name, node in as_object(message.get("g")).items():
            if name in self._wanted:
                self.namespace[name] = self.decode(node)


def _steers_tests(cls: type) -> bool:
    """Whether an exception tells a test runner what to do: skip, stop, expect a failure."""
    return any(
        base.__module__.partition(".")[0] in ("unittest", "doctest", "pytest", "_pytest") for base in cls.__mro__
    )


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
    """Judge a job: `{"load", "hidden", "visible", "gone"}` as far as it came."""
    sys.setrecursionlimit(20_000)
    verdict: dict[str, Any] = {"load": None, "hidden": None, "visible": []}
    plan = job["plan"]
    try:
        loaded = as_object(channel.receive()).get("load")
        if loaded is not None:
            return {**verdict, "load": {**_failure(as_object(loaded)), "origin": "load"}}
        if not plan["flags"].get("exact_classes"):
            keep_order()
        surroundings = Surroundings(plan["flags"])
        link = CheckerLink(channel, plan, surroundings)
        namespace = _namespace(job, plan, link)
        entry = plan["entry"]
        if entry and entry not in namespace:
            return {**verdict, "load": _missing(entry)}
        if job["tests"]:
            verdict["hidden"] = run_units(compiled(job["tests"]), plan["units"], namespace, link)
        # Judged one by one, so that what was found before the solver ended is not lost.
        for test in plan["visible"]:
            verdict["visible"].append(run_visible(test, namespace, link))
    except (SolverGone, ChannelClosedError) as exc:
        verdict["gone"] = [str(a) for a in exc.args]
    except (DecodeError, Refused, ValueError, MessageTooLargeError) as exc:
        verdict["gone"] = ["Forged", f"the solution's process sent what is no value: {exc}"]
    return verdict


def _missing(name: str) -> dict[str, Any]:
    message = f"the code does not define {name!r}, which the tests call"
    return {"kind": "NameError", "message": message, "line": None, "source": "", "origin": "load"}


def _namespace(job: dict[str, Any], plan: dict[str, Any], link: CheckerLink) -> dict[str, Any]:
    """The names tests see: the prompt's imports and helpers, the library's, and the solution's."""
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    tests = type(sys)("tests")
    tests.__dict__.update(namespace)
    namespace = tests.__dict__
    if job["prelude"]:
        namespace |= _prelude(job["prelude"])
    for name, (module, attribute) in plan["library"].items():
        owner = importlib.import_module(module)
        namespace[name] = owner if attribute is None else getattr(owner, attribute)
    link.namespace = namespace
    found = link.ask("names", plan["wanted"], plan["flags"])
    if not isinstance(found, dict):
        raise DecodeError("no names")
    for name, value in cast("dict[str, Any]", found).items():
        if name in plan["wanted"]:
            namespace[name] = value
    entry = plan["entry"]
    if entry in namespace and not callable(namespace[entry]):
        del namespace[entry]
    link.learn_tested()
    for name in plan["modules"]:
        sys.modules[name] = _SolutionModule(name, link)
    if plan["program"]:
        namespace["run_program"] = functools.partial(link.ask, "program")
        namespace["same_output"] = same_output
    for name in plan["quiet"]:
        _keep_quiet(name)
    return namespace


def _prelude(code: str) -> dict[str, Any]:
    """What the prompt's code defines; what of it does not run by itself is left out."""
    names: dict[str, Any] = {"__name__": "prompt"}
    for statement in ast.parse(code).body:
        try:
            exec(compile(ast.Module([statement], []), "<prompt>", "exec", dont_inherit=True), names)  # noqa: S102
        except Exception:  # noqa: BLE001, S112 - the dataset's code may need what only a solution has
            continue
    return {k: v for k, v in names.items() if not k.startswith("__")}


def _keep_quiet(name: str) -> None:
    """Replace a function that would run the tests by itself and end the process: they are run here."""
    module_name, _, attribute = name.rpartition(".")
    module = importlib.import_module(module_name)
    setattr(module, attribute, _nothing)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


class _SolutionModule(types.ModuleType):
    """The solution's module, where tests import it by a name."""

    def __init__(self, name: str, link: CheckerLink) -> None:
        super().__init__(name)
        self.__dict__["_reflexion"] = link.ask("module")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__doc__"):
            raise AttributeError(name)
        return getattr(self.__dict__["_reflexion"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_reflexion"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__dict__["_reflexion"], name)


def same_output(got: str, wanted: str) -> bool:
    """Whether a program's output is the one wanted: line by line, but for white space at their ends.

    A line of numbers may also differ in how they are written, decimals by 1e-6.
    """
    left, right = got.rstrip().splitlines(), wanted.rstrip().splitlines()
    return len(left) == len(right) and all(map(_same_line, left, right))


def _same_line(got: str, wanted: str) -> bool:
    if got.rstrip() == wanted.rstrip():
        return True
    left, right = got.split(), wanted.split()
    return len(left) == len(right) and all(map(_same_word, left, right))


def _same_word(got: str, wanted: str) -> bool:
    if got == wanted:
        return True
    if "." not in wanted and "e" not in wanted.lower():
        return False
    try:
        a, b = float(got), float(wanted)
    except ValueError:
        return False
    return abs(a - b) <= 1e-6 * max(1.0, abs(b))
