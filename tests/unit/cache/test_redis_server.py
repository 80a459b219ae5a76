"""The helper the other tests rely on."""

from __future__ import annotations

import pytest
import redis

from tests.redis_server import RedisServer


def test_restart_keeps_the_port_and_forgets_the_data() -> None:
    with RedisServer.start() as server, redis.Redis.from_url(server.url) as client:
        port, pid = server.port, server.pid
        client.set("a", "1")
        server.restart()
        assert server.port == port and server.pid != pid
        assert client.get("a") is None


def test_password_is_asked_for() -> None:
    with RedisServer.start(password="sesame") as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
        with redis.Redis.from_url(server.url_with("wrong")) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_killed_server_is_gone() -> None:
    with RedisServer.start() as server:
        server.kill()
        assert not server.running
        with redis.Redis.from_url(server.url) as client, pytest.raises(redis.ConnectionError):
            client.ping()
