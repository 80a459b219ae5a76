"""From an endpoint's errors and the SDK's to ours: what may be retried, what never is, and a message that helps.

What an error is follows from its status, its codes and the numbers in it (`error_bodies`), never from a provider's
sentence. The SDK's exceptions are not chained: they hold the request with its headers, and endpoints
echo keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reflexion.errors import (
    AuthenticationError,
    CallTimeoutError,
    EndpointError,
    ModelNotFoundError,
    RateLimitError,
    ReflexionError,
    RefusalError,
    RequestRejectedError,
    RetryableError,
)
from reflexion.llm.endpoint.connections import HttpReply, NoConnectionError, UnreadableError, WireError
from reflexion.llm.endpoint.error_bodies import Told, header_wait, read_told, text_wait

if TYPE_CHECKING:
    from openai import APIError

__all__ = ["classify", "inner_error", "redact", "reply_error", "status_error", "told_error", "wire_error"]

_REFUSED = re.compile(r"content_?(?:filter|policy|management)|moderation|safety|flagged|data_inspection|sensitive")
_MODEL = re.compile(
    r"model_?(?:is_)?not_(?:found|supported|exist\w*|available)|(?:unknown|invalid|no_such|unsupported)_model|"
    r"model\w*_not_found|deployment_?not_?found"
)
_KEY = re.compile(
    r"(?:api|access|secret|auth)_?key|(?:invalid|wrong|expired|revoked|missing|bad|unknown|rejected|incorrect)_(?:key|"
    r"credential)|key_(?:is_)?(?:not_\w+|invalid|expired|revoked|missing|disabled|rejected|unknown|wrong|denied|blocked)|"
    r"authenticat|authori[sz]ed|authorization|credential|permission_denied|access_denied|no_access|"
    r"(?:access|auth|bearer)_token|token_(?:expired|invalid|revoked|rejected)"
)
_MONEY = re.compile(
    r"billing|balance(?!r)|payment|pay_|unpaid|credits?(?![a-z])|insufficient_(?:quota|fund|user_quota)|funds|arrear|"
    r"overdue|invoice|debt|wallet|purse|money|prepaid|top_?up|recharge|deposit|deactivated|suspended|subscription|"
    r"account_(?:\w+_)?(?:deactivated|suspended|inactive|disabled|blocked|closed|not_active)|spend(?:ing)?_(?:limit|cap)|"
    r"(?:plan|trial|licen[cs]e|membership)_(?:\w+_)?(?:expired|ended|over)|out_of_quota"
)
_QUOTA = re.compile(r"quota|allowance|entitlement")
_RATE = re.compile(r"rate|per_(?:minute|second|hour|day)|rpm|tpm|throttl|concurren|too_many|capacity|exhausted|burst")
_KEY_WORDS = (
    r"(?:(?:api|access|secret)_?key|your_(?:\w+_)?key|key_you|credentials?|(?:bearer|access|auth)_token|"
    r"authenticat\w*|unauthori[sz]ed)"
)
_BEARER = re.compile(r"(?i)\b(bearer\s+|sk-)[\w.\-*]{4,}")


def redact(text: str, *secrets: str | None) -> str:
    """Text without the secrets, however the endpoint echoed them, on one line and not too long."""
    for secret in secrets:
        if secret and len(secret) >= 6:
            text = text.replace(secret, "[key]")
    return re.sub(r"\s+", " ", _BEARER.sub("[key]", text)).strip()[:400]


def status_error(
    status: int, code: str | None, message: str, *, where: str, model: str, wait: float | None = None
) -> ReflexionError:
    """The error for an HTTP status and the endpoint's own code and (redacted) message."""
    told = Told(message=message, codes=[code.lower()] if code else [], wait=wait, raw=[message] if message else [])
    return told_error(status, told, {}, where=where, model=model, shown=message)


def told_error(  # noqa: PLR0911 - one return for each class of error
    status: int, told: Told, headers: Mapping[str, str], *, where: str, model: str, shown: str
) -> ReflexionError:
    """The error for a status and what the refusal says.

    Args:
        status: of the answer, or the one an error inside a 200 tells.
        told: what its body says.
        headers: their names in lower case.
        where: the endpoint.
        model: the model asked for.
        shown: the endpoint's own words, without secrets.
    """
    words = f": {shown.rstrip('. ')}" if shown else ""
    wait = _wait(told, headers, words=status == 429)
    if told.coded(_REFUSED):
        return RefusalError(f"{where} refused the request{words}")
    if status == 402 or told.coded(_MONEY) or (told.coded(_QUOTA) and wait is None and not told.coded(_RATE)):
        return AuthenticationError(f"{where}: the account behind the key cannot pay for the call{words}")
    if status in (401, 403) or (status < 500 and status != 404 and told.coded(_KEY)):
        return AuthenticationError(
            f"{where} answered {status}{words}. Check the key (OPENAI_API_KEY) and what it may use"
        )
    if status == 429:
        if _too_large(told) and _wait(told, headers, words=True, counters=False) is None:
            return RequestRejectedError(f"{where}: no waiting makes room for this request (status 429{words})")
        return _retried(RateLimitError(f"{where} answered 429{words}", retry_after=wait), headers)
    if status == 404 or told.coded(_MODEL) or {"model", "body_model"} & {*told.parameters}:
        return ModelNotFoundError(
            f"{where} does not know the model {model!r} (status {status}{words}). "
            "Check the model's name, and that the base URL is the API's, which usually ends in /v1"
        )
    if status in (408, 409, 425) or status >= 500 or headers.get("x-should-retry", "").lower() == "true":
        error = EndpointError(f"{where} answered {status}{words}")
        error.retry_after = wait
        return _retried(error, headers)
    if status == 400 and told.names(_KEY_WORDS):
        return AuthenticationError(f"{where} answered 400{words}. Check the key (OPENAI_API_KEY) and what it may use")
    return _rejected(f"{where} did not accept the request (status {status}{words})", told)


def _rejected(message: str, told: Told) -> RequestRejectedError:
    error = RequestRejectedError(message)
    error.told = told
    return error


def _retried(error: RetryableError, headers: Mapping[str, str]) -> RetryableError:
    error.final = headers.get("x-should-retry", "").lower() == "false"
    return error


def _wait(told: Told, headers: Mapping[str, str], *, words: bool, counters: bool = True) -> float | None:
    """Seconds the endpoint asks us to wait: its headers, the fields of its answer, its words, in this order.

    Args:
        words: whether a duration in its words is a wait; a server error may tell how long something took.
        counters: whether the counters of rate limits count, which come with every answer.
    """
    asked = {n: v for n, v in headers.items() if "retry-after" in n}
    for wait in (header_wait(asked), told.wait, text_wait(" ".join(told.raw)) if words else None):
        if wait is not None:
            return wait
    return header_wait(headers) if counters else None


def _too_large(told: Told) -> bool:
    """Whether the request alone is larger than what is allowed in a while."""
    limits, asked = [v for v in told.limits() if v >= 100], told.asked()
    return bool(limits) and any(a > max(limits) for a in asked)


def inner_error(
    told: Told, headers: Mapping[str, str], where: str, model: str, secrets: Iterable[str]
) -> ReflexionError:
    """Our error for one inside a 200: by the status it tells, else by its codes, else the endpoint's failure."""
    status = told.status or (401 if told.coded(_KEY) else 500)
    return told_error(status, told, headers, where=where, model=model, shown=redact(told.message, *secrets))


def reply_error(reply: HttpReply, where: str, model: str, secrets: Iterable[str]) -> ReflexionError:
    """Our error for an answer whose status is 400 or more."""
    html = "html" in reply.headers.get("content-type", "")
    told = read_told(b"" if html else reply.content)
    return told_error(reply.status, told, reply.headers, where=where, model=model, shown=redact(told.message, *secrets))


def wire_error(error: WireError, where: str, secrets: Iterable[str], *, known: bool) -> EndpointError:
    """Our error for a connection that cannot be had or that broke."""
    reason = redact(str(error), *secrets)
    if isinstance(error, NoConnectionError):
        return _cannot_connect(where, reason, known)
    if isinstance(error, UnreadableError):
        return EndpointError(f"{where} sent an answer nobody can read ({reason})", lasting=True)
    return EndpointError(f"the connection to {where} broke ({reason})")


def _cannot_connect(where: str, reason: str, known: bool) -> EndpointError:
    return EndpointError(
        f"cannot connect to {where} ({reason or 'connection refused'}). Check that the server runs, "
        "and the URL in OPENAI_BASE_URL or --base-url",
        unreachable=not known,
    )


def classify(error: APIError, where: str, model: str, *secrets: str | None, known: bool) -> ReflexionError:
    """Our error for one of the SDK's.

    Args:
        error: what the SDK raised.
        where: the endpoint's URL without credentials.
        model: the model asked for.
        secrets: the key and whatever else is never shown.
        known: whether the endpoint ever answered in this process.
    """
    import openai

    if isinstance(error, openai.APITimeoutError):
        return CallTimeoutError(f"{where} did not answer in time")
    if isinstance(error, openai.APIStatusError):
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        content: Any = error.response.content
        reply = HttpReply(error.status_code, headers, content)
        return reply_error(reply, where, model, [s for s in secrets if s])
    cause = error.__cause__
    # By name: SDK releases differ in the HTTP library they use, not in what it calls this error.
    if type(cause).__name__ == "ConnectError":
        return _cannot_connect(where, redact(str(cause), *secrets), known)
    reason = redact(f"{type(cause).__name__}: {cause}" if cause else str(error), *secrets)
    return EndpointError(f"the connection to {where} broke ({reason})")
