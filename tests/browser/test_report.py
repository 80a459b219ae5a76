"""The report in a real browser: filters, an episode that opens, hostile replies, light, dark and paper."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from reflexion.report import write_report
from reflexion.types import Episode, Outcome
from tests.unit.report.runs import HOSTILE, episode, make_run

TURNS = (
    {"turn": 0, "observation": "You stand before a door.", "reward": 0.0, "done": False},
    {"turn": 1, "thought": HOSTILE, "tool": "search", "arguments": {"title": "Emme"}, "observation": "A river."},
    {
        "turn": 2,
        "action": "open door",
        "observation": "Error: it is shut",
        "failed": True,
        "reward": 0.5,
        "done": True,
    },
    {"turn": 3, "answer": "The Emme"},
)


def acting(plain: Episode) -> Episode:
    """The episode, its only trial made in turns."""
    return plain.model_copy(update={"trials": (plain.trials[0].model_copy(update={"trajectory": TURNS}),)})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("runs")
    episodes = [episode(f"easy-{i}") for i in range(60)]
    episodes += [episode(f"hard-{i}", trials=3) for i in range(20)]
    episodes += [episode(f"lost-{i}", Outcome.FAILED, trials=3) for i in range(10)]
    episodes += [
        episode("broken", Outcome.ERROR),
        episode("easy-0", repeat=1),
        episode(HOSTILE, answer=HOSTILE, feedback=HOSTILE, outcome=Outcome.FAILED, trials=2),
        acting(episode("acts", feedback="")),
    ]
    return write_report(make_run(root, "demo-run", episodes)).as_uri()


@pytest.fixture
def page(browser: Browser, report: str) -> Iterator[Page]:
    """The report, in a browser that is cut off from everything else; complaints fail the test."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(report) else complaints.append(request.url))
    page.goto(report)
    yield page
    context.close()
    assert complaints == []


def visible_rows(page: Page) -> list[str]:
    return page.locator("#rows .opener").all_inner_texts()


def test_the_table_is_filtered_sorted_and_paged(page: Page) -> None:
    expect(page.locator("#count")).to_have_text("94 of 94 episodes")
    assert len(visible_rows(page)) == 50
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#page")).to_have_text("Page 2 of 2")
    assert len(visible_rows(page)) == 44
    expect(page.get_by_role("button", name="Next")).to_be_disabled()

    page.get_by_role("combobox", name="Outcome").select_option("failed")
    expect(page.locator("#count")).to_have_text("11 of 94 episodes")
    expect(page.locator("#page")).to_have_text("Page 1 of 1")
    page.get_by_role("searchbox", name="Text").fill("LOST-3")
    expect(page.locator("#count")).to_have_text("1 of 94 episodes")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#count")).to_have_text("94 of 94 episodes")
    page.get_by_role("combobox", name="Solved at").select_option("3")
    expect(page.locator("#count")).to_have_text("20 of 94 episodes")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("combobox", name="Failure").select_option("EndpointError")
    assert visible_rows(page) == ["broken"]
    page.get_by_role("button", name="Clear").click()

    tokens = page.get_by_role("columnheader", name="Tokens")
    tokens.get_by_role("button").click()
    expect(tokens).to_have_attribute("aria-sort", "ascending")
    tokens.get_by_role("button").click()
    expect(tokens).to_have_attribute("aria-sort", "descending")
    assert set(visible_rows(page)[:30]) == {f"hard-{i}" for i in range(20)} | {f"lost-{i}" for i in range(10)}


def test_text_is_searched_in_what_models_wrote_but_not_in_the_names_of_fields(page: Page) -> None:
    page.get_by_role("searchbox", name="Text").fill("f(2) gave 3")
    expect(page.locator("#count")).to_have_text("31 of 94 episodes")
    page.get_by_role("searchbox", name="Text").fill("feedback")
    expect(page.locator("#count")).to_have_text("0 of 94 episodes")
    page.get_by_role("searchbox", name="Text").fill("<script>")
    expect(page.locator("#count")).to_have_text("2 of 94 episodes")


def test_an_episode_opens_into_trials_feedback_reflections_and_changes(page: Page) -> None:
    page.get_by_role("searchbox", name="Text").fill("hard-7")
    opener = page.get_by_role("button", name="hard-7")
    expect(opener).to_have_attribute("aria-expanded", "false")
    expect(page.locator("#rows tr").first.locator(".number")).to_have_text(
        ["3", "3", "750", "0.0050", "1.50", "0 of 8"]
    )
    opener.click()
    expect(opener).to_have_attribute("aria-expanded", "true")
    assert page.locator(".trial h3").all_inner_texts() == [
        "Trial 1: failed, AssertionError",
        "Trial 2: failed, AssertionError",
        "Trial 3: passed",
    ]
    second = page.get_by_label("Trial 2", exact=True)
    expect(second.get_by_label("Trial 2, feedback")).to_have_text("AssertionError: f(2) gave 3, not 4")
    expect(second.get_by_label("Trial 2, reflection")).to_have_text("Multiply, do not add.")
    expect(second.get_by_role("listitem")).to_have_text("Multiply, do not add.")
    assert second.locator(".removed").all_inner_texts() == ["-    return x + 1"]
    assert second.locator(".added").all_inner_texts() == ["+    return x + 2"]
    opener.click()
    expect(page.locator(".trial h3").first).to_be_hidden()


def test_a_link_to_an_episode_opens_it(page: Page) -> None:
    page.get_by_role("searchbox", name="Text").fill("lost-9")
    page.get_by_role("button", name="lost-9").click()
    page.reload()
    expect(page.get_by_role("button", name="lost-9")).to_be_focused()
    expect(page.locator(".trial h3")).to_have_count(3)
    expect(page.locator("#page")).to_have_text("Page 2 of 2")


def test_a_reply_with_a_script_shows_as_text(page: Page) -> None:
    page.get_by_role("searchbox", name="Text").fill("owned")
    page.get_by_role("button", name=HOSTILE).first.click()
    expect(page.get_by_label("Trial 1, answer")).to_have_text(HOSTILE)
    expect(page.get_by_label("Trial 1, feedback")).to_have_text(HOSTILE)
    expect(page).to_have_title("demo-run: Reflexion run")
    assert page.locator("main img").count() == 0
    assert page.locator("main script").count() == 0


def test_the_page_would_not_run_a_script_even_if_one_got_in(browser: Browser, report: str) -> None:
    page = browser.new_page()
    page.goto(report)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran=1'}))"
    )
    assert page.evaluate("window.ran") is None
    page.close()


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the episodes")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("searchbox", name="Text")).to_be_focused()
    page.keyboard.type("broken")
    expect(page.locator("#count")).to_have_text("1 of 94 episodes")
    page.get_by_role("button", name="broken").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Error", exact=True)).to_have_text("the endpoint answered 500")


def test_landmarks_headings_and_names(page: Page) -> None:
    for role in ("banner", "navigation", "main", "search"):
        expect(page.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
    levels = page.eval_on_selector_all("h1, h2, h3", "nodes => nodes.map(n => Number(n.tagName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    for image in page.locator("[role=img]").all():
        assert len(image.get_attribute("aria-label") or "") > 20
    assert page.locator("html").get_attribute("lang") == "en"
    unnamed = page.eval_on_selector_all(
        "button, input, select", "nodes => nodes.filter(n => !(n.textContent.trim() || n.labels?.length)).length"
    )
    assert unnamed == 0


CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *:not(script):not(svg *)")) {
    const written = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!written || !node.checkVisibility() || node.disabled) continue;
    const a = luminance(numbers(getComputedStyle(node).color)), b = luminance(ground(node));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([node.tagName, node.className, node.textContent.slice(0, 30), ratio]);
  }
  return poor;
}"""
"""Texts whose contrast with their ground is below 4.5 to 1, the AA level of WCAG 2."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.get_by_role("searchbox", name="Text").fill("acts")
    page.get_by_role("button", name="acts").click()
    for table in page.get_by_text("As a table").all():
        table.click()
    found = Axe().run(page).response
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found["violations"]] == []
    assert len(found["passes"]) > 40


def test_what_an_acting_model_did_is_told_turn_by_turn(page: Page) -> None:
    page.get_by_role("searchbox", name="Text").fill("acts")
    page.get_by_role("button", name="acts").click()
    turns = page.get_by_role("list", name="Trial 1, turns").get_by_role("listitem")
    assert [turn.locator(".turn").inner_text() for turn in turns.all()] == ["Start", "Turn 1", "Turn 2", "Turn 3"]
    expect(turns.nth(1).locator(".thought")).to_have_text(HOSTILE)
    expect(turns.nth(1).locator("code")).to_have_text('search({"title":"Emme"})')
    expect(page.get_by_role("region", name="Trial 1, turn 1, observation")).to_have_text("A river.")
    expect(page.get_by_role("region", name="Trial 1, turn 2, observation, failed")).to_have_text("Error: it is shut")
    expect(turns.nth(2).locator("code")).to_have_text("open door")
    expect(turns.nth(2)).to_contain_text("reward 0.5, the world has ended")
    expect(turns.nth(3)).to_contain_text("Answer: The Emme")


def test_what_decided_to_stop_stands_beside_the_pass_rates(page: Page) -> None:
    figures = page.locator("#figures")
    names = figures.locator(".tiles dt").all_inner_texts()
    assert names[:2] == ["Pass rate", "Handed-in pass rate"]
    judged = figures.locator(".lines > div")
    expect(judged.filter(has_text="Stopped by")).to_have_text(re.compile(r"hidden tests \(oracle\) 93"))
    expect(judged.filter(has_text="Judged by")).to_have_text(re.compile(r"python \(hidden tests\)"))
    expect(figures).to_contain_text("An oracle is what an agent at work could not see.")
    expect(page.locator("#plot-visible-tests figcaption")).to_contain_text("P(wrong | passed)")


def test_all_episodes_of_a_page_are_opened_at_once(page: Page) -> None:
    page.get_by_role("combobox", name="Solved at").select_option("3")
    page.get_by_role("button", name="Open all on this page").click()
    expect(page.locator(".trial h3")).to_have_count(60)
    page.get_by_role("button", name="Close all on this page").click()
    expect(page.locator(".trial h3")).to_have_count(0)


def test_contrast_in_light_and_in_dark(page: Page) -> None:
    page.get_by_role("searchbox", name="Text").fill("hard-7")
    page.get_by_role("button", name="hard-7").click()
    grounds: list[Any] = []
    for _ in range(2):
        assert page.evaluate(CONTRAST) == []
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.get_by_role("button", name="Dark").click()
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]


def test_dark_is_followed_from_the_system(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    line = page.locator("#plot-learning-curve .series path.line")
    assert line.evaluate("node => getComputedStyle(node).stroke") == "rgb(106, 168, 236)"


def test_paper_is_white_and_shows_no_controls(page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator("#filters")).to_be_hidden()
    expect(page.locator("#theme")).to_be_hidden()


def test_a_small_screen_does_not_scroll_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_ten_thousand_episodes_are_usable(browser: Browser, tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        "large",
        (episode(f"p{i}", Outcome.SOLVED if i % 3 else Outcome.FAILED, trials=2) for i in range(10_000)),
    )
    uri = write_report(run).as_uri()
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(uri)
    expect(page.locator("#count")).to_have_text("10,000 of 10,000 episodes", timeout=60_000)
    assert page.locator("#rows > tr").count() == 100  # a page of them, each with its detail
    begun = time.monotonic()
    page.get_by_role("combobox", name="Outcome").select_option("failed")
    expect(page.locator("#count")).to_have_text("3,334 of 10,000 episodes")
    page.get_by_role("searchbox", name="Text").fill("p9999")
    page.get_by_role("button", name="p9999").click()
    expect(page.locator(".trial")).to_have_count(2)
    assert time.monotonic() - begun < 10
    page.close()
