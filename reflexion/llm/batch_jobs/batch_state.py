"""The file that remembers batch jobs across restarts."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import orjson

from reflexion.errors import StorageError

__all__ = ["BatchJob", "BatchState"]

_STATE_FORMAT = 1


class BatchJob:
    """One job as the state file knows it. `batch_id` is None between its noting and its making."""

    def __init__(self, name: str, keys: Iterable[str], batch_id: str | None = None, created: float = 0.0) -> None:
        self.name = name
        self.keys = dict.fromkeys(keys)
        self.batch_id = batch_id
        self.collected = False
        """Whether this process has fetched what it brought. The job stays noted all the same: a process
        that is killed before it kept an answer finds it there again."""
        self.created = created or time.time()

    def as_dict(self) -> dict[str, Any]:
        """For the state file."""
        return {"name": self.name, "keys": list(self.keys), "batch_id": self.batch_id, "created": self.created}


class BatchState:
    """The state file: which jobs there are, and which requests each holds.

    Raises:
        StorageError: the file cannot be read or written, or is of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.jobs: dict[str, BatchJob] = {}
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as exc:
            raise StorageError(f"{self._path}: cannot be read ({exc.strerror or exc})") from None
        try:
            state = cast("dict[str, Any]", orjson.loads(content))
            if int(state["format"]) > _STATE_FORMAT:
                raise StorageError(f"{self._path}: written by a newer version; upgrade to go on with its jobs")
            for job in state["jobs"]:
                self.jobs[job["name"]] = BatchJob(job["name"], job["keys"], job["batch_id"], job["created"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
            raise StorageError(
                f"{self._path}: not a state file of batch jobs ({exc}); remove it to begin anew (its jobs are lost)"
            ) from None

    def save(self) -> None:
        """Write the file, whole or not at all."""
        temporary = self._path.with_name(self._path.name + ".tmp")
        state = {"format": _STATE_FORMAT, "jobs": [job.as_dict() for job in self.jobs.values()]}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2))
            temporary.replace(self._path)
        except OSError as exc:
            raise StorageError(f"{self._path}: cannot be written ({exc.strerror or exc})") from None
