"""Requests to one endpoint over kept connections, with as little between the JSON and the socket as it takes.

The SDK's HTTP stack takes about 3 ms of processor time for a request, three quarters of what a whole
episode costs; this one takes a tenth of it. It does what chat completions need: a POST and its whole
answer over HTTP/1.1. Proxies and redirects are left to the SDK.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import zlib
from typing import NamedTuple, cast

__all__ = ["Connections", "HttpReply", "NoConnectionError", "WireError"]

KEPT_SECONDS = 4.0
"""Seconds an idle connection may be used again: servers close theirs after five or more."""

_MAX_HEAD = 64 * 1024
_MAX_BODY = 256 * 2**20
"""Bytes of a reply at most: an endpoint must not fill the memory."""


class WireError(Exception):
    """The connection broke, or what came over it is not HTTP."""


class NoConnectionError(WireError):
    """There is no connection to be had."""


class HttpReply(NamedTuple):
    """A whole answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes


class Connections:
    """Connections to one endpoint in one event loop; as many as there are requests under way.

    Args:
        host: of the endpoint.
        port: of the endpoint.
        tls: whether it speaks TLS.
        headers: sent with each request.
    """

    def __init__(self, host: str, port: int, *, tls: bool, headers: dict[str, str]) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._context: ssl.SSLContext | None = None
        name = f"[{host}]" if ":" in host else host
        default = 443 if tls else 80
        fixed = {"Host": name if port == default else f"{name}:{port}", **headers}
        self._head = "".join(f"{k}: {v}\r\n" for k, v in fixed.items()).encode("latin-1")
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()

    async def post(self, path: str, content: bytes) -> HttpReply:
        """Send a JSON body; whoever stops waiting ends the request.

        Raises:
            NoConnectionError: the endpoint cannot be reached.
            WireError: the connection broke before the answer was complete.
        """
        connection = self._kept() or await self._open()
        self._busy.add(connection)
        try:
            head = b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), self._head, len(content))
            reply = await connection.exchange(head + content)
        except BaseException:
            connection.abort()
            raise
        finally:
            self._busy.discard(connection)
        if connection.reusable:
            connection.released = time.monotonic()
            self._idle.append(connection)
        else:
            connection.abort()
        return reply

    def _kept(self) -> _Connection | None:
        # The newest first: it is the least likely to be closed by the server just now.
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and now - connection.released < KEPT_SECONDS:
                return connection
            connection.abort()
        return None

    async def _open(self) -> _Connection:
        if self._tls and self._context is None:
            self._context = await asyncio.to_thread(_trust)
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                _Connection, self._host, self._port, ssl=self._context, happy_eyeballs_delay=0.25
            )
        except OSError as exc:  # wrong certificates too
            raise NoConnectionError(exc.strerror or str(exc)) from None
        return connection

    async def aclose(self) -> None:
        """Close every connection; requests under way break."""
        connections, self._idle = [*self._idle, *self._busy], []
        for connection in connections:
            connection.abort()
        if connections:
            await asyncio.sleep(0)  # the loop closes sockets in its next turn


def _trust() -> ssl.SSLContext:
    """The system's certificates and, where that has none, those the HTTP libraries bring."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


class _Connection(asyncio.Protocol):
    """One request at a time: collects what comes until the answer is whole."""

    def __init__(self) -> None:
        self.closed = False
        self.reusable = False
        self.released = 0.0
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[HttpReply] | None = None
        self._data = bytearray()
        self._head: tuple[int, dict[str, str]] | None = None
        self._scanned = 0

    # -- asyncio.Protocol -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """More of an answer."""
        if self._waiter is None or self._waiter.done():
            self.abort()  # nothing was asked: whatever this is, it is no answer
            return
        self._data += data
        self._advance(ended=False)

    def eof_received(self) -> bool:
        """The server sends no more."""
        if self._waiter is not None and not self._waiter.done():
            self._advance(ended=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.closed = True
        self._fail(f"{type(exc).__name__}: {exc}" if exc is not None else "the server closed it without an answer")

    # -- one exchange ---------------------------------------------------------------------------------

    async def exchange(self, request: bytes) -> HttpReply:
        """Send a request and wait for its answer."""
        if self.closed or self._transport is None:
            raise WireError("the server closed it")
        self._waiter = asyncio.get_running_loop().create_future()
        self._data.clear()
        self._head, self._scanned, self.reusable = None, 0, False
        self._transport.write(request)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def abort(self) -> None:
        """Close at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(WireError(reason))

    def _advance(self, *, ended: bool) -> None:
        try:
            reply = self._parse(ended)
        except (ValueError, UnicodeError, zlib.error) as exc:
            self._fail(f"not an answer in HTTP: {exc}")
            return
        if reply is not None and self._waiter is not None:
            self._waiter.set_result(reply)
        elif ended:
            got = "in the middle of its answer" if self._data or self._head else "without an answer"
            self._fail(f"the server closed it {got}")

    def _parse(self, ended: bool) -> HttpReply | None:
        if self._head is None:
            self._head = self._read_head()
        if self._head is None:
            return None
        if len(self._data) > _MAX_BODY:
            raise ValueError("its body is too long")
        status, headers = self._head
        told = headers.get("content-length")
        keep = "close" not in headers.get("connection", "").lower() and not ended
        if status in (204, 304):
            body: bytes | None = b""
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            body = self._chunks()
        elif told is not None:
            body = self._counted(told)
        else:
            body, keep = (self._take(len(self._data)) if ended else None), False
        if body is None:
            return None
        self.reusable = keep and not self._data
        return HttpReply(status, headers, _decoded(body, headers.get("content-encoding", "identity").lower()))

    def _read_head(self) -> tuple[int, dict[str, str]] | None:
        while True:
            end = self._data.find(b"\r\n\r\n", max(self._scanned - 3, 0))
            if end < 0:
                self._scanned = len(self._data)
                if self._scanned > _MAX_HEAD:
                    raise ValueError("its head does not end")
                return None
            head = _parsed_head(self._take(end + 4)[:-4])
            self._scanned = 0
            if head[0] >= 200:  # an interim answer only says that the answer is still to come
                return head

    def _counted(self, told: str) -> bytes | None:
        if not told.isdecimal():
            raise ValueError("its length is not a number")
        size = int(told)
        if size > _MAX_BODY:
            raise ValueError("its body is too long")
        return self._take(size) if len(self._data) >= size else None

    def _take(self, size: int) -> bytes:
        body = bytes(self._data[:size])
        del self._data[:size]
        return body

    def _chunks(self) -> bytes | None:
        """The body out of its chunks, once the last of them is there."""
        data, at, parts = self._data, 0, list[bytes]()
        if b"0\r\n" not in data[-4096:]:
            return None  # not the end yet: chunks are not gone through for every piece that comes
        while (line := data.find(b"\r\n", at)) >= 0:
            size = int(bytes(data[at:line]).partition(b";")[0], 16)
            at = line + 2
            if size == 0:
                return self._trailers(at, parts)
            if len(data) < at + size + 2:
                return None
            parts.append(bytes(data[at : at + size]))
            if not data.startswith(b"\r\n", at + size):
                raise ValueError("a chunk is longer than it says")
            at += size + 2
        return None

    def _trailers(self, at: int, parts: list[bytes]) -> bytes | None:
        while (line := self._data.find(b"\r\n", at)) >= 0:
            if line == at:
                del self._data[: at + 2]
                return b"".join(parts)
            at = line + 2
        return None


def _parsed_head(data: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = data.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not status.isdecimal():
        raise ValueError("it begins with something else than a status")
    headers: dict[str, str] = {}
    if version == "HTTP/1.0":
        headers["connection"] = "close"
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("a line of its head has no colon")
        name, value = name.strip().lower(), value.strip()
        if name == "content-length" and headers.get(name, value) != value:
            raise ValueError("it has two lengths")
        headers[name] = value
    return int(status), headers


def _decoded(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise ValueError("its body is encoded in a way that was not asked for")
    # Nor was this one, but some gateways do it anyway.
    return zlib.decompressobj(47 if encoding == "gzip" else zlib.MAX_WBITS).decompress(body, _MAX_BODY)
