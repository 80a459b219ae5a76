"""What all tests share: isolated folders, no model but on this machine, and real servers where one is needed.

The variables that Prefect reads when it is imported are set here, before any test module is; the server
they name is started only when a test asks for it.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from reflexion.testing import ScriptedEndpoint
from tests.redis_server import RedisServer
from tests.support import loopback
from tests.support.prefect_server import PrefectServer
from tests.support.topology import POOL, Topology

_FOREIGN = ("OPENAI_", "REFLEXION_", "PREFECT_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")

for _name in [n for n in os.environ if n.startswith(_FOREIGN)]:
    del os.environ[_name]

_server = PrefectServer()
# Only warnings on the console: a test that fails should not be buried.
os.environ.update(_server.environment, PREFECT_LOGGING_LEVEL="WARNING", PREFECT_UI_SHOW_PROMOTIONAL_CONTENT="false")
loopback.guard()
# Started in the background of a script, all processes ignore Ctrl-C, and the tests send it to commands.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A property holds or not, however busy the machine is: no example is timed.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Let Prefect leave its own connections to its own server open: it never closes some of its clients."""
    unclosed = rf"unclosed <socket.*{_server.port}\)>"
    config.addinivalue_line("filterwarnings", f"ignore:{unclosed}:ResourceWarning")
    # pytest's own last look for garbage comes after the tests, where lines added here do not count.
    warnings.filterwarnings("ignore", message=unclosed, category=ResourceWarning)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the Prefect server while other tests run: making its database takes a while."""
    if session.config.option.collectonly:
        return
    if any("prefect_server" in getattr(item, "fixturenames", ()) for item in session.items):
        _server.launch()


def pytest_unconfigure() -> None:
    """End the Prefect server, also when the session was interrupted."""
    _server.close()


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home, a cache and a folder of runs of each test's own, and no key; fails a test that reached out."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("REFLEXION_CACHE", str(home / "steps"))
    monkeypatch.setenv("REFLEXION_RUNS", str(home / "runs"))
    loopback.attempts.clear()
    yield home
    assert not loopback.attempts, f"the test tried to reach {loopback.attempts}; only this machine is allowed"


@pytest.fixture(scope="session")
def prefect_server() -> PrefectServer:
    """A running Prefect server; PREFECT_API_URL names it here and in every process a test starts."""
    _server.wait()
    return _server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A running Redis server, empty at the session's start."""
    with RedisServer.start() as server:
        yield server


@pytest.fixture(scope="session")
def topology() -> Iterator[Topology]:
    """PostgreSQL, Redis, a Prefect server on both, and two process workers of one pool."""
    parts = Topology()
    try:
        parts.launch()
        parts.wait()
        parts.make_pool(POOL)
        for name in ("w1", "w2"):
            parts.start_worker(name)
        yield parts
    finally:
        parts.close()


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    """An OpenAI-compatible endpoint that answers 41 until its own reflection is in the prompt, then 42."""
    with ScriptedEndpoint() as scripted:
        yield scripted


@pytest.fixture
def openai_endpoint(endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch) -> ScriptedEndpoint:
    """The same endpoint, named by the usual variables, for code and processes that look there."""
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    return endpoint
