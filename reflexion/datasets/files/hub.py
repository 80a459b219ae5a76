"""Rows of a dataset of the Hugging Face Hub, or of a folder in one of its forms, by the package `datasets`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from reflexion.datasets.files.lenient_json import OddRecord
from reflexion.datasets.files.rows import Inspect, Row
from reflexion.datasets.files.tables import plain_record
from reflexion.errors import DatasetError

__all__ = ["HUB", "HubRows"]

HUB = "hf:"
"""How the name of such a dataset begins: `hf:OWNER/NAME[:CONFIG[:SPLIT]]`."""


class HubRows:
    """One split, downloaded once and then read from the cache of `datasets`; no code of the dataset's is run."""

    def __init__(self, spec: str, inspect: Inspect) -> None:
        """
        Args:
            spec: `hf:OWNER/NAME[:CONFIG[:SPLIT]]`; for OWNER/NAME also a folder.
            inspect: sees every row once.

        Raises:
            DatasetError: the package is not installed, or there is no such dataset, configuration or split.
        """
        self.path = Path(spec)
        name, config, split = (*spec.removeprefix(HUB).split(":", 2), "", "")[:3]
        if not name:
            raise DatasetError(f"{spec}: write hf:OWNER/NAME[:CONFIG[:SPLIT]]")
        self._rows: Any = _load(spec, name, config or None, split or None)
        self.count = len(self._rows)
        content = hashlib.sha256()
        for row in self.rows(range(self.count)):
            inspect(row)
            content.update(orjson.dumps(row.record, default=str) + b"\n")
        self.digest = content.hexdigest()

    def rows(self, order: Sequence[int]) -> Iterator[Row]:
        """The rows with these positions."""
        for position in order:
            record = plain_record(self._rows[position])
            odd = isinstance(record, OddRecord)
            kept = {k: v for k, v in record.items() if v is not None}
            yield Row(position + 1, OddRecord(kept) if odd else kept)


def _load(spec: str, name: str, config: str | None, split: str | None) -> Any:
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise DatasetError(
            f"{spec}: reading from the Hub needs the package datasets; run: pip install datasets"
        ) from error
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        folder = Path(name)
        saved = any((folder / part).is_file() for part in ("dataset_dict.json", "state.json"))
        found: Any = (
            datasets.load_from_disk(name)
            if saved
            else datasets.load_dataset(name, config, cache_dir=os.environ.get("HF_DATASETS_CACHE"))
        )
    except (OSError, ValueError, DatasetsError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise DatasetError(f"{spec}: cannot be loaded ({type(error).__name__}: {reason[:300]})") from error
    finally:
        if not bars:
            datasets.enable_progress_bars()
    return _split_of(spec, name, config, found, split)


def _split_of(spec: str, name: str, config: str | None, found: Any, split: str | None) -> Any:
    if not isinstance(found, dict):
        return found
    names = list(map(str, found))
    if split is None and len(names) > 1:
        listed = ", ".join(f"{HUB}{name}:{config or ''}:{n}" for n in names)
        raise DatasetError(f"{spec}: it has {len(names)} splits; name one: {listed}")
    if split is not None and split not in names:
        raise DatasetError(f"{spec}: no split {split!r}; there are {', '.join(names)}")
    return found[split or names[0]]
