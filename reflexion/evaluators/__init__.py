"""What judges an answer: comparisons, Python tests in a sandbox, judges, your own function."""

from reflexion.evaluators.evaluator import Evaluator
from reflexion.evaluators.own_function import wrap_callable
from reflexion.evaluators.resolve import EVALUATORS, infer_evaluator, resolve_evaluator

__all__ = [
    "EVALUATORS",
    "Evaluator",
    "describe_sandbox",
    "infer_evaluator",
    "resolve_evaluator",
    "wrap_callable",
]


def describe_sandbox() -> str:
    """Which isolation the evaluator `python` gets on this machine, and what it does not stop."""
    from reflexion.evaluators.sandbox import describe_sandbox as describe

    return describe()
