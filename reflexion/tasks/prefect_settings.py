"""Settings as the flows and the command line see them: references are looked up on the Prefect server."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reflexion.errors import ConfigurationError, RunFailedError
from reflexion.settings import Reference, Settings, variable_of

__all__ = ["aload_settings", "load_settings", "look_up", "read_settings"]


def read_settings() -> Settings:
    """The settings of the environment and of `.env`, references and all.

    Raises:
        ConfigurationError: one is wrong; names its variable.
    """
    try:
        return Settings()
    except ValidationError as exc:
        wrong = "; ".join(
            f"{variable_of(str(e['loc'][0]))}: {e['msg']}" for e in exc.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"{wrong} (from the environment or .env)") from None


def load_settings() -> Settings:
    """The settings with their values, for code that is not async; as `aload_settings`."""
    settings = read_settings()
    return asyncio.run(_resolved(settings)) if settings.references() else settings


async def aload_settings() -> Settings:
    """The settings with their values.

    Raises:
        ConfigurationError: a setting is wrong, or stands for a block or a variable that is not there.
        RunFailedError: the Prefect server cannot be asked.
    """
    return _lasting(await _resolved(read_settings()))


async def _resolved(settings: Settings) -> Settings:
    return settings.with_values({f: await look_up(f, ref) for f, ref in settings.references().items()})


async def look_up(field: str, reference: Reference) -> str:
    """What a reference stands for.

    Raises:
        ConfigurationError: there is no block or variable of that name.
        RunFailedError: the Prefect server cannot be asked.
    """
    import httpx
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound, PrefectException

    read = _secret if reference.kind == "secret" else _variable
    try:
        async with get_client() as client:
            value = await read(client, reference.name)
    except ObjectNotFound:
        value = None
    except (httpx.HTTPError, PrefectException, RuntimeError) as exc:
        # The kind alone: a message could repeat what was sent.
        raise RunFailedError(
            f"{variable_of(field)} stands for {reference}, and the Prefect server "
            f"cannot be asked for it ({type(exc).__name__}); check PREFECT_API_URL and PREFECT_API_AUTH_STRING"
        ) from None
    if value is None:
        raise ConfigurationError(f"{variable_of(field)} stands for {reference}, which {_MISSING[reference.kind]}")
    return value


_MISSING = {
    "secret": "is not on the server; make it in the UI under Blocks, with the type Secret",
    "variable": "is not on the server; make it with `prefect variable set NAME VALUE`",
}


async def _secret(client: Any, name: str) -> str | None:
    document = await client.read_block_document_by_name(name, "secret", include_secrets=True)
    value = document.data.get("value")
    return None if value is None else str(value)


async def _variable(client: Any, name: str) -> str | None:
    variable = await client.read_variable_by_name(name)
    return None if variable is None else str(variable.value)


def _lasting(settings: Settings) -> Settings:
    """Put a relative folder of runs where it lasts: a worker removes the folder it runs a flow in."""
    if settings.runs.is_absolute() or "PREFECT__FLOW_RUN_ID" not in os.environ:
        return settings
    here, temporary = Path.cwd().resolve(), Path(tempfile.gettempdir()).resolve()
    if not here.is_relative_to(temporary) or not here.name.endswith("prefect"):
        return settings
    base = os.environ.get("XDG_DATA_HOME", "")
    data = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "share"
    return settings.model_copy(update={"runs": data / "reflexion" / settings.runs})
