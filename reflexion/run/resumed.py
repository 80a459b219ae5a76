"""Runs that are carried on with: what they spent before stays spent."""

from __future__ import annotations

from typing import Any

from reflexion.run.run_folder import RunFolder
from reflexion.telemetry.summary import UsageSum
from reflexion.types import Episode, StepOutput, Trial, Usage

__all__ = ["carry_over", "spent_by"]


def spent_by(run: RunFolder) -> Usage:
    """What the episodes on record cost, those included that did not come to their end.

    The record tells it, not `summary.json`: a run that was killed has none.

    Raises:
        StorageError: a record cannot be read.
    """
    total = UsageSum()
    for episode in run.episodes():
        total.add(episode.usage)
    return total.total


def carry_over(before: Episode, now: Episode) -> Episode:
    """The new record of an episode with what the run's earlier attempt at it spent.

    A step that the earlier attempt computed and this one found in the cache was computed by this run: it
    counts as executed, as it was, and not as saved. What the earlier attempt spent on steps that were
    computed again stands in `lost`, so that the run's figures and its budget tell all that was paid.

    Args:
        before: the record of an attempt that a budget or an error ended.
        now: the record that takes its place.
    """
    executed = {(o.__class__, o.key): o for _, o in before.outputs() if not o.cached and o.key}
    taken: set[int] = set()

    def own(output: StepOutput) -> dict[str, Any]:
        earlier = executed.get((output.__class__, output.key)) if output.cached and output.key else None
        if earlier is None:
            return {}
        taken.add(id(earlier))
        return {"cached": False, "seconds": earlier.seconds, "attempts": earlier.attempts, "retried": earlier.retried}

    def carried(trial: Trial) -> Trial:
        update = own(trial)
        for name in ("evaluation", "reflection"):
            part: StepOutput | None = getattr(trial, name)
            if part is not None and (change := own(part)):
                update[name] = part.model_copy(update=change)
        return trial.model_copy(update=update) if update else trial

    trials = tuple(carried(trial) for trial in now.trials)
    rest = (o.usage for _, o in before.outputs() if not o.cached and id(o) not in taken)
    return now.model_copy(update={"trials": trials, "lost": sum(rest, before.lost + now.lost)})
