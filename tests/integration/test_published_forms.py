"""Published forms from the file to the verdict: right replies pass, planted wrong ones do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reflexion.datasets import open_dataset
from reflexion.evaluators import resolve_evaluator
from reflexion.types import Trial
from tests.support.published import FORMS, items

COUNT = 200
CODE_COUNT = 40
"""Of forms whose verdicts start processes."""


@pytest.mark.parametrize("form", FORMS)
async def test_right_replies_pass_and_wrong_ones_do_not(form: str, tmp_path: Path) -> None:
    code = form in ("MBPP", "MBPP+", "EvalPlus", "LeetCode", "ClassEval", "BigCodeBench", "APPS")
    made = list(items(form, CODE_COUNT if code else COUNT))
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(item.record) + "\n" for item in made))
    dataset = open_dataset(path)
    assert dataset.format == form.removesuffix("+")
    wrongly: list[str] = []
    for item, problem in zip(made, dataset, strict=True):
        evaluator = resolve_evaluator(problem.evaluator, problem)
        assert evaluator.check(problem) is None
        for reply, passes in ((item.right, True), (item.wrong, False)):
            verdict = await evaluator.evaluate(problem, Trial(index=1, answer=reply))
            if verdict.passed is not passes:
                wrongly.append(f"{problem.id}: {reply!r} against {problem.answer!r}: {verdict.feedback}")
        if "own_solution" in problem.metadata:
            own = f"```python\n{problem.metadata['own_solution']}\n```"
            verdict = await evaluator.evaluate(problem, Trial(index=1, answer=own))
            if not verdict.passed:
                wrongly.append(f"{problem.id}: its own solution: {verdict.feedback}")
    assert not wrongly, "\n".join(wrongly[:5])
