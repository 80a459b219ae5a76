"""Language models: one protocol, and what implements it.

`open_llm` turns what the user names into a model. Names are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from reflexion.errors import ConfigurationError
from reflexion.llm.base import LLM, ChatReply, ChatRequest, Message, Role, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from reflexion.llm.local import LocalLLM
    from reflexion.llm.openai import OpenAIChat

_HOMES = {
    "LocalLLM": "reflexion.llm.local",
    "OpenAIChat": "reflexion.llm.openai",
}

__all__ = [
    "LLM",
    "ChatReply",
    "ChatRequest",
    "LocalLLM",
    "Message",
    "OpenAIChat",
    "Role",
    "Sampling",
    "default_spec",
    "open_llm",
]

DEFAULT_MODEL = "gpt-4o-mini"
"""The model asked for when an endpoint is configured and no model is named."""


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def default_spec(environ: Mapping[str, str]) -> str:
    """The model when the user names none.

    `REFLEXION_LLM` if set; `local`, the embedded one, when neither `OPENAI_API_KEY` nor
    `OPENAI_BASE_URL` is set; else a small model of the endpoint.
    """
    chosen = environ.get("REFLEXION_LLM", "").strip()
    if chosen:
        return chosen
    configured = environ.get("OPENAI_API_KEY", "").strip() or environ.get("OPENAI_BASE_URL", "").strip()
    return DEFAULT_MODEL if configured else "local"


def open_llm(
    spec: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    concurrency: int | None = None,
    attempt_timeout: float = 60.0,
    call_timeout: float = 300.0,
    max_attempts: int = 8,
    gate: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
) -> LLM:
    """The model a user names. Opens no connection and starts no server; the first call does.

    Args:
        spec: `local` (the embedded model), `gguf:PATH` (weights of your own), `replay:FILE` (a
            recording), or the name of a model of an OpenAI-compatible endpoint.
        base_url: the endpoint; None: `OPENAI_BASE_URL`, else OpenAI.
        api_key: the key; None: `OPENAI_API_KEY`.
        concurrency: requests at a time; None: adapted to what the endpoint bears.
        attempt_timeout: seconds one request may take.
        call_timeout: seconds one call may take with its retries.
        max_attempts: requests one call may take.
        gate: a context that is held during each request, such as a limit shared across processes.

    Raises:
        ConfigurationError: the model cannot be had; the message says how to mend it.
    """
    spec = spec.strip()
    kind, _, rest = spec.partition(":")
    if spec == "local" or kind == "gguf":
        from reflexion.llm.local import LocalLLM

        if kind == "gguf" and not rest:
            raise ConfigurationError("gguf: needs the path of a weights file, as in gguf:models/small.gguf")
        # Embedded inference on few cores is slow at high concurrency by its nature, not by a fault.
        return LocalLLM(
            None if spec == "local" else rest,
            concurrency=concurrency,
            attempt_timeout=max(attempt_timeout, 300.0),
            call_timeout=max(call_timeout, 900.0),
        )
    if kind == "replay":
        from reflexion.llm.recording import ReplayLLM

        if not rest:
            raise ConfigurationError("replay: needs the path of a recording, as in replay:exchanges.jsonl")
        return ReplayLLM(rest)

    from reflexion.llm.openai import OpenAIChat

    return OpenAIChat(
        spec,
        base_url,
        api_key,
        concurrency=concurrency,
        attempt_timeout=attempt_timeout,
        call_timeout=call_timeout,
        max_attempts=max_attempts,
        gate=gate,
    )
