"""Right solutions whose tests touch more than values pass; nothing that stands for an object makes them wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from reflexion.evaluators.sandbox import Job, Report, Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(size=1)
    yield sandbox
    sandbox.close()


def solved(report: Report) -> bool:
    return report.load is None and report.ended is None and report.hidden is not None and report.hidden.passed


def judge(sandbox: Sandbox, code: str, tests: str, entry_point: str, **more: Any) -> Report:
    job = Job(code=textwrap.dedent(code), tests=textwrap.dedent(tests), entry_point=entry_point, **more)
    return sandbox.run_blocking(job, 10.0)


# Name, code, tests that are right for it, entry point, and what makes the code wrong: a text and what replaces it.
OBJECTS = {
    "a class with operators of all kinds": (
        """
        class Money:
            def __init__(self, cents): self.cents = cents
            def __add__(self, other): return Money(self.cents + other.cents)
            def __radd__(self, other): return self if other == 0 else NotImplemented
            def __mul__(self, factor): return Money(self.cents * factor)
            __rmul__ = __mul__
            def __neg__(self): return Money(-self.cents)
            def __abs__(self): return Money(abs(self.cents))
            def __divmod__(self, n): return divmod(self.cents, n)
            def __eq__(self, other): return self.cents == (other.cents if isinstance(other, Money) else other)
            def __lt__(self, other): return self.cents < other.cents
            def __hash__(self): return hash(self.cents)
            def __bool__(self): return self.cents != 0
            def __format__(self, form): return format(self.cents / 100, form or '.2f')
            def __repr__(self): return f'Money({self.cents})'
        """,
        """
        purse = [Money(30), Money(5)]
        assert sum(purse) == Money(35) and 2 * Money(4) == Money(4) * 2 == Money(8)
        assert -Money(3) == Money(-3) and abs(Money(-3)) == Money(3) and divmod(Money(7), 2) == (3, 1)
        assert sorted(purse)[0] == Money(5) and max(purse) == 30 and Money(5) in purse
        assert len({Money(1), Money(1), Money(2)}) == 2 and {Money(1): 'a'}[Money(1)] == 'a'
        assert f'{Money(250)}' == '2.50' and f'{Money(250):.1f}' == '2.5' and repr(Money(1)) == 'Money(1)'
        assert not Money(0) and Money(1)
        """,
        "Money",
        ("self.cents * factor", "self.cents + factor"),
    ),
    "a subclass of data": (
        """
        class Path(tuple):
            def __new__(cls, *steps): return super().__new__(cls, steps)
            @property
            def last(self): return self[-1]
            def __truediv__(self, step): return Path(*self, step)
            def __str__(self): return '/'.join(self)
        class Shelf(list):
            def add(self, *books):
                self.extend(books)
                return self
        class Bag(dict):
            def __missing__(self, key): return 0
            def put(self, key): self[key] += 1
        """,
        """
        p = Path('a', 'b') / 'c'
        assert p == ('a', 'b', 'c') and p.last == 'c' and str(p) == 'a/b/c' and p[0] == 'a' and len(p) == 3
        assert isinstance(p, tuple) and isinstance(p, Path) and type(p).__name__ == 'Path'
        s = Shelf(['x']).add('y', 'z')
        s.append('w')
        assert s == ['x', 'y', 'z', 'w'] and s.add() is s and s[1:3] == ['y', 'z'] and len(s) == 4
        b = Bag()
        b.put('k'); b.put('k')
        assert b['k'] == 2 and b['none'] == 0 and dict(b) == {'k': 2} and 'none' not in b
        """,
        "Path",
        ("'/'.join", "'.'.join"),
    ),
    "named tuples and enumerations": (
        """
        import enum
        from collections import namedtuple
        from typing import NamedTuple
        Point = namedtuple('Point', 'x y')
        class Reading(NamedTuple):
            value: float
            unit: str = 'm'
            def text(self): return f'{self.value:g} {self.unit}'
        class Level(enum.IntEnum):
            LOW = 1
            HIGH = 5
        class Mode(enum.Flag):
            READ = enum.auto()
            WRITE = enum.auto()
        def f(n): return Point(n, -n), Reading(n), Level(5 if n > 2 else 1), Mode.READ | Mode.WRITE
        """,
        """
        p, r, level, mode = f(3)
        assert p == (3, -3) and p.x == 3 and p._replace(x=1) == Point(1, -3) and p._asdict() == {'x': 3, 'y': -3}
        assert r.text() == '3 m' and r == (3, 'm') and r.unit == 'm'
        assert level == 5 and level is Level.HIGH and level.name == 'HIGH' and len(Level) == 2
        assert Mode.READ in mode and mode == Mode.READ | Mode.WRITE
        """,
        "f",
        ("HIGH = 5", "HIGH = 4"),
    ),
    "context managers, iterators and generators": (
        """
        import contextlib
        class Meter:
            def __init__(self): self.events = []
            def __enter__(self): self.events.append('in'); return self
            def __exit__(self, kind, error, trace): self.events.append(kind and kind.__name__); return kind is KeyError
            def __iter__(self):
                yield from self.events
        @contextlib.contextmanager
        def swapped(box):
            box[0], box[1] = box[1], box[0]
            try: yield box
            finally: box[0], box[1] = box[1], box[0]
        """,
        """
        m = Meter()
        with m as same:
            assert same is m
            raise KeyError('swallowed')
        assert list(m) == ['in', 'KeyError'] and m.events == ['in', 'KeyError']
        try:
            with m: raise ValueError('not swallowed')
        except ValueError as error: assert str(error) == 'not swallowed'
        else: raise AssertionError
        box = ['a', 'b']
        with swapped(box) as inside: assert inside == ['b', 'a'] and box == ['b', 'a']
        assert box == ['a', 'b']
        """,
        "Meter",
        ("return kind is KeyError", "return False"),
    ),
    "coroutines and asynchronous generators": (
        """
        import asyncio
        class Channel:
            def __init__(self): self.items = []
            async def send(self, item):
                await asyncio.sleep(0)
                self.items.append(item)
            async def __aenter__(self): return self
            async def __aexit__(self, *why): self.items.append('closed')
            async def __aiter__(self):
                for item in list(self.items): yield item
        async def add(a, b): return a + b
        """,
        """
        import asyncio
        async def main():
            async with Channel() as channel:
                await asyncio.gather(*(channel.send(n) for n in range(3)))
                assert sorted([item async for item in channel]) == [0, 1, 2]
            assert channel.items[-1] == 'closed'
            assert await add(1, 2) == 3 and await asyncio.wait_for(add(2, 2), 5) == 4
        asyncio.run(main())
        """,
        "Channel",
        ("return a + b", "return a - b"),
    ),
    "inheritance, abstract and generic classes": (
        """
        import abc
        from typing import Generic, TypeVar
        T = TypeVar('T')
        class Shape(abc.ABC):
            @abc.abstractmethod
            def area(self): ...
            def twice(self): return 2 * self.area()
        class Square(Shape):
            def __init__(self, a): self.a = a
            def area(self): return self.a ** 2
        class Box(Generic[T]):
            def __init__(self, item): self.item = item
            def map(self, function): return Box(function(self.item))
        """,
        """
        class Circle(Shape):
            def __init__(self, r): self.r = r
            def area(self): return 3 * self.r ** 2
            def twice(self): return super().twice() + 1
        assert Square(2).twice() == 8 and Circle(1).twice() == 7
        assert isinstance(Circle(1), Shape) and issubclass(Square, Shape) and not isinstance(Square(1), Circle)
        try: Shape()
        except TypeError: pass
        else: raise AssertionError
        assert Box[int](3).map(lambda n: n + 1).item == 4
        """,
        "Square",
        ("2 * self.area()", "3 * self.area()"),
    ),
    "data classes": (
        """
        from dataclasses import dataclass, field
        @dataclass(order=True, frozen=True)
        class Card:
            rank: int
            suit: str = 'hearts'
            notes: list = field(default_factory=list, compare=False)
        """,
        """
        from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass, replace
        c = Card(3)
        assert is_dataclass(c) and [f.name for f in fields(c)] == ['rank', 'suit', 'notes']
        assert asdict(c) == {'rank': 3, 'suit': 'hearts', 'notes': []} and replace(c, rank=4) == Card(4)
        c.notes.append('seen')
        assert c.notes == ['seen'] and min(Card(2), Card(1)) == Card(1)
        try: c.rank = 9
        except FrozenInstanceError: pass
        else: raise AssertionError
        match c:
            case Card(rank=n): assert n == 3
            case _: raise AssertionError
        """,
        "Card",
        ("'hearts'", "'spades'"),
    ),
    "containers that both sides hold": (
        """
        seen = []
        table = {}
        class Graph:
            def __init__(self): self.edges = {}
            def link(self, a, b): self.edges.setdefault(a, []).append(b)
            def of(self, a): return self.edges[a]
        def f(rows, row):
            row[0] = 9
            seen.append(row)
            table[len(seen)] = len(rows)
            return rows, rows
        """,
        """
        row = [1, 2]
        rows = [row, row, [3]]
        a, b = f(rows, row)
        assert a is b is rows and rows == [[9, 2], [9, 2], [3]] and row == [9, 2]
        row.append(7)
        assert seen == [[9, 2, 7]] and table == {1: 3} and rows[1] is row
        f(rows, rows[2])
        assert len(seen) == 2 and seen[1] is rows[2] and table[2] == 3
        g = Graph(); g.link('a', 'b')
        g.of('a').append('c'); g.edges['z'] = [1]
        assert g.edges == {'a': ['b', 'c'], 'z': [1]} and g.of('z') == [1]
        """,
        "f",
        ("row[0] = 9", "row = [9, 2]"),
    ),
    "objects of the tests": (
        """
        class Node:
            pass
        def f(node):
            total = 0
            while node:
                total += node.value
                node.value = 0
                node = node.next
            return total
        def call(thing, reader):
            return thing.read().upper() + ','.join(str(x) for x in reader)
        """,
        """
        import io
        class Node:
            def __init__(self, value, next=None): self.value, self.next = value, next
            def __bool__(self): return True
        chain = Node(1, Node(2, Node(3)))
        assert f(chain) == 6 and chain.next.value == 0
        assert call(io.StringIO('abc'), (n * n for n in range(3))) == 'ABC0,1,4'
        """,
        "f",
        ("node.value = 0", "pass"),
    ),
    "functions with state, decorators and callbacks": (
        """
        import functools
        def f(function):
            @functools.wraps(function)
            def counted(*args, **kwargs):
                counted.calls += 1
                return function(*args, **kwargs)
            counted.calls = 0
            return counted
        def walk(tree, visit):
            for key in sorted(tree):
                visit(key, depth=0)
        """,
        """
        @f
        def greet(name, mark='!'):
            'Greets.'
            return f'hi {name}{mark}'
        assert greet('Bo') == 'hi Bo!' and greet('Al', mark='?') == 'hi Al?' and greet.calls == 2
        assert greet.__name__ == 'greet' and greet.__doc__ == 'Greets.'
        class Caller:
            @f
            def double(self, x): return 2 * x
        assert Caller().double(4) == 8
        seen = []
        walk({'b': 1, 'a': 2}, lambda key, depth: seen.append((key, depth)))
        assert seen == [('a', 0), ('b', 0)]
        """,
        "f",
        ("counted.calls += 1", "pass"),
    ),
    "exceptions of its own": (
        """
        class Short(ValueError):
            def __init__(self, need, have):
                super().__init__(f'{need} needed, {have} there')
                self.missing = need - have
        def f(path, n):
            if n < 0: raise KeyError('negative')
            if n == 0: raise FileNotFoundError(2, 'nothing there', path)
            if n > 5: raise Short(n, 5) from ZeroDivisionError('inside')
            return n
        """,
        """
        try: f('p', 8)
        except Short as error:
            assert str(error) == '8 needed, 5 there' and error.missing == 3 and isinstance(error, ValueError)
            assert isinstance(error.__cause__, ZeroDivisionError)
        else: raise AssertionError
        try: f('p', -1)
        except KeyError as error: assert error.args == ('negative',)
        else: raise AssertionError
        try: f('p', 0)
        except OSError as error: assert error.errno == 2 and error.filename == 'p'
        else: raise AssertionError
        assert f('p', 1) == 1
        """,
        "f",
        ("need - have", "have - need"),
    ),
}

SURROUNDINGS = {
    "printed output": (
        "import sys\ndef f(n):\n    for i in range(n): print(i, end=';')\n    sys.stderr.write('done')",
        """
        import contextlib, io
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            f(3)
        assert out.getvalue() == '0;1;2;' and err.getvalue() == 'done'
        """,
        ("end=';'", "end=','"),
    ),
    "input and standard input": (
        "import sys\ndef f():\n    first = input('n? ')\n    return int(first) + sum(map(int, sys.stdin))",
        """
        import io, sys
        from unittest import mock
        sys.stdin = io.StringIO('1\\n2\\n3\\n')
        assert f() == 6
        with mock.patch('builtins.input', return_value='5'): assert f() == 5
        """,
        ("int(first) +", "1 +"),
    ),
    "seeds": (
        "import random\ndef f(): return [random.randint(0, 99) for _ in range(3)]",
        """
        import random
        random.seed(7)
        want = [random.randint(0, 99) for _ in range(3)]
        random.seed(7)
        assert f() == want and f() != want
        """,
        ("range(3)", "range(2)"),
    ),
    "the environment": (
        "import os\ndef f(): return os.environ.get('MODE', 'none')",
        """
        import os
        from unittest.mock import patch
        assert f() == 'none'
        with patch.dict(os.environ, {'MODE': 'fast'}): assert f() == 'fast'
        assert f() == 'none'
        os.environ['MODE'] = 'slow'
        assert f() == 'slow'
        """,
        ("'MODE', 'none'", "'MADE', 'none'"),
    ),
    "replaced functions": (
        "import time\ndef helper(): return 1\ndef f():\n    time.sleep(60)\n    return time.time() + helper()",
        """
        import time
        from unittest.mock import MagicMock, patch
        with patch('time.sleep') as sleep, patch('time.time', return_value=10):
            assert f() == 11
            sleep.assert_called_once_with(60)
            with patch('__main__.helper', MagicMock(side_effect=[5, ValueError('out')])):
                assert f() == 15
                try: f()
                except ValueError as error: assert str(error) == 'out'
                else: raise AssertionError
        """,
        ("+ helper()", "+ 1"),
    ),
    "files": (
        "import json\ndef f(path):\n    with open(path) as file: data = json.load(file)\n"
        "    with open(path + '.out', 'w') as file: file.write(str(len(data)))",
        """
        import json, os, tempfile
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'in.json')
            with open(path, 'w') as file: json.dump([1, 2, 3], file)
            f(path)
            with open(path + '.out') as file: assert file.read() == '3'
        """,
        ("str(len(data))", "str(data)"),
    ),
    "warnings and logs": (
        "import logging, warnings\ndef f():\n    warnings.warn('old', DeprecationWarning)\n"
        "    logging.getLogger('shop').warning('low on %s', 'tea')",
        """
        import unittest
        class Tells(unittest.TestCase):
            def test_both(self):
                with self.assertWarnsRegex(DeprecationWarning, 'old'), self.assertLogs('shop') as logs: f()
                self.assertEqual(logs.output, ['WARNING:shop:low on tea'])
        """,
        ("'tea'", "'salt'"),
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_what_the_tests_do_with_objects_is_done_where_they_live(sandbox: Sandbox, name: str) -> None:
    code, tests, entry_point, (right, wrong) = OBJECTS[name]
    prompt = "Write " + " and ".join(("call", "walk", "swapped", "add", entry_point))
    report = judge(sandbox, code, tests, entry_point, prompt=prompt)
    assert solved(report), report
    assert right in code
    spoilt = judge(sandbox, code.replace(right, wrong), tests, entry_point, prompt=prompt)
    assert not solved(spoilt), spoilt


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_what_the_tests_set_up_reaches_the_solution(sandbox: Sandbox, name: str) -> None:
    code, tests, (right, wrong) = SURROUNDINGS[name]
    report = judge(sandbox, code, tests, "f")
    assert solved(report), report
    assert right in code
    assert not solved(judge(sandbox, code.replace(right, wrong), tests, "f"))


def test_a_whole_program_reads_its_input_and_writes_its_output(sandbox: Sandbox) -> None:
    code = "import sys\nn = int(input())\nprint(sum(map(int, input().split())) / n)\nsys.exit(0)\n"
    tests = "assert same_output(run_program('2\\n3 4\\n'), '3.5\\n')\nassert same_output(run_program('1\\n5'), '5.0')\n"
    assert solved(judge(sandbox, code, tests, "__main__"))
    assert not solved(judge(sandbox, code.replace("/ n", "* n"), tests, "__main__"))
    descriptors = """
import os
n, *rest = map(int, os.read(0, 99).split())
os.write(1, b"%g" % (sum(rest) / n))
"""
    assert solved(judge(sandbox, descriptors, tests, "__main__"))
    crash = judge(sandbox, "raise SystemExit(3)", tests, "__main__")
    assert not solved(crash) and crash.hidden is not None and crash.hidden.failure is not None


def test_a_record_of_fifty_judgements_in_four_processes_is_one_verdict(sandbox: Sandbox) -> None:
    code = "def f(words): return {w.lower() for w in words}"
    tests = (
        "words = ['Pear', 'fig', 'Plum', 'apple', 'kiwi']\nassert str(f(words)) == str(set(w.lower() for w in words))\n"
    )
    several = Sandbox(size=4)
    try:
        job = Job(code, tests, entry_point="f")
        assert {solved(several.run_blocking(job)) for _ in range(50)} == {True}
    finally:
        several.close()
