"""The same figures in the table, in Prefect's artifacts and in the table of strategies."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from reflexion.cli.console import print_ablation, print_result
from reflexion.flows.artifacts import learning_curve, summary_rows
from reflexion.report.strategy_table import gather, run_name
from reflexion.run.batch_run import BatchResult
from reflexion.run.run_folder import RunFolder
from reflexion.run.strategy_runs import AblationResult
from reflexion.telemetry.summary import Summary
from reflexion.types import Episode, Outcome, Strategy
from tests.unit.report.runs import episode, make_run

EPISODES = [episode("a"), episode("b", trials=3), episode("c", Outcome.FAILED, trials=3)]
NOTE = "No answer was found in 1 row: the model judges itself."


def summary_of(folder: Path, *notes: str) -> Summary:
    found = RunFolder.open(folder).summary()
    assert found is not None
    return found.model_copy(update={"notes": notes})


def table(folder: Path, summary: Summary) -> list[str]:
    out = io.StringIO()
    print_result(BatchResult(folder=folder, summary=summary), Console(file=out, width=80))
    return out.getvalue().splitlines()


def test_the_table_of_a_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "r", EPISODES)
    lines = table(folder, summary_of(folder, NOTE))
    at = next(n for n, line in enumerate(lines) if line.startswith("Pass rate: 66.7%"))
    assert lines[at + 1].startswith("Handed-in pass rate: 33.3%, 95 % interval 6.1% to 79.2%")
    assert lines[at + 2 : at + 4] == ["Stopped by: hidden tests (oracle) 3", "Judged by: python (hidden tests)"]
    assert f"Note: {NOTE}" in lines
    assert (
        "Visible tests: right on 71.4% of 7 trials, false positives 50.0%, false negatives 0.0%, "
        "wrong answers let through 40.0%, right answers rejected 0.0%" in lines
    )


def test_the_table_of_a_run_judged_in_several_ways_and_of_an_older_one(tmp_path: Path) -> None:
    mixed = make_run(tmp_path, "mixed", [*EPISODES, episode("d", decided_by="visible_tests")])
    lines = table(mixed, summary_of(mixed))
    assert "Judged by: python (hidden tests): 2 of 3 episodes solved, 66.7%" in lines
    assert "Judged by: python (visible tests): 1 of 1 episodes solved, 100.0%" in lines
    older = make_run(tmp_path, "older", [episode("a", decided_by=None)])
    lines = table(older, summary_of(older))
    assert "Stopped by: not on record 1" in lines and "Judged by: python (not on record)" in lines


def test_the_artifacts_of_a_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "r", [*EPISODES, episode("d", decided_by="visible_tests")])
    summary = summary_of(folder, NOTE)
    rows = [(row["figure"], row["value"]) for row in summary_rows(summary)]
    assert ("handed-in pass rate", "50.0%, 95 % interval 15.0% to 85.0%") in rows
    assert ("stopped by", "hidden tests (oracle) 3, visible tests 1") in rows
    assert ("judged by", "python (visible tests): 1 of 1 episodes solved, 100.0%") in rows
    assert ("note", NOTE) in rows
    page = learning_curve(summary)
    assert "Stopped by: hidden tests (oracle) 3, visible tests 1.\n" in page and f"> {NOTE}\n" in page


def test_the_table_of_strategies(tmp_path: Path) -> None:
    def run(strategy: Strategy, episodes: list[Episode]) -> None:
        folder = make_run(tmp_path, run_name("all", strategy), episodes, strategy=strategy.value)
        path = folder / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": [NOTE]}))

    run(Strategy.NONE, [episode("a"), episode("b", Outcome.FAILED, trials=3)])
    run(Strategy.REFLEXION, [episode("a"), episode("b", decided_by="visible_tests")])
    out = io.StringIO()
    ablation = gather(tmp_path / "all", [Strategy.NONE, Strategy.REFLEXION])
    print_ablation(AblationResult(folder=tmp_path / "all", ablation=ablation), Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert "Handed-in pass rate: none 50.0%, reflexion 100.0%" in lines
    assert "Stopped by, none: hidden tests (oracle) 2" in lines
    assert "Stopped by, reflexion: hidden tests (oracle) 1, visible tests 1" in lines
    assert lines.count(f"Note: {NOTE}") == 1
