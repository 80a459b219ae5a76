"""Settings: where they come from, references to what a Prefect server keeps, and what is wrong with them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reflexion import ReflexionAgent
from reflexion.cli.commands.doctor import inspect_setup, source_of
from reflexion.errors import ConfigurationError
from reflexion.run.batch_run import execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.settings import Reference, Settings, variable_of
from reflexion.tasks.prefect_settings import aload_settings, read_settings


def test_texts_may_be_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret:llm-key")
    monkeypatch.setenv("REFLEXION_CACHE", "redis://127.0.0.1:6379/0")
    monkeypatch.setenv("REFLEXION_RUNS", "variable:run_folder")
    settings = Settings()
    assert settings.references() == {
        "openai_api_key": Reference("secret", "llm-key"),
        "runs": Reference("variable", "run_folder"),
    }
    known = settings.with_values({"openai_api_key": "sk-1", "runs": "/srv/runs"})
    assert known.references() == {} and known.runs == Path("/srv/runs")
    assert known.openai_api_key is not None and known.openai_api_key.get_secret_value() == "sk-1"
    assert "sk-1" not in repr(known)


def test_the_library_alone_does_not_take_a_reference_for_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret:llm-key")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY stands for Prefect's Secret block 'llm-key'"):
        ReflexionAgent(llm="mock").run("What is two times three?")
    with pytest.raises(ConfigurationError, match="set it to the value itself"):
        asyncio.run(execute_batch(BatchParameters(dataset="starter", llm="mock")))


def test_a_wrong_setting_names_its_variable_and_shows_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFLEXION_MAX_ATTEMPTS", "none-of-your-business")
    with pytest.raises(ConfigurationError, match=r"^REFLEXION_MAX_ATTEMPTS: .*integer.*environment") as caught:
        read_settings()
    assert "business" not in str(caught.value)
    assert any(c.name == "settings" and c.state == "broken" for c in inspect_setup())


def test_where_a_setting_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(
        "REFLEXION_TTL=3d\nREFLEXION_LLM=local\nOPENAI_BASE_URL=http://u:pw-in-url@127.0.0.1:1/v1\n"
    )
    monkeypatch.setenv("REFLEXION_LLM", "mock")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-in-environment")
    assert [source_of(f) for f in ("llm", "ttl", "cache", "concurrency")] == [
        "environment", ".env", "environment", "default",
    ]  # fmt: skip
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("REFLEXION_MEMORY", "secret:memory-url")
    lines = {check.name: check for check in inspect_setup()}
    assert lines["REFLEXION_LLM"].text == "mock (from environment)"
    assert lines["REFLEXION_TTL"].text == "3d (from .env)"
    assert lines["REFLEXION_MAX_ATTEMPTS"].text == f"{Settings().max_attempts} (from default)"
    assert "not looked up" in lines["REFLEXION_MEMORY"].text and lines["REFLEXION_MEMORY"].state == "note"
    everything = repr(list(lines.values()))
    assert "sk-in-environment" not in everything and "pw-in-url" not in everything
    assert variable_of("openai_base_url") in lines


def test_the_endpoint_of_a_dot_env_file_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from reflexion.run.wiring import spec_of

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "")  # passed on without a value: not set
    parameters = BatchParameters(dataset="starter")
    assert spec_of(parameters, Settings()) == "local"
    Path(".env").write_text("OPENAI_API_KEY=sk-of-dot-env\n")
    assert spec_of(parameters, Settings()) != "local"


def test_runs_outlive_the_folder_of_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, isolated: Path) -> None:
    temporary = tmp_path / "tmpabcprefect"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(temporary)
    monkeypatch.setenv("REFLEXION_RUNS", "runs")
    assert asyncio.run(aload_settings()).runs == Path("runs")
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "0b7a2f7e-6a4e-4f0e-9f0e-2f6d3c1b9a55")
    assert asyncio.run(aload_settings()).runs == isolated / ".local" / "share" / "reflexion" / "runs"
    monkeypatch.setenv("REFLEXION_RUNS", str(tmp_path / "kept"))
    assert asyncio.run(aload_settings()).runs == tmp_path / "kept"
