"""Costs known in part, replies without an answer and the words of errors: the same wherever a run is shown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from reflexion.cli.console import print_ablation, print_result
from reflexion.flows.artifacts import BatchWatch, learning_curve, summary_rows
from reflexion.report import compare_runs, phrases, write_report
from reflexion.report.strategy_table import gather, run_name, write_plan
from reflexion.report.tally import LONGEST_THOUGHT, detail_of
from reflexion.run.batch_run import BatchResult
from reflexion.run.run_folder import RunFolder
from reflexion.run.strategy_runs import AblationResult
from reflexion.telemetry.summary import Summary
from reflexion.types import Episode, EpisodeError, Outcome, Reflection, Strategy, Usage
from tests.unit.report.runs import HOSTILE, episode, make_run

SILENT = Usage(calls=1, unknown=1)
UNPRICED = Usage(prompt=70, completion=9, calls=1)
SEEN = Usage(prompt=1200, completion=30, calls=1, cost_usd=0.1234, cached_prompt=1024)


def spending(problem: str, usage: Usage, model: str = "small-model") -> Episode:
    """An episode whose one trial spent this."""
    plain = episode(problem)
    return plain.model_copy(update={"trials": (plain.trials[0].model_copy(update={"usage": usage, "model": model}),)})


def broken(problem: str, message: str, kind: str = "PermanentError") -> Episode:
    error = EpisodeError(step="trial", kind=kind, message=message)
    return episode(problem, Outcome.ERROR).model_copy(update={"error": error, "trials": ()})


def thinking(problem: str, thought: str, reflection: Reflection | None = None) -> Episode:
    """An episode whose first trial and reflection were thought over."""
    plain = episode(problem, trials=2)
    lesson = reflection or Reflection(trial=1, text="Multiply.", thought=f"lesson: {thought}")
    first = plain.trials[0].model_copy(update={"thought": thought, "reflection": lesson})
    return plain.model_copy(update={"trials": (first, plain.trials[1])})


def summary_of(folder: Path) -> Summary:
    found = RunFolder.open(folder).summary()
    assert found is not None
    return found


def table(folder: Path) -> list[str]:
    out = io.StringIO()
    print_result(BatchResult(folder=folder, summary=summary_of(folder)), Console(file=out, width=80))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("spent", "told"),
    [
        ([SEEN], "$0.1234"),
        ([SEEN, SILENT], "at least $0.1234 (1 call without usage)"),
        ([SEEN, *[SILENT] * 6], "at least $0.1234 (6 calls without usage)"),
        ([SILENT, SILENT], "unknown, 2 calls without usage"),
        ([UNPRICED], "unknown, a model has no known price"),
        ([UNPRICED, SILENT], "unknown, 1 call without usage and a model has no known price"),
        ([SEEN, UNPRICED], "at least $0.1234 (a model has no known price)"),
    ],
)
def test_the_cost_is_told_in_the_same_words_everywhere(tmp_path: Path, spent: list[Usage], told: str) -> None:
    folder = make_run(tmp_path, "r", [spending(f"p{n}", usage) for n, usage in enumerate(spent)])
    assert f"Cost: {told}" in table(folder)
    assert {"figure": "cost", "value": told} in summary_rows(summary_of(folder))
    amount, _, why = told.removesuffix(")").replace(" (", ", ").partition(", ")
    page = write_report(folder).read_text("utf-8")
    assert f'<dt>Cost</dt><dd class="value">{amount}</dd><dd>{why or "US dollars"}</dd>' in page
    assert (f"Spent: {told}." in page) is amount.endswith("$0.1234")


def test_a_model_without_a_price_is_told_beside_one_that_has_a_price(tmp_path: Path) -> None:
    episodes = [spending("a", SEEN), spending("b", SILENT), spending("c", UNPRICED, "own-model")]
    why = "1 call without usage and a model has no known price"
    assert f"Cost: at least $0.1234 ({why})" in table(make_run(tmp_path, "r", episodes))


def test_prompt_tokens_the_endpoint_had_seen_are_told_where_there_are_any(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "r", [spending("a", SEEN)])
    told = "1,200 prompt (1,024 of them cached by the endpoint) + 30 completion, 0 saved by the cache"
    assert f"Tokens: {told}" in table(folder) and {"figure": "tokens", "value": told} in summary_rows(
        summary_of(folder)
    )
    assert "0 saved, 1,024 prompt tokens cached by the endpoint, " in write_report(folder).read_text("utf-8")
    plain = make_run(tmp_path, "plain", [episode("a")])
    assert "Tokens: 120 prompt + 30 completion, 0 saved by the cache" in table(plain)
    assert "cached by the endpoint" not in write_report(plain).read_text("utf-8")


def test_strategies_and_comparisons_tell_what_is_known_of_a_cost(tmp_path: Path) -> None:
    none, reflexion = (run_name("all", strategy) for strategy in (Strategy.NONE, Strategy.REFLEXION))
    a = make_run(tmp_path, none, [spending("a", SEEN), spending("b", SEEN)], strategy="none")
    saved = spending("a", SEEN)
    saved = saved.model_copy(update={"trials": (saved.trials[0].model_copy(update={"cached": True}),)})
    b = make_run(tmp_path, reflexion, [saved, spending("b", SILENT)], strategy="reflexion")
    write_plan(tmp_path / "all", [Strategy.NONE, Strategy.REFLEXION])
    ablation = gather(tmp_path / "all")
    assert [run.cost_at_least_usd for run in ablation.runs] == [None, 0.1234]
    out = io.StringIO()
    print_ablation(AblationResult(folder=tmp_path / "all", ablation=ablation), Console(file=out, width=80))
    told = "Cost: none $0.2468, reflexion at least $0.1234 (1 call without usage)"
    assert told in out.getvalue().splitlines()
    page = write_report(tmp_path / "all").read_text("utf-8")
    assert '<td class="number">0.2468</td>' in page and '<td class="number">at least 0.1234</td>' in page
    text = compare_runs(a, b).to_markdown()
    assert "| cost, US dollars | 0.2468 | unknown |  |" in text
    assert "| cost without the cache | 0.2468 | at least 0.1234 |  |" in text


def test_replies_without_an_answer_are_told(tmp_path: Path) -> None:
    empty = Reflection(trial=1, text="", error="ReplyCutError: cut at 300 tokens", retried=("ReplyCutError",))
    folder = make_run(tmp_path, "r", [thinking("a", "hm", empty), thinking("b", "well")])
    used_up = "used up 2 replies (reflections 2); 1 stayed without an answer; raise --reflection-max-tokens"
    lines = table(folder)
    assert f"Reasoning: {used_up}" in lines and "Empty reflections: 1 of 2" in lines
    rows = summary_rows(summary_of(folder))
    assert {"figure": "reasoning", "value": used_up} in rows
    assert {"figure": "empty reflections", "value": "1 of 2"} in rows
    assert f"Reasoning: {used_up}.\n" in learning_curve(summary_of(folder))
    page = write_report(folder).read_text("utf-8")
    assert f"<dt>Reasoning</dt><dd>{used_up}</dd>" in page and "<dt>Empty reflections</dt><dd>1 of 2</dd>" in page
    quiet = make_run(tmp_path, "quiet", [thinking("a", "hm")])
    assert not [line for line in table(quiet) if line.startswith(("Reasoning", "Empty"))]
    assert 'id="replies"' not in write_report(quiet).read_text("utf-8")


def test_the_words_of_an_error_are_told_once_for_each_class(tmp_path: Path) -> None:
    episodes = [
        episode("a"),
        broken("b", f"the subscription\nhas ended \x1b]0;owned\x07 `{HOSTILE}`"),
        broken("c", "the subscription has ended, again"),
        broken("d", "connection reset", kind="EndpointError"),
    ]
    folder = make_run(tmp_path, "r", episodes)
    words = f"PermanentError: the subscription has ended \\x1b]0;owned\\x07 `{HOSTILE}`"
    lines = table(folder)
    at = lines.index("Not finished: 3 with errors (1 EndpointError, 2 PermanentError), 0 not run")
    assert lines[at + 1 : at + 3] == [f"Error: {words}", "Error: EndpointError: connection reset"]
    assert {"figure": "error", "value": words} in summary_rows(summary_of(folder))
    assert f"> Error: `{words.replace('`', chr(39))}`\n" in learning_curve(summary_of(folder))
    page = write_report(folder).read_text("utf-8")
    head = page[page.index("<header>") : page.index("</header>")]
    assert head.count("the subscription has ended") == 1 and "connection reset" in head
    assert "\\x1b]0;owned" in head and page.count("<script") == 2
    watch = BatchWatch()
    for each in episodes:
        watch.finished(each)
    assert [row["reason"] for row in watch.failed][1:] == [
        "PermanentError: the subscription has ended, again",
        "EndpointError: connection reset",
    ]
    assert phrases.errors_told([summary_of(folder)] * 2) == phrases.errors_told([summary_of(folder)])


def test_errors_and_lost_replies_of_strategies_are_told_with_their_names(tmp_path: Path) -> None:
    cut = Reflection(trial=1, text="", error="ReplyCutError: cut")
    for strategy in (Strategy.NONE, Strategy.REFLEXION):
        episodes = [broken("a", "no such deployment"), thinking("b", "hm", cut)]
        make_run(tmp_path, run_name("all", strategy), episodes, strategy=strategy.value)
    write_plan(tmp_path / "all", [Strategy.NONE, Strategy.REFLEXION])
    out = io.StringIO()
    result = AblationResult(folder=tmp_path / "all", ablation=gather(tmp_path / "all"))
    print_ablation(result, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert lines.count("Error: PermanentError: no such deployment") == 1
    assert "Empty reflections, none: 1 of 1" in lines and "Empty reflections, reflexion: 1 of 1" in lines
    page = write_report(tmp_path / "all").read_text("utf-8")
    assert page[: page.index("</header>")].count("no such deployment") == 1
    assert "<dt>Empty reflections, reflexion</dt><dd>1 of 1</dd>" in page


def test_thoughts_are_carried_as_far_as_the_page_stays_small(tmp_path: Path) -> None:
    first = detail_of(thinking("a", "count them"))["trials"][0]
    assert (first["thought"], first["reflection"]["thought"]) == ("count them", "lesson: count them")
    assert "thought_length" not in first
    long = detail_of(thinking("a", "x" * 300_000))["trials"][0]
    for output, length in ((long, 300_000), (long["reflection"], 300_008)):
        assert output["thought_length"] == length
        assert output["thought"].endswith(f"({length - LONGEST_THOUGHT:,} more characters in episodes.jsonl)")
    run = make_run(tmp_path, "r", [thinking(f"p{n}", "x" * 300_000) for n in range(5)])
    assert write_report(run).stat().st_size < 200_000
    assert (
        json.loads((run / "episodes.jsonl").read_text("utf-8").splitlines()[0])["trials"][0]["thought"] == "x" * 300_000
    )
