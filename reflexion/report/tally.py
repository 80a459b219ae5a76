"""What the report shows beyond the summary, counted in one pass; and each episode as the page needs it."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from typing import Any

import orjson

from reflexion.telemetry.agreement import Agreement, Fallible, verdicts
from reflexion.telemetry.summary import asks_model
from reflexion.types import Episode

__all__ = ["BOUNDS", "LONGEST_TEXT", "LONGEST_THOUGHT", "Tally", "detail_of", "row_of"]

BOUNDS = tuple(digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5))
"""Upper bounds in seconds of the classes of response times."""

LONGEST_TEXT = 20_000
"""Characters of one text that the page carries; the record has the whole."""

LONGEST_THOUGHT = 4_000
"""Characters of one thought that the page carries: a model may think a hundred times what it says."""

_LONGEST_DIFF = 400


class Tally:
    """Counts over all episodes of a run."""

    def __init__(self) -> None:
        self.times = [0] * (len(BOUNDS) + 1)
        self.failures: dict[str, int] = {}
        self.agreements: dict[Fallible, Agreement] = {}

    def add(self, episode: Episode) -> None:
        """Count one episode."""
        for step, output in episode.outputs():
            if asks_model(step, output) and not output.cached:
                self.times[bisect_left(BOUNDS, output.seconds)] += 1
        kind = failure_of(episode)
        if kind is not None:
            self.failures[kind] = self.failures.get(kind, 0) + 1
        for name, said, true in verdicts(episode):
            self.agreements.setdefault(name, Agreement()).add(said, true)


def failure_of(episode: Episode) -> str | None:
    """Short class of what kept the episode from being solved, or None."""
    if episode.solved:
        return None
    if episode.error is not None:
        return episode.error.kind
    last = episode.trials[-1] if episode.trials else None
    if last is None or last.evaluation is None:
        return "not run"
    return last.evaluation.failure_class or "wrong answer"


def row_of(episode: Episode) -> list[Any]:
    """The episode's row of the table; the page's script knows the order."""
    outputs = [output for _, output in episode.outputs()]
    usage = episode.usage
    return [
        episode.problem_id,
        episode.repeat,
        episode.outcome.value,
        episode.solved_at,
        len(episode.trials),
        failure_of(episode),
        usage.total,
        usage.cost_usd if usage.calls else 0.0,
        round(episode.seconds, 3),
        sum(o.cached for o in outputs),
        len(outputs),
    ]


def detail_of(episode: Episode) -> dict[str, Any]:
    """All of the episode, with long texts cut and the difference of each answer from the one before."""
    text = episode.model_dump_json(exclude_defaults=True)
    detail: dict[str, Any] = orjson.loads(text)
    for trial in detail.get("trials", []):
        _cut_thought(trial)
        _cut_thought(trial.get("reflection") or {})
    if len(text) > LONGEST_TEXT:
        detail = _cut(detail)
    for before, after, shown in zip(episode.trials, episode.trials[1:], detail.get("trials", [])[1:], strict=False):
        if before.answer == after.answer:
            shown["same_as"] = before.index
        else:
            shown["diff"] = _diff(before.answer, after.answer)
    return detail


def _diff(before: str, after: str) -> list[str]:
    """Changed lines with two lines around them, as `difflib` marks them."""
    left, right = before[:LONGEST_TEXT].splitlines(), after[:LONGEST_TEXT].splitlines()
    lines = list(difflib.unified_diff(left, right, n=2, lineterm=""))[2:]
    if len(lines) > _LONGEST_DIFF:
        lines = [*lines[:_LONGEST_DIFF], f"@@ {len(lines) - _LONGEST_DIFF} more lines differ @@"]
    return lines


def _cut_thought(output: dict[str, Any]) -> None:
    thought = output.get("thought", "")
    if len(thought) > LONGEST_THOUGHT:
        output["thought"] = _shortened(thought, LONGEST_THOUGHT)
        output["thought_length"] = len(thought)


def _shortened(text: str, length: int) -> str:
    return f"{text[:length]}\n… ({len(text) - length:,} more characters in episodes.jsonl)"


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else _shortened(value, LONGEST_TEXT)
    if isinstance(value, dict):
        return {k: _cut(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_cut(v) for v in value]
    return value
