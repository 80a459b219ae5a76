"""Environments: worlds a model acts in turn by turn, whose reward is the verdict.

A problem names its environment: `"rooms"` (ours), `"textworld"` (of the package of that name), or
`"module:factory"` of your own; or an object with that `name` and further settings, which the factory gets
as keyword arguments:

    {"prompt": "Put the apple on the table.", "environment": {"name": "rooms", "rooms": {…}}}
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

from reflexion.errors import ConfigurationError, DatasetError
from reflexion.types import Problem

__all__ = [
    "Environment",
    "State",
    "check_environment",
    "environment_fingerprint",
    "environment_of",
    "open_environment",
    "state_of",
]


class State(NamedTuple):
    """Where a world stands after a step.

    Attributes:
        observation: what the model is told.
        reward: how far the goal is reached, 0 to 1; the last one is the trial's score.
        done: whether the world has ended.
    """

    observation: str
    reward: float = 0.0
    done: bool = False


@runtime_checkable
class Environment(Protocol):
    """A world for one trial. Methods are sync or async; sync ones may block, they run in a thread.

    It may also have `commands`, a text with examples of what can be done, and `close()`.
    """

    def reset(self) -> Any:
        """The `State` to begin with, or its awaitable."""
        ...

    def step(self, action: str) -> Any:
        """The `State` after an action, or its awaitable; an action it does not know is an observation too."""
        ...


def _rooms() -> Callable[..., Environment]:
    from reflexion.actors.room_world import Rooms

    return Rooms


def _textworld() -> Callable[..., Environment]:
    from reflexion.actors.textworld_games import TextWorld

    return TextWorld


_KNOWN: dict[str, Callable[[], Callable[..., Environment]]] = {"rooms": _rooms, "textworld": _textworld}


def environment_of(problem: Problem) -> tuple[str, dict[str, Any]] | None:
    """Name and settings of a problem's environment, or None.

    Raises:
        DatasetError: it has no name.
    """
    given = problem.environment
    if given is None:
        return None
    if isinstance(given, str):
        return given, {}
    settings = dict(given)
    name = settings.pop("name", None)
    if not isinstance(name, str) or not name.strip():
        raise DatasetError(
            f"problem {problem.id!r}: field 'environment' must have a 'name': {', '.join(_KNOWN)}, or module:factory"
        )
    return name, settings


def _factory(name: str) -> Callable[..., Any]:
    if name in _KNOWN:
        return _KNOWN[name]()
    if ":" not in name:
        raise ConfigurationError(
            f"unknown environment {name!r}; there are {', '.join(_KNOWN)}, or your own as module:factory"
        )
    from reflexion._imports import load_object

    found = load_object(name, "the environment")
    if not callable(found):
        raise ConfigurationError(f"the environment {name!r} is neither a class nor a function")
    return cast("Callable[..., Any]", found)


def environment_fingerprint(problem: Problem) -> str | None:
    """What tells a version of the environment's code from another: part of a trial's cache key."""
    found = environment_of(problem)
    return None if found is None else _fingerprint(found[0])


@lru_cache(maxsize=256)
def _fingerprint(name: str) -> str:
    from reflexion.actors.tools import source_digest

    return source_digest(_factory(name))


def check_environment(problem: Problem) -> None:
    """Make sure that a problem's environment can be had; one of your own is not made for that.

    Raises:
        ConfigurationError, DatasetError: as `open_environment` would raise them.
    """
    found = environment_of(problem)
    assert found is not None, "only problems with an environment are acted in"
    name, settings = found
    factory = _factory(name)
    _check_settings(problem, name, factory, settings)
    if name in _KNOWN:
        factory(**settings)


def _check_settings(problem: Problem, name: str, factory: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    try:
        inspect.signature(factory).bind(**settings)
    except TypeError as exc:
        raise DatasetError(f"problem {problem.id!r}: field 'environment': {name!r} does not take that: {exc}") from None
    except ValueError:
        pass  # a builtin without a signature says so itself


def open_environment(problem: Problem) -> Environment:
    """A fresh environment for one trial of a problem.

    Raises:
        ConfigurationError: there is no such environment, or it cannot be imported.
        DatasetError: its settings are wrong.
    """
    found = environment_of(problem)
    assert found is not None, "only problems with an environment are acted in"
    name, settings = found
    factory = _factory(name)
    _check_settings(problem, name, factory, settings)
    try:
        made = factory(**settings)
    except ConfigurationError:
        raise
    except Exception as exc:  # someone else's code may raise anything
        raise DatasetError(
            f"problem {problem.id!r}: field 'environment': {name!r} cannot be made: {type(exc).__name__}: {exc}"
        ) from exc
    if not isinstance(made, Environment):
        raise ConfigurationError(f"the environment {name!r} gave {type(made).__name__}, which lacks reset or step")
    return made


def state_of(value: Any) -> State:
    """A state out of what a method returned: a `State`, its fields in order or by name, or an observation.

    Rewards beyond 0 and 1 count as these.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(value, str):
        value = (value,)
    elif isinstance(value, Mapping):
        value = tuple(State(**cast("dict[str, Any]", value)))
    if not isinstance(value, tuple):
        raise TypeError(f"a state is (observation, reward, done), not {type(value).__name__}")
    observation, reward, done = (*cast("tuple[Any, ...]", value), *State("")[len(cast("tuple[Any, ...]", value)) :])
    if not isinstance(observation, str) or not isinstance(reward, int | float) or not math.isfinite(reward):
        raise TypeError("a state is (observation: str, reward: float, done: bool)")
    return State(observation, min(1.0, max(0.0, float(reward))), bool(done))
