"""The report's file: whole, self-contained, made of a run in any state, in bounded memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reflexion.errors import ConfigurationError, StorageError
from reflexion.report import phrases, write_report
from reflexion.report.tally import LONGEST_TEXT, detail_of, row_of
from reflexion.run.run_folder import RunFolder
from reflexion.types import Outcome
from tests.unit.report.runs import HOSTILE, episode, make_run


def data_of(page: str) -> list[tuple[list[object], dict[str, object]]]:
    """Row and detail of each episode, as the page's script reads them."""
    block = re.search(r'<script type="application/x-ndjson" id="episodes">\n(.*?)</script>', page, re.S)
    assert block is not None
    return [tuple(map(json.loads, line.split("\t"))) for line in block[1].splitlines()]  # type: ignore[misc]


def test_it_needs_nothing_from_outside(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r", [episode("p", trials=2), episode(HOSTILE, answer=HOSTILE)])
    path = write_report(run)
    page = path.read_text("utf-8")
    assert path == run / "report.html"
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "@import" not in page and "url(" not in page
    assert page.count("<script") == 2
    rows = data_of(page)
    assert [row[0] for row, _ in rows] == ["p", HOSTILE]
    assert rows[1][1]["trials"][0]["answer"] == HOSTILE  # type: ignore[index]
    assert not [p for p in run.iterdir() if p.name.startswith(".report")]


def test_names_from_a_dataset_cannot_become_html(tmp_path: Path) -> None:
    hostile = episode("p", Outcome.FAILED)
    trial = hostile.trials[0]
    assert trial.evaluation is not None
    verdict = trial.evaluation.model_copy(update={"failure_class": HOSTILE})
    hostile = hostile.model_copy(
        update={"trials": (trial.model_copy(update={"evaluation": verdict, "model": HOSTILE}),)}
    )
    page = write_report(make_run(tmp_path, "r", [hostile], dataset=HOSTILE, llm=HOSTILE)).read_text("utf-8")
    assert "<img" not in page
    assert page.count("<script") == 2


def test_rows_and_details(tmp_path: Path) -> None:
    solved = episode("p", trials=2, repeat=1, cached=True)
    assert row_of(solved) == ["p", 1, "solved", 2, 2, None, 150, 0.001, 1.5, 2, 5]
    detail = detail_of(solved)
    assert detail["trials"][1]["diff"][1:] == [" def f(x):", "-    return x + 1", "+    return x + 2"]
    assert detail_of(episode("p", trials=2, answer="same"))["trials"][1]["same_as"] == 1
    long = detail_of(episode("p", answer="x" * (LONGEST_TEXT + 5)))["trials"][0]["answer"]
    assert long.endswith("(5 more characters in episodes.jsonl)")
    assert row_of(episode("p", Outcome.ERROR))[5] == "EndpointError"
    assert row_of(episode("p", Outcome.NOT_RUN))[5] == "not run"


def test_repeats_give_pass_at_k(tmp_path: Path) -> None:
    episodes = [
        episode(f"p{i}", Outcome.SOLVED if (i + r) % 3 == 0 else Outcome.FAILED, repeat=r)
        for i in range(6)
        for r in range(3)
    ]
    page = write_report(make_run(tmp_path, "r", episodes)).read_text("utf-8")
    table = page[page.index("pass@k over repeats") :]
    shares = re.findall(r'<th scope="row">(\d+)</th><td>([\d.]+) %', table)[:3]
    assert shares == [("1", "33.3"), ("2", "66.7"), ("3", "100.0")]


def test_what_decided_to_stop_is_told_with_how_the_figures_are_reckoned(tmp_path: Path) -> None:
    # Visible tests accept the second trial of "late", which hidden ones reject; the third is right.
    episodes = [episode("soon"), episode("late", trials=3), episode("never", Outcome.FAILED, trials=3)]
    page = write_report(make_run(tmp_path, "r", episodes)).read_text("utf-8")
    assert "<dt>Stopped by</dt><dd>hidden tests (oracle) 3</dd>" in page
    assert "<dt>Judged by</dt><dd>python (hidden tests)</dd>" in page and 'id="verdicts"' not in page
    assert re.search(r"<dt>Handed-in pass rate</dt><dd class=.value.>33\.3%</dd><dd>1 of 3; 95 % interval", page)
    for caption in (phrases.STOPPED_BY, phrases.HANDED_IN, phrases.AGREEMENT):
        assert caption in page.replace("&#39;", "'")
    # Of 4 answers that visible tests let pass 2 are wrong, of the 3 rejected none is right.
    told = "right on 71.4% of 7 trials, false positives 50.0%, false negatives 0.0%, wrong answers let through 40.0%"
    assert f"<dt>Visible tests</dt><dd>{told}" in page


def test_each_way_of_judging_is_a_row_where_there_are_several(tmp_path: Path) -> None:
    episodes = [episode("a"), episode("b", decided_by="visible_tests"), episode("c", Outcome.FAILED, decided_by=None)]
    page = write_report(make_run(tmp_path, "r", episodes)).read_text("utf-8")
    rows = re.findall(r'<tr><th scope="row">(python[^<]*)</th>' + r'<td class="number">([^<]*)</td>' * 3, page)
    assert sorted(rows) == [
        ("python (hidden tests)", "1", "1", "100.0 %"),
        ("python (not on record)", "1", "0", "0.0 %"),
        ("python (visible tests)", "1", "1", "100.0 %"),
    ]
    assert "hidden tests (oracle) 1, not on record 1, visible tests 1" in page


def test_notes_of_a_run_stand_at_the_head_of_its_report_as_text(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r", [episode("p")])
    path = run / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": [f"No reference was found. {HOSTILE}"]}))
    page = write_report(run).read_text("utf-8")
    head = page[page.index("<header>") : page.index("</header>")]
    assert "No reference was found. &lt;/script&gt;" in head and page.count("<script") == 2


@pytest.mark.parametrize("finish", [True, False])
def test_a_run_without_episodes_and_one_that_goes_on(tmp_path: Path, finish: bool) -> None:
    empty = write_report(make_run(tmp_path, "empty", [], finish=finish)).read_text("utf-8")
    assert data_of(empty) == []
    assert ("not finished" in empty) is not finish
    going = write_report(make_run(tmp_path, "going", [episode("p")], finish=finish)).read_text("utf-8")
    assert len(data_of(going)) == 1


def test_curves_of_an_ablation_are_drawn_together(tmp_path: Path) -> None:
    one = make_run(tmp_path, "a", [episode("p", trials=2)], strategy="reflexion")
    two = make_run(tmp_path, "b", [episode("p", Outcome.FAILED)], strategy="none", max_trials=1)
    page = write_report(one, others=[two]).read_text("utf-8")
    curve = page[page.index('id="plot-learning-curve"') : page.index('id="plot-outcomes"')]
    assert ">reflexion</text>" in curve and ">none</text>" in curve
    assert "<td>1 (100.0 %)</td>" in curve


def test_changes_of_concurrency_are_drawn_when_they_are_on_record(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r", [episode("p")])
    assert 'id="plot-concurrency"' not in write_report(run).read_text("utf-8")
    changes = [{"time": 100.0 + n, "endpoint": "e", "old": 20 + n, "new": 21 + n, "why": "<429>"} for n in range(3)]
    with RunFolder.resume(tmp_path, "r", parameters={**RunFolder.open(run).parameters}) as folder:
        folder.attach("concurrency.json", changes)
    page = write_report(run).read_text("utf-8")
    assert "The limit changed 3 times, from 20 to 23 requests." in page
    assert "&lt;429&gt;" in page
    (run / "concurrency.json").write_text("[{")
    with pytest.raises(StorageError, match=r"concurrency\.json: line 1"):
        write_report(run)


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a run's folder"):
        write_report(tmp_path)


def test_memory_does_not_grow_with_the_episodes(tmp_path: Path) -> None:
    """30 MB of episodes become a page in a process that may take a small part of that."""
    run = make_run(tmp_path, "r", (episode(f"p{i}", answer=f"{'x' * 76}\n" * 200) for i in range(2000)))
    assert (run / "episodes.jsonl").stat().st_size > 30_000_000
    code = (
        "import sys, tracemalloc; from reflexion.report import write_report; "
        "write_report(sys.argv[1]); tracemalloc.start(); write_report(sys.argv[1]); "
        "print(tracemalloc.get_traced_memory()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8_000_000
