"""Two runs side by side: what changed, whether it could be chance, and what it cost."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from reflexion.errors import ConfigurationError
from reflexion.report.compare import Comparison, compare_runs
from reflexion.types import Outcome
from tests.unit.report.runs import HOSTILE, episode, make_run

FAILED, ERROR = Outcome.FAILED, Outcome.ERROR


def test_what_changed_and_what_it_cost(tmp_path: Path) -> None:
    a = make_run(
        tmp_path,
        "before",
        [episode("p1"), episode("p2"), episode("p3", FAILED), episode("p4", FAILED), episode("only-a")],
    )
    b = make_run(
        tmp_path,
        "after",
        [episode("p1", trials=2), episode("p2", ERROR), episode("p3", trials=3), episode("p4", FAILED)],
    )
    found = compare_runs(a, b)
    assert (found.shared, found.both, found.neither) == (4, 1, 1)
    assert [(c.problem_id, c.outcome_a, c.outcome_b) for c in found.regressions] == [("p2", "solved", "error")]
    assert [c.problem_id for c in found.only_b] == ["p3"]
    assert (found.missing_in_a, found.missing_in_b) == (0, 1)
    assert found.p_value == 1.0
    assert (found.a.pass_rate, found.b.pass_rate) == (0.5, 0.5)
    assert found.b.cost_usd == pytest.approx(0.010)
    assert Comparison.model_validate_json(found.to_json()) == found
    text = found.to_markdown()
    assert "**+0** solved of 4 shared episodes: 1 improved, 1 regressed. McNemar p = 1" in text
    assert "| tokens | 750 | 1,500 | +750 |" in text
    assert "| tokens without the cache | 750 | 1,500 | +750 |" in text
    assert "| cost without the cache | 0.0050 | 0.0100 | +0.0050 |" in text
    assert "- p2: solved → error" in text
    # Handed in without hidden tests: 3 of 5 before; p1 is right at last, p3's second answer is not.
    assert "| handed-in pass rate, whole run | 60.0% | 25.0% | -35.0% |" in text
    assert "| stopped by | hidden tests (oracle) 5 | hidden tests (oracle) 3 | |" in text
    assert "> Not compared: 1 episodes only before has, 0 only after has." in text


def test_runs_of_older_versions_are_compared_and_what_they_do_not_tell_is_said(tmp_path: Path) -> None:
    a = make_run(tmp_path, "old", [episode("p1", trials=2, decided_by=None), episode("p2")])
    path = a / "summary.json"
    kept = {name: v for name, v in json.loads(path.read_text()).items() if name not in ("handed_in", "stopped_by")}
    path.write_text(json.dumps(kept))
    b = make_run(tmp_path, "new", [episode("p1", decided_by="visible_tests"), episode("p2", decided_by="judge")])
    text = compare_runs(a, b).to_markdown()
    assert "| handed-in pass rate, whole run | unknown | 100.0% |  |" in text
    assert "| stopped by | not on record | a judge 1, visible tests 1 | |" in text


def test_a_difference_that_is_no_chance(tmp_path: Path) -> None:
    a = make_run(tmp_path, "a", [episode(f"p{i}", FAILED) for i in range(12)])
    b = make_run(tmp_path, "b", [episode(f"p{i}") for i in range(12)])
    found = compare_runs(a, b)
    assert found.p_value == pytest.approx(2 / 2**12)
    assert "is unlikely to be chance" in found.to_markdown()
    assert not found.regressions


def test_long_lists_are_cut_and_names_cannot_break_the_table(tmp_path: Path) -> None:
    ids = [f"<b>|@team {i}" for i in range(30)]
    a = make_run(tmp_path, "a", [episode(i) for i in ids])
    b = make_run(tmp_path, "b", [episode(i, FAILED) for i in ids])
    text = compare_runs(a, b).to_markdown()
    assert "… and 10 more" in text
    assert "<b>" not in text and "@team" not in text


def test_runs_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, "a", [episode("p")]), make_run(tmp_path, "b", [episode("q")])
    with pytest.raises(ConfigurationError, match="no episode in common"):
        compare_runs(a, b)
    with pytest.raises(ConfigurationError, match="not a run's folder"):
        compare_runs(a, tmp_path / "missing")


def test_doubts_are_told(tmp_path: Path) -> None:
    a = make_run(tmp_path, "a", [episode("p"), episode("p", repeat=1)], dataset_digest="1")
    b = make_run(tmp_path, "b", [episode("p"), episode("p", repeat=1, cost=None)], dataset_digest="2", finish=False)
    found = compare_runs(a, b)
    text = " ".join(found.warnings)
    assert "contents of the dataset differ" in text
    assert "b is not finished" in text
    assert "independent" in text
    assert found.b.cost_usd is None
    assert "| cost, US dollars | 0.0020 | at least 0.0010 |  |" in found.to_markdown()
    assert json.loads(found.to_json())["b"]["episodes_per_minute"] is None


def test_regressions_are_the_failures_of_its_junit_xml(tmp_path: Path) -> None:
    a = make_run(tmp_path, "a", [episode("p1"), episode(f"{HOSTILE}\x00"), episode("p3", FAILED)])
    b = make_run(tmp_path, "b", [episode("p1"), episode(f"{HOSTILE}\x00", ERROR), episode("p3")])
    suite = ET.fromstring(compare_runs(a, b).to_junit())[0]
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("b against a", "3", "1")
    same, worse, better = suite
    assert same.get("name") == "1 episodes without a change"
    assert (worse.get("name"), worse[0].get("message")) == (f"{HOSTILE}\ufffd", "solved → error")
    assert (better.get("name"), better.find("failure")) == ("p3", None)


def test_what_the_cache_saved_is_part_of_what_a_run_takes(tmp_path: Path) -> None:
    a = make_run(tmp_path, "a", [episode("p1", cached=True)])
    b = make_run(tmp_path, "b", [episode("p1")])
    text = compare_runs(a, b).to_markdown()
    assert "| tokens | 0 | 150 | +150 |" in text
    assert "| tokens without the cache | 150 | 150 | +0 |" in text
