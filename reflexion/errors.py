"""Every exception this package raises, in one tree.

    ReflexionError
    ├── RetryableError            the same call may succeed later; carries `retry_after` and `final`
    │   ├── RateLimitError        429
    │   ├── EndpointError         408, 409, 5xx, connection lost, unreadable reply, a failure inside a 200
    │   └── CallTimeoutError      no reply within the time allowed
    └── PermanentError            the same call will fail again
        ├── InputError            what the user gave is wrong; names the file, line or field
        │   ├── DatasetError
        │   └── ConfigurationError
        ├── AuthenticationError   401, 402, 403, or a code that tells of the key, the account or its money
        ├── ModelNotFoundError    404: the endpoint does not know the model
        ├── RequestRejectedError  400, 422: the endpoint does not accept the request
        │   ├── ToolsRejectedError  its model has no function calling
        │   └── ContextWindowError  the prompt is longer than the model's window; carries `window`
        ├── RefusalError          a content filter refused
        ├── MalformedReplyError   the reply has no usable content
        │   └── ReplyCutError     its token limit was used up before an answer began
        ├── BudgetExceededError   a limit on money or tokens is reached
        ├── ReplayMissError       a recording has no answer for this request
        ├── StorageError          a folder, a cache or a memory cannot be read or written
        └── RunFailedError        the run as a whole could not be carried out

Retries look at the two branches only. `InputError` ends the command with exit code 2, everything
else that ends a run with exit code 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from reflexion.llm.endpoint.error_bodies import Told
    from reflexion.types import Usage

__all__ = [
    "AuthenticationError",
    "BudgetExceededError",
    "CallTimeoutError",
    "ConfigurationError",
    "ContextWindowError",
    "DatasetError",
    "EndpointError",
    "InputError",
    "MalformedReplyError",
    "ModelNotFoundError",
    "PermanentError",
    "RateLimitError",
    "ReflexionError",
    "RefusalError",
    "ReplayMissError",
    "ReplyCutError",
    "RequestRejectedError",
    "RetryableError",
    "RunFailedError",
    "StorageError",
    "ToolsRejectedError",
    "is_fatal",
]


class ReflexionError(Exception):
    """Base of all errors of this package.

    Attributes:
        usage: what a call that ended so cost all the same, where the endpoint told.
    """

    usage: Usage | None = None

    def with_usage(self, usage: Usage | None) -> Self:
        """The same error, with what the call cost."""
        self.usage = usage
        return self


class RetryableError(ReflexionError):
    """The same call may succeed later.

    Attributes:
        retry_after: seconds the endpoint asked us to wait, or None.
        final: whether the endpoint said that trying again is of no use.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.final = False


class RateLimitError(RetryableError):
    """The endpoint answered 429."""


class EndpointError(RetryableError):
    """The endpoint failed (408, 409, 5xx, inside a 200), the connection broke, or the reply could not be read.

    Attributes:
        unreachable: no connection could be made, and none was ever made before in this process.
        lasting: waiting seldom cures it (nothing listens there, a web page answers), so few retries do.
    """

    def __init__(self, message: str, *, unreachable: bool = False, lasting: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable
        self.lasting = lasting or unreachable


class CallTimeoutError(RetryableError):
    """No reply arrived within the time allowed."""


class PermanentError(ReflexionError):
    """The same call will fail again."""


class InputError(PermanentError):
    """What the user gave is wrong. The message names the file, line or field and the way to mend it."""


class DatasetError(InputError):
    """A dataset is missing, or one of its lines is wrong."""


class ConfigurationError(InputError):
    """An option or setting is wrong."""


class AuthenticationError(PermanentError):
    """The key, the account behind it or its money is not accepted (401, 402, 403, or told by a code)."""


class ModelNotFoundError(PermanentError):
    """The endpoint does not know the model."""


class RequestRejectedError(PermanentError):
    """The endpoint does not accept the request (400, 422).

    Attributes:
        told: what the refusal says, where the endpoint said something.
    """

    told: Told | None = None


class ToolsRejectedError(RequestRejectedError):
    """The endpoint or its model has no function calling."""


class ContextWindowError(RequestRejectedError):
    """The prompt is longer than the model's context window.

    Attributes:
        window: tokens of prompt and reply together, as the endpoint told; None: it did not.
    """

    def __init__(self, message: str, window: int | None = None) -> None:
        super().__init__(message)
        self.window = window


class RefusalError(PermanentError):
    """A content filter, or the model itself, refused."""

    def __init__(self, message: str, *, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.usage = usage


class MalformedReplyError(PermanentError):
    """The reply has no usable content (an empty message, not the structure asked for).

    Attributes:
        thought: what the model thought before, if it thought aloud.
    """

    def __init__(self, message: str, *, usage: Usage | None = None, thought: str = "") -> None:
        super().__init__(message)
        self.usage = usage
        self.thought = thought


class ReplyCutError(MalformedReplyError):
    """The reply's token limit was used up before an answer began: the model was still thinking."""


class BudgetExceededError(PermanentError):
    """A limit on money or tokens is reached."""


class ReplayMissError(PermanentError):
    """A recording has no answer for this request."""


class StorageError(PermanentError):
    """A folder, a cache or a memory cannot be read or written."""


class RunFailedError(PermanentError):
    """The run as a whole could not be carried out."""


def is_fatal(error: BaseException) -> bool:
    """Whether every other call would fail in the same way, so that a run had better stop.

    A wrong key, an unknown model and a wrong configuration are; an endpoint that cannot be reached is
    as long as it never answered, which the caller knows.
    """
    fatal = (AuthenticationError, ModelNotFoundError, ConfigurationError)
    return isinstance(error, fatal) or getattr(error, "unreachable", False) is True
