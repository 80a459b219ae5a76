"""The command line: exit codes, one clear message for every wrong input, and JSON alone on stdout."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from reflexion.cli.main import EXIT_FAILED, EXIT_GATE, EXIT_INTERRUPTED, EXIT_USAGE
from reflexion.llm.pacing import backoff
from reflexion.testing import ScriptedEndpoint
from tests.redis_server import free_port
from tests.support.commands import Command, Ended, command_in, one_message
from tests.support.evals import cli, start_cli, write_problems
from tests.support.prefect_server import PrefectServer


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """`reflexion …` in this process, in a folder of its own."""
    return command_in(tmp_path, capsys, monkeypatch)


@pytest.fixture
def problems(tmp_path: Path) -> str:
    return write_problems(tmp_path / "problems.jsonl", 3)


# -- what works ----------------------------------------------------------------------------------------


def test_json_is_one_object_on_stdout_and_nothing_else(
    command: Command, problems: str, openai_endpoint: ScriptedEndpoint, isolated: Path
) -> None:
    ended = command("eval", problems, "--llm", "mock", "--direct", "--json", "--name", "first")
    assert ended.code == 0
    summary = json.loads(ended.out)
    assert len(ended.out.splitlines()) == 1
    assert (summary["run"], summary["solved_by_trial"], summary["llm_calls"]) == ("first", [0, 3, 3], 9)
    assert json.loads((isolated / "runs" / "first" / "summary.json").read_text()) == summary


@pytest.mark.prefect
def test_json_through_prefect_is_as_clean(
    prefect_server: object, problems: str, openai_endpoint: ScriptedEndpoint
) -> None:
    code, out, err = cli("eval", problems, "--llm", "mock", "--json")
    assert code == 0, err
    assert json.loads(out)["solved_by_trial"] == [0, 3, 3]


def test_the_table_tells_what_each_trial_solved(
    command: Command, problems: str, openai_endpoint: ScriptedEndpoint
) -> None:
    ended = command("eval", problems, "--llm", "mock", "--direct")
    assert ended.code == 0
    trials = [line for line in ended.out.splitlines() if "trial " in line]
    assert [("0 of 3" in line, "3 of 3" in line) for line in trials] == [(True, False), (False, True), (False, True)]
    assert "LLM calls: 9" in ended.out
    again = command("eval", problems, "--llm", "mock", "--direct")
    assert "LLM calls: 0" in again.out and "(100% cache hits)" in again.out


def test_a_gate_that_is_not_met_exits_with_3(
    command: Command, problems: str, openai_endpoint: ScriptedEndpoint
) -> None:
    arguments = ("eval", problems, "--llm", "mock", "--direct", "--max-trials", "1")
    assert command(*arguments, "--fail-under", "0.5").code == EXIT_GATE
    assert command(*arguments, "--fail-under", "0").code == 0


def test_one_task_shows_its_trials(command: Command, openai_endpoint: ScriptedEndpoint) -> None:
    ended = command("run", "What is six times seven?", "--answer", "42", "--llm", "mock")
    assert ended.code == 0
    assert "Trial 1: failed" in ended.out and "Trial 2: passed" in ended.out and "PLAN-OK" in ended.out


def test_one_task_as_json(command: Command, openai_endpoint: ScriptedEndpoint) -> None:
    ended = command("run", "What is six times seven?", "--answer", "42", "--llm", "mock", "--json")
    episode = json.loads(ended.out)
    assert (ended.code, episode["outcome"], episode["solved_at"]) == (0, "solved", 2)


@pytest.mark.prefect
def test_one_task_as_a_flow_run(prefect_server: object, openai_endpoint: ScriptedEndpoint) -> None:
    code, out, err = cli("run", "What is six times seven?", "--answer", "42", "--llm", "mock", "--prefect", "--json")
    assert code == 0, err
    assert json.loads(out)["solved_at"] == 2


def test_what_a_model_wrote_is_never_read_as_markup(command: Command, openai_endpoint: ScriptedEndpoint) -> None:
    openai_endpoint.answer = lambda prompt: "[bold]42[/bold] [/red]"
    ended = command("run", "Say it.", "--answer", "43", "--llm", "mock", "--max-trials", "1")
    assert ended.code == 0
    assert "[bold]42[/bold] [/red]" in ended.out


# -- wrong input: exit 2, before anything is run -------------------------------------------------------

LINES = {
    "not json": ('{"id": "a", "prompt": "x", "answer": "1"}\n{broken\n', ["problems.jsonl:2"]),
    "no prompt": ('{"id": "a", "answer": "1"}\n', ["problems.jsonl:1", "prompt"]),
    "duplicate id": ('{"id": "a", "prompt": "x", "answer": "1"}\n' * 2, ["problems.jsonl:2", "'a'", "line 1"]),
    "empty": ("", ["problems.jsonl"]),
}


@pytest.mark.parametrize("case", LINES)
def test_a_wrong_dataset_is_told_by_file_and_line(
    case: str, command: Command, tmp_path: Path, openai_endpoint: ScriptedEndpoint, isolated: Path
) -> None:
    text, told = LINES[case]
    (tmp_path / "problems.jsonl").write_text(text)
    ended = command("eval", "problems.jsonl", "--llm", "mock", "--direct")
    assert ended.code == EXIT_USAGE
    message = one_message(ended)
    assert all(part in message for part in told), message
    assert openai_endpoint.stats.calls == 0
    assert not (isolated / "runs").exists()


OPTIONS = {
    "missing dataset": (["eval", "nowhere.jsonl"], ["nowhere.jsonl"]),
    "unknown evaluator": (["eval", "DATASET", "--evaluator", "guess"], ["guess", "exact"]),
    "no trials": (["eval", "DATASET", "--max-trials", "0"], ["max_trials", "0"]),
    "no trials of one task": (["run", "x", "--max-trials", "0"], ["max_trials", "0"]),
    "bad name": (["eval", "DATASET", "--name", "a/b"], ["name", "a/b"]),
    "bad ttl": (["eval", "DATASET", "--ttl", "soon"], ["ttl", "soon"]),
    "bad gate": (["eval", "DATASET", "--fail-under", "7"], ["--fail-under", "7"]),
    "bad map": (["eval", "DATASET", "--map", "prompt"], ["--map", "prompt"]),
    "bad cache": (["eval", "DATASET", "--cache", "ftp://x"], ["cache", "ftp"]),
    "no weights": (["eval", "DATASET", "--llm", "gguf:none.gguf"], ["none.gguf"]),
    "no recording": (["eval", "DATASET", "--llm", "replay:none.jsonl"], ["none.jsonl"]),
}


@pytest.mark.parametrize("engine", ["direct", "prefect"])
@pytest.mark.parametrize("case", OPTIONS)
def test_a_wrong_option_is_named(
    case: str,
    engine: str,
    command: Command,
    problems: str,
    openai_endpoint: ScriptedEndpoint,
    isolated: Path,
    request: pytest.FixtureRequest,
) -> None:
    given, told = OPTIONS[case]
    arguments = [problems if a == "DATASET" else a for a in given]
    if arguments[0] == "eval" and "--llm" not in arguments:
        arguments += ["--llm", "mock"]
    if engine == "direct" and arguments[0] == "eval":
        arguments.append("--direct")
    elif engine == "prefect":
        # Found before a server is asked for: none is running for this test's sake.
        pass
    ended = command(*arguments)
    assert ended.code == EXIT_USAGE, ended
    message = one_message(ended)
    assert all(part in message for part in told), message
    assert openai_endpoint.stats.calls == 0
    assert not list((isolated / "runs").glob("*/episodes.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["eval", "starter", "--strategy", "guess"], "last_attempt_and_reflexion"),
        (["eval", "starter", "--max-trials", "three"], "--max-trials"),
        (["eval", "starter", "--no-such-option"], "--no-such-option"),
        (["eval"], "DATASET"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_wrong_usage_is_told_by_the_parser(command: Command, arguments: list[str], told: str) -> None:
    ended = command(*arguments)
    assert ended.code == EXIT_USAGE
    assert told in ended.err and "Traceback" not in ended.err
    assert ended.out == ""


def test_a_key_is_asked_for_where_one_is_needed(command: Command, problems: str) -> None:
    ended = command("eval", problems, "--llm", "gpt-4o-mini", "--direct")
    assert ended.code == EXIT_USAGE
    assert "OPENAI_API_KEY" in one_message(ended)


def test_a_run_is_not_resumed_as_something_else(
    command: Command, problems: str, openai_endpoint: ScriptedEndpoint
) -> None:
    assert command("eval", problems, "--llm", "mock", "--direct", "--name", "r").code == 0
    ended = command("eval", problems, "--llm", "mock", "--direct", "--name", "r", "--max-trials", "5")
    assert ended.code == EXIT_USAGE
    assert "max_trials" in one_message(ended)


# -- an endpoint that refuses or is not there: exit 1 --------------------------------------------------


def both_engines(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test direct and through Prefect."""
    params = ["direct", pytest.param("prefect", marks=pytest.mark.prefect)]
    return pytest.mark.parametrize("engine", params)(test)


def evaluation(engine: str, request: pytest.FixtureRequest, *arguments: str) -> list[str]:
    if engine == "prefect":
        request.getfixturevalue("prefect_server")
        return ["eval", *arguments]
    return ["eval", *arguments, "--direct"]


@both_engines
def test_an_unknown_model(
    engine: str, request: pytest.FixtureRequest, command: Command, problems: str, openai_endpoint: ScriptedEndpoint
) -> None:
    openai_endpoint.models = {"mock"}
    ended = command(*evaluation(engine, request, problems, "--llm", "mok"))
    assert ended.code == EXIT_FAILED
    assert "mok" in one_message(ended)


@both_engines
def test_a_wrong_key(
    engine: str, request: pytest.FixtureRequest, command: Command, problems: str, openai_endpoint: ScriptedEndpoint
) -> None:
    openai_endpoint.api_key = "sk-right"
    ended = command(*evaluation(engine, request, problems, "--llm", "mock"))
    assert ended.code == EXIT_FAILED
    message = one_message(ended)
    assert "401" in message and "OPENAI_API_KEY" in message
    assert "test-key" not in ended.err
    assert openai_endpoint.stats.answered == 0


@both_engines
def test_an_endpoint_that_is_not_there_is_told_without_all_retries(
    engine: str, request: pytest.FixtureRequest, command: Command, problems: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    arguments = evaluation(engine, request, problems, "--llm", "mock")
    failures: list[int] = []
    wait = backoff.backoff_seconds
    monkeypatch.setattr(backoff, "backoff_seconds", lambda count, error: failures.append(count) or wait(count, error))
    started = time.monotonic()
    ended = command(*arguments)
    assert ended.code == EXIT_FAILED
    message = one_message(ended)
    assert url in message and "OPENAI_BASE_URL" in message
    assert max(failures) == backoff.LASTING_ATTEMPTS
    # Far from the ten minutes a call may take with its retries, and far from what a busy machine needs.
    assert time.monotonic() - started < 150


def test_one_task_with_a_wrong_key(command: Command, openai_endpoint: ScriptedEndpoint) -> None:
    openai_endpoint.api_key = "sk-right"
    ended = command("run", "x", "--answer", "1", "--llm", "mock")
    assert ended.code == EXIT_FAILED
    assert "401" in one_message(ended)


# -- disks ---------------------------------------------------------------------------------------------


@both_engines
def test_a_folder_of_runs_that_cannot_be_made(
    engine: str,
    request: pytest.FixtureRequest,
    command: Command,
    problems: str,
    openai_endpoint: ScriptedEndpoint,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = command(*evaluation(engine, request, problems, "--llm", "mock", "--runs", str(tmp_path / "file" / "runs")))
    assert ended.code == EXIT_FAILED
    assert str(tmp_path / "file") in one_message(ended)
    assert openai_endpoint.stats.calls == 0


SMALL_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); "


def test_a_full_disk_keeps_whole_lines_and_the_run_can_go_on(
    command: Command, tmp_path: Path, openai_endpoint: ScriptedEndpoint, isolated: Path
) -> None:
    dataset = write_problems(tmp_path / "many.jsonl", 30)
    openai_endpoint.answer = lambda prompt: "x" * 10_000
    arguments = ["eval", dataset, "--llm", "mock", "--direct", "--no-cache", "--name", "full", "--concurrency", "2"]
    arguments += ["--strategy", "none", "--max-trials", "2"]
    # The kernel refuses to let a file grow beyond this, as a full disk does.
    process = subprocess.Popen(
        [sys.executable, "-c", SMALL_FILES + "from reflexion.cli.main import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == EXIT_FAILED, err
    message = one_message(Ended(process.returncode, out, err))
    assert "episodes.jsonl" in message
    lines = (isolated / "runs" / "full" / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") for line in lines)
    finished = [e["problem_id"] for e in map(json.loads, lines) if e["outcome"] == "failed"]
    assert 0 < len(finished) < 30

    ended = command(*arguments, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["failed"] == 30


# -- Ctrl-C --------------------------------------------------------------------------------------------


def wait_for_episodes(process: subprocess.Popen[str], record: Path, episodes: int, *, seconds: float) -> None:
    """Return when a running command has put so many episodes on record."""
    deadline = time.monotonic() + seconds
    while not (record.exists() and record.read_bytes().count(b"\n") >= episodes):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("engine", "how"),
    [
        ("direct", signal.SIGINT),
        pytest.param("prefect", signal.SIGINT, marks=pytest.mark.prefect),
        pytest.param("prefect", signal.SIGTERM, marks=pytest.mark.prefect),
    ],
)
def test_an_interrupt_keeps_what_is_finished_and_says_how_to_go_on(
    engine: str,
    how: signal.Signals,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    openai_endpoint: ScriptedEndpoint,
    isolated: Path,
) -> None:
    dataset = write_problems(tmp_path / "many.jsonl", 20)
    openai_endpoint.latency = 0.1
    arguments = evaluation(engine, request, dataset, "--llm", "mock", "--concurrency", "2", "--no-cache")
    process = start_cli(*arguments, "--name", "cut")
    record = isolated / "runs" / "cut" / "episodes.jsonl"
    wait_for_episodes(process, record, 2, seconds=60)
    process.send_signal(how)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()

    assert process.returncode == EXIT_INTERRUPTED, err
    assert "Traceback" not in err and out == ""
    (resume,) = (line.removeprefix("Resume with: ") for line in err.splitlines() if line.startswith("Resume with: "))
    assert "--name cut" in resume
    finished = [e for e in map(json.loads, record.read_text().splitlines()) if e["outcome"] == "solved"]
    assert 2 <= len(finished) < 20

    openai_endpoint.latency = 0.0
    openai_endpoint.stats.calls = 0
    code, out, err = cli(*resume.split()[1:], "--json")
    assert code == 0, err
    assert json.loads(out)["solved"] == 20
    assert openai_endpoint.stats.calls == (20 - len(finished)) * 3


@pytest.mark.prefect
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_what_stops_a_whole_process_group_lets_the_local_server_record_it_first(
    how: signal.Signals,
    prefect_server: PrefectServer,
    openai_endpoint: ScriptedEndpoint,
    tmp_path: Path,
    isolated: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A terminal's Ctrl-C and the SIGTERM of `timeout` reach every process of a command, servers included."""
    home = tmp_path / "prefect"
    home.mkdir()
    # Making a database takes a minute; a copy of one that is in use has to be made by SQLite itself.
    with (
        closing(sqlite3.connect(prefect_server.database)) as used,
        closing(sqlite3.connect(home / "prefect.db")) as copy,
    ):
        used.backup(copy)
    monkeypatch.setenv("PREFECT_HOME", str(home))
    monkeypatch.delenv("PREFECT_API_URL")
    dataset = write_problems(tmp_path / "many.jsonl", 400)
    openai_endpoint.latency = 0.1
    process = start_cli("eval", dataset, "--llm", "mock", "--no-cache", "--name", "cut", process_group=0)
    record = isolated / "runs" / "cut" / "episodes.jsonl"
    try:
        wait_for_episodes(process, record, 20, seconds=120)
        os.killpg(process.pid, how)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == EXIT_INTERRUPTED, err
    assert "Traceback" not in err and "Resume with: " in err
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        query = "SELECT state_type FROM flow_run ORDER BY created DESC LIMIT 1"
        (state,) = database.execute(query).fetchone()
        query = "SELECT count(*) FROM task_run WHERE name LIKE 'trial:%' AND state_type = 'COMPLETED'"
        recorded = database.execute(query).fetchone()[0]
    assert state in ("CRASHED", "CANCELLED"), state
    finished = sum(e["outcome"] == "solved" for e in map(json.loads, record.read_text().splitlines()))
    assert recorded >= 2 * finished


# -- doctor --------------------------------------------------------------------------------------------


def test_doctor_finds_a_sound_setup(command: Command) -> None:
    ended = command("doctor", "--json")
    checks = {c["name"]: c for c in json.loads(ended.out)["checks"]}
    assert {"python", "prefect", "fastapi", "Prefect server", "model", "step cache", "runs", "sandbox"} <= checks.keys()
    assert checks["model"]["state"] == "ok" and checks["fastapi"]["state"] == "ok"


def test_doctor_says_what_is_broken_and_how_to_mend_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://user:hidden@127.0.0.1:{free_port()}/api")
    monkeypatch.setenv("REFLEXION_CACHE", "ftp://nowhere")
    monkeypatch.setenv("REFLEXION_LLM", "gpt-4o")
    ended = command("doctor", "--json")
    assert ended.code == 1
    broken = {c["name"]: c["mend"] for c in json.loads(ended.out)["checks"] if c["state"] == "broken"}
    assert {"Prefect server", "step cache", "model"} <= broken.keys()
    assert all(broken.values())
    assert "hidden" not in ended.out
    assert "broken" in command("doctor").out
