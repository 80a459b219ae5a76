"""Runs untrusted Python code and judges it by trusted tests.

The design is told in `guest/__init__.py`: solution and tests are different processes, and only values cross
between them.
"""

from __future__ import annotations

from functools import lru_cache

from reflexion.evaluators.sandbox.backends import BACKENDS, Backend
from reflexion.evaluators.sandbox.jobs import Failure, Job, Limits, Report, TestOutcome
from reflexion.evaluators.sandbox.judging_plan import TestPlan
from reflexion.evaluators.sandbox.pool import Sandbox, SandboxError

__all__ = [
    "BACKENDS",
    "Backend",
    "Failure",
    "Job",
    "Limits",
    "Report",
    "Sandbox",
    "SandboxError",
    "TestOutcome",
    "TestPlan",
    "describe_sandbox",
    "shared_sandbox",
]


@lru_cache(maxsize=4)
def shared_sandbox(packages: tuple[str, ...] = ()) -> Sandbox:
    """This process's sandbox; its processes are started by the first evaluation.

    Args:
        packages: installed packages that tests and solutions may import.
    """
    return Sandbox(packages=packages)


def describe_sandbox() -> str:
    """Which isolation is used on this machine, and what it does not stop."""
    try:
        return shared_sandbox().describe()
    except SandboxError as exc:
        return f"Python answers cannot be judged: {exc}"
