"""Language models: one protocol, and what implements it.

`open_llm` turns what the user names into a model. Names are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from reflexion.errors import ConfigurationError
from reflexion.llm.chat_model import LLM, ChatReply, ChatRequest, Message, Role, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from reflexion.llm.batch_jobs.batch_api import BatchApiLLM
    from reflexion.llm.endpoint.extras import Extras
    from reflexion.llm.endpoint.openai_chat import OpenAIChat
    from reflexion.llm.local import LocalLLM
    from reflexion.llm.pacing.limits import AdaptiveLimiter, LimitChange, limit_changes
    from reflexion.llm.roles import ModelRoles
    from reflexion.llm.structured import ask_structured
    from reflexion.llm.wrappers.batched_asks import BatchedAsk, BatchedReply
    from reflexion.llm.wrappers.budget import Budget, BudgetedLLM
    from reflexion.llm.wrappers.recording import RecordingLLM, ReplayLLM

_HOMES = {
    "AdaptiveLimiter": "reflexion.llm.pacing.limits",
    "BatchApiLLM": "reflexion.llm.batch_jobs.batch_api",
    "BatchedAsk": "reflexion.llm.wrappers.batched_asks",
    "BatchedReply": "reflexion.llm.wrappers.batched_asks",
    "Budget": "reflexion.llm.wrappers.budget",
    "BudgetedLLM": "reflexion.llm.wrappers.budget",
    "Extras": "reflexion.llm.endpoint.extras",
    "LimitChange": "reflexion.llm.pacing.limits",
    "LocalLLM": "reflexion.llm.local",
    "ModelRoles": "reflexion.llm.roles",
    "OpenAIChat": "reflexion.llm.endpoint.openai_chat",
    "RecordingLLM": "reflexion.llm.wrappers.recording",
    "ReplayLLM": "reflexion.llm.wrappers.recording",
    "ask_structured": "reflexion.llm.structured",
    "limit_changes": "reflexion.llm.pacing.limits",
}

__all__ = [
    "DEFAULT_MODEL",
    "LLM",
    "AdaptiveLimiter",
    "BatchApiLLM",
    "BatchedAsk",
    "BatchedReply",
    "Budget",
    "BudgetedLLM",
    "ChatReply",
    "ChatRequest",
    "Extras",
    "LimitChange",
    "LocalLLM",
    "Message",
    "ModelRoles",
    "OpenAIChat",
    "RecordingLLM",
    "ReplayLLM",
    "Role",
    "Sampling",
    "ask_structured",
    "default_spec",
    "limit_changes",
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
    max_attempts: int = 16,
    gate: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    record: str | Path | None = None,
    budget: Budget | None = None,
    batch_state: str | Path | None = None,
    extras: Extras | None = None,
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
        record: file every exchange is written to.
        budget: what the run may spend.
        batch_state: state file of batch jobs; given, requests go through the Batch API.
        extras: what is sent along with every request to an endpoint.

    Raises:
        ConfigurationError: the model cannot be had; the message says how to mend it.
        StorageError: the recording or the state file cannot be used.
    """
    from reflexion.llm.endpoint.extras import NO_EXTRAS

    llm = _open(
        spec.strip(),
        base_url=base_url,
        api_key=api_key,
        concurrency=concurrency,
        attempt_timeout=attempt_timeout,
        call_timeout=call_timeout,
        max_attempts=max_attempts,
        gate=gate,
        batch_state=batch_state,
        extras=extras or NO_EXTRAS,
    )
    if record is not None:
        from reflexion.llm.wrappers.recording import RecordingLLM

        llm = RecordingLLM(llm, record)
    if budget is not None and budget.limited:
        from reflexion.llm.wrappers.budget import BudgetedLLM

        llm = BudgetedLLM(llm, budget)
    return llm


def _open(
    spec: str,
    *,
    base_url: str | None,
    api_key: str | None,
    concurrency: int | None,
    attempt_timeout: float,
    call_timeout: float,
    max_attempts: int,
    gate: Callable[[], AbstractAsyncContextManager[Any]] | None,
    batch_state: str | Path | None,
    extras: Extras,
) -> LLM:
    kind, _, rest = spec.partition(":")
    if batch_state is not None and (spec == "local" or kind in ("gguf", "replay")):
        raise ConfigurationError(f"--batch-api needs a model of an endpoint with a Batch API, not {spec}")
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
            extras=extras,
        )
    if kind == "replay":
        from reflexion.llm.wrappers.recording import ReplayLLM

        if not rest:
            raise ConfigurationError("replay: needs the path of a recording, as in replay:exchanges.jsonl")
        return ReplayLLM(rest)

    if batch_state is not None:
        from reflexion.llm.batch_jobs.batch_api import BatchApiLLM

        return BatchApiLLM(spec, batch_state, base_url, api_key, max_attempts=max_attempts, extras=extras)

    from reflexion.llm.endpoint.openai_chat import OpenAIChat

    return OpenAIChat(
        spec,
        base_url,
        api_key,
        concurrency=concurrency,
        attempt_timeout=attempt_timeout,
        call_timeout=call_timeout,
        max_attempts=max_attempts,
        gate=gate,
        extras=extras,
    )
