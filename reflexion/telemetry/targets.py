"""The performance targets, and whether figures reach them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from reflexion.types import Frozen

__all__ = ["TargetResult", "TargetStatus", "Targets"]


class TargetStatus(StrEnum):
    """Whether a target is reached."""

    REACHED = "reached"
    MISSED = "missed"
    NO_DATA = "no_data"


class TargetResult(Frozen):
    """One target held against its figure."""

    name: str
    unit: str
    target: float
    higher_is_better: bool
    value: float | None = Field(description="The figure; None: there are no data.")
    status: TargetStatus
    margin: float | None = Field(
        description="By how much, in the target's unit: positive when reached, negative or 0 when missed."
    )
    note: str = Field(default="", description="Why there are no data.")

    @property
    def sentence(self) -> str:
        """The result in words."""
        sign = ">" if self.higher_is_better else "<"
        goal = f"{sign} {self.target:g} {self.unit}"
        if self.value is None or self.margin is None:
            return f"no data ({self.note}); the target is {goal}"
        relation = "inside" if self.status is TargetStatus.REACHED else "beyond"
        return f"{self.status}: {self.value:.4g} {self.unit}, {abs(self.margin):.4g} {relation} {goal}"


class Targets(Frozen):
    """What a deployment should reach; each can be set, None leaves one out."""

    response_time_p95: float | None = Field(default=5.0, gt=0, description="Seconds; must be below.")
    peak_rss_mb: float | None = Field(default=500.0, gt=0, description="10^6 bytes; must be below.")
    requests_per_minute: float | None = Field(default=100.0, gt=0, description="Must be above.")
    reflection_hit_rate: float | None = Field(default=0.8, ge=0, lt=1, description="Share; must be above.")
    sustained_seconds: float = Field(
        default=10.0, ge=0, description="Throughput over a shorter time is not a sustained load: no data."
    )

    def check(
        self,
        *,
        response_time_p95: float | None,
        peak_rss_mb: float | None,
        requests_per_minute: float | None,
        reflection_hit_rate: float | None,
        elapsed_seconds: float,
    ) -> tuple[TargetResult, ...]:
        """Hold figures against the targets. None as a figure means no data, never reached."""
        sustained = elapsed_seconds >= self.sustained_seconds
        throughput = "no request was served"
        if not sustained and requests_per_minute is not None:
            throughput = f"{elapsed_seconds:.1f} s is too short for a sustained load"
        rows = (
            ("response_time_p95", "s", False, response_time_p95, "no step asked a model"),
            ("peak_rss_mb", "MB", False, peak_rss_mb, "memory was not measured"),
            ("requests_per_minute", "req/min", True, requests_per_minute if sustained else None, throughput),
            ("reflection_hit_rate", "of reflections", True, reflection_hit_rate, "no reflection was drawn"),
        )
        results: list[TargetResult] = []
        for name, unit, higher, value, note in rows:
            target: float | None = getattr(self, name)
            if target is None:
                continue
            margin = None if value is None else (value - target if higher else target - value)
            status = TargetStatus.NO_DATA
            if margin is not None:
                status = TargetStatus.REACHED if margin > 0 else TargetStatus.MISSED
            results.append(
                TargetResult(
                    name=name,
                    unit=unit,
                    target=target,
                    higher_is_better=higher,
                    value=value,
                    status=status,
                    margin=margin,
                    note="" if value is not None else note,
                )
            )
        return tuple(results)
