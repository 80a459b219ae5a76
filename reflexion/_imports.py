"""Objects that a user names as `module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec
from typing import Any

from reflexion.errors import ConfigurationError

__all__ = ["load_object"]


def load_object(spec: str, what: str) -> Any:
    """The object `module:attribute` names; modules in the working directory are found as well.

    Args:
        what: what it is to be, for messages: `the evaluator`.

    Raises:
        ConfigurationError: the module cannot be imported, or has no such attribute.
    """
    module_name, colon, attribute = (part.strip() for part in spec.partition(":"))
    if not colon or not module_name or not attribute:
        raise ConfigurationError(f"{what} {spec!r} is not of the form module:function")
    try:
        _find_here(module_name.partition(".")[0])
        found: Any = importlib.import_module(module_name)
    except Exception as exc:  # importing runs the module, which may raise anything
        raise ConfigurationError(
            f"{what} {spec!r}: module {module_name!r} cannot be imported: {type(exc).__name__}: {exc}"
        ) from exc
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"{what} {spec!r}: {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    return found


def _find_here(package: str) -> None:
    """Let a package of the working directory be found, as `python -m` would; installed ones come first."""
    here = os.getcwd()  # noqa: PTH109 - sys.path holds texts
    if package in sys.modules or here in sys.path or "" in sys.path or find_spec(package) is not None:
        return
    sys.path.append(here)
    importlib.invalidate_caches()
