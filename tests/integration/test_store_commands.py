"""`reflexion cache …` and `reflexion memory …`, on what real runs left behind."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from reflexion.cli.main import execute
from reflexion.testing import ScriptedEndpoint
from tests.support.evals import CALLS, evaluate, write_problems


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture
def runs(openai_endpoint: ScriptedEndpoint, tmp_path: Path, cache: str) -> dict[str, Path]:
    """Three runs of the same problems: as usual, again, and with another temperature."""
    dataset = write_problems(tmp_path / "problems.jsonl", 2)
    return {
        name: evaluate("direct", dataset, cache=cache, name=name, **more).folder
        for name, more in (("usual", {}), ("again", {}), ("warm", {"temperature": 0.2}))
    }


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The one JSON object a command prints."""
    assert execute([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert execute(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("runs")
def test_cache_stats(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    stats = asked(capsys, "cache", "stats", "--cache", cache)
    assert stats["entries"] == 2 * 2 * CALLS
    assert stats["hit_rate"] == pytest.approx(1 / 3)
    trial = next(s for s in stats["steps"] if s["step"] == "trial")
    assert (trial["model"], trial["entries"], trial["hits"], trial["misses"]) == ("mock", 8, 4, 8)
    assert trial["saved"]["prompt"] > 0
    shown = told(capsys, "cache", "stats", "--cache", cache)
    assert "33.3% of 18 look-ups answered" in shown


def test_explain(runs: dict[str, Path], cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    # The cache is on record in the runs, so it need not be named.
    shown = told(capsys, "cache", "explain", "usual", "warm", "p1.0")
    assert shown.count("temperature 0 → 0.2") == CALLS
    found = asked(capsys, "cache", "explain", "usual", "warm", "p1.0")
    assert [(s["step"], s["trial"], s["state"]) for s in found["steps"]] == [
        ("trial", 1, "different"),
        ("reflect", 1, "different"),
        ("trial", 2, "different"),
    ]
    assert found["steps"][0]["differences"] == [{"field": "sampling.temperature", "a": 0, "b": 0.2}]

    same = asked(capsys, "cache", "explain", str(runs["usual"]), str(runs["again"]), "p1.0")
    assert {s["state"] for s in same["steps"]} == {"same"}

    told(capsys, "cache", "clear", "--run", "warm", "--cache", cache)
    gone = asked(capsys, "cache", "explain", "usual", "warm", "p1.0")
    assert [s["gone"] for s in gone["steps"]] == [["b"]] * CALLS
    assert "the entry of warm expired or was cleared" in told(capsys, "cache", "explain", "usual", "warm", "p1.0")

    assert execute(["cache", "explain", "usual", "again", "p9"]) == 2
    assert "no record of problem 'p9'" in capsys.readouterr().err
    assert execute(["cache", "explain", "usual", "never", "p1.0"]) == 2
    assert "never" in capsys.readouterr().err


def test_explain_names_what_the_problem_and_the_prompt_changed(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "problems.jsonl"
    write_problems(path, 1)
    evaluate("direct", str(path), name="before")
    path.write_text(path.read_text().replace("two", "2"))
    evaluate("direct", str(path), name="after", strategy="last_attempt", actor="cot")
    shown = told(capsys, "cache", "explain", "before", "after", "p0.0")
    first, *rest = [line.strip() for line in shown.splitlines() if line.startswith("  ")]
    assert first.startswith("trial 1")
    assert "problem digest" in first
    assert "actor direct → cot" in first
    assert any("only in before" in line for line in rest)


@pytest.mark.usefixtures("runs")
def test_clear_and_prune(cache: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def removed(*arguments: str) -> int:
        return asked(capsys, "cache", *arguments, "--cache", cache)["removed"]

    assert execute(["cache", "clear", "--cache", cache]) == 2
    assert "--all" in capsys.readouterr().err
    assert removed("clear", "--model", "another") == 0
    assert removed("clear", "--older-than", "1h") == 0
    assert removed("clear", "--run", "warm", "--step", "reflect") == 2
    assert removed("clear", "--dataset", "problems.jsonl", "--run", "warm") == 4
    assert removed("prune") == 0

    evaluate("direct", str(tmp_path / "problems.jsonl"), cache=cache, temperature=0.9, ttl="trial=0.2,reflect=1h")
    dropped, deadline = 0, time.monotonic() + 15
    while dropped < 4:
        assert time.monotonic() < deadline
        dropped += removed("prune")
    assert removed("clear", "--all") == 2 * CALLS + 2
    assert asked(capsys, "cache", "stats", "--cache", cache)["entries"] == 0


@pytest.mark.usefixtures("runs")
def test_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stats = asked(capsys, "memory", "stats", "--run", "usual")
    assert (stats["backend"], stats["entries"], stats["problems"]) == ("sqlite", 2, 2)

    (lesson,) = asked(capsys, "memory", "show", "p1.0", "--run", "usual")["lessons"]
    assert (lesson["episode"], lesson["uses"], lesson["wins"]) == ("usual/p1.0/0", 1, 1)
    assert asked(capsys, "memory", "show", lesson["problem"][:12], "--run", "usual")["lessons"] == [lesson]
    assert lesson["text"] in told(capsys, "memory", "show", "p1.0", "--run", "usual")

    lines, other = tmp_path / "lessons.jsonl", f"sqlite:{tmp_path / 'other.sqlite'}"
    assert "2 lessons" in told(capsys, "memory", "export", str(lines), "--run", "usual")
    assert told(capsys, "memory", "export", "-", "--run", "usual") == lines.read_text()
    assert execute(["memory", "stats", "--memory", other]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert asked(capsys, "memory", "import", str(lines), "--memory", other) == {"added": 2, "known": 0}
    assert asked(capsys, "memory", "import", str(lines), "--memory", other) == {"added": 0, "known": 2}
    assert asked(capsys, "memory", "show", "p1.0", "--memory", other)["lessons"] == [lesson]

    lines.write_text(lines.read_text() + '{"key": "k"}\n')
    assert execute(["memory", "import", str(lines), "--memory", other]) == 2
    assert "lessons.jsonl:3: field 'problem'" in capsys.readouterr().err
    assert execute(["memory", "import", str(lines), "--memory", other, "--per-problem", "0"]) == 2
    assert "per_problem = 0" in capsys.readouterr().err

    assert asked(capsys, "memory", "clear", "--memory", other) == {"removed": 2}
    assert asked(capsys, "memory", "stats", "--memory", other)["entries"] == 0
    for wrong in (["--run", "usual", "--memory", other], []):
        assert execute(["memory", "stats", *wrong]) == 2
        assert "--run" in capsys.readouterr().err
