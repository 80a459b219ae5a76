"""Multiple choice: the options of a prompt, the reference, and the option a reply decides for."""

from __future__ import annotations

from typing import Any

import pytest

from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.reading.multiple_choice import chosen_option, option_of, read_options
from reflexion.types import Problem, Trial

CITIES = {"A": "lima", "B": "oslo", "C": "new oslo", "D": "cairo"}
PROMPT = "Which is in Norway?\nA) Lima\nB) Oslo\nC) New Oslo\nD) Cairo"


@pytest.mark.parametrize(
    "prompt",
    [
        "Which?\nA) Lima\nB) Oslo",
        "Which?\nA. Lima\nB. Oslo",
        "Which?\n(A) Lima\n(B) Oslo",
        "Which?\n[A] Lima\n[B] Oslo",
        "Which?\nA: Lima\nB: Oslo",
        "Which?\n- A) Lima\n- B) Oslo",
        "Which?\n**A)** Lima\n**B)** Oslo",
        "Which?\nA)Lima\nB)Oslo",
        "Which: (A) Lima (B) Oslo",
        "Which: A) Lima, B) Oslo",
        "Which: A. Lima or B. Oslo",
        "For example\nA) x\nB) y\nC) z\nAnswer: C\n\nWhich?\nA) Lima\nB) Oslo",
    ],
)
def test_options_are_read_in_the_forms_people_have(prompt: str) -> None:
    assert read_options(prompt) == {"A": "lima", "B": "oslo"}


@pytest.mark.parametrize(
    ("prompt", "labels"),
    [
        ("Which?\na) Lima\nb) Oslo", "ab"),
        ("Which?\n1) Lima\n2) Oslo\n3) Cairo", "123"),
        ("Which?\n1. Lima\n2. Oslo", "12"),
        ("Count them.", ""),
        ("B) is no start, C) neither", ""),
        ("See 1. and no more", ""),
    ],
)
def test_labels(prompt: str, labels: str) -> None:
    assert "".join(read_options(prompt)) == labels


@pytest.mark.parametrize(
    "reply",
    [
        "B", "b", "B.", "(B)", "[B]", "**B**", "**B**.", "$B$", "$\\mathbf{B}$", "\\boxed{B}", "\\boxed{\\text{B}}",
        "\\boxed{B. Oslo}", "<answer>B</answer>", "Finish[B]", "Option B", "Choice: B", "B) Oslo", "B Oslo", "B: Oslo",
        "B - Oslo", "Oslo", "oslo.", "ANSWER: $B$", "Answer: (B) Oslo", "The answer is B.", "The answer is B, Oslo.",
        "The correct option is B because it lies in the north.", "The best answer is Oslo.", "most likely B, Oslo",
        "B because the others are elsewhere.", "A is wrong. So: B", "A) Lima is wrong, B) Oslo is right.",
        "Let me think. A is in Peru.\n\nB", "B\n\nOslo is the capital.", "I would choose B", "I'd go with Oslo.",
        "It cannot be A, C or D. B it is.", "B is right since A is not.", "B, not A", "Oslo, not Lima",
        "A: no\nB: yes\nC: no\nD: no", "\u7b54\u6848\uff1aB", "Die richtige Antwort ist B.", '{"answer": "B"}',
        "Answer: B (A is in Peru)", "Answer: B\nA is wrong, C too.",
    ],
)  # fmt: skip
def test_the_ways_to_choose(reply: str) -> None:
    assert chosen_option(reply, CITIES) == "B"


@pytest.mark.parametrize(
    "reply",
    [
        "A or B", "A, B", "A/B", "Answer: A and B", "Either A or B.", "Neither A nor B", "None of them", "E", "Not B",
        "The answer is not B", "A) Lima\nB) Oslo\nC) New Oslo\nD) Cairo", "A) Lima B) Oslo", "A capital is asked for",
        "I do not know", "Lima and Oslo", "Oslo is wrong",
    ],
)  # fmt: skip
def test_what_decides_for_none_is_no_choice(reply: str) -> None:
    assert chosen_option(reply, CITIES) is None


def test_a_longer_option_is_not_the_shorter_one_in_it() -> None:
    assert chosen_option("I'd say New Oslo", CITIES) == "C"
    assert chosen_option("I'd say Oslo", CITIES) == "B"


@pytest.mark.parametrize(
    ("reply", "options", "label"),
    [
        ("2) Oslo", {"1": "lima", "2": "oslo"}, "2"),
        ("Answer: 2", {"1": "lima", "2": "oslo"}, "2"),
        ("Option 2, since 1 is far", {"1": "lima", "2": "oslo"}, "2"),
        ("b", {"a": "lima", "b": "oslo"}, "b"),
        ("B", {"a": "lima", "b": "oslo"}, "b"),
        ("a long way to oslo", {"a": "lima", "b": "oslo"}, "b"),
        ("Answer: 6", {"A": "5", "B": "6"}, "B"),
        ("Answer: 6.0", {"A": "5", "B": "6"}, "B"),
        ("C", {}, "C"),
        ("c) whatever", {}, "C"),
    ],
)
def test_other_labels(reply: str, options: dict[str, str], label: str) -> None:
    assert chosen_option(reply, options) == label


@pytest.mark.parametrize(
    ("answer", "label"),
    [("B", "B"), ("b", "B"), ("(B)", "B"), ("Oslo", "B"), ("B) Oslo", "B"), (1, "B"), (0, "A"), ("1", None), (4, None)],
)
def test_references(answer: Any, label: str | None) -> None:
    assert option_of(answer, CITIES) == label


def test_a_whole_number_that_may_mean_two_options_means_none() -> None:
    assert option_of(1, {"A": "1", "B": "2"}) is None
    assert option_of(6, {"A": "5", "B": "6"}) == "B"
    assert option_of(2, {"1": "lima", "2": "oslo"}) == "2"


@pytest.mark.parametrize(
    ("answer", "prompt", "named"),
    [("F", PROMPT, "A, B, C, D"), (7, PROMPT, "A, B, C, D"), ("Oslo", "Lima or Oslo?", "no options")],
)
def test_a_reference_that_names_no_option_is_refused(answer: Any, prompt: str, named: str) -> None:
    problem = Problem(id="p", prompt=prompt, answer=answer)
    reason = resolve_evaluator("choice", problem).check(problem)
    assert reason is not None and named in reason and "'answer'" in reason


@pytest.mark.parametrize(
    ("answer", "right"), [("B", True), (1, True), ("Oslo", True), (["B", "C"], True), ("A", False)]
)
async def test_verdicts(answer: Any, right: bool) -> None:
    problem = Problem(id="p", prompt=PROMPT, answer=answer)
    verdict = await resolve_evaluator("choice", problem).evaluate(problem, Trial(index=1, answer="Oslo, so B"))
    assert verdict.passed is right
