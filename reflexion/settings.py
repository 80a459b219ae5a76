"""Settings from the environment (`REFLEXION_…`) and `.env`; read at the edge only.

Nothing below the command line, the flows and `ReflexionAgent` reads them: everything else is told. A text
may be a reference instead, `secret:NAME` or `variable:NAME`: `tasks/prefect_settings.py` looks it up on the
Prefect server, so that a key is kept in one place and no worker's environment holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from reflexion.errors import ConfigurationError

__all__ = ["Reference", "SettingSource", "Settings", "variable_of"]

SettingSource = Literal["environment", ".env", "default"]

_KINDS: dict[str, Literal["secret", "variable"]] = {"secret:": "secret", "variable:": "variable"}


@dataclass(frozen=True)
class Reference:
    """A setting whose value is kept on the Prefect server."""

    kind: Literal["secret", "variable"]
    name: str

    def __str__(self) -> str:
        return f"Prefect's {'Secret block' if self.kind == 'secret' else 'variable'} {self.name!r}"


class Settings(BaseSettings):
    """Every setting, each with the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="REFLEXION_",
        env_file=".env",
        extra="ignore",
        populate_by_name=True,
        # A variable that is passed on without a value, as containers do, is not set.
        env_ignore_empty=True,
        # A wrong value is named by its field; what was given may hold a password.
        hide_input_in_errors=True,
    )

    llm: str | None = Field(default=None, description="Model when none is given.")
    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
    extra_headers: SecretStr | None = Field(
        default=None, description="Headers sent with every request to a model: lines NAME=VALUE, or a JSON object."
    )
    runs: Path = Field(default=Path("runs"), description="Folder of the runs' folders.")
    cache: str | None = Field(default=None, description="URL of the step cache; None: a local folder.")
    memory: str | None = Field(default=None, description="URL of the episodic memory; None: of the run.")
    results: str | None = Field(default=None, description="URL by which results of shards travel; None: by folder.")
    ttl: str = Field(default="7d", description="How long cached steps live.")
    attempt_timeout: float = Field(default=60.0, gt=0, description="Seconds one LLM request may take.")
    call_timeout: float = Field(default=300.0, gt=0, description="Seconds one LLM call may take, with retries.")
    max_attempts: int = Field(default=16, ge=1, description="LLM requests one call may take.")
    concurrency: int | None = Field(default=None, ge=1, description="Episodes at a time; None: adaptive.")
    evaluation_timeout: float = Field(default=10.0, gt=0, description="Seconds the tests of an answer may take.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "WARNING"

    @property
    def endpoint(self) -> dict[str, str]:
        """The variables of an OpenAI-compatible endpoint, wherever they come from; the key is only hinted at."""
        return {
            "OPENAI_API_KEY": "set" if self.openai_api_key is not None else "",
            "OPENAI_BASE_URL": self.openai_base_url or "",
        }

    def references(self) -> dict[str, Reference]:
        """The settings that are references, by their field's name."""
        found: dict[str, Reference] = {}
        for field in type(self).model_fields:
            text = _text(getattr(self, field))
            for prefix, kind in _KINDS.items():
                if text is not None and text.startswith(prefix):
                    found[field] = Reference(kind, text.removeprefix(prefix).strip())
        return found

    def with_values(self, values: Mapping[str, str]) -> Self:
        """A copy in which references are replaced by what they stand for."""
        kinds = {"openai_api_key": SecretStr, "extra_headers": SecretStr, "runs": Path}
        return self.model_copy(update={field: kinds.get(field, str)(value) for field, value in values.items()})

    def require_values(self) -> None:
        """Check that no reference is left.

        Raises:
            ConfigurationError: one is, and only a Prefect server knows what it stands for.
        """
        for field, reference in self.references().items():
            raise ConfigurationError(
                f"{variable_of(field)} stands for {reference}, which the flows and the command line look up; "
                "here, set it to the value itself"
            )


def variable_of(field: str) -> str:
    """The environment variable of a setting."""
    if field not in Settings.model_fields:
        return field  # an alias: it is the variable's name already
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else f"REFLEXION_{field.upper()}"


def _text(value: object) -> str | None:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, str | Path) else None
