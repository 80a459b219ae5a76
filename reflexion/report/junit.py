"""A run as JUnit XML, which continuous integration systems show as tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from reflexion.run.run_folder import RunFolder
from reflexion.types import Episode, Outcome

__all__ = ["comparison_junit", "to_junit"]

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST = 10_000


def to_junit(*runs: RunFolder | Path | str) -> str:
    """JUnit XML of one run or several: a test suite for each, in it a test case for each episode.

    An episode that used up its trials is a failure, with the last feedback as its text; one that an
    error ended is an error; one that never ran is skipped. Times are wall times in seconds.

    Raises:
        ConfigurationError: it is not a run's folder.
        StorageError: a record cannot be read.
    """
    suites = ET.Element("testsuites")
    for run in runs:
        suites.append(_suite(run if isinstance(run, RunFolder) else RunFolder.open(run)))
    return as_document(suites)


def comparison_junit(name: str, changes: Sequence[tuple[str, str, bool]], unchanged: int) -> str:
    """JUnit XML of a comparison: a test case for each episode that changed, and one for all others.

    Args:
        changes: the episode, what changed, and whether that is a regression.
        unchanged: episodes that fared in both runs the same.
    """
    regressions = sum(regressed for _, _, regressed in changes)
    suite = ET.Element("testsuite", name=_clean(name), tests=str(len(changes) + 1), failures=str(regressions))
    ET.SubElement(suite, "testcase", classname=_clean(name), name=f"{unchanged} episodes without a change")
    for episode, change, regressed in changes:
        case = ET.SubElement(suite, "testcase", classname=_clean(name), name=_clean(episode))
        if regressed:
            ET.SubElement(case, "failure", type="regression", message=_clean(change))
        else:
            ET.SubElement(case, "system-out").text = _clean(change)
    suites = ET.Element("testsuites")
    suites.append(suite)
    return as_document(suites)


def as_document(suites: ET.Element) -> str:
    """The file's text."""
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _suite(run: RunFolder) -> ET.Element:
    dataset = str(run.parameters.get("dataset", "")) or run.name
    suite = ET.Element("testsuite", name=_clean(run.name))
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    seconds = 0.0
    for episode in run.episodes():
        counts["tests"] += 1
        seconds += episode.seconds
        _case(suite, episode, dataset, counts)
    for name, number in counts.items():
        suite.set(name, str(number))
    suite.set("time", f"{seconds:.3f}")
    return suite


def _case(suite: ET.Element, episode: Episode, dataset: str, counts: dict[str, int]) -> None:
    name = episode.problem_id if not episode.repeat else f"{episode.problem_id}~{episode.repeat}"
    case = ET.SubElement(suite, "testcase", classname=_clean(dataset), name=_clean(name), time=f"{episode.seconds:.3f}")
    if episode.outcome is Outcome.FAILED:
        counts["failures"] += 1
        verdict = episode.trials[-1].evaluation if episode.trials else None
        kind = (verdict.failure_class if verdict else None) or "wrong answer"
        node = ET.SubElement(case, "failure", type=_clean(kind))
        node.set("message", _clean(f"not solved in {len(episode.trials)} trials: {kind}"))
        node.text = _clean(verdict.feedback if verdict else "")
    elif episode.outcome is Outcome.ERROR:
        counts["errors"] += 1
        node = ET.SubElement(case, "error")
        if episode.error is not None:
            node.set("type", _clean(episode.error.kind))
            node.set("message", _clean(f"{episode.error.step}: {episode.error.kind}"))
            node.text = _clean(episode.error.message)
    elif episode.outcome is Outcome.NOT_RUN:
        counts["skipped"] += 1
        node = ET.SubElement(case, "skipped")
        node.set("message", _clean(episode.error.message if episode.error else "never ran"))


def _clean(text: str) -> str:
    """Without the characters that XML cannot carry, and of bounded length."""
    return _NOT_XML.sub("\ufffd", text)[:_LONGEST]
