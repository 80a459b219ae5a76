"""Readers of model output: whatever a reply holds, they raise nothing of their own and take no time to speak of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reflexion.errors import ReflexionError
from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.reading.answers import stated_answer
from reflexion.evaluators.reading.expressions import constant, same_formula
from reflexion.evaluators.reading.json_values import extract_json, json_objects
from reflexion.evaluators.reading.latex import plain
from reflexion.evaluators.reading.multiple_choice import chosen_option, read_options
from reflexion.evaluators.reading.normalisation import clean, folded
from reflexion.evaluators.reading.quantities import all_numbers, first_number, last_number, whole_number
from reflexion.evaluators.reading.verdicts import read_preference, read_vote
from reflexion.loop.thought import split_thought
from reflexion.types import Problem, Trial
from tests.support.timing import MOST_SECONDS, idle_seconds

SIZE = 100_000
"""Bytes of a long reply."""
OPTIONS = {"A": "red", "B": "green", "C": "5"}

FRAGMENTS = [
    "`", "```\n", "```json\n", "~~~\n", "\n", " ", " \n", "\t", "[", "{", "(", "[]", "{}", "[1,", '{"', '{"a":', "}",
    "]", '"', "\\", '\\"', "7", "1,", "11,", "111,", "1 ", "111 ", "1.", "111.", "1:", "1/", "1 1/", "1e", "1^", "-",
    "- ", "1-1", "$", "$1", "%", "*", "**", "_", "#", "#### ", "#### 1\n", "<think>", "</think>", "<think>\n",
    "[THINK]", "<think ", "<|channel|>", "<|channel|>final<|message|>", "<answer>", "</answer>", "\\boxed{", "\\boxed",
    "\\frac{", "\\frac", "\\text{", "\\sqrt{", "\\(", "Finish[", "answer", "answer ", "answer: ", "answer:\n",
    "the answer is ", "answer to ", "Result: ", "A ", "A) ", "A)\n", "A) x\n", "(B)", "A, ", "B or ", "option ",
    "passed: true ",
    '{"passed": true}', '"passed": ', "better", "\u00bd", "\u00b2", "\u0661", "\u7b54", "\u7b54\u6848\uff1a", "\u0130",
    "\u202f", "\ud800", "\x00", "x", "red ", "1 million ", "1)/(2", "US$", "not ", "e\u0301", "\u2028", "because ", "|",
    "\u0301\u0323", "\u0301\u0323\u200b", "\uff9e\u0301", "\ufdfa", "\u2014", "\u00b2a", "\u0661a", "\u33af",
    "\U0001d7d8", "...", "!?",
    "is not ", ", ", "result: \n", "antwort ", "or ", "\\{", "\\\\", "\\sqrt[", "}{", "[]\n```\n", "[THINK]\\\"B or ",
    "11 ", "A) x B) y or ", "1. ", "[[", "]]", '"a": ', "\\frac{1}{", "2\\frac12", "**A**", "\r", "'",
]  # fmt: skip

READERS: dict[str, Callable[[str], Any]] = {
    "thought": split_thought,
    "answer": stated_answer,
    "clean": clean,
    "folded": folded,
    "latex": plain,
    "first number": first_number,
    "last number": last_number,
    "whole number": whole_number,
    "numbers": lambda text: all_numbers(text[-10_000:], 1_000),
    "constant": constant,
    "formula": lambda text: same_formula(text, r"\frac{1}{2}"),
    "options": read_options,
    "choice": lambda text: chosen_option(text, OPTIONS),
    "JSON": extract_json,
    "JSON objects": lambda text: json_objects(text[:10_000]),
    "vote": read_vote,
    "preference": read_preference,
}

EVALUATORS: dict[str, tuple[str, Any]] = {
    "exact text": ("exact", "Paris"),
    "exact number": ("exact", 12_000),
    "exact formula": ("exact", r"\frac{\sqrt{3}}{2}"),
    "exact yes": ("exact", True),
    "exact JSON": ("exact", {"a": [1]}),
    "em": ("em", ["Paris", "Rome"]),
    "f1": ("f1", "Barack Obama"),
    "contains text": ("contains", "C#"),
    "contains number": ("contains", "-1.5"),
    "numeric": ("numeric", "1/2"),
    "choice": ("choice", "B"),
    "regex": ("regex", r"^(\S+\s?)+$"),
    "regex of many ways": ("regex", r"(a|b|ab|.)*\1c"),
    "JSON schema": ("json_schema", {"type": "object", "additionalProperties": {"pattern": "^(a+)+$"}}),
}


def seconds(call: Callable[[], Any]) -> float:
    """Processor time of a call, as on an idle machine; what callers expect to be raised is no matter."""

    def quiet() -> None:
        with suppress(ReflexionError, ValueError):
            call()

    return idle_seconds(quiet)


def judged(name: str, reply: str) -> float:
    """Processor time of a verdict, as on an idle machine."""
    spec, answer = EVALUATORS[name]
    problem = Problem(id="p", prompt="Which?\nA) red\nB) green", answer=answer)
    evaluator = resolve_evaluator(spec, problem)
    assert evaluator.check(problem) is None

    def judge() -> None:
        verdict = asyncio.run(evaluator.evaluate(problem, Trial(index=1, answer=reply)))
        assert isinstance(verdict.passed, bool)

    return idle_seconds(judge)


def flood(fragment: str) -> str:
    return fragment * max(1, SIZE // max(1, len(fragment.encode(errors="surrogatepass"))))


@pytest.mark.parametrize("name", READERS)
def test_no_flood_of_one_sign_takes_a_reader_long(name: str) -> None:
    slow = {f: s for f in FRAGMENTS if (s := seconds(lambda f=f: READERS[name](flood(f)))) > MOST_SECONDS}
    assert slow == {}


@pytest.mark.parametrize("name", EVALUATORS)
def test_no_flood_of_one_sign_takes_an_evaluator_long(name: str) -> None:
    slow = {f: s for f in FRAGMENTS if (s := judged(name, flood(f))) > MOST_SECONDS}
    assert slow == {}


RUNS = [before + sign * 3_900 + "x" for before in ("A ", "option", "1") for sign in ".!;,:=-*`$({\\1a \n\t\"'"]


@pytest.mark.parametrize("name", READERS)
def test_no_run_of_one_sign_takes_a_reader_long(name: str) -> None:
    assert [r[:10] for r in RUNS if seconds(lambda r=r: READERS[name](r)) > MOST_SECONDS] == []


BRACKETS = [
    ("[", "]"), ("{", "}"), ('{"a":', "}"), ("(", ")"), ("\\boxed{", "}"), ("\\frac{1}{", "}"), ("\\sqrt{", "}"),
    ("<think>", "</think>"), ("<answer>", "</answer>"), ("Finish[", "]"), ("**", "**"), ('"', '"'),
]  # fmt: skip
NESTED = [
    (opening * 1_000 + inner + closing * 1_000) for opening, closing in BRACKETS for inner in ("", "1", "Answer: 5")
]


@pytest.mark.parametrize("name", READERS)
def test_a_thousand_brackets_are_no_trouble(name: str) -> None:
    assert [n[:20] for n in NESTED if seconds(lambda n=n: READERS[name](n)) > MOST_SECONDS] == []


@pytest.mark.parametrize("name", EVALUATORS)
def test_a_thousand_brackets_are_a_verdict(name: str) -> None:
    assert [n[:20] for n in NESTED if judged(name, n) > MOST_SECONDS] == []


TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), min_size=1, max_size=40).map("".join)


def too_slow(reply: str) -> dict[str, float]:
    return {name: s for name, reader in READERS.items() if (s := seconds(lambda r=reader: r(reply))) > MOST_SECONDS}


@given(TEXTS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_readers_raise_nothing_of_their_own(text: str) -> None:
    for reader in READERS.values():
        try:
            reader(text)
        except (ReflexionError, ValueError):
            assert reader is extract_json


@given(TEXTS, st.integers(1, 5_000))
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_readers_take_no_time_over_what_repeats(text: str, times: int) -> None:
    assert too_slow(flood(text)[: len(text) * times]) == {}


@given(TEXTS, st.sampled_from(FRAGMENTS))
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_readers_take_no_time_over_what_does_not_repeat(before: str, after: str) -> None:
    times = SIZE // len(f"{before}12345{after}".encode(errors="surrogatepass"))
    assert too_slow("".join(f"{before}{number}{after}" for number in range(times))) == {}


@given(st.sampled_from(FRAGMENTS), st.sampled_from(FRAGMENTS), st.sampled_from(FRAGMENTS), st.integers(1, SIZE))
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_readers_take_no_time_over_a_gap(before: str, within: str, after: str, length: int) -> None:
    gap = flood(within)[:length]
    assert too_slow(before + gap + after) == {}
    assert too_slow(flood(before + gap[: length // 100] + after)) == {}
