"""What is decided of a problem's tests before any answer is seen, and which tests are refused."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from reflexion.evaluators.sandbox.judging_plan import TestPlan, make_test_plan


def plan(tests: str, entry_point: str | None = "f", **more: Any) -> TestPlan:
    return make_test_plan(textwrap.dedent(tests), (), entry_point, **more)


UNITS = {
    "pytest functions": (
        "def test_a():\n    assert f(1)\nasync def test_b():\n    assert f(2)",
        [("function", "test_a"), ("function", "test_b")],
    ),
    "called functions": ("def test_a():\n    assert f(1)\ntest_a()", []),
    "a case": (
        "import unittest\nclass Cases(unittest.TestCase):\n    def test_a(self): self.assertTrue(f(1))",
        [("unittest", "Cases")],
    ),
    "a case by way of another": (
        "from unittest import TestCase\nclass A(TestCase): pass\nclass Real(A):\n    def test_a(self): assert f(1)",
        [("unittest", "Real")],
    ),
    "a class of pytest": ("class TestF:\n    def test_a(self):\n        assert f(1)", [("class", "TestF", ["test_a"])]),
    "check(candidate)": ("def check(candidate):\n    assert candidate(1)", [("check", "check", "f")]),
    "check by another name": ("def verify(solution):\n    assert solution(1)", [("check", "verify", "f")]),
    "check that is called": ("def check(candidate):\n    assert candidate(1)\ncheck(f)", []),
    "a main function": ("def run_all():\n    assert f(1) == 1", [("function", "run_all")]),
    "helpers": ("def near(a, b):\n    return abs(a - b) < 1\nassert near(f(1), 1)", []),
}


@pytest.mark.parametrize("name", UNITS)
def test_what_the_tests_only_define_is_called(name: str) -> None:
    tests, units = UNITS[name]
    assert list(plan(tests).units) == units


REFUSED = {
    "comparisons that nobody asserts": ("f(1) == 2\nf(2) == 3", "write assert"),
    "comments": ("# to be written\n", "only comments"),
    "examples in a docstring": ("'''\n>>> f(1)\n2\n'''", "assert nothing"),
    "prints": ("print(f(1))", "assert nothing"),
    "a package that is not there": ("import scipy\nassert scipy.isclose(f(1), 1)", "--sandbox-packages scipy"),
    "names of a package that is not there": ("from sklearn.metrics import r2_score\nassert f(1)", "'sklearn'"),
    "a relative import": ("from .solution import f\nassert f(1)", "own package"),
    "a fixture": ("def test_a(tmp_path):\n    assert f(tmp_path)", "'tmp_path'"),
    "a function nobody defines": ("assert f(1) == approx(1)", "'approx'"),
    "syntax": ("assert f(1 == 2", "not valid Python, line 1"),
    "a function that the tests never mention": ("assert g(1) == 2", "'entry_point' is 'f'"),
    "a check with nothing to hand to it": ("def check(candidate):\n    assert candidate(1)", "'entry_point'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tests_that_cannot_judge_are_refused_with_the_reason(name: str) -> None:
    tests, told = REFUSED[name]
    entry_point = None if "nothing to hand" in name else "f"
    refusal = plan(tests, entry_point, prompt="Write f, please.").refusal
    assert refusal is not None and told in refusal and "\n" not in refusal


def test_names_come_from_the_library_or_the_prompt_and_else_from_the_solution() -> None:
    tests = "assert f(Counter('a')) == math.isclose(LIMIT, helper(1)) and isinstance(f(1), Shape)"
    prelude = "import math\ndef helper(x):\n    return x\nclass Node:\n    pass\ndef f(x):\n    pass\n"
    found = plan(tests, prelude=prelude, prompt=f"Complete.\n{prelude}")
    assert found.library == {"Counter": ("collections", "Counter")}
    assert found.wanted == ("LIMIT", "Shape", "f") and found.tested == ("LIMIT", "Shape")
    nodes = plan("assert f(Node()) == isclose(1, 1)", prelude=prelude, prompt=prelude)
    assert nodes.wanted == ("Node", "f") and nodes.library == {"isclose": ("math", "isclose")}
    asked = plan("assert gcd(2, 4) == f(1)", prompt="Write gcd and f.")
    assert asked.wanted == ("f", "gcd") and not asked.library


@pytest.mark.parametrize(
    ("tests", "modules"),
    [
        ("from solution import f\nassert f(1)", ("solution",)),
        ("from my_module import f, g\nassert f(g(1))", ("my_module",)),
        ("import exercise\nassert exercise.f(1)", ("exercise",)),
        ("from unittest.mock import patch\nwith patch('__main__.g'):\n    assert f(1)", ("__main__",)),
        ("import math\nassert math.floor(f(1))", ()),
    ],
)
def test_a_module_that_has_the_function_under_test_is_the_solution(tests: str, modules: tuple[str, ...]) -> None:
    found = plan(tests)
    assert found.refusal is None and found.modules == modules


@pytest.mark.parametrize(
    ("tests", "flags"),
    [
        ("import random\nrandom.seed(1)\nassert f()", {"random"}),
        ("import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n    assert f()", {"output"}),
        ("import os\nos.environ['A'] = '1'\nassert f()", {"environ"}),
        ("from unittest.mock import patch\nwith patch('time.sleep'):\n    assert f()", {"patches"}),
        ("import sys, io\nsys.stdin = io.StringIO('1')\nassert f()", {"input", "patches"}),
        ("assert f(1) == 2", set()),
    ],
)
def test_what_tests_set_up_is_read_from_their_text(tests: str, flags: set[str]) -> None:
    assert {name for name, value in plan(tests).flags.items() if value} == flags


@pytest.mark.parametrize(
    "cell",
    ["['assert f(1) == 2', 'assert f(2) == 3']", '["assert f(1) == 2", "assert f(2) == 3"]', "('assert f(1) == 2',)"],
)
def test_a_list_in_a_text_is_read_as_a_list(cell: str) -> None:
    assert (plan(cell).tests or "").startswith("assert f(1) == 2\n")
    visible = make_test_plan(None, (cell,), "f").visible
    assert visible[0] == "assert f(1) == 2" and len(visible) == cell.count("assert")


def test_a_method_of_a_class_is_an_entry_point() -> None:
    found = plan("def check(candidate):\n    assert candidate(1)", "Solution().add")
    assert found.entry == "Solution" and found.units == (("check", "check", "Solution().add"),)
    program = plan("assert same_output(run_program('1'), '2')", "__main__")
    assert program.program and program.entry is None and not program.wanted
