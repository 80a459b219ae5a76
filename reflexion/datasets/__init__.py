"""Problems from files: JSON lines through a memory map, published formats, and sets known by name."""

from __future__ import annotations

from reflexion.datasets.dataset import Dataset, known_datasets, open_dataset

__all__ = ["Dataset", "known_datasets", "open_dataset"]
