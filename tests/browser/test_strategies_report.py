"""The report on a comparison of strategies, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from reflexion.report import write_report
from reflexion.report.strategy_table import run_name, write_plan
from reflexion.types import Outcome, Strategy
from tests.unit.report.runs import episode, make_run

NONE, REFLEXION = Strategy.NONE, Strategy.REFLEXION


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Twelve problems: both strategies solve four, `reflexion` alone six of the others."""
    root = tmp_path_factory.mktemp("runs")
    easy = [episode(f"p{n}") for n in range(4)]
    hard = [episode(f"p{n}", Outcome.FAILED, trials=3) for n in range(4, 12)]
    learnt = [episode(f"p{n}", trials=2) for n in range(4, 10)]
    make_run(root, run_name("all", NONE), [*easy, *hard], strategy="none")
    # In another order than the first run: problems are found by their names.
    make_run(root, run_name("all", REFLEXION), [*hard[-2:], *learnt, *easy], strategy="reflexion")
    write_plan(root / "all", [NONE, REFLEXION])
    complaints: list[str] = []
    page = browser.new_page(color_scheme="light")
    page.set_default_timeout(10_000)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(write_report(root / "all").as_uri())
    yield page
    page.close()
    assert complaints == []


def test_strategies_stand_side_by_side(page: Page) -> None:
    table = page.get_by_role("table", name="Strategies side by side")
    rows = [row.locator("th, td").all_inner_texts() for row in table.get_by_role("row").all()]
    shown = dict(zip(rows[0], rows[2], strict=True))
    assert [row[0] for row in rows] == ["strategy", "none", "reflexion"]
    assert rows[1][1:5] == ["4", "4", "4", "33.3%"] and rows[2][1:5] == ["4", "10", "10", "83.3%"]
    assert (shown["against the first"], shown["McNemar p"]) == ("+6 -0", "0.0312")
    links = page.get_by_role("link", name="all-")
    assert [link.get_attribute("href") for link in links.all()] == [
        "../all-none/report.html",
        "../all-reflexion/report.html",
    ]
    curves = page.locator("#plot-learning-curve .series path.line")
    expect(curves).to_have_count(2)
    expect(page.locator("#plot-outcomes figcaption")).to_have_text("reflexion solved most: 10 of 12 episodes.")


def test_episodes_of_one_problem_lie_together_and_are_filtered(page: Page) -> None:
    expect(page.locator("#count")).to_have_text("24 of 24 episodes")
    first = page.locator("#rows > tr > th").all_inner_texts()[:6]
    assert first == ["p0", "p0", "p1", "p1", "p2", "p2"]
    page.get_by_role("combobox", name="Problems").select_option("1")
    expect(page.locator("#count")).to_have_text("12 of 24 episodes")
    page.get_by_role("combobox", name="Strategy").select_option("reflexion")
    expect(page.locator("#count")).to_have_text("6 of 24 episodes")
    page.get_by_role("button", name="p7").click()
    expect(page.locator(".trial h3")).to_have_text(["Trial 1: failed, AssertionError", "Trial 2: passed"])
    page.reload()
    expect(page.get_by_role("button", name="p7").nth(1)).to_be_focused()
    expect(page.locator(".trial h3")).to_have_count(2)


def test_axe_finds_nothing_to_mend(page: Page) -> None:
    found = Axe().run(page).response
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found["violations"]] == []
