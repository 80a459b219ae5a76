"""Reflexion agents, evaluated in batch, on Prefect.

`ReflexionAgent` runs the loop in this process; the package `flows` runs it as a Prefect workflow.
Names are loaded on first use, so that importing this package costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reflexion.agent import ReflexionAgent
    from reflexion.errors import ReflexionError
    from reflexion.llm.chat_model import Sampling
    from reflexion.types import (
        Document,
        Episode,
        Evaluation,
        Lesson,
        Outcome,
        Problem,
        Reflection,
        Strategy,
        Trial,
        Usage,
    )

__version__ = "0.1.0"

_HOMES = {
    "ReflexionAgent": "reflexion.agent",
    "ReflexionError": "reflexion.errors",
    "Sampling": "reflexion.llm.chat_model",
    "Document": "reflexion.types",
    "Episode": "reflexion.types",
    "Evaluation": "reflexion.types",
    "Lesson": "reflexion.types",
    "Outcome": "reflexion.types",
    "Problem": "reflexion.types",
    "Reflection": "reflexion.types",
    "Strategy": "reflexion.types",
    "Trial": "reflexion.types",
    "Usage": "reflexion.types",
}

__all__ = [
    "Document",
    "Episode",
    "Evaluation",
    "Lesson",
    "Outcome",
    "Problem",
    "Reflection",
    "ReflexionAgent",
    "ReflexionError",
    "Sampling",
    "Strategy",
    "Trial",
    "Usage",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
