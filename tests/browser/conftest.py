"""A headless Chromium for tests of pages; `tests/system_packages.sh` installs it where there is none."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

PACKAGES = Path(__file__).resolve().parents[1] / "system_packages.sh"


def _chromium() -> str:
    for _ in range(2):
        for name in ("chromium", "chromium-browser", "google-chrome"):
            if found := shutil.which(name):
                return found
        # `make test` has done this already; a single test that is run by hand has not.
        subprocess.run(["sh", str(PACKAGES)], check=True, timeout=280)
    raise AssertionError(f"{PACKAGES.name} brought no Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module's tests; each opens pages of its own.

    Not for the session: while it is open, this thread has a running event loop, and async tests cannot run.
    """
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        yield chromium
        chromium.close()
