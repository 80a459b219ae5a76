"""Times to live."""

from __future__ import annotations

import pytest

from reflexion.cache import parse_ttl
from reflexion.errors import ConfigurationError

DAY = 86_400.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7d", 7 * DAY), ("90", 90.0), ("90s", 90.0), ("5m", 300.0), ("1.5h", 5400.0), ("2w", 14 * DAY), ("1 D", DAY)],
)
def test_one_duration_holds_for_every_step(text: str, seconds: float) -> None:
    assert parse_ttl(text) == dict.fromkeys(("trial", "evaluate", "reflect", "memorize"), seconds)


def test_steps_have_their_own_and_the_rest_the_default() -> None:
    ttl = parse_ttl("trial=1d, reflect=30d")
    assert (ttl["trial"], ttl["reflect"], ttl["evaluate"]) == (DAY, 30 * DAY, 7 * DAY)


def test_a_bare_duration_is_the_base_for_what_follows() -> None:
    ttl = parse_ttl("1h,reflect=2h")
    assert (ttl["trial"], ttl["reflect"]) == (3600.0, 7200.0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "''"),
        ("soon", "'soon'"),
        ("7x", "'x'"),
        ("trial=1d,reflexion=2d", "'reflexion'"),
        ("trial=", "'trial='"),
        ("0", "'0'"),
        ("-1d", "'-1d'"),
        ("1d,,", "''"),
        ("=1d", "'=1d'"),
    ],
)
def test_errors_name_the_part_that_is_wrong(text: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_ttl(text)
    assert named in str(caught.value)
