"""kill -9 in the middle of a batch, then the command it printed at its start."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path

import pytest

from reflexion.testing import ScriptedEndpoint
from tests.support.evals import CALLS, cli, episodes, evaluate, start_cli, write_problems
from tests.waiting import wait_until

PROBLEMS, CONCURRENCY = 12, 3


@pytest.fixture(
    params=[
        "direct",
        pytest.param("task runs", marks=pytest.mark.prefect),
        pytest.param("shared task runs", marks=pytest.mark.prefect),
    ]
)
def engine(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "direct":
        return ["--direct"]
    request.getfixturevalue("prefect_server")
    return ["--steps-per-task-run", "8"] if request.param == "shared task runs" else []


def test_no_finished_step_is_called_again(
    engine: list[str], openai_endpoint: ScriptedEndpoint, isolated: Path, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    openai_endpoint.latency = 0.1
    common = ["eval", dataset, "--llm", "mock", "--concurrency", str(CONCURRENCY), *engine]

    process = start_cli(*common, "--cache", str(tmp_path / "cache"))
    # Told at the start: nothing can be told after a kill.
    printed = ""
    while "resume it with: " not in printed:
        line = process.stderr.readline() if process.stderr is not None else ""
        assert line, printed
        printed += line
    (folder,) = (isolated / "runs").iterdir()
    record = folder / "episodes.jsonl"
    asyncio.run(wait_until(lambda: record.read_bytes().count(b"\n") >= PROBLEMS // 3, 60))
    process.kill()
    process.communicate()
    finished = record.read_text().splitlines()
    assert 0 < len(finished) < PROBLEMS

    command = shlex.split(printed.rpartition("resume it with: ")[2])
    assert command[0] == "reflexion"
    code, _, err = cli(*command[1:])

    assert code == 0, err
    assert f"of {PROBLEMS} episodes are done" in err
    stats = openai_endpoint.stats
    assert len(stats.distinct) == PROBLEMS * CALLS
    assert stats.calls - len(stats.distinct) <= CONCURRENCY  # the calls in flight when it was killed
    lines = record.read_text().splitlines()
    assert set(finished) <= set(lines)

    undisturbed = evaluate("direct", dataset, cache=str(tmp_path / "other"))
    assert episodes(folder) == episodes(undisturbed.folder)
    others = (undisturbed.folder / "episodes.jsonl").read_text().splitlines()
    assert list(map(keys, lines)) == list(map(keys, others))


def keys(line: str) -> list[str]:
    return [trial["key"] for trial in json.loads(line)["trials"]]


def test_a_torn_line_runs_again(openai_endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 3)
    folder = evaluate("direct", dataset, name="torn").folder
    before = episodes(folder)
    record = folder / "episodes.jsonl"
    record.write_bytes(record.read_bytes()[:-20])

    evaluate("direct", dataset, name="torn")

    assert episodes(folder) == before
    # Its steps were cached, so even that episode asked nothing again.
    assert openai_endpoint.stats.calls == 3 * CALLS
