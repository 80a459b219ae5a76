"""Tools: typed Python functions that a model may call.

    from reflexion.actors import tool

    @tool(timeout=5)
    def population(city: str, year: int = 2020) -> int:
        \"\"\"The population of a city.\"\"\"

The JSON schema comes from the signature, the description from the docstring. A parameter named `problem`
is not shown to the model: it gets the `Problem` of the trial. Whatever a tool does wrong, raising,
hanging, or being called with nonsense, is told to the model and never ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast, get_type_hints, overload

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import to_json

from reflexion.errors import ConfigurationError
from reflexion.keys import digest
from reflexion.types import Problem

__all__ = ["Outcome", "Result", "Tool", "as_tools", "call_with_limit", "load_tools", "source_digest", "tool"]

F = TypeVar("F", bound=Callable[..., Any])

TIMEOUT = 10.0
"""Seconds a call may take, where the tool does not say otherwise."""
STUCK = 16
"""Calls of one tool that may hang in threads of this process before it is not called any more."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_PROBLEM = "problem"


class Result(NamedTuple):
    """What a call gave, as the model is told it."""

    text: str
    failed: bool = False


class Outcome(NamedTuple):
    """What came of calling a function of somebody else's: its value, or why there is none."""

    value: Any = None
    error: str | None = None
    timed_out: bool = False


def _suits_all(problem: Problem) -> bool:
    return True


@dataclass(frozen=True)
class Tool:
    """A function a model may call; made by `tool` or from a plain function.

    Attributes:
        name: as the model calls it.
        description: what the model is told of it.
        function: sync or async. Sync ones run in a thread of their own.
        arguments: model of its parameters.
        timeout: seconds a call may take; None: as the run says, 10 by default.
        version: part of the cache key of every trial that could call it. By default a digest of the source
            of its module; set it where results depend on more than that.
        takes_problem: whether it has a parameter `problem`.
        suits: which problems it is offered for.
    """

    name: str
    description: str
    function: Callable[..., Any]
    arguments: type[BaseModel]
    timeout: float | None = None
    version: str = ""
    takes_problem: bool = False
    suits: Callable[[Problem], bool] = field(default=_suits_all, repr=False)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """JSON schema of its arguments."""
        return cast("dict[str, Any]", _untitled(self.arguments.model_json_schema()))

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The tool as Chat Completions wants it in `tools`."""
        told = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": told}

    @cached_property
    def usage(self) -> str:
        """The tool in one line of text: `search(query: string): …`."""
        needed = set(self.parameters.get("required", ()))
        shown = [
            f"{name}: {_type_name(schema)}" + ("" if name in needed else " (optional)")
            for name, schema in self.parameters.get("properties", {}).items()
        ]
        return f"{self.name}({', '.join(shown)}): {' '.join(self.description.split())}"

    @cached_property
    def fingerprint(self) -> list[str]:
        """What tells it from another one, or from another version of itself: part of cache keys."""
        return [self.name, digest(self.definition)[:16], self.version]

    def bind(self, arguments: Any) -> dict[str, Any]:
        """Checked arguments out of what a model wrote: an object, a list in order, or one text.

        Raises:
            ValueError: they do not fit; says which and why.
        """
        names = list(self.arguments.model_fields)
        if isinstance(arguments, str):
            arguments = self._from_text(arguments, names)
        if isinstance(arguments, Sequence) and not isinstance(arguments, str | bytes):
            given = cast("Sequence[Any]", arguments)
            if len(given) > len(names):
                raise ValueError(f"{len(given)} arguments were given; it takes {len(names)}")
            arguments = dict(zip(names, given, strict=False))
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, Mapping):
            raise ValueError("the arguments must be one JSON object")
        try:
            checked = self.arguments.model_validate(dict(cast("Mapping[str, Any]", arguments)))
        except ValidationError as exc:
            wrong = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in exc.errors()[:5]]
            raise ValueError("; ".join(wrong)) from None
        return {name: getattr(checked, name) for name in names}

    @staticmethod
    def _from_text(text: str, names: Sequence[str]) -> Any:
        if text.lstrip().startswith("{"):
            try:
                return orjson.loads(text)
            except orjson.JSONDecodeError as exc:
                raise ValueError(f"the arguments are not JSON: {exc.msg}") from None
        if not names:
            return {}
        return {names[0]: text.strip()} if text.strip() else {}

    async def call(self, arguments: Any, problem: Problem, *, seconds: float = TIMEOUT) -> Result:
        """Call it with what a model wrote. Never raises but when it is cancelled from outside."""
        try:
            bound = self.bind(arguments)
        except ValueError as exc:
            return Result(f"Error: {self.name} cannot be called like this: {exc}. Usage: {self.usage}", failed=True)
        if self.takes_problem:
            bound[_PROBLEM] = problem
        outcome = await call_with_limit(self.name, self.timeout or seconds, partial(self.function, **bound))
        if outcome.error is not None:
            return Result(outcome.error, failed=True)
        try:
            return Result(_text(outcome.value))
        except Exception as exc:  # noqa: BLE001 - the text of someone else's object may raise anything
            return Result(_raised(self.name, exc), failed=True)


def _untitled(node: Any, *, named: bool = False) -> Any:
    """A schema without pydantic's titles, which tell a model nothing. `named`: keys are names of fields."""
    if isinstance(node, Mapping):
        items = cast("Mapping[str, Any]", node).items()
        kept = items if named else [(k, v) for k, v in items if k != "title"]
        return {k: _untitled(v, named=not named and k in ("properties", "$defs")) for k, v in kept}
    return [_untitled(v) for v in cast("list[Any]", node)] if isinstance(node, list) else node


def _type_name(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(repr, schema["enum"]))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_type_name(s) for s in schema[several])
    return str(schema.get("type", "value"))


# -- calls ---------------------------------------------------------------------------------------------

_stuck: dict[str, int] = {}
_counting = threading.Lock()


async def call_with_limit(name: str, seconds: float, function: Callable[[], Any]) -> Outcome:
    """Call a function of somebody else's: what it raises, and that it hangs, become its outcome.

    A sync function runs in a daemon thread of its own, so that one that hangs keeps neither the event
    loop nor the process. Threads cannot be ended: when too many calls hang, it is not called any more.
    """
    if _stuck.get(name, 0) >= STUCK:
        return Outcome(error=f"Error: {name} is not available: {STUCK} calls of it hang.", timed_out=True)
    scope = asyncio.timeout(seconds)
    task = asyncio.current_task()
    try:
        async with scope:
            # What is async from the start needs no thread; calling it does nothing yet.
            value = function() if inspect.iscoroutinefunction(function) else await _in_thread(name, function)
            if inspect.isawaitable(value):
                value = await value
        return Outcome(value)
    except asyncio.CancelledError:
        if task is None or task.cancelling():
            raise  # not the function's doing: the run was cancelled
        return Outcome(error=f"Error: {name} was cancelled.")
    except TimeoutError as exc:
        if not scope.expired():
            return Outcome(error=_raised(name, exc))
        return Outcome(error=f"Error: {name} did not answer within {seconds:g} seconds.", timed_out=True)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - someone else's code may raise anything
        return Outcome(error=_raised(name, exc))


def _raised(name: str, exc: BaseException) -> str:
    try:
        message = str(exc)
    except Exception:  # noqa: BLE001 - even its text may raise
        message = ""
    return f"Error: {name} raised {type(exc).__name__}: {message}".rstrip(": ")


async def _in_thread(name: str, function: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()
    given_up = False

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            if inspect.iscoroutine(value):
                value.close()  # nobody will await it any more
            return
        if error is None:
            future.set_result(value)
        elif isinstance(error, StopIteration):  # a future cannot carry it
            future.set_exception(RuntimeError(f"StopIteration: {error}"))
        else:
            future.set_exception(error)

    def work() -> None:
        value, error = None, None
        try:
            value = context.run(function)
        except BaseException as exc:  # noqa: BLE001 - carried to the caller, KeyboardInterrupt never comes here
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, error)
        with _counting:
            if given_up:
                _stuck[name] -= 1

    thread = threading.Thread(target=work, name=f"tool-{name}", daemon=True)
    thread.start()
    try:
        return await future
    except asyncio.CancelledError:
        with _counting:
            if thread.is_alive():
                given_up = True
                _stuck[name] = _stuck.get(name, 0) + 1
        raise


def _text(value: Any) -> str:
    """A result as the model reads it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "done"
    try:
        return to_json(value, fallback=str, inf_nan_mode="constants").decode()
    except ValueError:  # a value that holds itself, for example
        return repr(value)


# -- tools from functions ------------------------------------------------------------------------------


@overload
def tool(function: F, /) -> F: ...


@overload
def tool(
    *, name: str | None = None, description: str | None = None, timeout: float | None = None, version: str | None = None
) -> Callable[[F], F]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    version: str | None = None,
) -> Any:
    """Say how a function is offered as a tool; the function itself stays as it is.

    Args:
        name: else the function's.
        description: else its docstring.
        timeout: seconds a call may take.
        version: change it when results change for a reason outside the function's module.
    """

    def mark(function: F) -> F:
        options = {"name": name, "description": description, "timeout": timeout, "version": version}
        function.__reflexion_tool__ = options  # type: ignore[attr-defined]
        return function

    return mark if function is None else mark(function)


def source_digest(function: Callable[..., Any]) -> str:
    """A digest of the code a function is in: its whole module, since helpers count as well."""
    target: Any = inspect.unwrap(function)
    target = getattr(target, "func", target)  # of a partial
    if not (inspect.isroutine(target) or inspect.isclass(target)):
        target = type(target)
    module = sys.modules.get(getattr(target, "__module__", None) or "")
    path = getattr(module, "__file__", None)
    try:
        if path and module is not None and module.__name__ != "__main__":
            return digest(Path(path).read_text(encoding="utf-8"))[:16]
        return digest(inspect.getsource(target))[:16]
    except (OSError, TypeError, UnicodeDecodeError):
        code = getattr(target, "__code__", None)
        return digest([repr(getattr(code, "co_code", "")), repr(getattr(code, "co_consts", ""))])[:16]


def _tool_of(function: Callable[..., Any]) -> Tool:
    options: dict[str, Any] = getattr(function, "__reflexion_tool__", {})
    plain = getattr(function, "func", function)  # a partial has no name of its own
    name = options.get("name") or getattr(plain, "__name__", type(plain).__name__)
    where = f"the tool {name!r}"
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{where}: a name has letters, digits, _ and - only, 64 at most; give it one")
    target = function if inspect.isroutine(function) or inspect.isclass(function) else getattr(function, "func", None)
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(target or type(function).__call__, include_extras=True)
    except (TypeError, ValueError, NameError) as exc:
        raise ConfigurationError(f"{where}: its signature cannot be read: {exc}") from None
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.name == _PROBLEM:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigurationError(f"{where}: the parameter {parameter} cannot be given by name")
        if parameter.name not in hints:
            raise ConfigurationError(
                f"{where}: the parameter {parameter.name!r} has no type; write {parameter.name}: str, for example"
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    try:
        arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        arguments.model_json_schema()
    except (PydanticUserError, NameError, TypeError, RuntimeError) as exc:
        reason = str(exc).split("\n")[0]
        raise ConfigurationError(f"{where}: a parameter's type has no JSON schema: {reason}") from None
    version = options.get("version")
    return Tool(
        name=name,
        description=options.get("description") or inspect.getdoc(function) or "",
        function=function,
        arguments=arguments,
        timeout=options.get("timeout"),
        version=str(version) if version is not None else source_digest(function),
        takes_problem=_PROBLEM in signature.parameters,
    )


def as_tools(given: Iterable[Any], *, where: str = "tools") -> tuple[Tool, ...]:
    """Tools out of tools, functions, and specs such as `documents` or `module:function`.

    Raises:
        ConfigurationError: one is neither, cannot be imported, or two have the same name.
    """
    tools: list[Tool] = []
    for item in given:
        tools += _tools_of(item, where)
    names = [t.name for t in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"{where}: two tools are named {twice!r}; give one another name by @tool(name=…)")
    return tuple(tools)


def _tools_of(item: Any, where: str) -> tuple[Tool, ...]:
    if isinstance(item, Tool):
        return (item,)
    if isinstance(item, str):
        return load_tools(item)
    if isinstance(item, list | tuple):
        return tuple(t for each in cast("Sequence[Any]", item) for t in _tools_of(each, where))
    if callable(item):
        return (_tool_of(item),)
    raise ConfigurationError(f"{where}: {item!r} is neither a function nor a Tool")


def load_tools(spec: str) -> tuple[Tool, ...]:
    """The tools a spec names: `documents`, `calculator`, or `module:function` (also a list of functions).

    Raises:
        ConfigurationError: there are none of that name, or they cannot be imported.
    """
    from reflexion.actors.builtin_tools import BUILTIN

    spec = spec.strip()
    if spec in BUILTIN:
        return BUILTIN[spec]
    if ":" not in spec:
        raise ConfigurationError(
            f"--tools: unknown tools {spec!r}; there are {', '.join(BUILTIN)}, or your own as module:function"
        )
    from reflexion._imports import load_object

    found = load_object(spec, "--tools:")
    tools = _tools_of(found, f"--tools {spec}")
    if not tools:
        raise ConfigurationError(f"--tools {spec}: it is empty")
    return tools
