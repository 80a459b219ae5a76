"""`reflexion report RUN` and `reflexion compare A B`: a run as something to look at, and two side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from reflexion.errors import ConfigurationError
from reflexion.report import compare_runs, to_junit, write_report
from reflexion.settings import Settings

__all__ = ["compare", "report"]


def report(
    run: Annotated[str, Parameter(help="Name or folder of a run.")],
    /,
    *,
    others: Annotated[list[str] | None, Parameter(help="Runs whose learning curves are drawn beside it.")] = None,
    junit: Annotated[Path | None, Parameter(help="Also write JUnit XML to this file.")] = None,
) -> int:
    """Write report.html into a run's folder and say where it is."""
    folder = folder_of(run)
    print(write_report(folder, others=[folder_of(o) for o in others or []]))  # noqa: T201
    if junit is not None:
        junit.write_text(to_junit(folder), encoding="utf-8")
    return 0


def compare(
    a: Annotated[str, Parameter(help="Name or folder of the run to compare with.")],
    b: Annotated[str, Parameter(help="Name or folder of the run in question.")],
    /,
    *,
    fail_on_regression: Annotated[bool, Parameter(negative="", help="Exit with 3 when B fails what A solved.")] = False,
    json: Annotated[bool, Parameter(negative="", help="Print the comparison as JSON.")] = False,
) -> int:
    """Compare two runs: solved only in one of them, McNemar's test, cost and speed; as Markdown."""
    from flows.cli import EXIT_GATE

    comparison = compare_runs(folder_of(a), folder_of(b))
    print(comparison.to_json() if json else comparison.to_markdown())  # noqa: T201
    if fail_on_regression and comparison.regressions:
        count = len(comparison.regressions)
        print(f"reflexion: {b} fails {count} that {a} solved", file=sys.stderr)  # noqa: T201
        return EXIT_GATE
    return 0


def folder_of(run: str) -> Path:
    """The folder a run's name or path stands for.

    Raises:
        ConfigurationError: there is neither.
    """
    for candidate in (Path(run), Settings().runs / run):
        if candidate.is_dir():
            return candidate
    raise ConfigurationError(f"there is no run {run!r}, neither as a folder nor in {Settings().runs}")
