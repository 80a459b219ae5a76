"""Whose verdict: which fields of a file look like a prompt or a reference and are not used as one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from reflexion.types import Problem

if TYPE_CHECKING:
    from reflexion.datasets.dataset import Dataset

__all__ = ["VerdictTally", "suggested_maps", "tally_inferred", "unjudged_note", "verdict_notes"]

_PROMPTS = ("prompt", "question", "problem", "input", "instruction", "query", "text", "task", "messages", "description")
_ANSWERS = (
    "answer",
    "expected",
    "target",
    "label",
    "gold",
    "ideal",
    "reference",
    "output",
    "solution",
    "response",
    "completion",
    "truth",
    "correct",
    "result",
    "aliases",
    "answers",
)
_TESTS = ("tests", "test", "asserts", "testcases", "unittest", "checks")
_NEVER = ("id", "level", "type", "source", "difficulty", "category", "subject", "split", "seed", "date", "topic")
_CODE = re.compile(r"^\s*(?:assert\b|def check\b|class \w+\(.*TestCase)", re.MULTILINE)
_STATEMENTS = re.compile(r"^\s*(?:def \w+\(|class \w+\s*[(:]|return\b|import \w|from \w+ import\b)", re.MULTILINE)
_TESTING = re.compile(r"\bassert\s|\bunittest\b|\bdef check\b")
_MOST = 3
"""Mappings proposed at once."""


def suggested_maps(record: Mapping[str, Any], wanted: Sequence[str] = ("prompt", "tests", "answer")) -> list[str]:
    """Mappings that a record's fields suggest by their names and contents, as options of the command line."""
    kinds = {"prompt": _PROMPTS, "tests": _TESTS, "answer": _ANSWERS}
    found: list[str] = []
    taken: set[str] = set()
    for ours in wanted:
        candidates = [
            (rank, path)
            for path, value in _paths(record)
            if path not in taken and path != ours and (rank := _rank(ours, kinds[ours], path, value)) is not None
        ]
        if candidates:
            path = min(candidates)[1]
            taken.add(path)
            found.append(f"--map {_quoted(f'{ours}={path}')}")
    if "answer" in wanted and not any(m.startswith(("--map answer", "--map 'answer")) for m in found):
        turns = [path for path in map(_last_turn, record.items()) if path is not None]
        found += [f"--map {_quoted(f'answer={path}')}" for path in turns[:1]]
    return found[:_MOST]


def _last_turn(field: tuple[str, Any]) -> str | None:
    """The path to the answer that a chat ends with, or None."""
    from reflexion.datasets.formats.messages import ends_with_answer  # formats import this module

    name, value = field
    last: Any = cast("list[Any]", value)[-1] if isinstance(value, list) and value else None
    if not isinstance(last, dict) or not ends_with_answer(value):
        return None
    return f"{name}.-1.{'content' if 'content' in last else 'value'}"


def _quoted(text: str) -> str:
    return f"'{text}'" if re.search(r"[^\w=.\-+]", text) else text


def _paths(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Fields, and those one level below them."""
    out: list[tuple[str, Any]] = []
    for name, value in record.items():
        if value in (None, "", []):
            continue
        out.append((name, value))
        if isinstance(value, dict):
            out += [(f"{name}.{inner}", v) for inner, v in cast("dict[str, Any]", value).items() if v is not None]
    return out


def _rank(ours: str, names: Sequence[str], path: str, value: Any) -> tuple[int, int] | None:
    """How likely a field is the one wanted, smaller is better; None: it is not."""
    words = [w for w in re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path.rpartition(".")[2]).lower()) if w]
    code = _is_tests(value)
    if ours == "tests":
        return (0, 0) if code else (1, 0) if set(words) & set(names) and isinstance(value, str | list) else None
    # What is in an object is looked at by itself.
    unlikely = isinstance(value, dict) or (ours == "prompt" and not isinstance(value, str | list))
    if ours == "answer" and isinstance(value, str) and _STATEMENTS.search(value) is not None:
        return None  # a solution in code: no reply would be the same text
    if code or unlikely or any(w in _NEVER for w in words):
        return None
    joined = "".join(words)
    if joined in names:
        return (0, names.index(joined))
    known = [w for w in words if w in names]
    close = known or get_close_matches(joined, names, n=1, cutoff=0.8)
    return (1 if known else 2, names.index(close[0])) if close else None


def _is_tests(value: Any) -> bool:
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return bool(items) and all(_is_tests(item) for item in items[:3])
    if isinstance(value, dict):
        return {"input", "output"} <= cast("dict[str, Any]", value).keys()
    return isinstance(value, str) and bool(_CODE.search(value) or (value[:1] == "[" and _TESTING.search(value)))


@dataclass
class VerdictTally:
    """Counts which evaluator judges how many problems, as far as the files leave it open."""

    asked: bool = False
    """Whether the user named an evaluator for the whole run."""
    counts: Counter[str] = field(default_factory=Counter[str])
    total: int = 0
    unjudged: int = 0
    """Problems that a model judges because nothing to compare with was found."""
    first: tuple[int | None, Problem] | None = None
    """The first of these, with its row."""
    position: int = 0
    """Its place among the problems, from 0."""

    def add(self, row: int | None, problem: Problem, evaluator: str) -> None:
        """Count one problem, and the name of what judges it."""
        place, self.total = self.total, self.total + 1
        if self.asked or problem.evaluator is not None:
            return
        self.counts[evaluator] += 1
        if evaluator.partition(":")[0] == "judge":
            self.unjudged += 1
            if self.first is None:
                self.first, self.position = (row, problem), place


def tally_inferred(dataset: Dataset, *, asked: bool) -> VerdictTally:
    """Who would judge the problems of a dataset, without opening any evaluator."""
    from reflexion.evaluators.resolve import infer_evaluator

    tally = VerdictTally(asked)
    for row, problem in dataset.numbered():
        tally.add(row, problem, problem.evaluator or infer_evaluator(problem))
    return tally


def verdict_notes(dataset: Dataset, tally: VerdictTally, *, actor: str, judge: str) -> tuple[str, ...]:
    """What a user should know about a run's verdicts before its first call, a line each.

    Args:
        dataset: what the run is about.
        tally: of its problems.
        actor: name of the model that answers.
        judge: name of the model that judges.
    """
    record = dataset.record(tally.position) if tally.first is not None else {}
    return tuple(filter(None, (dataset.note, unjudged_note(tally, record, actor=actor, judge=judge))))


def unjudged_note(tally: VerdictTally, record: Mapping[str, Any], *, actor: str, judge: str) -> str | None:
    """One line on problems without a reference or tests, and on files judged in several ways; None: nothing to say.

    Args:
        tally: of the problems of a run.
        record: the fields of the first one without a reference.
        actor: name of the model that answers.
        judge: name of the model that judges.
    """
    if tally.first is None:
        if len(tally.counts) < 2:
            return None
        shares = ", ".join(f"{count} by {name}" for name, count in tally.counts.most_common())
        return f"the problems are judged in several ways: {shares}"
    row, problem = tally.first
    who = f"the model {actor} judges its own answers" if judge == actor else f"the model {judge} judges"
    where = "the first" if row is None else f"row {row}"
    nothing = (None, "", [], [None])
    empty = [repr(n) for n in ("answer", "tests", "visible_tests") if n in record and record[n] in nothing]
    lacks = f"{where} has " + (f"an empty {' and '.join(empty)}" if empty else "neither answer nor tests")
    if tally.unjudged == tally.total:
        of = f" in any of {tally.total} problems" if tally.total > 1 else ""
        text = f"no reference was found{of} ({lacks}): {who}"
    else:
        others = ", ".join(f"{n} by {name}" for name, n in tally.counts.most_common() if not _is_judge(name))
        elsewhere = tally.total - sum(tally.counts.values())
        others = ", ".join(filter(None, [others, f"{elsewhere} as they themselves ask" if elsewhere else ""]))
        text = f"the problems are judged in several ways: {others}, and {tally.unjudged} without a reference ({lacks})"
        text = f"{text}: {who}"
    maps = suggested_maps(problem.metadata, ("tests", "answer"))
    if maps:
        names = " and ".join(repr(m.partition("=")[2].rstrip("'")) for m in maps)
        plural = "s" if len(maps) > 1 else ""
        looks = "look like a reference" if plural else "looks like a reference"
        return f"{text}. Unused field{plural} {names} {looks}: {' or '.join(maps)}"
    unused = ", ".join(map(repr, problem.metadata))
    cure = "give a reference with --map answer=FIELD or --map tests=FIELD, or name an --evaluator"
    return f"{text}. {f'Unused fields: {unused}; {cure}' if unused else cure[0].upper() + cure[1:]}"


def _is_judge(name: str) -> bool:
    return name.partition(":")[0] == "judge"
