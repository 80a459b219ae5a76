"""What a user sends along with every request, for whatever a provider wants beyond the common format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from reflexion.errors import ConfigurationError
from reflexion.keys import digest

__all__ = ["NO_EXTRAS", "Extras", "parse_extra_body", "parse_extra_headers"]

_OURS = ("model", "messages")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_FRAMING = ("content-length", "transfer-encoding", "connection", "host")


@dataclass(frozen=True)
class Extras:
    """What goes with every request to an endpoint.

    Attributes:
        body: fields of the request's body; None as a value leaves that field out.
        headers: their values are secret: shown nowhere, and only their digest is in cache keys.
        reasoning_effort: how much a model should think, in the provider's words.
    """

    body: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    reasoning_effort: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What of it belongs in a request's body, by the parameters of `encode_request`."""
        return {"extra": self.body, "reasoning_effort": self.reasoning_effort}

    @property
    def identity(self) -> dict[str, Any]:
        """What of it tells answers apart: part of cache keys; empty where nothing was asked for."""
        out: dict[str, Any] = {}
        if self.body:
            out["extra_body"] = dict(self.body)
        if self.headers:
            out["extra_headers"] = digest(dict(self.headers))[:16]
        if self.reasoning_effort is not None:
            out["reasoning_effort"] = self.reasoning_effort
        return out


NO_EXTRAS = Extras()


def parse_extra_body(given: str | Mapping[str, Any] | None) -> dict[str, JsonValue]:
    """The fields of an extra body, from JSON or from Python.

    Raises:
        ConfigurationError: it is no JSON object, or it names what is not the user's to set.
    """
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}
    value: Any = given
    try:
        # From Python too: what is no JSON there is found out now, not by the first request.
        value = json.loads(given if isinstance(given, str) else json.dumps(given, allow_nan=False), parse_constant=_not)
    except (ValueError, TypeError, RecursionError) as exc:
        raise ConfigurationError(
            f"--extra-body: not JSON ({exc}); give an object such as '{{\"top_k\": 20}}'"
        ) from None
    if not isinstance(value, dict):
        raise ConfigurationError("--extra-body: not a JSON object; give one such as '{\"top_k\": 20}'")
    fields = cast("dict[str, JsonValue]", value)
    for name in _OURS:
        if name in fields:
            raise ConfigurationError(f"--extra-body: {name!r} is set by the run; leave it out")
    return fields


def _not(constant: str) -> Any:
    raise ValueError(f"{constant} has no place in JSON")


def parse_extra_headers(given: str | Iterable[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Extra headers from `NAME=VALUE` texts, from lines of them, from a JSON object, or from Python.

    Raises:
        ConfigurationError: names the header that is wrong, never its value.
    """
    if given is None:
        return {}
    if isinstance(given, str):
        text = given.strip()
        if text.startswith("{"):
            try:
                given = cast("Mapping[str, str]", json.loads(text))
            except ValueError:
                raise ConfigurationError("REFLEXION_EXTRA_HEADERS: not a JSON object of header names") from None
        else:
            given = [line for line in text.splitlines() if line.strip()]
    pairs = given.items() if isinstance(given, Mapping) else [_pair(text) for text in given]
    headers: dict[str, str] = {}
    for name, value in ((str(n).strip(), str(v).strip()) for n, v in pairs):
        if not _HEADER.fullmatch(name) or name.lower() in _FRAMING:
            raise ConfigurationError(f"--extra-header: {name[:40]!r} cannot be a header; give NAME=VALUE")
        if not value.isprintable() or not value.isascii():
            raise ConfigurationError(f"--extra-header: the value of {name} has characters that no header has")
        headers[name] = value
    return headers


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        name, sign, value = text.partition(":")
    if not sign:
        raise ConfigurationError("--extra-header: one is not of the form NAME=VALUE")
    return name, value
