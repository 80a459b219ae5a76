"""Settings from the environment (`REFLEXION_…`) and `.env`; read at the edge only.

Nothing below the command line, the flows and `ReflexionAgent` reads them: everything else is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Every setting, each with the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(env_prefix="REFLEXION_", env_file=".env", extra="ignore", populate_by_name=True)

    llm: str | None = Field(default=None, description="Model when none is given.")
    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
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
