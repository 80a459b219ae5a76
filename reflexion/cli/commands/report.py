"""`reflexion report RUN` and `reflexion compare A B`: a run as something to look at, and two side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from reflexion._files import storage_errors
from reflexion.cli.options import flag
from reflexion.errors import ConfigurationError
from reflexion.report import compare_runs, to_junit, write_report
from reflexion.report.strategy_table import gather, is_ablation
from reflexion.tasks.prefect_settings import load_settings

__all__ = ["compare", "report"]


def report(
    run: Annotated[str, Parameter(help="Name or folder of a run, or of a comparison of strategies.")],
    /,
    *,
    others: Annotated[
        list[str] | None,
        Parameter(negative="", help="A further run whose learning curve is drawn beside it; repeatable."),
    ] = None,
    junit: Annotated[Path | None, Parameter(help="Also write JUnit XML of the run to this file.")] = None,
) -> int:
    """Write report.html into a run's folder and say where it is.

    Runs of up to 10,000 episodes have one already; this makes it anew, or for a larger run.
    """
    folder = folder_of(run)
    print(write_report(folder, others=[folder_of(o) for o in others or []]))  # noqa: T201
    if junit is not None:
        runs = [folder.parent / r.run for r in gather(folder).runs] if is_ablation(folder) else [folder]
        with storage_errors(junit):
            junit.write_text(to_junit(*runs), encoding="utf-8")
    return 0


def compare(
    a: Annotated[str, Parameter(help="Name or folder of the run to compare with.")],
    b: Annotated[str, Parameter(help="Name or folder of the run in question.")],
    /,
    *,
    fail_on_regression: Annotated[bool, flag("Exit with 3 when B does not solve what A solved.")] = False,
    junit: Annotated[
        Path | None, Parameter(help="Also write JUnit XML to this file: regressions are its failures.")
    ] = None,
    json: Annotated[bool, flag("Print the comparison as JSON.")] = False,
) -> int:
    """Compare two runs: solved only in one of them, McNemar's test, cost and speed.

    It is printed as Markdown, ready for a comment on a pull request.
    """
    from reflexion.cli.main import EXIT_GATE

    comparison = compare_runs(folder_of(a), folder_of(b))
    if junit is not None:
        with storage_errors(junit):
            junit.write_text(comparison.to_junit(), encoding="utf-8")
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
    runs = load_settings().runs
    for candidate in (Path(run), runs / run):
        if candidate.is_dir():
            return candidate
    raise ConfigurationError(f"there is no run {run!r}, neither as a folder nor in {runs}")
