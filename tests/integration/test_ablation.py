"""Strategies compared in one command: first trials shared, a run for each, one table and one report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reflexion.cli.main import EXIT_GATE, EXIT_USAGE
from reflexion.testing import ScriptedEndpoint
from tests.support.commands import Command, command_in, one_message
from tests.support.evals import write_problems

PROBLEMS = 4
STRATEGIES = "none,last_attempt,reflexion"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """`reflexion …` in this process; there are `problems.jsonl`."""
    write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    return command_in(tmp_path, capsys, monkeypatch)


@pytest.fixture(params=["direct", pytest.param("prefect", marks=pytest.mark.prefect)])
def engine(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "direct":
        return ["--direct"]
    request.getfixturevalue("prefect_server")
    return []


def test_strategies_side_by_side(
    engine: list[str], command: Command, openai_endpoint: ScriptedEndpoint, isolated: Path
) -> None:
    arguments = ["eval", "problems.jsonl", "--llm", "mock", "--name", "all", "--strategies", STRATEGIES, *engine]
    ended = command(*arguments, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert [(r["strategy"], r["run"], r["summary"]["solved_by_trial"]) for r in found["runs"]] == [
        ("none", "all-none", [0, 0, 0]),
        ("last_attempt", "all-last_attempt", [0, 0, 0]),
        ("reflexion", "all-reflexion", [0, PROBLEMS, PROBLEMS]),
    ]
    # Three trials alone, then two more that see the last attempt, then a reflection and a trial with it.
    assert [r["summary"]["llm_calls"] for r in found["runs"]] == [3 * PROBLEMS, 2 * PROBLEMS, 2 * PROBLEMS]
    assert found["runs"][0]["against_first"] is None
    assert found["runs"][2]["against_first"] == {
        "episodes": PROBLEMS, "only_this": PROBLEMS, "only_first": 0, "p_value": 2 / 2**PROBLEMS,
    }  # fmt: skip
    runs = isolated / "runs"
    assert json.loads((runs / "all" / "ablation.json").read_text()) == found
    for run in found["runs"]:
        assert json.loads((runs / run["run"] / "summary.json").read_text()) == run["summary"]
        assert (runs / run["run"] / "report.html").exists()
    curves = (runs / "all" / "report.html").read_text().partition('id="plot-learning-curve"')[2].partition("</svg>")[0]
    assert re.findall(r"<text[^>]*>(\w+)</text>", curves)[-3:] == STRATEGIES.split(",")

    # The same name goes on with it: nothing is asked again, and a further strategy joins the others.
    calls = openai_endpoint.stats.calls
    again = command(*arguments[: -len(engine) or None], "--direct")
    assert (again.code, openai_endpoint.stats.calls) == (0, calls)
    assert again.err.count(f"{PROBLEMS} of {PROBLEMS} episodes are done") == 3
    more = [a.replace(STRATEGIES, "reflexion,last_attempt_and_reflexion") for a in arguments]
    joined = json.loads(command(*more, "--json").out)
    assert [r["strategy"] for r in joined["runs"]] == [*STRATEGIES.split(","), "last_attempt_and_reflexion"]


def test_the_table_fits_a_terminal_of_80_columns(command: Command, openai_endpoint: ScriptedEndpoint) -> None:
    arguments = ("eval", "problems.jsonl", "--llm", "mock", "--direct", "--limit", "2", "--max-trials", "9")
    ended = command(*arguments, "--strategies", "all", "--name", "x", "--repeat", "2")
    lines = ended.out.splitlines()
    table = lines[1 : next(n for n, line in enumerate(lines) if line.startswith("pass@2"))]
    assert max(map(len, table)) <= 80
    rows = [line.split() for line in table if line.strip().startswith(("none ", "last_", "reflexion "))]
    assert [row[:6] for row in rows] == [
        ["none", "0", "0", "0", "0", "0%"],
        ["last_attempt", "0", "0", "0", "0", "0%"],
        ["reflexion", "0", "4", "4", "4", "100%"],
        ["last_attempt_and_reflexion", "0", "4", "4", "4", "100%"],
    ]
    assert "pass@2: 100.0%" in ended.out
    assert "--repeat at temperature 0" in ended.err


def test_first_trials_are_shared_without_the_users_cache_too(
    command: Command, openai_endpoint: ScriptedEndpoint, isolated: Path
) -> None:
    arguments = ("eval", "problems.jsonl", "--llm", "mock", "--direct", "--strategies", "none,reflexion")
    assert command(*arguments, "--no-cache").code == 0
    assert openai_endpoint.stats.calls == PROBLEMS * (3 + 2)
    assert not (isolated / "steps").exists()
    # Computed anew, and again only once for both.
    assert command(*arguments).code == 0
    assert command(*arguments, "--refresh").code == 0
    assert openai_endpoint.stats.calls == 3 * PROBLEMS * (3 + 2)


def test_a_budget_is_that_of_all_runs_together(command: Command, openai_endpoint: ScriptedEndpoint) -> None:
    arguments = ("eval", "problems.jsonl", "--llm", "mock", "--direct", "--strategies", "none,reflexion")
    whole = json.loads(command(*arguments, "--name", "whole", "--json", "--no-cache").out)["runs"][0]["summary"]
    spent = whole["tokens"]["prompt"] + whole["tokens"]["completion"]
    ended = command(*arguments, "--name", "cut", "--no-cache", "--max-tokens", str(spent + 1), "--concurrency", "1")
    assert ended.code == EXIT_GATE
    assert "Resume with: " in ended.err and "--name cut" in ended.err
    resumed = command(*arguments, "--name", "cut", "--no-cache", "--json")
    assert [r["summary"]["solved"] for r in json.loads(resumed.out)["runs"]] == [0, PROBLEMS]


def test_the_gate_is_for_the_best_strategy_and_junit_has_all(
    command: Command, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    arguments = ("eval", "problems.jsonl", "--llm", "mock", "--direct", "--strategies", "none,reflexion", "--name", "g")
    assert command(*arguments, "--fail-under", "1", "--junit", "all.xml").code == 0
    suites = re.findall(
        r'<testsuite name="([\w-]+)" tests="(\d+)" failures="(\d+)"', (tmp_path / "all.xml").read_text()
    )
    assert suites == [("g-none", "4", "4"), ("g-reflexion", "4", "0")]
    without = ("eval", "problems.jsonl", "--llm", "mock", "--direct", "--strategies", "none,last_attempt")
    assert command(*without, "--fail-under", "0.1").code == EXIT_GATE


WRONG = {
    "unknown": (["--strategies", "none,guess"], ["'guess'", "last_attempt_and_reflexion"]),
    "twice": (["--strategies", "none,none"], ["twice"]),
    "one": (["--strategies", "none"], ["--strategy"]),
    "both options": (["--strategies", "all", "--strategy", "none"], ["--strategy and --strategies"]),
    "a memory": (["--strategies", "all", "--memory", "sqlite:m.sqlite"], ["--memory", "empty memory"]),
    "a run's name": (["--strategies", "all", "--name", "one"], ["'one'", "one strategy"]),
    "a comparison's name": (["--name", "many"], ["'many'", "--strategies"]),
    "other parameters": (["--strategies", "all", "--name", "many", "--max-trials", "7"], ["max_trials"]),
    "report of nothing": (None, ["none of its runs"]),
}


def test_wrong_input_is_told_before_anything_is_asked(
    command: Command, openai_endpoint: ScriptedEndpoint, isolated: Path
) -> None:
    common = ("eval", "problems.jsonl", "--llm", "mock", "--direct", "--limit", "1")
    assert command(*common, "--name", "one").code == 0
    assert command(*common, "--name", "many", "--strategies", "none,reflexion").code == 0
    (isolated / "runs" / "empty").mkdir()
    (isolated / "runs" / "empty" / "ablation.json").write_text('{"strategies": ["none"]}')
    calls = openai_endpoint.stats.calls
    before = sorted((isolated / "runs").iterdir())
    for case, (options, told) in WRONG.items():
        ended = command("report", "empty") if options is None else command(*common, *options)
        assert ended.code == EXIT_USAGE, (case, ended)
        message = one_message(ended)
        assert all(part in message for part in told), (case, message)
    assert (openai_endpoint.stats.calls, sorted((isolated / "runs").iterdir())) == (calls, before)


def test_a_comparison_is_no_run_to_compare(command: Command, openai_endpoint: ScriptedEndpoint) -> None:
    common = ("eval", "problems.jsonl", "--llm", "mock", "--direct", "--limit", "1", "--strategies", "none,reflexion")
    assert command(*common, "--name", "many").code == 0
    assert "many-STRATEGY" in one_message(command("compare", "many", "many-none"))
    assert command("compare", "many-none", "many-reflexion").code == 0
    assert command("report", "many").out.strip().endswith("many/report.html")
