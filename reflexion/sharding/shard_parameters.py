"""What a run in shards is asked to do, and what each of its shards is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from reflexion.run.parameters import BatchParameters
from reflexion.settings import Settings
from reflexion.types import Frozen

__all__ = ["PROTOCOL", "Shard", "ShardedParameters", "absolute", "for_shard", "results_url", "shard_name"]

PROTOCOL = 1
"""Raised when what a shard is told changes, so that workers with an older version say so."""


class ShardedParameters(BatchParameters):
    """A dataset, and how it is split."""

    shards: int = Field(default=2, ge=1, le=10_000, title="Shards", description="Parts the dataset is split into.")
    deployment: str | None = Field(
        default=None,
        title="Deployment of a shard",
        description="`NAME` or `FLOW/NAME`. Empty, and no pool: shards are processes of this machine.",
        examples=["evaluation-shard/process"],
    )
    pool: str | None = Field(
        default=None,
        title="Work pool",
        description="Instead of a deployment: one is made on this pool, or brought up to date.",
        examples=["default"],
    )
    shards_at_a_time: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        title="Shards at a time",
        description="Empty: as many as processors; with a deployment all, which its pool's limits bound.",
    )
    shard_retries: int = Field(
        default=2, ge=0, le=100, title="Retries of a shard", description="A shard that crashed resumes from the cache."
    )
    wait_for_worker: float = Field(
        default=25.0, gt=0, le=86_400, title="Seconds to wait for a worker", description="Then the run fails."
    )
    lost_after: float = Field(
        default=30.0,
        ge=1,
        le=3600,
        title="Seconds of silence",
        description="A shard that gives no sign of life for so long has crashed with its machine.",
    )

    @field_validator("deployment", "pool", mode="before")
    @classmethod
    def _blank_name_is_none(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value


class Shard(Frozen):
    """One part of a run, as the flow run that carries it out is told."""

    run: str = Field(title="Run", description="Name of the run it is a part of.")
    token: str = Field(title="Token", description="Tells runs of the same name apart.")
    index: int = Field(ge=0, title="Shard", description="From 0.")
    count: int = Field(ge=1, title="Shards")
    attempt: int = Field(default=1, ge=1, title="Attempt", description="A later attempt takes over from earlier ones.")
    dataset_digest: str = Field(title="Digest of the dataset", description="The worker must read the same content.")
    folder: str = Field(title="Folder of the run", description="Where the shards' folders are, unless Redis is used.")
    resumed: bool = Field(default=False, title="Resumed", description="The run had episodes on record when it began.")
    parent: int | None = Field(default=None, title="Process", description="A shard ends with the process it serves.")
    protocol: int = Field(default=PROTOCOL, title="Protocol")

    @property
    def name(self) -> str:
        """Name of its folder."""
        return shard_name(self.index, self.count)


def shard_name(index: int, count: int) -> str:
    """Name of a shard's folder: the same index of another count is another shard."""
    return f"{index + 1:04}-of-{count:04}"


def for_shard(parameters: ShardedParameters, part: float, at_a_time: int) -> BatchParameters:
    """What a shard is asked to do: its share of what the whole run may take, and paths that hold anywhere.

    Args:
        part: share of the run's problems, 0 to 1.
        at_a_time: shards under way at once.
    """
    own = set(ShardedParameters.model_fields) - set(BatchParameters.model_fields)
    values: dict[str, Any] = parameters.model_dump(mode="json", exclude=own | {"name"})
    # A budget is the run's, so the shards' budgets add up to it; the same holds for episodes at a time.
    if parameters.max_cost is not None:
        values["max_cost"] = parameters.max_cost * part
    if parameters.max_tokens is not None:
        values["max_tokens"] = max(1, int(parameters.max_tokens * part))
    if parameters.concurrency is not None:
        values["concurrency"] = max(1, parameters.concurrency // at_a_time)
    for name in ("dataset", "cache"):
        values[name] = absolute(values[name])
    return BatchParameters.model_validate(values)


def absolute(place: str | None) -> str | None:
    """A path as it is read from any working directory; names and URLs stay as they are."""
    if place is None or "://" in place or place.startswith("sqlite:"):
        return place
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() or path.is_absolute() else place


def results_url(parameters: BatchParameters, settings: Settings) -> str | None:
    """Where results travel; None: the run's own folder."""
    return parameters.results or settings.results
