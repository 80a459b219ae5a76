"""Opening a cache: what a URL means, and what is refused."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import redis

import reflexion.cache
from reflexion.cache import LocalStepCache, MemoryStepCache, NullCache, StepCache, open_cache
from reflexion.errors import ConfigurationError, StorageError
from reflexion.redis.redis_client import RedisAddress
from tests.redis_server import RedisServer, free_port


def test_the_default_is_a_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFLEXION_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert open_cache().location == str(tmp_path / "reflexion" / "steps")


def test_the_environment_names_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFLEXION_CACHE", str(tmp_path / "there"))
    assert open_cache().location == str(tmp_path / "there")
    assert open_cache("memory:").location == "memory:"


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    assert open_cache(f"file://{tmp_path}/a%20b").location == f"{tmp_path}/a b"


@pytest.mark.parametrize("cls", [MemoryStepCache, NullCache])
def test_stores_meet_the_protocol(cls: type) -> None:
    assert isinstance(cls(), StepCache)


def test_a_local_store_meets_the_protocol(tmp_path: Path) -> None:
    assert isinstance(open_cache(str(tmp_path)), StepCache)


@pytest.mark.parametrize("url", ["s3://user:sesame@bucket/x", "memcached://h:sesame@x", "redis:sesame"])
def test_an_unknown_scheme_is_refused_without_showing_what_follows(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not known; use a folder, file://") as caught:
        open_cache(url)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://:sesame@localhost:port/0", "port"),
        ("redis://:sesame@localhost:6379/zero", "'zero'"),
        ("redis+sentinel://:sesame@localhost:26379", "service"),
        ("redis+sentinel://:sesame@localhost:x/mymaster/0", "'localhost:x'"),
        ("redis+sentinel://:sesame@a:1,:2/mymaster", "':2'"),
        ("redis://:sesame@[::1/0", "brackets"),
        ("file://elsewhere/folder", "file:///absolute"),
    ],
)
def test_a_wrong_url_is_refused_by_its_wrong_part(url: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_cache(url)
    assert named in str(caught.value) and "sesame" not in str(caught.value)


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_entry_bytes is 0"):
        open_cache(str(tmp_path), max_entry_bytes=0)
    with pytest.raises(ConfigurationError, match="lock_lease is 0"):
        open_cache("redis://127.0.0.1:1/0", lock_lease=0)
    with pytest.raises(ConfigurationError, match="'namespace' is no option"):
        open_cache(str(tmp_path), namespace="x")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:sesame@h:1/0", "redis://:***@h:1/0"),
        ("rediss://user:sesame@h/0?ssl_cert_reqs=none", "rediss://user:***@h/0?ssl_cert_reqs=none"),
        ("redis://h/0?password=sesame", "redis://h/0?password=***"),
        (
            "redis+sentinel://:sesame@a:1,b:2/mymaster/3?sentinel_password=sesame",
            "redis+sentinel://:***@a:1,b:2/mymaster/3?sentinel_password=***",
        ),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    address = RedisAddress.parse(url)
    assert address.shown == shown
    assert "sesame" not in repr(address)


def test_a_wrong_redis_password_is_a_clear_error(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer.start(password="sesame") as server:
        for password in ("mistake", None):
            with pytest.raises(ConfigurationError, match="password") as caught:
                open_cache(server.url_with(password))
            assert "mistake" not in str(caught.value)
        cache = open_cache(server.url)
        assert cache.location == f"redis://:***@127.0.0.1:{server.port}/0"
    assert "sesame" not in caplog.text and "mistake" not in caplog.text


async def test_a_redis_that_is_not_there_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "reflexion.cache"):
        cache = open_cache(f"redis://:sesame@127.0.0.1:{free_port()}/0")
        assert await cache.get("0" * 64) is None
        assert await cache.acquire("key", "a") and await cache.prune() == 0
        await cache.aclose()
    (record,) = caplog.records
    assert "not reachable" in record.getMessage() and "sesame" not in record.getMessage()


def test_a_newer_folder_is_refused(tmp_path: Path) -> None:
    open_cache(str(tmp_path))
    (tmp_path / "FORMAT").write_text(json.dumps({"format": 99}))
    with pytest.raises(StorageError, match="has format 99, and this version reads up to 1"):
        open_cache(str(tmp_path))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("PNG")
    with pytest.raises(StorageError, match="is no step cache"):
        open_cache(str(tmp_path))


def test_a_newer_redis_is_refused(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("newer:format", "99")
    with pytest.raises(StorageError, match="has format 99"):
        open_cache(redis_server.url, namespace="newer")


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        open_cache(str(tmp_path / "file"))


def test_importing_and_opening_a_folder_stay_light(tmp_path: Path) -> None:
    code = (
        "import sys; from reflexion.cache import open_cache; open_cache(sys.argv[1]); "
        "print(sorted({'redis', 'openai', 'numpy', 'sqlite3', 'httpx', 'prefect'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_names_are_there() -> None:
    for name in reflexion.cache.__all__:
        assert getattr(reflexion.cache, name) is not None
    assert isinstance(LocalStepCache, type)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = reflexion.cache.nothing
