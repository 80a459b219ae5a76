"""Figures: response times, memory, cache hits, errors, and the targets they are held against."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reflexion.telemetry.collector import Collector
    from reflexion.telemetry.performance import PerformanceReport
    from reflexion.telemetry.performance_monitor import PerformanceMonitor
    from reflexion.telemetry.sampler import ProcessSampler
    from reflexion.telemetry.summary import Summary, SummaryBuilder
    from reflexion.telemetry.targets import TargetResult, Targets, TargetStatus

# A run's record needs the summary alone: the rest is loaded on first use.
_HOMES = {
    "Collector": "reflexion.telemetry.collector",
    "PerformanceMonitor": "reflexion.telemetry.performance_monitor",
    "PerformanceReport": "reflexion.telemetry.performance",
    "ProcessSampler": "reflexion.telemetry.sampler",
    "Summary": "reflexion.telemetry.summary",
    "SummaryBuilder": "reflexion.telemetry.summary",
    "TargetResult": "reflexion.telemetry.targets",
    "TargetStatus": "reflexion.telemetry.targets",
    "Targets": "reflexion.telemetry.targets",
}

__all__ = [
    "Collector",
    "PerformanceMonitor",
    "PerformanceReport",
    "ProcessSampler",
    "Summary",
    "SummaryBuilder",
    "TargetResult",
    "TargetStatus",
    "Targets",
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
