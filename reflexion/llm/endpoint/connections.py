"""Chat completions over aiohttp's kept connections, the SDK's HTTP stack being the dearest part of a call.

Through the SDK a request takes about 3 ms of processor time, most of an episode's; over aiohttp, whose
parser is compiled, a fraction of that. Proxies and redirects are left to the SDK.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import weakref
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Connections", "HttpReply", "NoConnectionError", "UnreadableError", "WireError"]

KEPT_SECONDS = 4.0
"""Seconds an idle connection may be used again: servers close theirs after five or more."""

_MAX_BODY = 256 * 2**20
"""Bytes of a reply at most: an endpoint must not fill the memory."""


class WireError(Exception):
    """The connection broke, or what came over it is not HTTP."""


class NoConnectionError(WireError):
    """There is no connection to be had."""


class UnreadableError(WireError):
    """An answer came that nobody can read: too long, or not in the encoding its headers tell."""


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
        name = f"[{host}]" if ":" in host else host
        default = 443 if tls else 80
        self._tls, self._headers = tls, headers
        self._origin = f"{'https' if tls else 'http'}://{name}" + ("" if port == default else f":{port}")
        self._opening = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, content: bytes) -> HttpReply:
        """Send a JSON body; whoever stops waiting ends the request.

        Args:
            path: percent-encoded.

        Raises:
            NoConnectionError: the endpoint cannot be reached.
            UnreadableError: the answer is too long, or its encoding is not the one it tells.
            WireError: the connection broke before the answer was complete.
        """
        session = self._session or await self._open()
        import aiohttp
        import yarl

        url = yarl.URL(self._origin + path, encoded=True)
        try:
            async with session.post(url, data=content, allow_redirects=False) as response:
                body = bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > _MAX_BODY:
                        raise UnreadableError(f"the answer is longer than {_MAX_BODY >> 20} MiB")
                headers = {name.lower(): value for name, value in response.headers.items()}
                return HttpReply(response.status, headers, bytes(body))
        except aiohttp.ClientConnectorError as exc:  # wrong certificates too
            raise NoConnectionError(exc.strerror or str(exc)) from None
        except aiohttp.ClientConnectorCertificateError as exc:
            raise NoConnectionError(str(exc)) from None
        except aiohttp.ClientPayloadError as exc:
            from aiohttp.http_exceptions import ContentEncodingError

            cause = exc.__cause__
            if isinstance(cause, ContentEncodingError):
                raise UnreadableError(f"the body is not in the encoding its headers tell: {cause.message}") from None
            raise WireError(f"{type(exc).__name__}: {exc}") from None
        except (aiohttp.ClientError, ConnectionError, ValueError) as exc:
            raise WireError(f"{type(exc).__name__}: {exc}") from None

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                # Loading takes a moment: not on the event loop.
                await asyncio.to_thread(import_module, "aiohttp")
                context = await asyncio.to_thread(_trust) if self._tls else True
                import aiohttp

                connector = aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=KEPT_SECONDS)
                self._session = aiohttp.ClientSession(
                    connector=connector,
                    headers=self._headers,
                    timeout=aiohttp.ClientTimeout(total=None),  # callers time each attempt as a whole
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
                weakref.finalize(self, _forget, self._session, connector)
            return self._session

    async def aclose(self) -> None:
        """Close every connection; requests under way break."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # the loop closes sockets in its next turn


def _forget(session: aiohttp.ClientSession, connector: aiohttp.TCPConnector) -> None:
    """Let go of what nobody closed, at the latest when the process ends, without a complaint on stderr."""
    if session.closed:
        return
    session.detach()
    closing = connector.close()
    with contextlib.suppress(StopIteration, RuntimeError):
        closing.send(None)  # its loop is gone or about to go: nothing can be waited for
    closing.close()


def _trust() -> ssl.SSLContext:
    """The system's certificates and, where that has none, those the HTTP libraries bring."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context
