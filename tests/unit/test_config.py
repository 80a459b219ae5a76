"""Parameters of runs and settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from reflexion.run.parameters import BatchParameters, EpisodeParameters
from reflexion.run.wiring import describe_validation
from reflexion.settings import Settings


@pytest.mark.parametrize("name", ["llm", "reflector", "base_url", "evaluator", "name", "runs", "cache", "memory"])
def test_a_form_s_empty_text_is_nothing(name: str) -> None:
    assert getattr(BatchParameters.model_validate({"dataset": "d", name: "  "}), name) is None


@pytest.mark.parametrize(
    "wrong",
    [{"max_trials": 0}, {"max_trials": 101}, {"limit": 0}, {"repeat": 0}, {"temperature": 3}, {"no_such": 1}],
)
def test_values_out_of_bounds_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        BatchParameters.model_validate({"dataset": "d", **wrong})
    assert next(iter(wrong)) in describe_validation(caught.value)


def test_parameters_survive_json() -> None:
    given = BatchParameters(dataset="d", llm="m", ttl="7d", field_map={"prompt": "question"})
    assert BatchParameters.model_validate_json(given.model_dump_json()) == given


@pytest.mark.parametrize("name", ["cache", "memory"])
def test_a_password_is_no_parameter(name: str) -> None:
    # Parameters are on record at the server, in the run's folder and in the UI.
    with pytest.raises(ValidationError) as caught:
        BatchParameters.model_validate({"dataset": "d", name: "redis://:hidden@127.0.0.1:6379/0"})
    told = describe_validation(caught.value)
    assert f"REFLEXION_{name.upper()}" in told and "hidden" not in told + str(caught.value)


def test_an_endpoint_s_password_is_no_parameter() -> None:
    with pytest.raises(ValidationError) as caught:
        EpisodeParameters.model_validate({"problem": "p", "base_url": "http://user:hidden@127.0.0.1/v1"})
    told = describe_validation(caught.value)
    assert "OPENAI_BASE_URL" in told and "hidden" not in told + str(caught.value)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("REFLEXION_TTL=3d\nOTHER=1\n")
    monkeypatch.setenv("REFLEXION_ATTEMPT_TIMEOUT", "12.5")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    settings = Settings()
    assert (settings.attempt_timeout, settings.ttl) == (12.5, "3d")
    assert "sk-hidden" not in repr(settings) + settings.model_dump_json()
