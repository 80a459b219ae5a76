"""Forms that a reply must have: a regular expression, a JSON schema. Both are bounded in time on any reply."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from reflexion.evaluators.common import BaseEvaluator, accepted_answers, quoted
from reflexion.evaluators.reading.answers import Statement, stated_answer
from reflexion.evaluators.reading.json_values import extract_json, load_json
from reflexion.types import Evaluation, Problem, Trial

if TYPE_CHECKING:
    import regex
    from jsonschema_rs import ValidationError

__all__ = ["JsonSchema", "Regex"]

_SECONDS = 0.02
"""Processor time that the search for all patterns may take: it runs where all other work waits."""
_MOST_MATCHES = 1_000


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> regex.Pattern[str]:
    import regex

    return regex.compile(pattern)


class Regex(BaseEvaluator):
    """The reply matches the pattern that stands in the answer.

    Of a reply that marks its answer, the match must touch what is marked.
    """

    def check(self, problem: Problem) -> str | None:
        """The answer must be a valid pattern."""
        import regex

        for pattern in accepted_answers(problem):
            try:
                compiled = _compiled(pattern)
            except (regex.error, RecursionError, OverflowError, MemoryError) as exc:
                return f"field 'answer' is not a regular expression: {exc}"
            if _matches_anything(compiled):
                return f"field 'answer' is {quoted(pattern, 40)}, which any reply matches: write what must be in it"
        return super().check(problem)

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by search."""
        statement = stated_answer(trial.answer)
        try:
            clock = _Clock()
            if any(_matches(_compiled(p), trial.answer, statement, clock) for p in accepted_answers(problem)):
                return self.passed()
        except TimeoutError:
            return self.failed(
                "The pattern was searched for too long in the reply: it can be matched in too many ways.",
                "PatternTimeout",
            )
        return self.wrong(problem, f"The answer {quoted(statement.text)} does not have the form wanted.")


_REPLIES = ("", "w", "0", "-1.5\n\u2603", "No idea, (sorry) {x}.")
"""Replies that have nothing in common."""


def _matches_anything(pattern: regex.Pattern[str]) -> bool:
    """Whether a pattern matches all of them; what it may forbid by looking around is not known."""
    if any(look in pattern.pattern for look in ("(?!", "(?=", "(?<", "[^")):
        return False
    try:
        return all(pattern.search(reply, timeout=_SECONDS) for reply in _REPLIES)
    except TimeoutError:
        return False


class _Clock:
    """The processor time that is left."""

    def __init__(self) -> None:
        self._end = time.process_time() + _SECONDS

    def left(self) -> float:
        """Seconds; `TimeoutError` where there are none."""
        seconds = self._end - time.process_time()
        if seconds <= 0:
            raise TimeoutError
        return seconds


def _matches(pattern: regex.Pattern[str], reply: str, statement: Statement, clock: _Clock) -> bool:
    for text in dict.fromkeys((statement.text, statement.line)):
        if pattern.search(text, timeout=clock.left()):
            return True
    if not statement.marked:
        return pattern.search(reply, timeout=clock.left()) is not None
    start, end = statement.start, statement.start + max(1, len(statement.text))
    for number, match in enumerate(pattern.finditer(reply, timeout=clock.left())):
        if match.start() < end and match.end() > start:
            return True
        if match.start() >= end or number >= _MOST_MATCHES:
            break
    return False


class JsonSchema(BaseEvaluator):
    """The reply holds a JSON value that satisfies the JSON schema in the answer, formats included."""

    def check(self, problem: Problem) -> str | None:
        """The answer must be a schema that stands alone and that some value satisfies."""
        if not isinstance(problem.answer, dict | bool):
            return "field 'answer' must be a JSON schema (an object) for the evaluator 'json_schema'"
        if problem.answer is False or problem.answer in ({"not": {}}, {"not": True}):
            return "field 'answer' is a JSON schema that no value satisfies: say what is wanted instead"
        try:
            _validator(json.dumps(problem.answer))
        except ValueError as exc:
            reason = str(exc).partition("\n")[0]
            if "not present in a registry" in reason or "Unknown meta-schema" in reason:
                told = "refers to another one, and none is fetched: put it under '$defs'"
                return f"field 'answer' is a JSON schema that {told} ({reason[:160]})"
            return f"field 'answer' is not a valid JSON schema: {reason[:200]}"
        return None

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by validation."""
        try:
            value = _value(trial.answer)
        except ValueError as exc:
            return self.failed(f"There is no JSON value to judge: {exc}. Answer with one JSON value only.", "NoJson")
        errors: list[ValidationError] = list(_validator(json.dumps(problem.answer)).iter_errors(value))
        if not errors:
            return self.passed()
        error = min(errors, key=lambda e: len(e.instance_path))
        where = "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.instance_path)
        # What `const` and `enum` allow is the answer itself.
        told = self._reveal or not _gives_away(error)
        reason = error.message[:300] if told else "the value is wrong"
        return self.failed(f"At {where}: {reason}.", "SchemaError", details={"errors": len(errors)})


def _gives_away(error: ValidationError) -> bool:
    return error.kind.name in ("const", "enum", "pattern", "anyOf", "oneOf", "not", "if", "allOf")


def _value(reply: str) -> Any:
    try:
        return extract_json(reply)
    except ValueError:
        statement = stated_answer(reply)
        if not statement.marked:
            raise
        return load_json(statement.text)


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.validator_for(
        json.loads(schema),
        validate_formats=True,
        offline=True,
        pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000),
    )
