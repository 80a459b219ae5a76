"""The forms in which data sets of questions are published: their own answers are right, planted wrong ones never.

Each form is generated with odd values, 200 items, in the spellings models answer with.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reflexion.evaluators import resolve_evaluator
from reflexion.types import Problem, Trial

ITEMS = 200
Item = tuple[Problem, str | None, str, str]
"""A problem, its evaluator, a right reply and a wrong one."""

WORDS = [
    "Oslo",
    "C#",
    "A*",
    "New York",
    "St. Gallen",
    "Caf\u00e9 M\u00fcller",
    "O'Neill",
    ".org",
    "rock 'n' roll",
    "F-16",
]
MARKED = [
    "Answer: {}",
    "The answer is {}.",
    "So it is.\n#### {}",
    "**Final Answer:** {}",
    "\\boxed{{{}}}",
    "<answer>{}</answer>",
]


def problem(number: int, answer: Any, prompt: str = "?") -> Problem:
    return Problem(id=str(number), prompt=prompt, answer=answer)


def whole(r: random.Random) -> int:
    return r.choice([0, 1, -1, r.randrange(100), -r.randrange(1, 10_000), r.randrange(10**7), r.randrange(10**24)])


def gsm8k(r: random.Random) -> Iterator[Item]:
    for number in range(ITEMS):
        value = whole(r)
        wrong = r.choice([value + 1, -value or 7, value * 10 or 5])
        steps = f"He has <<{value}+0={value}>>{value} in 12 boxes.\n"
        form = r.choice(["{:,}", "{}"])
        yield problem(number, str(value)), "numeric", f"{steps}#### {form.format(value)}", f"{steps}#### {wrong}"


def svamp(r: random.Random) -> Iterator[Item]:
    for number in range(ITEMS):
        value = float(whole(r) % 10**6) * r.choice([1, -1])
        wrong = r.choice([-value or 3.0, value + 1, value * 100 or 8.0])
        mark = r.choice(MARKED)
        yield problem(number, value), None, mark.format(f"{value:g}" if r.random() < 0.5 else value), mark.format(wrong)


def multiarith(r: random.Random) -> Iterator[Item]:
    for number in range(ITEMS):
        value = r.randrange(2, 10_000)
        reply = r.choice(["So there are {} left.", "{}", "It takes 3 steps: {} in all", "$10 \u00d7 3 = {}$"])
        yield problem(number, f" {value} "), None, reply.format(value), reply.format(value * 10)


def math(r: random.Random) -> Iterator[Item]:
    for number in range(ITEMS):
        a, b = r.randrange(1, 60), r.randrange(2, 60)
        answer, same, wrong = r.choice(
            [
                (rf"\frac{{{a}}}{{{b}}}", f"{a * 2}/{b * 2}", rf"\frac{{{b + a}}}{{{b}}}"),
                (rf"{a}\sqrt{{{b}}}", rf"{a} \sqrt {{{b}}}", rf"{a}\sqrt{{{b + 1}}}"),
                (f"x^2+{a}x", f"x(x+{a})", f"x^2-{a}x"),
                (f"({a},{b})", rf"\left({a}, {b}\right)", f"({b},{a + b})"),
                (rf"\left[{a}, \infty\right)", rf"[{a},\infty)", rf"({a},\infty)"),
                (rf"\{{{a}, {a + b}\}}", rf"\{{{a + b}, {a}\}}", rf"\{{{a}\}}"),
                (rf"{a}\pi", rf"{a}\cdot\pi", f"{a}"),
                (rf"{a}{{,}}{b:03d}", f"{a}{b:03d}", f"{a}.{b:03d}"),
                (rf"{a}\%", rf"{a}\%", rf"{a + 1}\%"),
                (rf"{a}^\circ", f"{a}", f"{a + 1}"),
                (r"\text{even}", r"\text{even}", r"\text{odd}"),
            ]
        )
        yield (
            problem(number, answer),
            "exact",
            rf"Thus $\boxed{{{same}}}$.",
            rf"Thus $\boxed{{{wrong}}}$, not ${answer}$.",
        )


def hotpotqa(r: random.Random) -> Iterator[Item]:
    for number in range(ITEMS):
        answer = r.choice([*WORDS, "yes", "no"])
        wrong = r.choice([w for w in [*WORDS, "yes", "no"] if w != answer])
        spelling = r.choice([answer, answer.upper(), f"The {answer}", f"{answer}."]) if len(answer) > 3 else answer
        yield problem(number, answer), "em", f"Finish[{spelling}]", f"Finish[{wrong}]"


def triviaqa(r: random.Random) -> Iterator[Item]:
    for number in range(ITEMS):
        names = r.sample(WORDS, 3)
        answer = {"value": names[0], "aliases": names[:2], "normalized_aliases": [n.lower() for n in names[:2]]}
        mark = r.choice(MARKED)
        yield problem(number, answer), None, mark.format(r.choice(names[:2])), mark.format(names[2])


def mmlu(r: random.Random) -> Iterator[Item]:
    for number in range(ITEMS):
        options = r.sample(WORDS, 4) if r.random() < 0.7 else [str(n) for n in r.sample(range(10, 99), 4)]
        right, wrong = r.sample(range(4), 2)
        lines = "\n".join(f"{letter}) {text}" for letter, text in zip("ABCD", options, strict=True))
        mark = r.choice(["Answer: {}", "The answer is ({}).", "**{}**", "$\\boxed{{\\text{{{}}}}}$", "{}", "Option {}"])
        replies = [mark.format(r.choice(["ABCD"[i], f"{'ABCD'[i]}) {options[i]}", options[i]])) for i in (right, wrong)]
        answer = r.choice([right, "ABCD"[right], options[right]])
        yield problem(number, answer, f"Which?\n{lines}"), "choice", replies[0], replies[1]


def boolq(r: random.Random) -> Iterator[Item]:
    for number in range(ITEMS):
        answer = r.random() < 0.5
        right, wrong = (["Yes", "true"], ["No", "False"]) if answer else (["No", "False"], ["yes", "True"])
        mark = r.choice(["{}", "Answer: {}.", "The answer is {}, because of that."])
        yield problem(number, answer), None, mark.format(r.choice(right)), mark.format(r.choice(wrong))


@pytest.mark.parametrize("form", [gsm8k, svamp, multiarith, math, hotpotqa, triviaqa, mmlu, boolq])
async def test_right_answers_are_right_and_wrong_ones_are_not(form: Callable[[random.Random], Iterator[Item]]) -> None:
    unlike: list[tuple[Any, str, bool]] = []
    for item, spec, right, wrong in form(random.Random(7)):
        evaluator = resolve_evaluator(spec, item)
        assert evaluator.check(item) is None, item
        for reply, wanted in ((right, True), (wrong, False)):
            verdict = await evaluator.evaluate(item, Trial(index=1, answer=reply))
            if verdict.passed is not wanted:
                unlike.append((item.answer, reply, wanted))
    assert unlike == []
