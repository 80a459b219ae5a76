"""The models of the field where they do without pydantic's own way: the results must be the same."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from reflexion.types import Episode, Evaluation, Frozen, Outcome, Problem, Reflection, Strategy, Trial, Usage

TRIAL = Trial(
    index=1,
    answer="41",
    usage=Usage(prompt=3, calls=1),
    evaluation=Evaluation(evaluator="exact", passed=False, score=0.0, details={"a": [1]}),
    reflection=Reflection(trial=1, text="Count again."),
)
EPISODE = Episode(problem_id="p", strategy=Strategy.REFLEXION, outcome=Outcome.FAILED, trials=(TRIAL,))


@pytest.mark.parametrize(
    "value", [TRIAL, EPISODE, Problem(id="p", prompt="What?"), Usage()], ids=lambda v: type(v).__name__
)
@pytest.mark.parametrize("deep", [False, True])
def test_a_copy_is_as_pydantic_makes_it(value: Frozen, deep: bool) -> None:
    for update in (None, {}, {next(iter(type(value).model_fields)): 7}):
        ours = value.model_copy(update=update, deep=deep)
        theirs = BaseModel.model_copy(value, update=update, deep=deep)
        assert ours == theirs
        assert type(ours) is type(value)
        assert ours.model_fields_set == theirs.model_fields_set
        assert ours.__dict__ == theirs.__dict__
        assert ours.__pydantic_extra__ is theirs.__pydantic_extra__


def test_a_copy_is_one_of_its_own() -> None:
    copy = TRIAL.model_copy(update={"index": 2})
    assert (TRIAL.index, copy.index) == (1, 2)
    assert "seconds" not in TRIAL.model_copy(update={"index": 2}).model_fields_set
    with pytest.raises(ValidationError, match="frozen"):
        copy.index = 3  # type: ignore[misc]
    assert TRIAL.evaluation is not None
    deep = TRIAL.model_copy(deep=True)
    assert deep.evaluation is not None
    assert deep.evaluation.details == TRIAL.evaluation.details
    assert deep.evaluation.details is not TRIAL.evaluation.details


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (Usage(), Usage(), True),
        (Usage(prompt=1), Usage(prompt=1), True),
        (Usage(prompt=1), Usage(completion=1), False),
        (Usage(cost_usd=0.0), Usage(), False),
        (Usage(), {"prompt": 0}, False),
        (Usage(), None, False),
    ],
)
def test_usage_compares_by_its_figures(a: Usage, b: Any, same: bool) -> None:
    assert (a == b) is same
    assert (a != b) is not same
    if same:
        assert hash(a) == hash(b)


def test_what_is_as_usual_is_left_out_of_a_record() -> None:
    assert Trial(index=1, answer="").model_dump(exclude_defaults=True) == {"index": 1, "answer": ""}
    assert Trial.model_validate_json(TRIAL.model_dump_json(exclude_defaults=True)) == TRIAL
