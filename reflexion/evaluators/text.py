"""Comparisons with a reference answer: exact match, token F1, contains, numeric, choice, regex, JSON schema."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from reflexion.evaluators.common import BaseEvaluator, accepted_answers, quoted
from reflexion.evaluators.extract import (
    answer_candidates,
    extract_json,
    final_answer,
    last_number,
    normalize_answer,
)
from reflexion.types import Evaluation, Problem, Trial

__all__ = ["Choice", "Contains", "ExactMatch", "JsonSchema", "Numeric", "Regex", "TokenF1", "token_f1"]


class ExactMatch(BaseEvaluator):
    """Exact match after HotpotQA's normalisation; the paper's measure for HotpotQA (section 4.2).

    The whole reply, its last line, or what follows its last `Answer:` must equal an accepted answer.
    """

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by comparison."""
        wanted = {_normal(a) for a in accepted_answers(problem)}
        if any(_normal(c) in wanted for c in answer_candidates(trial.answer)):
            return self.passed()
        feedback = f"The answer {quoted(final_answer(trial.answer))} is wrong."
        if len(trial.answer.split()) > 30:
            feedback += " End with a line `Answer: ` and nothing but the answer."
        return self.wrong(problem, feedback)


def _normal(text: str) -> str:
    # An answer that is all punctuation or articles would normalise to nothing and match any other such.
    return normalize_answer(text) or text.strip()


def token_f1(answer: str, reference: str) -> float:
    """F1 of the tokens two texts share after normalisation, 0 to 1; yes, no and noanswer match whole only."""
    left, right = normalize_answer(answer), normalize_answer(reference)
    special = {"yes", "no", "noanswer"}
    if left != right and (left in special or right in special):
        return 0.0
    a, b = left.split(), right.split()
    common = sum((Counter(a) & Counter(b)).values())
    if not common:
        return float(left == right)
    return 2 * common / (len(a) + len(b))


class TokenF1(BaseEvaluator):
    """HotpotQA's token F1, passed from a threshold on."""

    def __init__(self, name: str, *, threshold: float = 0.8, reveal_answers: bool = False) -> None:
        super().__init__(name, reveal_answers=reveal_answers)
        self._threshold = threshold

    @property
    def config(self) -> dict[str, Any]:
        """Includes the threshold."""
        return {**super().config, "threshold": self._threshold}

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by the best F1 of any reading of the reply with any accepted answer."""
        references = accepted_answers(problem)
        score = max(token_f1(c, r) for c in answer_candidates(trial.answer) for r in references)
        if score >= self._threshold:
            return self.passed(score)
        shown = quoted(final_answer(trial.answer))
        closeness = "has nothing in common with" if score == 0 else f"overlaps by F1 {score:.2f} with"
        return self.wrong(
            problem, f"The answer {shown} {closeness} the right one; {self._threshold:g} is needed.", score
        )


class Contains(BaseEvaluator):
    """The reply contains an accepted answer, as whole words after normalisation."""

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by containment."""
        reply = f" {normalize_answer(trial.answer)} "
        for reference in accepted_answers(problem):
            wanted = normalize_answer(reference)
            if (wanted and f" {wanted} " in reply) or (not wanted and reference.strip() in trial.answer):
                return self.passed()
        return self.wrong(problem, "The reply does not contain the right answer.")


class Numeric(BaseEvaluator):
    """The reply's last number equals the reference within a tolerance, as GSM8K is scored.

    The tolerance is relative to the reference, and absolute for a reference of 0.
    """

    def __init__(self, name: str, *, tolerance: float = 1e-6, reveal_answers: bool = False) -> None:
        super().__init__(name, reveal_answers=reveal_answers)
        self._tolerance = tolerance

    @property
    def config(self) -> dict[str, Any]:
        """Includes the tolerance."""
        return {**super().config, "tolerance": self._tolerance}

    def check(self, problem: Problem) -> str | None:
        """The answer must hold a number."""
        for answer in accepted_answers(problem):
            if last_number(answer) is None:
                return f"field 'answer' is {quoted(answer, 40)}, which is not a number"
        return super().check(problem)

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by the last number of the stated answer, else of the whole reply."""
        numbers = [n for n in map(last_number, answer_candidates(trial.answer)) if n is not None]
        if not numbers:
            return self.failed("The reply holds no number. End with the number asked for.", "NoNumber")
        wanted = [n for n in map(last_number, accepted_answers(problem)) if n is not None]
        if any(math.isclose(numbers[0], n, rel_tol=self._tolerance, abs_tol=self._tolerance) for n in wanted):
            return self.passed()
        return self.wrong(problem, f"The number {numbers[0]:.15g} is wrong.")


_OPTION = re.compile(r"^\s*[(\[]?([A-Z])[)\].:]\s+(.+?)\s*$", re.MULTILINE)
_LETTER = re.compile(r"^\W*(?:option|choice)?\W*([A-Z])(?:[)\].:,]|\s*$|\s+[-\u2013\u2014])", re.IGNORECASE)


class Choice(BaseEvaluator):
    """Multiple choice: the reply names the right option by its letter or by its text.

    Options are read from the prompt's lines of the form `A) text`, `(A) text` or `A. text`.
    """

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by the option chosen."""
        options = {letter: normalize_answer(text) for letter, text in _OPTION.findall(problem.prompt)}
        wanted = {_option(a, options) or normalize_answer(a) for a in accepted_answers(problem)}
        chosen = next((c for c in (_option(t, options) for t in answer_candidates(trial.answer)) if c), None)
        if chosen is None:
            letters = f" ({', '.join(options)})" if options else ""
            return self.failed(f"The reply chooses none of the options{letters}. Name one by its letter.", "NoChoice")
        return self.passed() if chosen in wanted else self.wrong(problem, f"The choice {chosen} is wrong.")


def _option(text: str, options: dict[str, str]) -> str | None:
    match = _LETTER.match(text)
    if match and (not options or match[1].upper() in options):
        return match[1].upper()
    normal = normalize_answer(text)
    return next((letter for letter, option in options.items() if option and option == normal), None)


class Regex(BaseEvaluator):
    """The reply matches the pattern that stands in the answer (`re.search`)."""

    def check(self, problem: Problem) -> str | None:
        """The answer must be a valid pattern."""
        for pattern in accepted_answers(problem):
            try:
                re.compile(pattern)
            except re.error as exc:
                return f"field 'answer' is not a regular expression: {exc}"
        return super().check(problem)

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by search."""
        patterns = accepted_answers(problem)
        if any(re.search(p, t) for p in patterns for t in answer_candidates(trial.answer)):
            return self.passed()
        return self.wrong(problem, f"The answer {quoted(final_answer(trial.answer))} does not have the form wanted.")


class JsonSchema(BaseEvaluator):
    """The reply holds a JSON value that satisfies the JSON schema in the answer."""

    def check(self, problem: Problem) -> str | None:
        """The answer must be a valid schema."""
        if not isinstance(problem.answer, dict | bool):
            return "field 'answer' must be a JSON schema (an object) for the evaluator 'json_schema'"
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for

        schema: Any = problem.answer
        try:
            validator_for(schema).check_schema(schema)
        except SchemaError as exc:
            return f"field 'answer' is not a valid JSON schema: {exc.message}"
        return None

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by validation."""
        from jsonschema.exceptions import best_match
        from jsonschema.validators import validator_for

        try:
            value = extract_json(trial.answer)
        except ValueError:
            return self.failed("The reply holds no JSON value. Answer with one JSON value only.", "NoJson")
        schema: Any = problem.answer
        errors = list(validator_for(schema)(schema).iter_errors(value))
        if not errors:
            return self.passed()
        error: Any = best_match(errors)
        where = error.json_path
        # What `const` and `enum` allow is the answer itself.
        told = self._reveal or error.validator not in ("const", "enum")
        reason = str(error.message)[:300] if told else "the value is wrong"
        return self.failed(f"At {where}: {reason}.", "SchemaError", details={"errors": len(errors)})
