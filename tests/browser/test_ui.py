"""Prefect's own pages in a real browser: a form is filled, a run is started, and its artifacts are read."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from reflexion.testing import ScriptedEndpoint
from tests.support.evals import start_cli, write_problems
from tests.support.prefect_server import PrefectServer
from tests.support.records import delete_deployments

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(400)]

SCREENSHOTS = Path(__file__).resolve().parents[2] / "test-output" / "screenshots"
"""What the pages looked like; git ignores it."""


@pytest.fixture
def page(browser: Browser, prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint) -> Iterator[Page]:
    """A page of the server's UI, while a process serves the deployments."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with start_cli("serve", "--limit", "2") as process:
        deadline = time.monotonic() + 90
        while httpx.get(f"{prefect_server.url}/deployments/name/maintenance/default", timeout=30).status_code != 200:
            assert process.poll() is None and time.monotonic() < deadline, "nothing is served"
            time.sleep(0.1)
        context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme="light")
        context.set_default_timeout(30_000)
        page = context.new_page()
        yield page
        context.close()
        process.kill()
        process.communicate()
    delete_deployments(prefect_server)


def shoot(page: Page, name: str) -> None:
    """Keep what the page looks like."""
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def field(page: Page, title: str, kind: str = "self::input or self::textarea") -> Locator:
    """The input of a form's field, which follows its title."""
    return page.get_by_text(title, exact=True).first.locator(f"xpath=following::*[{kind}][1]")


def test_a_form_is_filled_a_run_is_started_and_its_summary_is_read(
    page: Page, prefect_server: PrefectServer, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "quiz.jsonl", 6)
    page.goto(f"{prefect_server.ui}/deployments")
    expect(page.get_by_text("batch-evaluation").first).to_be_visible()
    shoot(page, "1-deployments")
    deployment = httpx.get(f"{prefect_server.url}/deployments/name/batch-evaluation/default", timeout=30).json()
    page.goto(f"{prefect_server.ui}/deployments/deployment/{deployment['id']}")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()

    # Each field has a title, and what there is to choose from or to know is said.
    expect(page.get_by_text("`starter`, `humaneval`").or_(page.get_by_text("or the path of a file"))).to_be_visible()
    expect(page.get_by_text("What a trial sees of the past.")).to_be_visible()
    for title in ("Dataset", "Model (Optional)", "Strategy (Optional)", "Trials at most (Optional)"):
        expect(page.get_by_text(title, exact=True)).to_be_visible()
    field(page, "Dataset").fill(dataset)
    field(page, "Model (Optional)", "self::button and normalize-space()='str'").click()
    field(page, "Model (Optional)").fill("mock")
    field(page, "Trials at most (Optional)").fill("101")
    shoot(page, "2-form")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text(re.compile("101|maximum|less than or equal")).first).to_be_visible()
    shoot(page, "3-refused")
    field(page, "Trials at most (Optional)").fill("2")
    with page.expect_response(lambda r: r.url.endswith("/create_flow_run")) as sent:
        page.get_by_role("button", name="Submit").click()
    assert sent.value.status == 201, sent.value.text()

    # The run's name tells dataset, model and strategy.
    page.goto(f"{prefect_server.ui}/runs")
    page.get_by_text(f"{dataset} · mock · reflexion").first.click(timeout=90_000)
    expect(page.get_by_text("Completed").first).to_be_visible(timeout=120_000)
    page.get_by_text("Artifacts", exact=True).first.click()
    expect(page.get_by_text("reflexion-summary").first).to_be_visible()
    shoot(page, "4-run")
    page.get_by_text("reflexion-summary").first.click()
    row = page.get_by_role("row").filter(has_text="solved")
    expect(row.first).to_contain_text("6 of 6")
    expect(page.get_by_role("row").filter(has_text="LLM calls").first).to_contain_text("18")
    shoot(page, "5-summary")
    assert openai_endpoint.stats.calls == 18
    assert {p.name for p in SCREENSHOTS.glob("*.png")} >= {"2-form.png", "5-summary.png"}
