"""Kept connections: every way a server may frame an answer, and every way it may go wrong."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from reflexion.llm.endpoint.clients import Endpoint
from reflexion.llm.endpoint.connections import Connections, NoConnectionError, WireError
from reflexion.llm.endpoint.openai_chat import OpenAIChat
from reflexion.testing import HttpReply, ScriptedEndpoint
from tests.unit.llm.test_llm_openai import ASK
from tests.waiting import wait_until


class Server:
    """A socket that reads a request and writes whatever bytes it is told, in the pieces it is told."""

    def __init__(self, *pieces: bytes, close: bool = False) -> None:
        self.pieces, self.close = pieces, close
        self.requests: list[bytes] = []
        self.connections = 0
        self.under_way: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.under_way.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.002)
                if self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def connected(server: Server) -> AsyncGenerator[Connections]:
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    connections = Connections("127.0.0.1", listening.sockets[0].getsockname()[1], tls=False, headers={"X-A": "b"})
    try:
        yield connections
    finally:
        await connections.aclose()
        listening.close()
        await asyncio.wait_for(asyncio.gather(*server.under_way), 10)
        await listening.wait_closed()


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "close", "kept"),
    [
        ((OK + b"Content-Length: 5\r\n\r\nhello",), False, True),
        ((OK[:9], OK[9:] + b"content-LENGTH:  5 \r", b"\n\r\nhel", b"lo"), False, True),
        (
            (CHUNKED + b"3\r\nhel\r\n", b"2;x=y\r\nlo\r\n0\r\n", b"A: b\r\n\r\n"),
            False,
            True,
        ),
        ((OK + b"\r\nhel", b"lo"), True, False),
        ((OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",), True, False),
        ((b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",), True, False),
        ((b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n" + OK, b"Content-Length: 5\r\n\r\nhello"), False, True),
        (
            (
                OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n19\r\n",
                gzip.compress(b"hello"),
                b"\r\n0\r\n\r\n",
            ),
            False,
            True,
        ),
    ],
)
async def test_answers_are_read_however_they_are_framed(pieces: tuple[bytes, ...], close: bool, kept: bool) -> None:
    server = Server(*pieces, close=close)
    async with connected(server) as connections:
        for _ in range(2):
            reply = await connections.post("/v1/x", b"{}")
            assert (reply.status, reply.content) == (200, b"hello")
    assert server.connections == (1 if kept else 2)
    for request in server.requests:
        assert request.startswith(b"POST /v1/x HTTP/1.1\r\n") and request.endswith(b"\r\n\r\n{}")
        assert b"X-A: b\r\n" in request and b"Content-Length: 2\r\n" in request


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (OK + b"Content-Length: 5\r\n\r\nhel",),
        (CHUNKED + b"3\r\nhel\r\n",),
        (CHUNKED + b"2\r\nhello\r\n0\r\n\r\n",),
        (CHUNKED + b"zz\r\n0\r\n\r\n",),
        (b"SSH-2.0-OpenSSH\r\n\r\n",),
        (OK + b"no colon\r\n\r\n",),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",),
        (OK + b"Content-Length: -5\r\n\r\nhello",),
        (OK + b"Content-Length: 99999999999\r\n\r\nhello",),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",),
        (OK + b"Content-Length: 5\r\n\r\nhello and more",),
        (OK + b"A: " + b"b" * 70_000,),
    ],
)
async def test_what_is_no_answer_is_an_error_and_the_connection_is_not_used_again(pieces: tuple[bytes, ...]) -> None:
    server = Server(*pieces, close=True)
    async with connected(server) as connections:
        for _ in range(2):
            with pytest.raises(WireError):
                await connections.post("/v1/x", b"{}")
    assert server.connections == 2


async def test_a_reply_must_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflexion.llm.endpoint.connections._MAX_BODY", 1000)
    server = Server(OK + b"Content-Length: 2000\r\n\r\n" + b"x" * 2000)
    async with connected(server) as connections:
        with pytest.raises(WireError, match="longer than"):
            await connections.post("/v1/x", b"{}")


async def test_requests_at_a_time_have_connections_of_their_own_and_share_them_later() -> None:
    server = Server(b"", OK + b"Content-Length: 2\r\n\r\nok")
    async with connected(server) as connections:
        for _ in range(3):
            replies = await asyncio.gather(*(connections.post("/", b"{}") for _ in range(5)))
            assert [r.content for r in replies] == [b"ok"] * 5
    assert server.connections == 5


async def test_a_request_that_is_given_up_takes_its_connection_with_it() -> None:
    server = Server()
    async with connected(server) as connections:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connections.post("/", b"{}")
        server.pieces = (OK + b"Content-Length: 2\r\n\r\nok",)
        assert (await connections.post("/", b"{}")).content == b"ok"
    assert server.connections == 2


async def test_connections_that_are_old_are_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflexion.llm.endpoint.connections.KEPT_SECONDS", 0.05)
    server = Server(OK + b"Content-Length: 2\r\n\r\nok")
    async with connected(server) as connections:
        await connections.post("/", b"{}")
        await asyncio.sleep(0.2)
        await connections.post("/", b"{}")
    assert server.connections == 2


async def test_connections_the_server_closed_meanwhile_are_not_used_again() -> None:
    server = Server(OK + b"Content-Length: 2\r\n\r\nok", close=True)
    async with connected(server) as connections:
        await connections.post("/", b"{}")
        await wait_until(lambda: all(task.done() for task in server.under_way))
        await asyncio.sleep(0.05)  # what the server said must reach us: nothing tells when it has
        await connections.post("/", b"{}")
    assert server.connections == 2


async def test_nobody_there_is_told_apart() -> None:
    async with connected(Server()) as connections:
        pass
    with pytest.raises(NoConnectionError):
        await connections.post("/", b"{}")
    await connections.aclose()


class Elsewhere(ScriptedEndpoint):
    """An endpoint that has moved: it answers with a redirect to where it is now."""

    async def respond(self, method, target, headers, raw):
        if target.startswith("/old"):
            self.moved = getattr(self, "moved", 0) + 1
            return HttpReply(307, b"", {"location": f"{self.url}/chat/completions"})
        return await super().respond(method, target, headers, raw)


async def test_redirects_are_followed() -> None:
    async with Elsewhere() as endpoint:
        llm = OpenAIChat("m", endpoint.url.replace("/v1", "/old"), "k")
        assert (await llm.chat(ASK)).text == "41"
        await llm.aclose()
    assert endpoint.moved == 2  # ours saw it and left it to the client


async def test_a_proxy_and_credentials_in_the_url_are_the_clients_business(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedEndpoint() as endpoint:
        llm = OpenAIChat("m", endpoint.url.replace("://", "://user:word@"), "k")
        assert (await llm.chat(ASK)).text == "41"
        await llm.aclose()
    assert Endpoint("http://127.0.0.1:1/v1?x=y", "k").connections(llm) is not None
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert Endpoint("https://example.com/v1", "k").connections(llm) is None


async def test_certificates_are_checked(tmp_path) -> None:
    endpoint = Endpoint("https://127.0.0.1:1/v1", "k")
    connections = endpoint.connections(endpoint)
    assert connections is not None
    with pytest.raises(NoConnectionError):
        await connections.post("/v1", b"{}")
    assert connections._session is not None
    context = getattr(connections._session.connector, "_ssl", None)
    assert isinstance(context, ssl.SSLContext) and context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    await endpoint.let_go(endpoint)
