"""JUnit XML: one test case for each episode, whatever a model wrote."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from reflexion.report.junit import to_junit
from reflexion.types import Outcome
from tests.unit.report.runs import HOSTILE, episode, make_run


def test_outcomes_become_results_of_test_cases(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        "r",
        [
            episode("solved", trials=2),
            episode("failed", Outcome.FAILED, trials=3, feedback=f"\x00\x1b[31m{HOSTILE} & so on"),
            episode("broken", Outcome.ERROR),
            episode("left", Outcome.NOT_RUN),
            episode("solved", repeat=1),
        ],
    )
    suite = ET.fromstring(to_junit(run)).find("testsuite")
    assert suite is not None
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")}
    assert counts == {"tests": "5", "failures": "1", "errors": "1", "skipped": "1", "time": "7.500"}
    cases = {case.get("name"): case for case in suite}
    assert set(cases) == {"solved", "failed", "broken", "left", "solved~1"}
    assert [len(case) for case in cases.values()] == [0, 1, 1, 1, 0]
    failure = cases["failed"][0]
    assert failure.get("message") == "not solved in 3 trials: AssertionError"
    assert failure.text is not None and HOSTILE in failure.text and "\x00" not in failure.text
    assert cases["broken"][0].text == "the endpoint answered 500"
    assert cases["solved"].get("classname") == "demo" and cases["solved"].get("time") == "1.500"
