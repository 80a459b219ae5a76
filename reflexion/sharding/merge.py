"""One run out of its shards: every episode taken once, whatever the shards send twice."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from reflexion._files import storage_errors
from reflexion.run.batch_run import Plan, Progress, mark_rest
from reflexion.run.parameters import BatchParameters
from reflexion.run.run_folder import EpisodeKey, RunFolder
from reflexion.telemetry.summary import Summary
from reflexion.types import Episode, Outcome

if TYPE_CHECKING:
    from reflexion.datasets import Dataset

__all__ = ["ShardedRun"]

SHARDS = "shards.json"


class ShardedRun:
    """The run's folder, open for merging.

    Args:
        folder: open for writing, so that no other process merges into it.
        dataset: all problems of the run.
        shards: how many parts they are split into.
        parameters: what the run was asked to do.
        progress: is told of each episode when it is taken.
    """

    def __init__(
        self, folder: RunFolder, dataset: Dataset, shards: int, *, parameters: BatchParameters, progress: Progress
    ) -> None:
        self.folder, self.dataset, self.shards = folder, dataset, shards
        self.plan = Plan(dataset, parameters.repeat, parameters.strategy, folder)
        self._progress = progress
        self._errors: set[EpisodeKey] = set()
        self._started = time.perf_counter()
        self.peak_rss_mb: float | None = None
        self.token = self._token()

    def _token(self) -> str:
        """Names this run where others of the same name have been; a resumed run has the same."""
        path = self.folder.path / SHARDS
        if path.exists():
            with storage_errors(path):
                try:
                    return str(orjson.loads(path.read_bytes())["token"])
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    pass  # it is written anew
        token = secrets.token_hex(6)
        self.folder.attach(SHARDS, {"token": token})
        return token

    def take(self, lines: Iterable[bytes]) -> int:
        """Take the episodes among these lines that are not on record; gives how many that were."""
        taken = 0
        for line in lines:
            try:
                episode = Episode.model_validate_json(line)
            except ValidationError:
                continue  # not one of ours, or of another version: its episode is missing, and is run again
            key = (episode.problem_id, episode.repeat)
            if episode.outcome is Outcome.NOT_RUN or self.folder.done(*key):
                continue
            again = key in self._errors
            if episode.outcome is Outcome.ERROR:
                if again:
                    continue
                self._errors.add(key)
            else:
                self._errors.discard(key)
            self.folder.append(episode)
            if not again:
                self._progress.finished(episode)
            taken += 1
        return taken

    def _keys(self, index: int) -> Iterator[EpisodeKey]:
        for problem in self.dataset.shard(index, self.shards):
            for repeat in range(self.plan.repeat):
                yield problem.id, repeat

    def missing(self, index: int) -> list[EpisodeKey]:
        """Episodes of a shard that have not ended."""
        return [key for key in self._keys(index) if not self.folder.done(*key) and key not in self._errors]

    def done_lines(self, index: int) -> list[bytes]:
        """What is on record of a shard."""
        keys = [key for key in self._keys(index) if self.folder.done(*key)]
        if not keys:
            return []
        wanted = set(keys)
        return [line for key, line in self.folder.lines(keys) if key in wanted]

    def part(self, index: int) -> float:
        """Share of the problems that a shard has."""
        return len(self.dataset.shard(index, self.shards)) / max(1, len(self.dataset))

    def describe(self, index: int) -> str:
        """The problems of a shard, first and last."""
        part = self.dataset.shard(index, self.shards)
        return f"{part[0].id} … {part[-1].id}" if len(part) > 1 else part[0].id

    def finish(self, report: dict[str, Any], granularity: int, *, complete: bool) -> Summary:
        """Sort the record, mark what was not run, and write figures and what became of each shard."""
        if not complete:
            mark_rest(self.plan)
        self.folder.attach(SHARDS, {"token": self.token, **report})
        return self.folder.finish(
            self.plan.order(),
            wall_seconds=time.perf_counter() - self._started,
            peak_rss_mb=self.peak_rss_mb,
            granularity=granularity,
        )
