"""A transport of several small connection pools instead of one large one."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from reflexion.llm.endpoint.clients import PROXIES

__all__ = ["http_module", "sharded_transport"]

SHARD = 12
"""Requests under way in one pool before another pool is opened."""


def http_module() -> Any:
    """The HTTP library the installed OpenAI client is built on."""
    import openai

    return import_module(type(openai.DEFAULT_CONNECTION_LIMITS).__module__.partition(".")[0])


def sharded_transport(limits: Any) -> Any:
    """A transport whose price for a request does not grow with the connections that are open.

    A pool looks at each of its connections whenever a request begins or ends, and asks the system whether
    the idle ones still live. With a hundred connections that takes a quarter of a batch's processor time;
    with a dozen to a pool it takes next to none. Pools are opened as they are needed.

    Args:
        limits: of each pool, of the HTTP library's own type.

    Returns:
        None where the environment names a proxy: the HTTP library's own transport knows how to use it.
    """
    if any(os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES):
        return None
    http = http_module()

    class Sharded(http.AsyncBaseTransport):
        def __init__(self) -> None:
            # One for all pools: reading the certificates takes a tenth of a second.
            self._context = http.create_ssl_context()
            self._pools: list[Any] = []
            self._busy: list[int] = []

        def _choose(self) -> int:
            index = min(range(len(self._busy)), key=self._busy.__getitem__, default=-1)
            if index < 0 or self._busy[index] >= SHARD:
                self._pools.append(http.AsyncHTTPTransport(verify=self._context, limits=limits))
                self._busy.append(0)
                index = len(self._pools) - 1
            return index

        async def handle_async_request(self, request: Any) -> Any:
            index = self._choose()
            self._busy[index] += 1
            try:
                response = await self._pools[index].handle_async_request(request)
                # Read here: the request holds its connection, and its place, until its end is read.
                await response.aread()
            finally:
                self._busy[index] -= 1
            return response

        async def aclose(self) -> None:
            for pool in self._pools:
                await pool.aclose()

    return Sharded()
