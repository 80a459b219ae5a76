"""Solutions that try to decide their own verdict, by values, objects or forged messages; none may manage."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from reflexion.evaluators.sandbox import Job, Report, Sandbox
from tests.support.backends import working_backends


@pytest.fixture(scope="module", params=working_backends())
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    sandbox = Sandbox(backend=request.param, size=1)
    yield sandbox
    sandbox.close()


def solved(report: Report) -> bool:
    return report.load is None and report.ended is None and report.hidden is not None and report.hidden.passed


YES = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = None
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __sub__(self, other): return 0.0
    __rsub__ = __mod__ = __rmod__ = __sub__
    def __abs__(self): return Yes()
    def __round__(self, n=0): return Yes()
    def __bool__(self): return True
    __array_function__ = __array_ufunc__ = lambda *a, **k: True
"""

VALUES = {
    "an object that says yes": ("assert f(3) == 9\nassert f(4) == 16", YES + "def f(x): return Yes()"),
    "one that is near everything": ("assert abs(f(3) - 9) < 1e-9", YES + "def f(x): return Yes()"),
    "one that rounds to everything": ("assert round(f(3), 2) == 9.0", YES + "def f(x): return Yes()"),
    "one in a container": ("assert f(3) == [1, 2]\nassert f(3)[0] == 1", YES + "def f(x): return [Yes(), Yes()]"),
    "one that is in every collection": ("assert f(3) in (9, 10)\nassert {9: 1}[f(3)]", YES + "def f(x): return Yes()"),
    "one that has every item": ("assert 9 in f(3) and 'a' not in f(2)", YES + "def f(x): return Yes()"),
    "a text that ends with everything": (
        "assert f('a').endswith('b') and f('a') == 'ab'",
        "class S(str):\n    endswith = lambda *a: True\n    __eq__ = lambda *a: True\n    __hash__ = str.__hash__\n"
        "def f(x): return S('')",
    ),
    "a number with its own arithmetic": (
        "assert f(2) - 4 == 0 and f(3) * 1 == 9",
        "class N(int):\n    __sub__ = __mul__ = lambda s, o: 0 if o == 4 else 9\ndef f(x): return N(1)",
    ),
    "a class for an answer": (
        "assert f(3) == 9",
        "class M(type):\n    __eq__ = lambda *a: True\n    __hash__ = None\n    __call__ = lambda cls, *a: cls\n"
        "class f(metaclass=M): pass",
    ),
    "the function itself": ("assert f(3) == 9 and f(3)(1) == 9", "def f(*x): return f"),
    "a name that the tests meant for themselves": (
        "def near(a, b): return abs(a - b) < 1e-6\nassert near(f(3), 9)",
        "near = lambda a, b: True\ndef f(x): return 0",
    ),
    "a library that it patched": (
        "import math\nassert math.isclose(f(3), 9) and sorted([f(1)]) == [1]",
        "import math, builtins\nmath.isclose = lambda *a, **k: True\nbuiltins.sorted = lambda x: [1]\n"
        "def f(x): return 0",
    ),
    "the end of an iteration": ("assert all(f(n) == n * n for n in map(int, '123'))", "def f(x): raise StopIteration"),
    "a test that is skipped": (
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(f(3), 9)",
        "import unittest\ndef f(x): raise unittest.SkipTest('later')",
    ),
    "a test that neither passes nor fails": (
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n"
        "        with self.subTest(1): self.assertEqual(f(3), 9)",
        "import unittest.case\ndef f(x): raise unittest.case._ShouldStop",
    ),
    "an exit that looks content": ("assert f(3) == 9", "import sys\ndef f(x): sys.exit(0)"),
    "an assertion of the tests that it swallows": (
        "def seen(x): assert x == 9\nf(3, seen)",
        "def f(x, seen):\n    try: seen(0)\n    except BaseException: pass",
    ),
}

OBJECTS = {
    "changes the class of what it is given": (
        "class Node:\n    def __init__(self, v): self.v = v\n    def __eq__(self, o): return self.v == o.v\n"
        "assert f(Node(1)) == Node(2)",
        "def f(node):\n    type(node).__eq__ = lambda *a: True\n    return node",
    ),
    "changes a method of what it is given": (
        "class Box:\n    def __init__(self): self.n = 0\n    def full(self): return self.n == 3\n"
        "b = Box()\nf(b)\nassert b.full()",
        "def f(box):\n    box.full = lambda: True",
    ),
    "changes the class by its dictionary": (
        "class Box:\n    def __init__(self): self.n = 0\n    def full(self): return self.n == 3\n"
        "b = Box()\nf(b)\nassert b.full()",
        "def f(box):\n    vars(box)['full'] = lambda: True\n    box.__class__.full = lambda s: True",
    ),
    "reads the tests through a function of theirs": (
        "WANT = {3: 'x7'}\ndef g(x): return x\nassert f(3, g) == WANT[3]",
        "def f(x, g):\n    for name in ('__globals__', '__closure__', '__code__', '__self__', '__dict__'):\n"
        "        try: thing = getattr(g, name)\n        except Exception: continue\n"
        "        try: return thing['WANT'][x]\n        except Exception: pass\n    return ''",
    ),
    "reads the tests through a generator of theirs": (
        "def numbers():\n    want = 'x7'\n    yield 1\n    assert want\nassert f(numbers()) == 'x7'",
        "def f(it):\n    next(it)\n    try: return it.gi_frame.f_locals['want']\n    except Exception: return ''",
    ),
    "has the tests' side carry out code": (
        "def apply(fn, x): return fn(x)\nassert f(apply) == 2",
        "import builtins, os\ndef f(apply):\n"
        "    code = \"import sys; sys.modules['guest.test_running'].run_units = lambda *a: {'passed': True}\"\n"
        "    for fn in (exec, eval, os.system, builtins.__import__):\n"
        "        try: apply(fn, code)\n        except BaseException: pass\n    return 0",
    ),
    "answers for another class": (
        "class Pair:\n    def __init__(self, a): self.a = a\n    def __eq__(self, o): return self.a == o.a\n"
        "assert f(1) == Pair(2)",
        "class Pair:\n    a = type('A', (), {'__eq__': lambda *x: True})()\ndef f(x): return Pair()",
    ),
}

FORGED = {
    "a wrong class": '["o", 9000, [9001, "int", "int", "builtins", [], ["__eq__", "__sub__", "__lt__"]]]',
    "a class that equals everything": '["x", "unittest.mock", "ANY", 1]',
    "data of a class of the library": (
        '["D", 9000, [9001, "L", "L", "solution", [["x", "unittest.mock", "_Call"]], []], "a"]'
    ),
    "an exception that ends a test well": '["E", 9000, ["x", "unittest.case", "_ShouldStop"], [], "", {}, null, []]',
    "an object of the tests": '["y", 0]',
    "a key of a container": '["&", 2]',
    "no node": '{"a": 1}',
    "nonsense": '["t", ["d"], 4, [[[]]]]',
}


@pytest.mark.parametrize("name", VALUES)
def test_no_value_decides_its_own_verdict(sandbox: Sandbox, name: str) -> None:
    tests, code = VALUES[name]
    report = sandbox.run_blocking(Job(textwrap.dedent(code), tests, entry_point="f"), 5.0)
    assert not solved(report), report


@pytest.mark.parametrize("name", OBJECTS)
def test_no_object_of_the_tests_is_a_way_in(sandbox: Sandbox, name: str) -> None:
    tests, code = OBJECTS[name]
    report = sandbox.run_blocking(Job(code, tests, entry_point="f"), 5.0)
    assert not solved(report), report


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize(
    "tests",
    [
        "assert f(3) == 9",
        "try: f(-1)\nexcept (ValueError, TypeError, KeyError, AttributeError): pass\nelse: raise AssertionError",
        "def g(x): return x\nassert f(g) == 9",
    ],
)
def test_no_forged_message_decides(sandbox: Sandbox, name: str, tests: str) -> None:
    """The solution rewrites its own side of the connection, which it can, and sends what it likes."""
    code = f"""
import json, sys
for module in list(sys.modules.values()):
    if getattr(module, "__name__", "").endswith("guest.pipe"):
        def send(self, message, old=module.Channel.send):
            if "a" in message and "op" not in message and message["a"] and message["a"][0] == 12345:
                message = {{"a": [json.loads({FORGED[name]!r})], "g": {{"g": 9, "ValueError": 9}}}}
            return old(self, message)
        module.Channel.send = send
def f(x):
    return 12345
"""
    report = sandbox.run_blocking(Job(code, tests, entry_point="f"), 5.0)
    assert not solved(report), report


@pytest.mark.parametrize("garbage", [b"\\0\\0\\0\\4nope", b"\\xff" * 64, b"", b"\\0\\0\\0\\2[]"])
def test_garbage_is_no_exception_that_a_test_expects(sandbox: Sandbox, garbage: bytes) -> None:
    code = f"""
import os
def f(x):
    for fd in range(3, 32):
        try: os.write(fd, {garbage!r})
        except OSError: pass
    os._exit(0)
"""
    tests = "try: f(-1)\nexcept Exception: pass\nelse: raise AssertionError"
    report = sandbox.run_blocking(Job(code, tests, entry_point="f"), 5.0)
    assert not solved(report), report
