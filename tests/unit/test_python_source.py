"""Source is parsed the same whatever other threads do."""

import ast
import gc
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from reflexion._python_source import parse_python

NESTED = "def f(x):\n    return " + "[" * 40 + "x" + "]" * 40 + "\n" + "f(1)\n" * 200


def waits_a_little(*_: object) -> None:
    """A collection of garbage during which other threads run, as any finalizer may bring about."""
    time.sleep(0.00005)


def test_many_threads_parse_at_once() -> None:
    threshold = gc.get_threshold()
    gc.callbacks.append(waits_a_little)
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(4) as threads:
            trees = list(threads.map(parse_python, [NESTED] * 400))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(waits_a_little)
    assert {len(tree.body) for tree in trees} == {201}


@pytest.mark.parametrize(("code", "error"), [("def f(:", SyntaxError), ("a\0b", (SyntaxError, ValueError))])
def test_bad_code_is_an_error_as_ever(code: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_python(code)


def test_an_expression() -> None:
    assert isinstance(parse_python("1 + 1", mode="eval").body, ast.BinOp)
