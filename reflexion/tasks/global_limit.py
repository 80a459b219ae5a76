"""A limit on calls to models that holds across processes and machines, where the user has made one."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from prefect import get_client
from prefect.concurrency.asyncio import concurrency
from prefect.exceptions import ObjectNotFound

from reflexion.run.wiring import Gate

__all__ = ["LIMIT_NAME", "llm_gate"]

LIMIT_NAME = "reflexion-llm"
"""Name of Prefect's global concurrency limit that is honoured."""


async def llm_gate() -> Gate | None:
    """A slot of the limit for each request to a model, or None where there is no such limit.

    Make one with `prefect global-concurrency-limit create reflexion-llm --limit 50`.
    """
    async with get_client() as client:
        try:
            limit = await client.read_global_concurrency_limit_by_name(LIMIT_NAME)
        except ObjectNotFound:
            return None
    if not limit.active:
        return None

    def gate() -> AbstractAsyncContextManager[Any]:
        return concurrency(LIMIT_NAME, occupy=1)

    return gate
