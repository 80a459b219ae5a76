"""Runs say what decided to stop, what would have been handed in without it, and by whom answers were judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reflexion.testing import ScriptedEndpoint
from tests.support.commands import Command, command_in

LEARNT = "Next time I look twice."
"""What every reflection says: a prompt with it is a later trial."""

Answer = Callable[[str, bool], str]
"""Of a prompt, and whether it is a later trial."""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """`reflexion …` in this process, in a folder of its own."""
    return command_in(tmp_path, capsys, monkeypatch)


@pytest.fixture
def run(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Evaluates problems with an endpoint that answers as told; gives what `--json` prints."""

    def evaluate(
        problems: list[dict[str, Any]], answer: Answer, *options: str, name: str = "it", trials: int = 2
    ) -> dict[str, Any]:
        (tmp_path / "problems.jsonl").write_text("".join(json.dumps(p) + "\n" for p in problems))

        def reply(prompt: str) -> str:
            if LEARNT not in prompt and "reflect" in prompt.lower():
                return LEARNT
            return answer(prompt, LEARNT in prompt)

        with ScriptedEndpoint(reply) as endpoint:
            monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
            monkeypatch.setenv("OPENAI_API_KEY", "test-key")
            given = ("problems.jsonl", "--llm", "mock", "--direct", "--max-trials", str(trials), "--name", name)
            ended = command("eval", *given, *options, "--json")
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    yield evaluate


RIVERS = [
    {"id": "short", "prompt": "Which river runs through Bern?", "answer": "Aare"},
    {"id": "other", "prompt": "Which river runs through Basel?", "answer": "Rhine"},
    {"id": "free", "prompt": "Write a line on the lake of Thun."},
]


def on_rivers(prompt: str, later: bool) -> str:
    if "Judge the answer" in prompt:
        return json.dumps({"reason": "It reads well.", "score": 9, "passed": True})
    if "Bern" in prompt:
        return "Answer: Aare" if later else "Answer: Emme"
    return "Answer: Rhine" if "Basel" in prompt else "It lies still."


def test_a_reference_is_an_oracle_and_rows_judged_in_other_ways_are_counted_apart(
    run: Callable[..., dict[str, Any]], command: Command, isolated: Path
) -> None:
    summary = run(RIVERS, on_rivers)
    assert (summary["solved"], summary["solved_by_trial"]) == (3, [2, 3])
    assert summary["stopped_by"] == {"reference": 2, "judge": 1}
    # Without being told, "short" would have handed in the Emme.
    assert (summary["handed_in"]["solved"], summary["handed_in"]["rate"]) == (2, 2 / 3)
    rows = [(row["evaluator"], row["decided_by"], row["episodes"], row["by_itself"]) for row in summary["verdicts"]]
    assert rows == [("exact", "reference", 2, 0), ("judge", "judge", 1, 1)]
    page = (isolated / "runs" / "it" / "report.html").read_text("utf-8")
    assert "a reference answer (oracle) 2, a judge 1" in page and "judge (judged by the model itself)" in page
    assert json.loads((isolated / "runs" / "it" / "summary.json").read_text())["stopped_by"] == summary["stopped_by"]


def test_the_table_and_the_comparison_say_the_same(run: Callable[..., dict[str, Any]], command: Command) -> None:
    run(RIVERS, on_rivers)
    run(RIVERS[:2], on_rivers, name="fewer")
    both = command("compare", "it", "fewer").out
    assert "| stopped by | a reference answer (oracle) 2, a judge 1 | a reference answer (oracle) 2 | |" in both
    assert "| handed-in pass rate, whole run | 66.7% | 50.0% | -16.7% |" in both
    figures = json.loads(command("compare", "it", "fewer", "--json").out)
    assert figures["a"]["stopped_by"] == {"reference": 2, "judge": 1} and figures["b"]["handed_in_rate"] == 0.5


CHECKS = '''
def visible_first(problem, answer):
    """As a suite of visible and hidden tests would say it."""
    return {"passed": "both" in answer, "visible_passed": "shown" in answer, "decided_by": "hidden_tests"}


def own(problem, answer):
    return "both" in answer
'''
PARTS = [{"id": name, "prompt": f"Part {name}: what is in it?", "answer": "x"} for name in ("early", "never", "once")]


def on_parts(prompt: str, later: bool) -> str:
    if "Part once" in prompt:
        return "shown and both"
    if "Part early" in prompt:  # visible tests are content with the first answer, hidden ones are not
        return "shown and both" if later else "only shown"
    return "nothing"


@pytest.mark.parametrize(
    ("function", "stopped", "handed"),
    [("visible_first", {"hidden_tests": 3}, 1), ("own", {"function": 3}, 2)],
)
def test_what_visible_tests_accept_is_handed_in(
    function: str, stopped: dict[str, int], handed: int, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    module = f"deciding_{function}"
    (tmp_path / f"{module}.py").write_text(CHECKS)
    summary = run(PARTS, on_parts, "--evaluator", f"{module}:{function}")
    assert summary["solved"] == 2 and summary["stopped_by"] == stopped
    assert summary["handed_in"]["solved"] == handed
    if function == "visible_first":
        # Of 5 answers 3 pass the visible tests, one of them wrongly; both rejected ones are wrong.
        rates = summary["agreement"]["visible_tests"]
        assert (rates["trials"], rates["false_positive_rate"], rates["false_negative_rate"]) == (5, 1 / 3, 0.0)
        assert (rates["wrong_let_through"], rates["right_rejected"]) == (1 / 3, 0.0)


def test_with_one_trial_nothing_decides_to_stop(
    run: Callable[..., dict[str, Any]], command: Command, isolated: Path
) -> None:
    summary = run(RIVERS[:2], on_rivers, trials=1)
    assert summary["handed_in"]["rate"] == summary["pass_rate"] == 0.5
    page = (isolated / "runs" / "it" / "report.html").read_text("utf-8")
    assert "<dt>Stopped by</dt><dd>nothing, there was one trial each</dd>" in page


def test_code_is_handed_in_by_what_its_visible_tests_say(run: Callable[..., dict[str, Any]], command: Command) -> None:
    problems = [
        {
            "id": name,
            "prompt": f"Write {name}(n), {what}.",
            "entry_point": name,
            "visible_tests": [f"assert {name}(0) == 0"],
            "tests": f"assert {name}(3) == {value} and {name}(-2) == {other}",
        }
        for name, what, value, other in (("thrice", "three times n", 9, -6), ("square", "n times n", 9, 4))
    ]

    def answer(prompt: str, later: bool) -> str:
        name, body = ("thrice", "3 * n") if "thrice(n)" in prompt else ("square", "n * n")
        if name == "square" and not later:
            body = "0"  # all that the visible test asks for
        return f"```python\ndef {name}(n):\n    return {body}\n```"

    summary = run(problems, answer)
    assert (summary["solved_by_trial"], summary["handed_in"]["solved"]) == ([1, 2], 1)
    rates = summary["agreement"]["visible_tests"]
    assert (rates["false_positive_rate"], rates["wrong_let_through"]) == (1 / 3, 1.0)
    assert sum(summary["ways"].values()) == 3
