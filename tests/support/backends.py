"""The ways to isolate a sandbox that this machine has."""

from __future__ import annotations

from functools import lru_cache

from reflexion.evaluators.sandbox import BACKENDS, Backend, Sandbox, SandboxError

__all__ = ["working_backends"]


@lru_cache(maxsize=1)
def working_backends() -> tuple[Backend, ...]:
    """The backends that work here. The weakest needs nothing, so there always is one."""
    found: list[Backend] = []
    for backend in BACKENDS:
        sandbox = Sandbox(backend=backend, size=1)
        try:
            found.append(sandbox.choose())
        except SandboxError:
            continue
        finally:
            sandbox.close()
    return tuple(found)
