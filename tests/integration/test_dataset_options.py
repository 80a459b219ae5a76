"""Options that choose and read problems, as the command line takes them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from reflexion.testing import ScriptedEndpoint
from tests.support.commands import Command, command_in, one_message


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    rows = [
        {"id": f"p{n}", "question": f"{n} times two?", "gold": "42", "level": "hard" if n % 3 == 0 else "easy"}
        for n in range(10)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return command_in(tmp_path, capsys, monkeypatch)


READ = ("eval", "questions.jsonl", "--llm", "mock", "--direct", "--max-trials", "1")
MAP = ("--map", "prompt=question", "--map", "answer=gold")


def shuffled(seed: int) -> list[str]:
    order = [f"p{n}" for n in range(10)]
    random.Random(seed).shuffle(order)
    return order


CHOICES = {
    "--limit 2": ["p0", "p1"],
    "--offset 8": ["p8", "p9"],
    "--where level=hard": ["p0", "p3", "p6", "p9"],
    "--where level!=hard --where id~[14]$": ["p1", "p4"],
    "--where level=hard --offset 1 --limit 2": ["p3", "p6"],
    "--shuffle --seed 7": shuffled(7),
    "--shuffle --seed 7 --limit 3": shuffled(7)[:3],
    "--shuffle": shuffled(0),
    "--shuffle-seed 7": shuffled(7),
}


def test_problems_are_chosen_as_asked(command: Command, openai_endpoint: ScriptedEndpoint, isolated: Path) -> None:
    for number, (options, expected) in enumerate(CHOICES.items()):
        ended = command(*READ, *MAP, *options.split(), "--name", f"r{number}")
        assert ended.code == 0, (options, ended.err)
        lines = (isolated / "runs" / f"r{number}" / "episodes.jsonl").read_text().splitlines()
        assert [json.loads(line)["problem_id"] for line in lines] == expected, options


def test_repeats_are_attempts_of_their_own_and_give_pass_at_k(
    command: Command, openai_endpoint: ScriptedEndpoint
) -> None:
    answers = iter(["42", "41", "41", "41", "42", "42"])
    openai_endpoint.answer = lambda prompt: next(answers)
    options = ("--limit", "2", "--repeat", "3", "--temperature", "0.8", "--concurrency", "1")
    ended = command(*READ, *MAP, *options, "--json", "--name", "r")
    summary = json.loads(ended.out)
    assert (summary["problems"], summary["episodes"], summary["solved"]) == (2, 6, 3)
    shares = {k: round(e["value"], 4) for k, e in summary["pass_at_k"].items()}
    assert shares == {"1": 0.5, "2": round((2 / 3 + 1) / 2, 4), "3": 1.0}
    assert summary["pass_rate_interval"] == summary["pass_at_k"]["1"]
    assert "--repeat at temperature 0" not in ended.err
    shown = command(*READ, *MAP, *options, "--name", "r").out
    assert "Pass rate: 50.0%, 95 % interval" in shown and "pass@2: 83.3%, 95 % interval" in shown


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--where", "level"], ["'level'", "FIELD=VALUE"]),
        (["--where", "id~("], ["regular expression"]),
        (["--where", "level=none"], ["no problem is left of 10"]),
        (["--offset", "10"], ["no problem is left of 10"]),
        (["--limit", "0"], ["limit", "0"]),
        (["--repeat", "0"], ["repeat", "0"]),
        (["--map", "prompt=missing"], ["'missing'", "'question'"]),
        (["--map", "guess=question"], ["'guess'"]),
        (["--map", "question"], ["'question'", "prompt=question"]),
        (["--map", "prompt=question", "--map", "prompt=gold"], ["prompt", "twice", "question+gold"]),
        (["--map", "prompt=question.text"], ["questions.jsonl:1", "'question.text'", "is a text"]),
        (["--map", "prompt={question} {hint}"], ["questions.jsonl:1", "'hint'", "fields found: 'id'"]),
    ],
)
def test_wrong_choices_are_told(
    options: list[str], told: list[str], command: Command, openai_endpoint: ScriptedEndpoint
) -> None:
    mapped = () if "--map" in options else MAP
    message = one_message(command(*READ, *mapped, *options))
    assert all(part in message for part in told), message
    assert openai_endpoint.stats.calls == 0


def test_every_option_is_in_the_help(command: Command) -> None:
    shown = command("eval", "--help").out
    for option in ("where", "limit", "offset", "shuffle", "shuffle-seed", "map", "repeat", "strategies", "fail-under"):
        assert f"--{option}" in shown
    assert "default: False" not in shown
    compared = command("compare", "--help").out
    assert all(f"--{option}" in compared for option in ("fail-on-regression", "junit", "json"))
