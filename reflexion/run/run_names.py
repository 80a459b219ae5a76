"""Names of runs, and what of a run's parameters may be written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from reflexion.errors import ConfigurationError

__all__ = ["check_run_name", "default_run_name", "mask_passwords"]

_NAME = re.compile(r"\w[\w.+-]{0,127}")
_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@/\s]+@")


def check_run_name(name: str) -> str:
    """The name, if it can name a folder.

    Raises:
        ConfigurationError: it has a slash, a space or another character that does not belong there.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"name: {name!r} cannot name a run; use up to 128 letters, digits and . _ + -, "
            "beginning with a letter or digit"
        )
    return name


def default_run_name(dataset: str, llm: str, strategy: str, now: datetime) -> str:
    """A readable name that sorts by time within one dataset, model and strategy."""
    words = (Path(dataset).name.split(".")[0], Path(llm.split(":", 1)[-1]).stem, strategy)
    slugs = (re.sub(r"[^\w.]+", "-", w).strip("-._")[:30].lower() for w in words)
    return "-".join([*(s for s in slugs if s), f"{now:%Y%m%d-%H%M%S}"])


def mask_passwords(parameters: Any) -> Any:
    """Passwords in URLs do not belong in files that people pass on."""
    if isinstance(parameters, str):
        return _PASSWORD.sub(r"\1***@", parameters)
    if isinstance(parameters, Mapping):
        return {str(k): mask_passwords(v) for k, v in parameters.items()}
    if isinstance(parameters, list | tuple):
        return [mask_passwords(v) for v in parameters]
    return parameters
