"""How long cached steps live: `7d`, `90` (seconds), or per step `trial=1d,reflect=30d`.

The time to live is not part of a step's key: changing it leaves entries that are there as they are.
"""

from __future__ import annotations

import re
from typing import get_args

from reflexion.errors import ConfigurationError
from reflexion.types import StepName

__all__ = ["DEFAULT_TTL", "TTL", "UNITS", "parse_duration", "parse_ttl"]

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
"""Seconds of each unit."""

DEFAULT_TTL = 7 * UNITS["d"]
"""Seconds a step lives when nothing else is said: seven days."""

STEPS: tuple[StepName, ...] = get_args(StepName)

TTL = dict[StepName, float]
"""Seconds each step's entries live; every step is in it."""

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-zA-Z]*)")


def parse_ttl(text: str, default: float = DEFAULT_TTL) -> TTL:
    """Read a time to live.

    A bare duration holds for every step; `step=duration` for one; later parts win over earlier ones.

    Args:
        text: such as `7d`, `90`, `1.5h` or `7d,reflect=30d`; units s, m, h, d, w; without one, seconds.
        default: seconds of the steps that are not named.

    Raises:
        ConfigurationError: names the part that is wrong.
    """
    ttl: TTL = dict.fromkeys(STEPS, default)
    for part in text.split(","):
        name, equals, duration = (piece.strip() for piece in part.rpartition("="))
        seconds = _seconds(duration, part.strip(), text)
        if not equals:
            ttl = dict.fromkeys(STEPS, seconds)
        elif name in STEPS:
            ttl[name] = seconds
        else:
            raise ConfigurationError(
                f"ttl {text!r}: {name!r} in {part.strip()!r} is no step; the steps are {', '.join(STEPS)}"
            )
    return ttl


def parse_duration(text: str, name: str) -> float:
    """Read one duration, such as `36h`, in seconds.

    Args:
        name: of the option, for the message.

    Raises:
        ConfigurationError: it is no duration, or not longer than 0.
    """
    seconds = 0.0
    found = _DURATION.fullmatch(text.strip())
    if found is not None and (found["unit"].lower() or "s") in UNITS:
        seconds = float(found["number"]) * UNITS[found["unit"].lower() or "s"]
    if seconds <= 0:
        raise ConfigurationError(f"{name} {text!r}: write a number above 0 and a unit (s, m, h, d or w), such as 36h")
    return seconds


def _seconds(duration: str, part: str, text: str) -> float:
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ConfigurationError(
            f"ttl {text!r}: {part!r} is no duration; write a number and a unit (s, m, h, d or w), such as 7d"
        )
    unit = found["unit"].lower() or "s"
    if unit not in UNITS:
        raise ConfigurationError(f"ttl {text!r}: unknown unit {found['unit']!r} in {part!r}; use s, m, h, d or w")
    seconds = float(found["number"]) * UNITS[unit]
    if seconds <= 0:
        raise ConfigurationError(f"ttl {text!r}: {part!r} must be longer than 0; to do without a cache, switch it off")
    return seconds
