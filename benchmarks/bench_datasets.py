"""A dataset of 1,000,000 lines and 1 GB: indexing, opening, reading a shard, and what stays in memory.

    pytest benchmarks/bench_datasets.py

The file is made in a temporary folder and removed. Every measurement has a process of its own, whose
peak memory counts all of it, the interpreter included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

LINES = 1_000_000
LINE_BYTES = 1_000
OPEN_SECONDS = 2.0
PEAK_MB = 60.0

_MEASURE = """
import json, random, sys, time
begun = time.perf_counter()
from reflexion.datasets import open_dataset
imported = time.perf_counter()
dataset = open_dataset(sys.argv[1])
opened = time.perf_counter()
job = sys.argv[2]
if job == "shard":
    count = sum(1 for _ in dataset.shard(37, 100))
elif job == "scattered":
    chance = random.Random(1)
    count = sum(dataset[chance.randrange(len(dataset))].id != "" for _ in range(2_000))
elif job == "shuffled":
    count = sum(1 for _ in open_dataset(sys.argv[1], shuffle_seed=1, limit=50_000))
else:
    count = len(dataset)
done = time.perf_counter()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({
    "problems": count, "open": opened - imported, "job": done - opened, "peak_mb": int(peak.split()[1]) / 1024,
}))
"""


def write_lines(path: Path) -> None:
    filler = "Consider the following case with care, and answer with one number only. " * 14
    with path.open("w", encoding="ascii", buffering=2**20) as file:
        for i in range(LINES):
            start = f'{{"id": "line-{i}", "answer": "{i * 7}", "prompt": "What is {i} times seven? '
            file.write(start + filler[: LINE_BYTES - len(start) - 3] + '"}\n')


def measure(path: Path, job: str, cache: Path) -> dict[str, Any]:
    out = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), job],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(out.stdout)


@pytest.mark.timeout(1200)
def test_a_million_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "million.jsonl", Path(folder) / "cache"
        write_lines(path)
        size = path.stat().st_size / 1e6
        jobs = {
            "first opening": "open",
            "opening": "open",
            "shard 37/100": "shard",
            "2,000 scattered": "scattered",
            "50,000 shuffled": "shuffled",
        }
        rows = {label: measure(path, job, cache) for label, job in jobs.items()}
    with capsys.disabled():
        print(f"\n\n{size:.0f} MB, {LINES:,} lines")
        print(f"{'':16} {'open s':>8} {'read s':>8} {'problems':>9} {'peak MB':>8}")
        for label, row in rows.items():
            print(f"{label:16} {row['open']:8.3f} {row['job']:8.3f} {row['problems']:9} {row['peak_mb']:8.1f}")
        print(f"indexing and checking: {size / rows['first opening']['open']:.0f} MB/s")
    assert rows["shard 37/100"]["problems"] == LINES // 100
    for label, row in rows.items():
        assert row["peak_mb"] < PEAK_MB, label
        assert row["open"] < OPEN_SECONDS or label == "first opening", label
