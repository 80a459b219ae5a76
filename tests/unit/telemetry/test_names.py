"""Every public name of the package can be had, and none of it loads what it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

import reflexion.telemetry as telemetry


def test_every_public_name_is_there() -> None:
    assert all(getattr(telemetry, name).__name__ == name for name in telemetry.__all__)
    assert dir(telemetry) == telemetry.__all__
    with pytest.raises(AttributeError, match="nothing"):
        _ = telemetry.nothing  # type: ignore[attr-defined]


def test_importing_it_loads_no_heavy_library() -> None:
    code = (
        "import sys, reflexion.run.run_folder; from reflexion.telemetry import PerformanceMonitor; "
        "PerformanceMonitor(); "
        "print([m for m in ('psutil', 'hdrh', 'numpy', 'prometheus_client', 'prefect') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
