"""What a night of many problems needs, from what one problem costs each part: arithmetic, no measurement."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PARTS", "Cost", "Needs", "needs", "predict"]

PARTS = ("worker", "server", "database", "redis")
"""What takes processor time: the runs' own processes, Prefect's server and services, PostgreSQL, Redis."""


@dataclass(frozen=True)
class Cost:
    """What one episode costs."""

    cpu: dict[str, float]
    """Seconds of processor time, by part."""
    stored: dict[str, float]
    """Bytes that stay, by part: `database`, `redis`, `folder`."""
    memory: dict[str, float]
    """Bytes of memory of one process of each part."""

    @property
    def cpu_total(self) -> float:
        """Seconds of processor time in all."""
        return sum(self.cpu.values())


@dataclass(frozen=True)
class Needs:
    """What a number of episodes within some hours needs."""

    episodes_per_second: float
    processors: dict[str, float]
    processes: dict[str, int]
    stored: dict[str, float]
    memory: float


def needs(cost: Cost, episodes: int, hours: float, *, load: float = 0.6) -> Needs:
    """Processors, processes and bytes.

    Args:
        load: share of a processor that may be busy, so that queues stay short.
    """
    rate = episodes / (hours * 3600)
    processors = {part: rate * cost.cpu[part] / load for part in PARTS}
    # Each of them is one Python process, or one thread that matters, and uses one processor at most.
    processes = {part: max(1, -(-int(1000 * processors[part]) // 1000)) for part in PARTS}
    return Needs(
        rate,
        processors,
        processes,
        {name: size * episodes for name, size in cost.stored.items()},
        sum(processes[part] * cost.memory[part] for part in PARTS),
    )


def predict(cost: Cost, processes: int, processors: int) -> float:
    """Episodes a second when an endpoint is never waited for.

    A process of the runs is one thread of Python; everything shares the machine's processors.
    """
    return min(processes / cost.cpu["worker"], processors / cost.cpu_total)
