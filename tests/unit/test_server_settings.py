"""The recommended server settings: one list, in code and in the file for deployments."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from reflexion.cli.commands import server as command
from reflexion.errors import ConfigurationError
from reflexion.tasks.server_defaults import SERVER_SETTINGS, prepare

FILE = Path(__file__).resolve().parents[2] / "deployments" / "server.env"


def test_the_file_holds_the_same_settings() -> None:
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    assert dict(line.split("=", 1) for line in lines) == SERVER_SETTINGS


def test_every_setting_is_explained() -> None:
    explained = False
    for line in FILE.read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif line:
            assert explained, f"{line} has no comment above it"
            explained = False


def test_prefect_knows_every_setting() -> None:
    from prefect.settings import Settings

    known = {name for model in _models(Settings) for name in _variables(model)}
    assert set(SERVER_SETTINGS) <= known


def _models(model: type) -> list[type]:
    found = [model]
    for field in model.model_fields.values():  # type: ignore[attr-defined]
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            found += _models(field.annotation)
    return found


def _variables(model: type) -> list[str]:
    prefix = model.model_config.get("env_prefix", "")  # type: ignore[attr-defined]
    return [f"{prefix}{name}".upper() for name in model.model_fields]  # type: ignore[attr-defined]


@pytest.mark.parametrize("port", [0, 70000, -1])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(ConfigurationError, match="--port"):
        command.server(port=port)


def test_a_host_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        command.server(host="256.0.0.1", port=4200)


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="choose another --port"):
            command.server(port=taken.getsockname()[1])


def test_the_command_starts_prefect_with_the_settings_and_leaves_others(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        started.append((arguments, environment))

    name = "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE"
    for variable in SERVER_SETTINGS:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, "7")
    monkeypatch.setattr("os.execve", execve)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command.server(port=port)
    ((arguments, environment),) = started
    assert arguments[1:] == ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    assert SERVER_SETTINGS.items() - environment.items() == {(name, SERVER_SETTINGS[name])}
    assert environment[name] == "7", "what was set by hand stays"


def test_prefect_s_home_is_made_with_the_folders_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "a" / "b"
    monkeypatch.setenv("PREFECT_HOME", str(home))
    prepare()
    assert home.is_dir()


def test_a_home_that_cannot_be_made_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(ConfigurationError, match=r"PREFECT_HOME=.*name a folder"):
        prepare()
