"""The actor `react` from the command line and as a flow: tools, worlds, samples, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reflexion.cli.main import EXIT_USAGE
from reflexion.testing import ScriptedEndpoint
from reflexion.types import Episode
from tests.support.commands import Command, Ended, command_in, one_message
from tests.support.evals import ENGINES, Engine, evaluate

WAY = ["take apple", "put apple on table"]
TOOLS = '''
def double(n: int) -> int:
    """Twice a number."""
    return 2 * n
'''


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    return command_in(tmp_path, capsys, monkeypatch)


def refusal(ended: Ended) -> str:
    assert ended.code == EXIT_USAGE
    return one_message(ended)


def test_a_world_is_acted_in(command: Command, openai_endpoint: ScriptedEndpoint) -> None:
    openai_endpoint.answer = lambda prompt: f"Action: {WAY[prompt.count('Observation: ') - 1]}"
    code, out, err = command("eval", "rooms", "--limit", "1", "--actor", "react", "--llm", "m", "--direct", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["solved"], summary["llm_calls"]) == (1, 2)


def test_tools_of_the_working_directory_are_called(
    command: Command, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    (tmp_path / "own_tools.py").write_text(TOOLS)
    openai_endpoint.answer = lambda prompt: "Answer: 42" if "Observation: 42" in prompt else "Action: double[21]"
    task = ("run", "Twice 21?", "--answer", "42", "--llm", "m", "--actor", "react", "--tools", "own_tools:double")
    code, out, err = command(*task, "--tool-mode", "text", "--json")
    assert code == 0, err
    trajectory = json.loads(out)["trials"][0]["trajectory"]
    assert trajectory[0] == {"turn": 1, "tool": "double", "arguments": "21", "observation": "42"}
    shown = command(*task, "--tool-mode", "text")[1]
    assert 'Action: double "21"' not in shown and "Action: double 21\nObservation: 42\nAnswer: 42" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "q", "--tools", "calculator"], "the actor is direct; use --actor react"),
        (["run", "q", "--actor", "react", "--tools", "no_such:f"], "module 'no_such' cannot be imported"),
        (["run", "q", "--actor", "react", "--tools", "weather"], "there are documents, calculator, or your own"),
        (["run", "q", "--evaluator", "no_such:f"], "the evaluator 'no_such:f': module 'no_such' cannot be imported"),
        (["run", "q", "--evaluator", "json:nothing"], "'json' has no 'nothing'"),
        (["eval", "rooms", "--direct"], "rooms:1: problem 'rooms-1' is acted in turn by turn"),
        (["eval", "starter", "--actor", "react", "--direct"], "starter:1: no tool suits problem"),
        (
            ["eval", "bad.jsonl", "--direct"],
            "bad.jsonl:2: problem 'b' cannot be judged by 'python': field 'tests' is",
        ),
        (
            ["eval", "own.jsonl", "--direct"],
            "own.jsonl:1: problem '1', field 'evaluator': the evaluator 'no_such:f': mod",
        ),
        (["eval", "worlds.jsonl", "--actor", "react", "--direct"], "worlds.jsonl:1: problem '1' cannot be judged by"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    command: Command, openai_endpoint: ScriptedEndpoint, tmp_path: Path, arguments: list[str], said: str
) -> None:
    good = {"id": "a", "prompt": "Write f.", "tests": "assert f()"}
    bad = {"id": "b", "prompt": "Write f.", "tests": "assert f(\n"}
    (tmp_path / "bad.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    (tmp_path / "own.jsonl").write_text('{"prompt": "q", "evaluator": "no_such:f"}\n')
    (tmp_path / "worlds.jsonl").write_text('{"prompt": "q", "environment": "castle"}\n')
    assert said in refusal(command(*arguments, "--llm", "m"))
    assert openai_endpoint.stats.calls == 0


def test_a_run_is_not_resumed_with_other_tools(command: Command, openai_endpoint: ScriptedEndpoint) -> None:
    openai_endpoint.answer = lambda prompt: "Answer: 17"
    run = ("eval", "gsm8k-sample", "--limit", "1", "--actor", "react", "--llm", "m", "--direct", "--name", "first")
    assert command(*run)[0] == 0
    assert command(*run)[0] == 0
    assert "tools: the run 'first' was started with []" in refusal(command(*run, "--tools", "calculator"))


@pytest.mark.prefect
@pytest.mark.parametrize("engine", ENGINES)
def test_turns_are_kept_whoever_carries_the_trial_out(
    engine: Engine, request: pytest.FixtureRequest, openai_endpoint: ScriptedEndpoint, isolated: Path
) -> None:
    if engine != "direct":
        request.getfixturevalue("prefect_server")
    openai_endpoint.answer = lambda prompt: (
        "Answer: 17" if "Observation: 17" in prompt else "Action: calculate[14 - 5 + 8]"
    )
    found: list[Episode] = []
    for name in ("first", "second"):
        options = {"limit": 1, "actor": "react", "tools": ("calculator",), "name": name}
        folder = evaluate(engine, "gsm8k-sample", **options).folder
        found.append(Episode.model_validate_json((folder / "episodes.jsonl").read_text()))
    first, second = found
    assert first.solved and [t.get("observation") for t in first.trials[0].trajectory] == ["17", None]
    assert second.trials[0].cached and second.trials[0].trajectory == first.trials[0].trajectory
    assert (first.usage.calls, second.usage.calls, second.saved.calls) == (2, 0, 2)
