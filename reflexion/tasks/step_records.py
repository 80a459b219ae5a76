"""What a task run's record tells of its steps: one line for each, as JSON in the state's message.

Prefect's own fields (name, state, start, end, run count) tell when a task run ran and how it ended. They
do not tell what a model's reply took, which of several steps in one task run failed, or what was spent.
So every task run ends with a message that does, in a form that is short, since thousands are kept:

    {"started": 1700000000.0, "rss": 146.2, "items": [[name, outcome, start, waited, runs, facts], …]}

`start` is in seconds after `started`, `waited` in seconds; `facts` holds what is not zero or false, under
the short names of `_FACTS`.
"""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast, get_args

import orjson

from reflexion.telemetry.deciders import Stopper, stopper_of
from reflexion.types import Evaluation, Reflection, StepName, StepOutput, Trial, Usage

__all__ = [
    "CACHED",
    "COMPLETED",
    "JUDGED_BY_MODEL",
    "MESSAGE_LIMIT",
    "FlowNote",
    "StepRecord",
    "item_size",
    "read_message",
    "read_task_run",
    "step_of",
    "write_message",
]

MESSAGE_LIMIT = 90_000
"""Characters of a message at most: Prefect cuts what is longer than 100,000."""

JUDGED_BY_MODEL = "judged-by-model"
"""Tag of an evaluation that asks a model."""

CACHED, COMPLETED = "Cached", "Completed"

_STEPS: frozenset[str] = frozenset(get_args(StepName))
_STOPPERS: frozenset[str] = frozenset(get_args(Stopper))
_EXCEPTION = re.compile(r"exception (\w+)")
"""Where Prefect's message of a failed task run names the error."""

_ITEM_SIZE = 250
"""Characters of a line without its name, at most."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step as its task run's record tells of it.

    Attributes:
        name: step, problem, repeat and trial, as `StepCall.name` gives it.
        outcome: `Completed`, `Cached`, or the class of the error that ended it.
        start: Unix time in seconds.
        waited: seconds from its start to its end, queues and retries included.
        runs: times it was run; 0 when it was answered without.
        output: what it gave, as far as the record tells; None where it gives nothing or failed.
        complete: whether the line was written by the step; else only Prefect's own fields were there.
        stopper: of a verdict, by what it decides whether another trial follows; None: not on record.
    """

    name: str
    outcome: str
    start: float
    waited: float
    runs: int = 1
    output: StepOutput | None = None
    complete: bool = True
    stopper: Stopper | None = None

    @property
    def error(self) -> str | None:
        """Class of the error that ended it, or None."""
        return None if self.outcome in (CACHED, COMPLETED) else self.outcome


@dataclass(frozen=True, slots=True)
class FlowNote:
    """What a batch adds to its flow run's record when it ends.

    Attributes:
        task_runs: task runs it made: how a reader knows that none is missing.
        granularity: steps that shared a task run at most.
        outcomes: its episodes by how they ended.
        peak_rss_mb: peak memory of the process tree in 10^6 bytes.
        saved: tokens the cache saved.
    """

    task_runs: int
    granularity: int
    outcomes: dict[str, int]
    peak_rss_mb: float | None
    saved: int

    def to_message(self) -> str:
        """As the message of a flow run's last state."""
        return orjson.dumps({"reflexion": {name: getattr(self, name) for name in self.__slots__}}).decode()

    @classmethod
    def from_message(cls, message: str | None) -> FlowNote | None:
        """The note in a message, or None when it is some other message."""
        value = _json_object(message).get("reflexion")
        if not isinstance(value, dict):
            return None
        fields = cast("dict[str, Any]", value)
        try:
            return cls(**fields)
        except TypeError:  # of a version with other fields
            return None


def step_of(name: str) -> StepName | None:
    """The step of a task run or line by its name, or None when it is none of ours."""
    step = name.partition(":")[0]
    return cast(StepName, step) if step in _STEPS else None


def item_size(name: str) -> int:
    """Characters the line of a step takes in a message at most."""
    return _ITEM_SIZE + len(orjson.dumps(name))


def write_message(records: Sequence[StepRecord], started: float) -> str:
    """The message of a task run that carried out these steps.

    Args:
        started: when the task run began, Unix time in seconds.
    """
    lines = [
        [r.name, r.outcome, round(r.start - started, 3), round(r.waited, 4), r.runs, _facts(r.output)] for r in records
    ]
    return orjson.dumps({"started": started, "rss": _own_peak_mb(), "items": lines}).decode()


def read_message(message: str | None) -> tuple[Iterator[StepRecord], float | None] | None:
    """The steps a message tells of and the process's peak memory in 10^6 bytes.

    Returns:
        None when the message is not one of ours: Prefect's own, or cut short.
    """
    value = _json_object(message)
    items, started = value.get("items"), value.get("started")
    if not isinstance(items, list) or not isinstance(started, int | float):
        return None
    if not all(isinstance(item, list) and len(cast("list[Any]", item)) == 6 for item in cast("list[Any]", items)):
        return None  # of a version with other lines
    rss = value.get("rss")
    return _lines(cast("list[Any]", items), float(started)), rss if isinstance(rss, int | float) else None


def read_task_run(row: Mapping[str, Any]) -> tuple[Iterator[StepRecord], float | None]:
    """The steps of an ended task run as the API gives it, and its process's peak memory in 10^6 bytes.

    A task run whose message is not ours (a step Prefect answered from the cache, one that failed) is one
    step, told by Prefect's own fields: name, state, start, end and run count.
    """
    state = cast("dict[str, Any]", row.get("state") or {})
    began, ended = _seconds(row.get("start_time")), _seconds(row.get("end_time"))
    waited = 0.0 if began is None or ended is None else ended - began
    told = read_message(state.get("message"))
    if told is not None:
        lines, rss = told
        if row["name"].partition(" x")[1]:
            return lines, rss
        # A step of its own: Prefect's times are those its caller waited.
        return (replace(line, start=began, waited=waited) if began is not None else line for line in lines), rss
    # A row may be there before the state it names: what it repeats of the state is better than nothing.
    name, kind = str(row["name"]), state.get("type") or row.get("state_type")
    outcome = str(state.get("name") or row.get("state_name") or kind)
    if kind == "COMPLETED":
        outcome = CACHED if outcome == CACHED else COMPLETED
    elif kind == "FAILED":
        found = _EXCEPTION.search(state.get("message") or "")
        outcome = found[1] if found is not None else outcome
    step = step_of(name)
    output = None
    if step is not None and outcome in (CACHED, COMPLETED):
        facts = {"n": 1} if step == "evaluate" and JUDGED_BY_MODEL in (row.get("tags") or ()) else {}
        output = _output(step, facts, cached=outcome == CACHED)
    runs = int(row.get("run_count") or 0)
    return iter((StepRecord(name, outcome, began or ended or 0.0, waited, runs, output, complete=False),)), None


def _seconds(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _lines(items: list[Any], started: float) -> Iterator[StepRecord]:
    for name, outcome, start, waited, runs, facts in items:
        step = step_of(name)
        if step is not None:
            output = None if outcome not in (CACHED, COMPLETED) else _output(step, facts, cached=outcome == CACHED)
            stopper = facts.get("d")
            known = stopper if stopper in _STOPPERS else None
            yield StepRecord(name, outcome, started + start, waited, runs, output, stopper=known)


def _json_object(message: str | None) -> dict[str, Any]:
    if message is None or not message.startswith("{"):
        return {}
    try:
        value = orjson.loads(message)
    except orjson.JSONDecodeError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _facts(output: StepOutput | None) -> dict[str, Any]:
    if output is None:
        return {}
    usage = output.usage
    facts: dict[str, Any] = {
        "s": round(output.seconds, 4),
        "n": usage.calls,
        "p": usage.prompt,
        "c": usage.completion,
        "u": usage.unknown,
        "h": usage.cached_prompt,
        "k": round(usage.known_usd, 8) if usage.known_usd is not None else 0,
        "$": round(usage.cost_usd, 8) if usage.cost_usd is not None else 0,
        "r": list(output.retried[:8]),
    }
    if isinstance(output, Evaluation):
        facts |= {"e": output.evaluator, "ok": output.passed, "d": stopper_of(output)}
    if isinstance(output, Reflection) and output.reused_from is not None:
        facts["re"] = True
    # A price of nothing is a price: it must not be read as an unknown one.
    if usage.calls and usage.cost_usd is None:
        facts["$"] = -1
    return {name: value for name, value in facts.items() if value}


def _output(step: StepName, facts: dict[str, Any], *, cached: bool) -> StepOutput | None:
    if step == "memorize":
        return None
    cost = facts.get("$", 0)
    common: dict[str, Any] = {
        "usage": Usage.model_construct(
            prompt=facts.get("p", 0),
            completion=facts.get("c", 0),
            calls=facts.get("n", 0),
            unknown=facts.get("u", 0),
            cost_usd=None if cost < 0 else float(cost),
            cached_prompt=facts.get("h", 0),
            known_usd=facts.get("k"),
        ),
        "seconds": facts.get("s", 0.0),
        "retried": tuple(facts.get("r", ())),
        "cached": cached,
    }
    # Unvalidated: tens of thousands are read, and only figures are drawn from them.
    if step == "trial":
        return Trial.model_construct(index=1, answer="", **common)
    if step == "evaluate":
        passed = bool(facts.get("ok"))
        return Evaluation.model_construct(evaluator=facts.get("e", ""), passed=passed, score=float(passed), **common)
    return Reflection.model_construct(trial=1, text="", reused_from="" if facts.get("re") else None, **common)


class _OwnPeak:
    """Peak memory of this process in 10^6 bytes, asked of the system once a second at most."""

    def __init__(self) -> None:
        self._asked, self._value = 0.0, 0.0

    def __call__(self) -> float:
        now = time.monotonic()
        if now - self._asked >= 1.0 or not self._value:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self._asked, self._value = now, round((peak if sys.platform == "darwin" else peak * 1024) / 1e6, 1)
        return self._value


_own_peak_mb = _OwnPeak()
