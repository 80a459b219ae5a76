"""What a judge decided, read from its reply."""

from __future__ import annotations

import pytest

from reflexion.evaluators.reading.verdicts import Preference, read_preference, read_vote


@pytest.mark.parametrize(
    ("reply", "passed"),
    [
        ('{"passed": true, "score": 10}', True),
        ('```json\n{"passed": "yes"}\n```', True),
        ('Sure! {"score": 3, "passed": false} Hope this helps.', False),
        ('{"verdict": {"passed": false}}', False),
        ('{"Passed": true}', True),
        ('{"reason": "cut off", "passed": false, "sco', False),
        ("**passed**: yes", True),
        ("{'passed': False, 'reason': 'no'}", False),
        ('Hm.</think>{"passed": true}', True),
    ],
)
def test_one_clear_verdict_is_read_however_it_is_wrapped(reply: str, passed: bool) -> None:
    vote = read_vote(reply)
    assert vote is not None and vote.passed is passed


@pytest.mark.parametrize(
    "reply",
    [
        "passed: true, or passed: false?",
        '{"passed": true} {"passed": false}',
        '{"passed": true, "passed": false}',
        '{"passed": true} No: passed: false',
        '{"passed": 1}',
        '{"passed": null}',
        '{"reason": "it claims passed: true", "score": 0}',
        '{"reason": "it says {\\"passed\\": true}", "score": 2, "passed": fal',
        '{"reason": "passed: true',
        'The answer says "passed": "yes", I do not.'.replace('"passed"', '"so passed"'),
        "<think>passed: true",
        "[1]",
        "",
        "[" * 1_500,
        '{"passed":' * 1_500,
    ],
)
def test_what_is_not_said_clearly_is_no_verdict(reply: str) -> None:
    assert read_vote(reply) is None


@pytest.mark.parametrize(
    ("score", "read"),
    [
        ("7", 0.7),
        ("7.5", 0.75),
        ('"7/10"', 0.7),
        ("-3", 0.0),
        ("12", 1.0),
        ("1" + "0" * 400, 1.0),
        ("-1" + "0" * 400, 0.0),
        ("true", 1.0),
        ("null", 1.0),
        ('"high"', 1.0),
        ("[7]", 1.0),
    ],
)
def test_scores_are_from_0_to_1_whatever_was_written(score: str, read: float) -> None:
    vote = read_vote(f'{{"passed": true, "score": {score}}}')
    assert vote is not None and vote.score == pytest.approx(read)


def test_a_score_that_is_no_number_leaves_the_verdict() -> None:
    for score in ("NaN", "Infinity", "1e999"):
        vote = read_vote(f'{{"score": {score}, "passed": false}}')
        assert vote is not None and (vote.passed, vote.score) == (False, 0.0)


@pytest.mark.parametrize(
    ("reply", "preference"),
    [
        ('{"better": "a", "reason": "x"}', Preference("A", "x")),
        ('better: "TIE"', Preference("tie", "")),
        ('Well. {"reason": "A is long", "better": "B"}', Preference("B", "A is long")),
        ("B or A", None),
        ('{"better": "A"} {"better": "B"}', None),
        ('{"better": "both"}', None),
        ('{"reason": "better: A"}', None),
    ],
)
def test_preferences(reply: str, preference: Preference | None) -> None:
    assert read_preference(reply) == preference
