"""A run as something to look at: one HTML file, and the comparison of two runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reflexion.report.compare import Comparison, compare_runs
    from reflexion.report.html import write_report
    from reflexion.report.junit import to_junit
    from reflexion.report.statistics import Estimate, mcnemar, pass_at_k, pass_at_k_estimate, wilson

# Loaded on first use: a command that only compares needs no plots.
_HOMES = {
    "Comparison": "reflexion.report.compare",
    "Estimate": "reflexion.report.statistics",
    "compare_runs": "reflexion.report.compare",
    "mcnemar": "reflexion.report.statistics",
    "pass_at_k": "reflexion.report.statistics",
    "pass_at_k_estimate": "reflexion.report.statistics",
    "to_junit": "reflexion.report.junit",
    "wilson": "reflexion.report.statistics",
    "write_report": "reflexion.report.html",
}

__all__ = [
    "Comparison",
    "Estimate",
    "compare_runs",
    "mcnemar",
    "pass_at_k",
    "pass_at_k_estimate",
    "to_junit",
    "wilson",
    "write_report",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
