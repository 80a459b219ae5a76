"""An evaluator whose process dies at one problem, whenever it meets it."""

from __future__ import annotations

import os
import signal

from reflexion.types import Problem

__all__ = ["passed"]

POISON = "p15.0"


def passed(problem: Problem, answer: str) -> bool:
    """Whether the answer is the reference; the process is killed instead where the problem is poison."""
    if problem.id == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return problem.answer is not None and problem.answer in answer
