"""Each test begins with models nobody knows yet: ports are used again, and what is learnt of a model is kept."""

from __future__ import annotations

import pytest

from tests.support.dialects import strangers

__all__ = ["unknown_models"]


@pytest.fixture(autouse=True)
def unknown_models(monkeypatch: pytest.MonkeyPatch) -> None:
    strangers(monkeypatch)
