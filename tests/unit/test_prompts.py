"""Prompts: what a trial and a reflection are shown, in which order, and what their digests cover."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexion.loop.prompts import DEFAULT_PROMPTS, Prompts, kind_of, trim_middle
from reflexion.loop.strategies import Past
from reflexion.types import Document, Evaluation, Problem, Trial

TEXT = Problem(id="t", prompt="What is six times seven?", answer="42")
CODE = Problem(
    id="c", prompt="Write add(a, b).", tests="assert add(1, 2) == 99999", visible_tests=("assert add(1, 1) == 2",)
)
FAILED = Trial(
    index=1, answer="41", evaluation=Evaluation(evaluator="exact", passed=False, score=0, feedback="Off by one.")
)


def shown(problem: Problem, past: Past, prompts: Prompts = DEFAULT_PROMPTS) -> str:
    return prompts.trial_messages(problem, past)[-1].content


def test_a_first_trial_sees_the_problem_alone() -> None:
    assert shown(TEXT, Past()) == TEXT.prompt


def test_what_changes_from_trial_to_trial_comes_last() -> None:
    # So that an endpoint's prefix cache serves what stays.
    first, later = shown(TEXT, Past()), shown(TEXT, Past(last=FAILED, lessons=("Count again.",)))
    assert later.startswith(first)
    assert later.index("41") < later.index("Count again.")
    assert "Off by one." in later


def test_tests_that_decide_are_never_shown() -> None:
    past = Past(last=FAILED, lessons=("x",))
    everything = DEFAULT_PROMPTS.trial_messages(CODE, past) + DEFAULT_PROMPTS.reflect_messages(CODE, past, FAILED)
    texts = [m.content for m in everything]
    assert not any("99999" in text for text in texts)
    assert any("assert add(1, 1) == 2" in text for text in texts)


def test_the_reference_answer_is_never_shown() -> None:
    messages = DEFAULT_PROMPTS.trial_messages(TEXT, Past(last=FAILED))
    assert not any("42" in m.content for m in messages + DEFAULT_PROMPTS.reflect_messages(TEXT, Past(), FAILED))


@pytest.mark.parametrize(("problem", "kind"), [(TEXT, "text"), (CODE, "python")])
def test_code_is_asked_for_where_tests_judge(problem: Problem, kind: str) -> None:
    assert kind_of(problem) == kind
    assert DEFAULT_PROMPTS.trial_messages(problem, Past())[0].content == DEFAULT_PROMPTS.trial_system[kind]  # type: ignore[index]


def test_documents_come_before_their_question() -> None:
    problem = TEXT.model_copy(update={"context": (Document(title="Sevens", text="Seven is prime."),)})
    text = shown(problem, Past())
    assert text.index("Seven is prime.") < text.index(problem.prompt)


def test_braces_in_a_problem_are_text() -> None:
    problem = CODE.model_copy(update={"prompt": "Return {x: 1} and {0} and {answer}."})
    assert problem.prompt in shown(problem, Past(last=FAILED.model_copy(update={"answer": "{feedback}"})))


def test_a_trial_without_an_answer_shows_why() -> None:
    cut = FAILED.model_copy(update={"answer": "", "error": "the reply was cut"})
    assert "the reply was cut" in shown(TEXT, Past(last=cut))


def test_a_changed_template_changes_the_digest_of_its_step_only() -> None:
    other = DEFAULT_PROMPTS.model_copy(update={"again": {"text": "Once more.", "python": "Once more."}})
    reflecting = DEFAULT_PROMPTS.model_copy(update={"reflect": "Why? {prompt} {answer} {feedback}"})
    assert Prompts(**other.model_dump()).trial_digest != DEFAULT_PROMPTS.trial_digest
    assert Prompts(**other.model_dump()).reflect_digest == DEFAULT_PROMPTS.reflect_digest
    assert Prompts(**reflecting.model_dump()).trial_digest == DEFAULT_PROMPTS.trial_digest
    assert Prompts(**reflecting.model_dump()).reflect_digest != DEFAULT_PROMPTS.reflect_digest


@given(st.text(max_size=400), st.integers(min_value=0, max_value=300))
def test_a_trimmed_text_keeps_both_ends_and_its_limit(text: str, limit: int) -> None:
    short = trim_middle(text, limit)
    assert len(short) <= limit
    if len(text) <= limit:
        assert short == text
    elif limit >= 20:
        assert text.startswith(short[:3]) and text.endswith(short[-3:]), short


def test_code_in_a_lesson_is_left_out_unless_it_is_all_there_is() -> None:
    past = Past(lessons=("Use max.\n```python\nreturn min(x)\n``` Mind empty lists.", "```return 1```"))
    text = shown(CODE, past)
    assert "- Use max. Mind empty lists." in text and "min(x)" not in text
    assert "return 1" in text
