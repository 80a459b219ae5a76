"""Comparisons with a reference answer: exact, exact after normalisation, token F1, contains, numeric, choice."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from reflexion.evaluators.common import BaseEvaluator, accepted_answers, needs_answer, quoted, references
from reflexion.evaluators.reading.answers import Statement, stated_answer
from reflexion.evaluators.reading.matching import first_sentence, number_meant, number_stated, same_answer
from reflexion.evaluators.reading.multiple_choice import chosen_option, option_of, read_options
from reflexion.evaluators.reading.normalisation import clean, folded, is_unspaced, normalize_answer
from reflexion.evaluators.reading.quantities import Quantity, all_numbers, equal, whole_number
from reflexion.loop.thought import split_thought
from reflexion.types import Evaluation, Problem, Trial

__all__ = ["Choice", "Contains", "ExactMatch", "NormalizedMatch", "Numeric", "TokenF1", "token_f1"]


class ExactMatch(BaseEvaluator):
    """The answer is the reference, compared by what that is.

    A number, or a text that is one, as a number: whole numbers exactly, others within their millionth part. `true` and
    `false` as yes and no, formulas by their meaning, objects as JSON. All else as a text: case, quotation marks, marks
    of layout, an article before it and punctuation at its end do not count; signs within it do.
    """

    def check(self, problem: Problem) -> str | None:
        """Some accepted answer must be met by a reply that gives it."""
        wanted = references(problem)
        if wanted and not any(_can_be_met(r) for r in wanted):
            shown = quoted(accepted_text(wanted[0]), 40)
            return f"field 'answer' is {shown}, which no reply can meet, not even itself: give the answer as plain text"
        return super().check(problem)

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by comparison."""
        statement = stated_answer(trial.answer)
        if any(same_answer(statement, trial.answer, r) for r in references(problem)):
            return self.passed()
        feedback = f"The answer {quoted(statement.text)} is wrong."
        if not statement.marked and len(trial.answer.split()) > 30:
            feedback += " End with a line `Answer: ` and nothing but the answer."
        return self.wrong(problem, feedback)


_PLAIN = re.compile(r"[\w .,'-]{0,200}", re.ASCII)


def _can_be_met(reference: Any) -> bool:
    """Whether a reply that is the reference, or marks it, would pass: it may be read as thoughts, or as nothing."""
    if not isinstance(reference, str) or _PLAIN.fullmatch(reference) is not None:
        return True
    for reply in (reference, f"Answer: {reference}"):
        told = split_thought(reply)
        if not told.cut and told.answer.strip() and same_answer(stated_answer(told.answer), told.answer, reference):
            return bool(clean(reference).strip())
    return False


class NormalizedMatch(BaseEvaluator):
    """Exact match (EM) after the normalisation of SQuAD and HotpotQA; the paper's measure for HotpotQA (section 4.2).

    Case, punctuation and articles do not count, not within the answer either.
    """

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by comparison."""
        statement = stated_answer(trial.answer)
        readings = {_normal(t) for t in dict.fromkeys((trial.answer, *_readings(statement)))}
        if any(_normal(r) in readings for r in accepted_answers(problem)):
            return self.passed()
        return self.wrong(problem, f"The answer {quoted(statement.text)} is wrong.")


def _normal(text: str) -> str:
    # An answer that is all punctuation or articles would normalise to nothing and match any other such.
    return normalize_answer(text) or text.strip()


def _readings(statement: Statement) -> tuple[str, ...]:
    """A reply's answer as the scorers of question answering take it: whole, or without what explains it."""
    return (statement.text, *((first_sentence(statement.text),) if statement.marked else ()))


def token_f1(answer: str, reference: str) -> float:
    """F1 of the tokens two texts share after normalisation, 0 to 1; yes, no and noanswer match whole only."""
    normal = normalize_answer(answer)
    return _f1(normal, Counter(normal.split()), normalize_answer(reference))


def _f1(left: str, counted: Counter[str], right: str) -> float:
    special = {"yes", "no", "noanswer"}
    if left != right and (left in special or right in special):
        return 0.0
    wanted = Counter(right.split())
    common = sum(min(number, counted[token]) for token, number in wanted.items())
    if not common:
        return float(left == right)
    return 2 * common / (counted.total() + wanted.total())


class TokenF1(BaseEvaluator):
    """HotpotQA's and SQuAD's token F1, passed from a threshold on."""

    def __init__(self, name: str, *, threshold: float = 0.8, reveal_answers: bool = False) -> None:
        super().__init__(name, reveal_answers=reveal_answers)
        self._threshold = threshold

    @property
    def config(self) -> dict[str, Any]:
        """Includes the threshold."""
        return {**super().config, "threshold": self._threshold}

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by the F1 of what the reply states with the accepted answer next to it."""
        statement = stated_answer(trial.answer)
        readings = {normalize_answer(t) for t in dict.fromkeys(_readings(statement))}
        normal = [(reading, Counter(reading.split())) for reading in readings]
        wanted = [normalize_answer(r) for r in accepted_answers(problem)]
        score = max(_f1(reading, counted, r) for r in wanted for reading, counted in normal)
        if score >= self._threshold:
            return self.passed(score)
        closeness = "has nothing in common with" if score == 0 else f"overlaps by F1 {score:.2f} with"
        return self.wrong(
            problem,
            f"The answer {quoted(statement.text)} {closeness} the right one; {self._threshold:g} is needed.",
            score,
        )


class Contains(BaseEvaluator):
    """The reply contains an accepted answer: a text as whole words, a number as a number."""

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by containment."""
        reply: str | None = None
        numbers: list[Quantity] | None = None
        for reference in references(problem):
            wanted = number_meant(reference)
            if wanted is None:
                text = folded(reference if isinstance(reference, str) else accepted_text(reference))
                reply = folded(trial.answer) if reply is None else reply
                if text and _contains(reply, text):
                    return self.passed()
                continue
            if numbers is None:
                numbers = all_numbers(trial.answer[-_LONGEST:], _MOST_NUMBERS)
            if any(equal(number, wanted) for number in numbers):
                return self.passed()
        return self.wrong(problem, "The reply does not contain the right answer.")


_LONGEST, _MOST_NUMBERS = 10_000, 1_000
"""Characters, from the end, in which a number is looked for, and how many of them are."""


def accepted_text(reference: Any) -> str:
    """A reference that is no text as one."""
    return {True: "true", False: "false"}[reference] if isinstance(reference, bool) else str(reference)


def _contains(reply: str, text: str) -> bool:
    """Whether a text stands in a reply as whole words, and not as part of `C#`, `1.5` or `-5`."""
    before = r"(?<![\w#+])(?<!\d[.,])" if text[0].isalnum() else r"(?<!\S)"
    after = r"(?![\w#]|\+\+|[.,]\d)" if text[-1].isalnum() else r"(?!\w)"
    # Chinese, Japanese and Thai put no space between words.
    before, after = "" if is_unspaced(text[0]) else before, "" if is_unspaced(text[-1]) else after
    return re.search(before + re.escape(text) + after, reply) is not None


class Numeric(BaseEvaluator):
    """The number a reply states equals the reference: the marked one, else the last, as GSM8K is scored.

    Whole numbers must be met exactly, others within their millionth part. A tolerance of one's own is relative to
    the reference, and absolute for a reference of 0.
    """

    def __init__(self, name: str, *, tolerance: float | None = None, reveal_answers: bool = False) -> None:
        super().__init__(name, reveal_answers=reveal_answers)
        self._tolerance = tolerance

    @property
    def config(self) -> dict[str, Any]:
        """Includes the tolerance."""
        return {**super().config, "tolerance": self._tolerance}

    def check(self, problem: Problem) -> str | None:
        """Each accepted answer must be a number, alone or with its unit."""
        for reference in references(problem):
            if _wanted(reference) is None:
                shown = quoted(reference if isinstance(reference, str) else str(reference), 40)
                return (
                    f"field 'answer' is {shown}, which is not a number: give the number alone, "
                    "or compare texts with the evaluator 'exact'"
                )
        return super().check(problem)

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by the one number that the reply states."""
        number = number_stated(stated_answer(trial.answer), trial.answer)
        if number is None:
            return self.failed("The reply states no number. End with the number asked for.", "NoNumber")
        if any(w is not None and equal(number, w, self._tolerance) for w in map(_wanted, references(problem))):
            return self.passed()
        return self.wrong(problem, f"The number {number.text[:60]} is wrong.")


def _wanted(reference: Any) -> Quantity | None:
    meant = number_meant(reference)
    return whole_number(reference, units=True) if meant is None and isinstance(reference, str) else meant


class Choice(BaseEvaluator):
    """Multiple choice: the reply decides for the right option, by its label or by its text.

    Options are read from the prompt: `A) text`, `(A) text`, `A. text`, `1) text`, a line each or in one. The
    reference is a label, an option's text, or a whole number that counts lettered options from 0, as in MMLU.
    """

    def check(self, problem: Problem) -> str | None:
        """Each accepted answer must name an option."""
        options = read_options(problem.prompt)
        for reference in references(problem):
            if option_of(reference, options) is None:
                named = f"none or two of the options {', '.join(options)}: give the right letter"
                if not options:
                    named = "no letter, and the prompt shows no options: write them as 'A) text', a line each"
                return f"field 'answer' is {quoted(str(reference), 40)}, which names {named}"
        return needs_answer(problem, self.name)

    async def judge(self, problem: Problem, trial: Trial) -> Evaluation:
        """Judge by the option chosen."""
        options = read_options(problem.prompt)
        chosen = chosen_option(trial.answer, options)
        if chosen is None:
            letters = f" ({', '.join(options)})" if options else ""
            return self.failed(f"The reply chooses none of the options{letters}. Name one by its letter.", "NoChoice")
        if chosen in {option_of(r, options) for r in references(problem)}:
            return self.passed()
        return self.wrong(problem, f"The choice {chosen} is wrong.")
