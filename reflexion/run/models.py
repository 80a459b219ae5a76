"""From the name of a model to the model, with what a run's settings say of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reflexion.llm.chat_model import LLM

if TYPE_CHECKING:
    from reflexion.llm.endpoint.extras import Extras
    from reflexion.llm.roles import ModelRoles
    from reflexion.llm.wrappers.budget import Budget
    from reflexion.run.parameters import BatchParameters, EpisodeParameters
    from reflexion.settings import Settings

Gate = Callable[[], AbstractAsyncContextManager[Any]]
"""A context that is held during each request to a model."""

__all__ = ["Gate", "OpenedModels", "open_model"]


class OpenedModels:
    """Opens each model once, whatever roles it has."""

    def __init__(self, settings: Settings, stack: AsyncExitStack, **options: Any) -> None:
        self._settings, self._stack, self._options = settings, stack, options
        self._opened: dict[str, LLM] = {}

    def default(self) -> str:
        """The name that stands for no name."""
        from reflexion.llm import default_spec

        return self._settings.llm or default_spec(self._settings.endpoint)

    def roles(self, parameters: BatchParameters | EpisodeParameters) -> ModelRoles:
        """Which model does what."""
        from reflexion.llm.roles import ModelRoles

        p = parameters
        return ModelRoles.of(p.llm, self.default(), reflector=p.reflector, judge=p.judge, escalate=p.escalate)

    def get(self, spec: str | LLM | None, fallback: LLM | None = None) -> LLM:
        """The model of a name; a model that was given is the giver's to close."""
        if spec is None and fallback is not None:
            return fallback
        if spec is not None and not isinstance(spec, str):
            from reflexion.llm.wrappers.wrapped import SplittingLLM

            return SplittingLLM(spec)
        name = spec or self.default()
        if name not in self._opened:
            self._opened[name] = open_model(name, self._settings, **self._options)
            self._stack.push_async_callback(self._opened[name].aclose)
        return self._opened[name]


def open_model(
    spec: str,
    settings: Settings,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    concurrency: int | None = None,
    gate: Gate | None = None,
    budget: Budget | None = None,
    record: str | None = None,
    batch_folder: Path | None = None,
    extras: Extras | None = None,
) -> LLM:
    """The model of a name; the key and secret headers come from the settings and stay in the client.

    Raises:
        ConfigurationError: it cannot be had: no key, no weights, an unknown form of name.
    """
    from reflexion.keys import digest
    from reflexion.llm import open_llm
    from reflexion.llm.endpoint.extras import NO_EXTRAS, parse_extra_headers

    key, extras = settings.openai_api_key, extras or NO_EXTRAS
    if settings.extra_headers is not None:
        headers = parse_extra_headers(settings.extra_headers.get_secret_value())
        extras = replace(extras, headers={**headers, **extras.headers})
    return open_llm(
        spec,
        base_url=base_url or settings.openai_base_url,
        api_key=api_key or (key.get_secret_value() if key is not None else None),
        attempt_timeout=settings.attempt_timeout,
        call_timeout=settings.call_timeout,
        max_attempts=settings.max_attempts,
        concurrency=concurrency,
        gate=gate,
        budget=budget,
        record=record,
        batch_state=batch_folder / f"batch-jobs-{digest(spec)[:8]}.json" if batch_folder is not None else None,
        extras=extras,
    )
