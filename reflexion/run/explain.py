"""Why a step of one run was not answered from what another run had computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import JsonValue

from reflexion.cache.step_cache import CachedStep, StepCache
from reflexion.errors import ConfigurationError
from reflexion.keys import differences
from reflexion.run.run_folder import RunFolder
from reflexion.types import Episode, Frozen, StepName

__all__ = ["Explanation", "FieldDifference", "StepComparison", "explain_runs"]

Side = Literal["a", "b"]

_DIGESTS = {"problem", "prompt", "lessons", "last", "answer", "feedback"}
"""Fields that stand for texts: what is shown of them is the beginning of a digest."""


class FieldDifference(Frozen):
    """A field in which two keys differ."""

    field: str
    a: JsonValue
    b: JsonValue

    def __str__(self) -> str:
        name, a, b = self.field, self.a, self.b
        if name in _DIGESTS:
            return f"{name} digest {_short(a)} → {_short(b)}"
        # Sampling parameters and the model's own fields are known by their last name.
        for prefix in ("sampling.", "model."):
            name = name.removeprefix(prefix)
        return f"{name} {_plain(a)} → {_plain(b)}"


def _short(value: JsonValue) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_short(v) for v in value) + "]"
    return "none" if value is None else str(value)[:8]


def _plain(value: JsonValue) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "none" if value is None else str(value)


class StepComparison(Frozen):
    """The same step of the same episode in two runs."""

    step: StepName
    trial: int
    state: Literal["same", "different", "only_a", "only_b"]
    differences: tuple[FieldDifference, ...] = ()
    gone: tuple[Side, ...] = ()
    """Runs whose entry is no longer in the cache: it expired or was cleared, so its fields are not known."""


class Explanation(Frozen):
    """How the cacheable steps of one episode compare in two runs."""

    run_a: str
    run_b: str
    problem: str
    repeat: int
    steps: tuple[StepComparison, ...]


async def explain_runs(
    a: RunFolder, b: RunFolder, problem: str, cache_a: StepCache, cache_b: StepCache, *, repeat: int = 0
) -> Explanation:
    """Compare the cache keys of one episode's steps in two runs.

    Args:
        a: the one run.
        b: the other.
        problem: id of the problem.
        cache_a: the cache run `a` used.
        cache_b: the cache run `b` used.
        repeat: which of the problem's episodes, from 0.

    Raises:
        ConfigurationError: a run has no record of this episode, or no keys.
        StorageError: a record cannot be read.
    """
    keys_a, keys_b = keys_of(a, problem, repeat), keys_of(b, problem, repeat)
    # Only what differs is looked up: equal keys need no explanation.
    wanted = [step for step in keys_a.keys() & keys_b.keys() if keys_a[step] != keys_b[step]]
    found_a = await cache_a.get_many([keys_a[step] for step in wanted])
    found_b = await cache_b.get_many([keys_b[step] for step in wanted])
    steps: list[StepComparison] = []
    for step, trial in [*keys_a, *(s for s in keys_b if s not in keys_a)]:
        key_a, key_b = keys_a.get((step, trial)), keys_b.get((step, trial))
        if key_a is None or key_b is None:
            steps.append(StepComparison(step=step, trial=trial, state="only_a" if key_a else "only_b"))
        elif key_a == key_b:
            steps.append(StepComparison(step=step, trial=trial, state="same"))
        else:
            steps.append(_compared(step, trial, found_a.get(key_a), found_b.get(key_b)))
    order = {"trial": 0, "evaluate": 1, "reflect": 2}
    steps.sort(key=lambda s: (s.trial, order.get(s.step, 3)))
    return Explanation(run_a=a.name, run_b=b.name, problem=problem, repeat=repeat, steps=tuple(steps))


def _compared(step: StepName, trial: int, a: CachedStep | None, b: CachedStep | None) -> StepComparison:
    sides: dict[Side, CachedStep | None] = {"a": a, "b": b}
    gone: list[Side] = [side for side, entry in sides.items() if entry is None]
    found: list[FieldDifference] = []
    if a is not None and b is not None:
        found = [FieldDifference(field=name, a=left, b=right) for name, left, right in _differences(a.fields, b.fields)]
    return StepComparison(step=step, trial=trial, state="different", differences=tuple(found), gone=tuple(gone))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    # A group of fields that one side lacks is named field by field too.
    lacking = {name: {} for name in {*a, *b} if isinstance(a.get(name) or b.get(name), Mapping)}
    return differences(_filled(a, lacking), _filled(b, lacking))


def _filled(fields: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    return {**groups, **{name: value for name, value in fields.items() if value is not None or name not in groups}}


def keys_of(run: RunFolder, problem: str, repeat: int = 0) -> dict[tuple[StepName, int], str]:
    """The cache keys of one episode's steps, by step and trial, in the episode's order.

    Raises:
        ConfigurationError: there is no record of this episode, or it has no keys.
        StorageError: the record cannot be read.
    """
    if not run.recorded(problem, repeat):
        which = f"problem {problem!r}" + (f", repeat {repeat}" if repeat else "")
        raise ConfigurationError(f"{run.path} has no record of {which}")
    episode: Episode = next(run.episodes([(problem, repeat)]))
    keys: dict[tuple[StepName, int], str] = {}
    for trial in episode.trials:
        for step, output in episode.model_copy(update={"trials": (trial,)}).outputs():
            if output.key is not None:
                keys[step, trial.index] = output.key
    if not keys:
        raise ConfigurationError(f"{run.path} has no cache keys for problem {problem!r}: no step of it came to its end")
    return keys
