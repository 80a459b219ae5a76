"""The performance report: a model, and the same as Markdown, JSON and Prometheus text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from reflexion.report import phrases
from reflexion.telemetry.deciders import Stopper
from reflexion.telemetry.summary import Percentiles, Tokens
from reflexion.telemetry.targets import TargetResult, TargetStatus
from reflexion.types import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

__all__ = ["Memory", "PerformanceReport", "StepFigures", "Throughput"]


class StepFigures(Frozen):
    """What became of the steps of one kind."""

    cached: int = Field(default=0, description="Answered by the cache.")
    executed: int = Field(default=0, description="Computed.")
    errors: int = Field(default=0, description="Ended in an error.")
    hits: int = Field(default=0, description="Of the cacheable ones: answered by the cache.")
    misses: int = Field(default=0, description="Of the cacheable ones: computed.")

    @property
    def hit_rate(self) -> float | None:
        """Share of the cacheable steps that the cache answered; None: there were none."""
        total = self.hits + self.misses
        return self.hits / total if total else None


class Throughput(Frozen):
    """Requests and episodes per minute: of the whole run, and of its last seconds. None: no data."""

    requests_per_minute: float | None = None
    episodes_per_minute: float | None = None
    window_seconds: int = 60
    recent_requests_per_minute: float | None = None
    recent_episodes_per_minute: float | None = None


class Memory(Frozen):
    """Resident memory of the process and its children in 10^6 bytes. None: not measured."""

    rss_mb: float | None = None
    peak_rss_mb: float | None = None


class PerformanceReport(Frozen):
    """Response times, errors, cache hits, throughput, memory and tokens, held against the targets.

    A request is a step that asks a model (a trial, a reflection, a judge's verdict), whether the model
    or the cache answered.
    """

    elapsed_seconds: float = Field(description="From the beginning of the first step to the end of the last.")
    requests: int
    episodes: int
    outcomes: dict[str, int] = Field(description="Finished episodes by outcome.")
    stopped_by: dict[Stopper, int] = Field(
        default_factory=dict[Stopper, int], description="Solved and failed episodes by what decided to stop."
    )
    steps: dict[str, StepFigures]
    cache_hit_rate: float | None = Field(description="Share of all cacheable steps; None: there were none.")
    response_time: Percentiles = Field(
        description="Wall time in seconds of the executed steps that asked a model; cached ones do not lower it."
    )
    response_time_mean: float | None
    responses: int = Field(description="Steps the response times are of.")
    waiting_time: Percentiles = Field(
        description="Seconds the caller of a request waited, cached or not, queues and look-ups included."
    )
    error_rate: float | None = Field(description="Steps that ended in an error / steps executed; None: none was.")
    errors_by_class: dict[str, int]
    retries_by_class: dict[str, int] = Field(description="Errors that were retried, by class.")
    throughput: Throughput
    memory: Memory
    llm_calls: int
    tokens: Tokens
    cost_usd: float | None = Field(description="US dollars; None: a model's price is unknown.")
    targets: tuple[TargetResult, ...]

    @property
    def missed(self) -> tuple[TargetResult, ...]:
        """The targets that were missed."""
        return tuple(t for t in self.targets if t.status is TargetStatus.MISSED)

    def to_json(self, indent: int | None = 2) -> str:
        """The report as one JSON object."""
        return self.model_dump_json(indent=indent)

    def to_markdown(self) -> str:
        """The report as Markdown tables."""
        through, times = self.throughput, self.response_time
        lines = ["## Targets", "", "| target | goal | figure | status | by |", "|---|---|---|---|---|"]
        for t in self.targets:
            figure = t.note if t.value is None else f"{t.value:.4g} {t.unit}"
            by = "" if t.margin is None else f"{t.margin:+.4g} {t.unit}"
            goal = f"{'>' if t.higher_is_better else '<'} {t.target:g} {t.unit}"
            lines.append(f"| {t.name} | {goal} | {figure} | {t.status.replace('_', ' ')} | {by} |")
        lines += ["", "## Figures", "", "| figure | value |", "|---|---|"]
        rows = {
            "requests": f"{self.requests}",
            "episodes": f"{self.episodes}" + _listed(self.outcomes),
            "stopped by": phrases.stopped_by(self.stopped_by) if self.stopped_by else "no data",
            "elapsed": _number(self.elapsed_seconds, "s"),
            "response time p50 / p95 / p99 / max": _durations(times) + f" of {self.responses}",
            "waiting time p50 / p95 / p99 / max": _durations(self.waiting_time),
            "requests per minute": _number(through.requests_per_minute),
            f"requests per minute, last {through.window_seconds} s": _number(through.recent_requests_per_minute),
            "episodes per minute": _number(through.episodes_per_minute),
            "errors": _percent(self.error_rate) + _listed(self.errors_by_class),
            "retried": f"{sum(self.retries_by_class.values())}" + _listed(self.retries_by_class),
            "cache hits": _percent(self.cache_hit_rate),
            "memory, peak": _number(self.memory.peak_rss_mb, "MB"),
            "LLM calls": f"{self.llm_calls}",
            "tokens, prompt / completion / saved": " / ".join(
                str(n) for n in (self.tokens.prompt, self.tokens.completion, self.tokens.saved)
            ),
            "cost": "unknown" if self.cost_usd is None else f"${self.cost_usd:.4f}",
        }
        lines += [f"| {name} | {value} |" for name, value in rows.items()]
        if self.steps:
            lines += ["", "## Steps", "", "| step | executed | cached | errors | cache hits |", "|---|---|---|---|---|"]
            lines += [
                f"| {name} | {s.executed} | {s.cached} | {s.errors} | {_percent(s.hit_rate)} |"
                for name, s in self.steps.items()
            ]
        return "\n".join(lines) + "\n"

    def to_prometheus(self) -> str:
        """The report in Prometheus' text exposition format. Figures without data are left out."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.registry import Collector

        report = self

        class Families(Collector):
            def collect(self) -> Iterator[Metric]:
                return report._families()

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Families())
        return generate_latest(registry).decode()

    def _families(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        steps = CounterMetricFamily("reflexion_steps", "Steps by what became of them.", labels=["step", "result"])
        for name, figures in self.steps.items():
            for result in ("executed", "cached", "errors"):
                steps.add_metric([name, result.removesuffix("s")], getattr(figures, result))
        yield steps
        for metric, text, label, counts in (
            ("reflexion_errors", "Errors that ended a step, by class.", "class", self.errors_by_class),
            ("reflexion_retries", "Errors that were retried, by class.", "class", self.retries_by_class),
            ("reflexion_episodes", "Finished episodes by outcome.", "outcome", self.outcomes),
            ("reflexion_tokens", "Tokens spent, and saved by the cache.", "kind", self.tokens.model_dump()),
        ):
            family = CounterMetricFamily(metric, text, labels=[label])
            for name, number in counts.items():
                family.add_metric([name], number)
            yield family
        yield CounterMetricFamily("reflexion_requests", "Steps that ask a model, cached or not.", self.requests)
        yield CounterMetricFamily("reflexion_llm_calls", "LLM calls made.", self.llm_calls)

        times = SummaryMetricFamily(
            "reflexion_response_time_seconds",
            "Wall time of executed steps that asked a model.",
            count_value=self.responses,
            sum_value=(self.response_time_mean or 0.0) * self.responses,
        )
        for quantile, value in (
            ("0.5", self.response_time.p50),
            ("0.95", self.response_time.p95),
            ("0.99", self.response_time.p99),
        ):
            if value is not None:
                times.add_sample(times.name, {"quantile": quantile}, value)
        yield times

        for name, text, value in (
            ("reflexion_error_ratio", "Steps that ended in an error, of those executed.", self.error_rate),
            ("reflexion_requests_per_minute", "Throughput of the whole run.", self.throughput.requests_per_minute),
            (
                "reflexion_recent_requests_per_minute",
                "Throughput of the last seconds.",
                self.throughput.recent_requests_per_minute,
            ),
            ("reflexion_resident_memory_bytes", "Memory of the process tree.", _bytes(self.memory.rss_mb)),
            ("reflexion_resident_memory_peak_bytes", "Its peak.", _bytes(self.memory.peak_rss_mb)),
            ("reflexion_cost_usd", "US dollars spent.", self.cost_usd),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, text, value)
        rates = GaugeMetricFamily("reflexion_cache_hit_ratio", "Cacheable steps the cache answered.", labels=["step"])
        for name, figures in self.steps.items():
            if figures.hit_rate is not None:
                rates.add_metric([name], figures.hit_rate)
        yield rates
        reached = GaugeMetricFamily("reflexion_target_reached", "1: reached, 0: missed.", labels=["target"])
        for target in self.targets:
            if target.status is not TargetStatus.NO_DATA:
                reached.add_metric([target.name], float(target.status is TargetStatus.REACHED))
        yield reached


def _number(value: float | None, unit: str = "") -> str:
    return "no data" if value is None else f"{value:,.1f} {unit}".rstrip()


def _percent(value: float | None) -> str:
    return "no data" if value is None else f"{value:.1%}"


def _durations(times: Percentiles) -> str:
    if times.p50 is None:
        return "no data"
    return " / ".join(f"{value:.3g}" for value in (times.p50, times.p95, times.p99, times.max)) + " s"


def _listed(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{name} {number}' for name, number in counts.items())})" if counts else ""


def _bytes(megabytes: float | None) -> float | None:
    return None if megabytes is None else megabytes * 1_000_000
