"""The arithmetic of the scale model."""

from __future__ import annotations

import pytest

from benchmarks.scale_model import Cost, needs, predict

COST = Cost(
    cpu={"worker": 0.010, "server": 0.004, "database": 0.002, "redis": 0.0005},
    stored={"database": 2000.0, "redis": 1000.0, "folder": 500.0},
    memory={"worker": 150e6, "server": 250e6, "database": 60e6, "redis": 20e6},
)


def test_a_night_needs_processors_in_proportion_to_its_problems() -> None:
    night = needs(COST, 1_000_000, 8, load=0.5)
    assert night.episodes_per_second == pytest.approx(34.72, abs=0.01)
    assert night.processors["worker"] == pytest.approx(0.694, abs=0.001)
    assert night.processes == {"worker": 1, "server": 1, "database": 1, "redis": 1}
    assert night.stored["database"] == 2e9
    ten = needs(COST, 10_000_000, 8, load=0.5)
    assert ten.processes["worker"] == 7 and ten.processors["worker"] == pytest.approx(6.94, abs=0.01)


def test_throughput_is_bound_by_a_process_or_by_the_machine() -> None:
    assert predict(COST, processes=1, processors=64) == pytest.approx(100)
    assert predict(COST, processes=4, processors=64) == pytest.approx(400)
    assert predict(COST, processes=64, processors=2) == pytest.approx(2 / 0.0165)
