"""Thoughts, missing reflections, lost replies and the words of errors in the report, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from reflexion.report import write_report
from reflexion.report.tally import LONGEST_THOUGHT
from reflexion.types import Episode, EpisodeError, Outcome, Reflection, Usage
from tests.unit.report.runs import HOSTILE, episode, make_run

LONG = f"{HOSTILE}\n{'Let me count them once more. ' * 1000}"


def thought_over(problem: str, thought: str, reflection: Reflection) -> Episode:
    plain = episode(problem, trials=2)
    first = plain.trials[0].model_copy(update={"thought": thought, "reflection": reflection})
    return plain.model_copy(update={"trials": (first, plain.trials[1])})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    cut = "ReplyCutError: all 300 tokens were spent on thinking"
    error = EpisodeError(step="trial", kind="PermanentError", message=f"{'the plan has lapsed ' * 12}\x1b[2J{HOSTILE}")
    silent = episode("silent").model_copy(update={"lost": Usage(calls=6, unknown=6)})
    episodes = [
        thought_over("deep", LONG, Reflection(trial=1, text="Multiply.", thought="Why did it fail?")),
        thought_over("empty", "Quick.", Reflection(trial=1, text="", error=cut, retried=("ReplyCutError",))),
        thought_over("mute", "", Reflection(trial=1, text=" \n")),
        silent,
        episode("broken", Outcome.ERROR).model_copy(update={"error": error}),
    ]
    return write_report(make_run(tmp_path_factory.mktemp("runs"), "thinking-run", episodes)).as_uri()


@pytest.fixture
def page(browser: Browser, report: str) -> Iterator[Page]:
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
    page.set_default_timeout(10_000)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report)
    yield page
    page.close()
    assert complaints == []


def test_a_thought_is_folded_and_opens_as_text(page: Page) -> None:
    page.get_by_role("button", name="deep").click()
    first = page.get_by_label("Trial 1", exact=True)
    shown, lesson = (first.get_by_label(f"Trial 1, {name}thought") for name in ("", "reflection, "))
    expect(shown).to_be_hidden()
    first.get_by_text(f"thought, {len(LONG):,} characters").click()
    expect(shown).to_be_visible()
    expect(shown).to_contain_text(HOSTILE)
    expect(shown).to_contain_text(f"… ({len(LONG) - LONGEST_THOUGHT:,} more characters in episodes.jsonl)")
    expect(lesson).to_be_hidden()
    first.get_by_text("thought, 16 characters").press("Enter")
    expect(lesson).to_have_text("Why did it fail?")
    expect(page).to_have_title("thinking-run: Reflexion run")
    assert page.locator("main img, main script").count() == 0
    expect(page.get_by_label("Trial 2", exact=True).locator("details")).to_have_count(0)


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        ("empty", "no reflection: ReplyCutError: all 300 tokens were spent on thinking"),
        ("mute", "no reflection: the model gave none"),
    ],
)
def test_a_missing_reflection_is_told_with_its_reason(page: Page, problem: str, told: str) -> None:
    page.get_by_role("button", name=problem).click()
    first = page.get_by_label("Trial 1", exact=True)
    expect(first.get_by_text(told, exact=True)).to_be_visible()
    expect(first.get_by_label("Trial 1, reflection", exact=True)).to_have_count(0)


def test_the_head_and_the_figures_tell_what_went_wrong(page: Page) -> None:
    note = page.get_by_role("banner").get_by_role("note")
    expect(note).to_contain_text("Error: PermanentError: the plan has lapsed")
    assert len(note.inner_text()) <= len("Error: PermanentError: ") + 200
    replies = page.get_by_label("Replies that brought no answer").locator("> div")
    expect(replies).to_have_count(2)
    expect(replies.nth(1)).to_contain_text("2 of 3")
    cost = page.locator(".tiles > div").filter(has=page.get_by_text("Cost", exact=True))
    expect(cost).to_contain_text("at least $0.")
    expect(cost).to_contain_text("6 calls without usage")


@pytest.mark.parametrize("width", [1440, 390])
def test_all_of_it_is_readable_on_wide_and_on_narrow_screens(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.get_by_role("button", name="deep").click()
    for summary in page.locator(".trial summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for trial in page.locator(".trial").all():
        box = trial.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
    found = Axe().run(page).response
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found["violations"]] == []
