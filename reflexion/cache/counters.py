"""Look-ups counted by step and model, added up in memory and written in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from threading import Lock

from reflexion.cache.step_cache import CachedStep, StepCacheStats
from reflexion.types import StepName, Usage

__all__ = ["Counts", "Group", "Tally", "combine", "step_stats"]

Group = tuple[StepName, str | None]
"""Step and model."""


@dataclass(slots=True)
class Tally:
    """Sums of one step and model. All of them add up, also across processes.

    A cost is known only when every call was priced, hence `unpriced`.
    """

    hits: int = 0
    misses: int = 0
    prompt: int = 0
    completion: int = 0
    calls: int = 0
    unknown: int = 0
    unpriced: int = 0
    cost: float = 0.0

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def hit(self, usage: Usage) -> None:
        """Count a look-up that was answered, and what computing it again would have used."""
        self.hits += 1
        self.prompt += usage.prompt
        self.completion += usage.completion
        self.calls += usage.calls
        self.unknown += usage.unknown
        if usage.cost_usd is None:
            self.unpriced += usage.calls
        else:
            self.cost += usage.cost_usd

    @property
    def saved(self) -> Usage:
        """What the hits saved."""
        return Usage(
            prompt=self.prompt,
            completion=self.completion,
            calls=self.calls,
            unknown=self.unknown,
            cost_usd=self.cost if self.calls and not self.unpriced else None,
        )


class Counts:
    """What was counted and not yet written; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tallies: dict[Group, Tally] = {}
        self._corrupt = 0

    def record(self, hits: Iterable[CachedStep], misses: Iterable[Group]) -> None:
        """Count look-ups."""
        with self._lock:
            for entry in hits:
                self._tallies.setdefault((entry.step, entry.model), Tally()).hit(entry.usage)
            for group in misses:
                self._tallies.setdefault(group, Tally()).misses += 1

    def corrupt(self) -> None:
        """Count an entry that could not be read."""
        with self._lock:
            self._corrupt += 1

    def take(self) -> tuple[dict[Group, Tally], int]:
        """Hand everything over to be written: the tallies and the number of corrupt entries."""
        with self._lock:
            taken = self._tallies, self._corrupt
            self._tallies, self._corrupt = {}, 0
            return taken

    def give_back(self, tallies: Mapping[Group, Tally], corrupt: int) -> None:
        """Take back what could not be written."""
        with self._lock:
            for group, tally in tallies.items():
                self._tallies.setdefault(group, Tally()).add(tally)
            self._corrupt += corrupt


@dataclass(slots=True)
class Holdings:
    """Entries of one step and model."""

    entries: int = 0
    bytes: int = 0
    expired: int = 0


def combine(held: dict[Group, Holdings], group: Group, size: int, is_expired: bool) -> None:
    """Add one entry to the holdings; an expired one counts as expired only."""
    holdings = held.setdefault(group, Holdings())
    if is_expired:
        holdings.expired += 1
    else:
        holdings.entries += 1
        holdings.bytes += size


def step_stats(held: Mapping[Group, Holdings], counted: Mapping[Group, Tally]) -> tuple[StepCacheStats, ...]:
    """The figures by step and model, in order."""
    out: list[StepCacheStats] = []
    for step, model in sorted({*held, *counted}, key=lambda group: (group[0], group[1] or "")):
        holdings, tally = held.get((step, model), Holdings()), counted.get((step, model), Tally())
        out.append(
            StepCacheStats(
                step=step,
                model=model,
                entries=holdings.entries,
                bytes=holdings.bytes,
                expired=holdings.expired,
                hits=tally.hits,
                misses=tally.misses,
                saved=tally.saved,
            )
        )
    return tuple(out)
