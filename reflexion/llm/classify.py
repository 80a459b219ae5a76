"""From an endpoint's errors and the SDK's to ours: what may be retried, what never is, and a message that helps.

The SDK's exceptions are not chained: they hold the request with its headers, and endpoints echo keys.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

import orjson

from reflexion.errors import (
    AuthenticationError,
    CallTimeoutError,
    EndpointError,
    ModelNotFoundError,
    RateLimitError,
    ReflexionError,
    RefusalError,
    RequestRejectedError,
)
from reflexion.llm.connections import HttpReply, NoConnectionError, WireError

if TYPE_CHECKING:
    from openai import APIError, APIStatusError

__all__ = ["classify", "redact", "reply_error", "retry_after", "status_error", "wire_error"]

_REFUSALS = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_MODEL_UNKNOWN = frozenset({"model_not_found", "model_not_supported"})
_BEARER = re.compile(r"(?i)\b(bearer\s+|sk-)[\w.\-*]{4,}")


def redact(text: str, api_key: str | None) -> str:
    """Text without the key, however the endpoint echoed it, on one line and not too long."""
    if api_key and len(api_key) >= 6:
        text = text.replace(api_key, "[key]")
    return re.sub(r"\s+", " ", _BEARER.sub("[key]", text)).strip()[:400]


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds the endpoint asks us to wait: `Retry-After` in seconds or as a date, or in milliseconds."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
            except ValueError:
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def status_error(  # noqa: PLR0911 - one return for each class of error
    status: int, code: str | None, message: str, *, where: str, model: str, wait: float | None = None
) -> ReflexionError:
    """The error for an HTTP status and the endpoint's own code and (redacted) message."""
    told = f": {message}" if message else ""
    if code in _REFUSALS:
        return RefusalError(f"{where} refused the request{told}")
    if status == 429:
        if code == "insufficient_quota":
            return AuthenticationError(f"{where}: the account behind the key has no quota left{told}")
        return RateLimitError(f"{where} answered 429{told}", retry_after=wait)
    if status in (401, 403):
        return AuthenticationError(
            f"{where} answered {status}{told}. Check the key (OPENAI_API_KEY) and what it may use"
        )
    if status == 404 or code in _MODEL_UNKNOWN:
        return ModelNotFoundError(
            f"{where} does not know the model {model!r} (status {status}{told}). "
            "Check the model's name, and that the base URL is the API's, which usually ends in /v1"
        )
    if status in (408, 409) or status >= 500:
        return EndpointError(f"{where} answered {status}{told}")
    return RequestRejectedError(f"{where} did not accept the request (status {status}{told})")


def _told(error: APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        message: Any = body.get("message") or body.get("detail") or body.get("error")
        if message:
            return str(message)
    content_type = error.response.headers.get("content-type", "")
    return "" if "html" in content_type else error.response.text


def _noted(error: ReflexionError, code: Any, parameter: Any) -> ReflexionError:
    """With the endpoint's own code and parameter as a note: what a rejected request was rejected for."""
    if isinstance(error, RequestRejectedError):
        error.add_note(f"code {code or 'none'}, parameter '{parameter or 'none'}'")
    return error


def reply_error(reply: HttpReply, where: str, model: str, api_key: str | None) -> ReflexionError:
    """Our error for an answer whose status is 400 or more."""
    content_type = reply.headers.get("content-type", "")
    try:
        body: Any = orjson.loads(reply.content)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict):
        body = cast("dict[str, Any]", body).get("error") or body
    fields = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    told = fields.get("message") or fields.get("detail") or fields.get("error") or (body if not fields else None)
    if not told and "html" not in content_type:
        told = reply.content[:2000].decode(errors="replace")
    code = fields.get("code")
    error = status_error(
        reply.status,
        code if isinstance(code, str) else None,
        redact(str(told or ""), api_key),
        where=where,
        model=model,
        wait=retry_after(reply.headers),
    )
    return _noted(error, code, fields.get("param"))


def wire_error(error: WireError, where: str, api_key: str | None, *, known: bool) -> EndpointError:
    """Our error for a connection that cannot be had or that broke."""
    reason = redact(str(error), api_key)
    if isinstance(error, NoConnectionError):
        return _cannot_connect(where, reason, known)
    return EndpointError(f"the connection to {where} broke ({reason})")


def _cannot_connect(where: str, reason: str, known: bool) -> EndpointError:
    return EndpointError(
        f"cannot connect to {where} ({reason or 'connection refused'}). Check that the server runs, "
        "and the URL in OPENAI_BASE_URL or --base-url",
        unreachable=not known,
    )


def classify(error: APIError, where: str, model: str, api_key: str | None, *, known: bool) -> ReflexionError:
    """Our error for one of the SDK's.

    Args:
        error: what the SDK raised.
        where: the endpoint's URL without credentials.
        model: the model asked for.
        api_key: never shown.
        known: whether the endpoint ever answered in this process.
    """
    import openai

    if isinstance(error, openai.APITimeoutError):
        return CallTimeoutError(f"{where} did not answer in time")
    if isinstance(error, openai.APIStatusError):
        ours = status_error(
            error.status_code,
            error.code,
            redact(_told(error), api_key),
            where=where,
            model=model,
            wait=retry_after(error.response.headers),
        )
        return _noted(ours, error.code, error.param)
    cause = error.__cause__
    # By name: SDK releases differ in the HTTP library they use, not in what it calls this error.
    if type(cause).__name__ == "ConnectError":
        return _cannot_connect(where, redact(str(cause), api_key), known)
    reason = redact(f"{type(cause).__name__}: {cause}" if cause else str(error), api_key)
    return EndpointError(f"the connection to {where} broke ({reason})")
