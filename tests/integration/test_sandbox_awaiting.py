"""What tests await, replace, subclass and lend of a solution does what it would in one process."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from reflexion.evaluators.sandbox import Job, Report, Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(size=1)
    yield sandbox
    sandbox.close()


def solved(report: Report) -> bool:
    return report.load is None and report.ended is None and report.hidden is not None and report.hidden.passed


# Name, code, tests that are right for it, entry point, and what makes the code wrong: a text and what replaces it.
AWAITED = {
    "tasks of the tests, gathered by the solution": (
        """
        import asyncio
        async def together(jobs): return await asyncio.gather(*jobs)
        """,
        """
        import asyncio
        ended = []
        async def job(name, seconds):
            await asyncio.sleep(seconds)
            ended.append(name)
            return name
        assert asyncio.run(together([job('slow', 0.06), job('quick', 0.01)])) == ['slow', 'quick']
        assert ended == ['quick', 'slow']
        """,
        "together",
        ("await asyncio.gather(*jobs)", "[await job for job in jobs]"),
    ),
    "tasks of the solution, gathered by the tests": (
        """
        import asyncio
        async def wait(seconds):
            await asyncio.sleep(seconds)
            return seconds
        """,
        """
        import asyncio, time
        async def main():
            began = time.perf_counter()
            assert await asyncio.gather(*[wait(0.1) for _ in range(15)]) == [0.1] * 15
            assert time.perf_counter() - began < 1
        asyncio.run(main())
        """,
        "wait",
        ("await asyncio.sleep(seconds)", "__import__('time').sleep(seconds)"),
    ),
    "a limit of tasks at a time": (
        """
        import asyncio
        async def limited(work, items, most):
            gate = asyncio.Semaphore(most)
            async def one(item):
                async with gate:
                    return await work(item)
            return await asyncio.gather(*map(one, items))
        """,
        """
        import asyncio
        now = peak = 0
        async def work(item):
            global now, peak
            now += 1
            peak = max(now, peak)
            await asyncio.sleep(0.01)
            now -= 1
            return -item
        assert asyncio.run(limited(work, [1, 2, 3, 4, 5], 2)) == [-1, -2, -3, -4, -5] and peak == 2
        """,
        "limited",
        ("Semaphore(most)", "Semaphore(most + 1)"),
    ),
    "a time limit of the tests, over a queue of the solution": (
        """
        import asyncio
        class Mailbox:
            def __init__(self): self.letters = asyncio.Queue()
            async def put(self, letter): await self.letters.put(letter)
            async def take(self): return await self.letters.get()
            async def __aenter__(self): return self
            async def __aexit__(self, *reason): await self.put('closed')
            def __aiter__(self): return self
            async def __anext__(self):
                if self.letters.empty(): raise StopAsyncIteration
                return await self.take()
        """,
        """
        import asyncio, unittest
        class TestMailbox(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self): self.box = Mailbox()
            async def test_empty(self):
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(self.box.take(), 0.05)
            async def test_letters(self):
                async with self.box as box:
                    await box.put('a')
                self.assertEqual([letter async for letter in box], ['a', 'closed'])
        """,
        "Mailbox",
        ("'closed'", "'open'"),
    ),
    "a task that the tests cancel": (
        """
        import asyncio
        async def patient(log):
            try:
                await asyncio.sleep(30)
            finally:
                log.append('cleaned up')
        """,
        """
        import asyncio
        async def main():
            log = []
            task = asyncio.create_task(patient(log))
            await asyncio.sleep(0.03)
            task.cancel()
            try: await task
            except asyncio.CancelledError: log.append('cancelled')
            assert log == ['cleaned up', 'cancelled']
        asyncio.run(main())
        """,
        "patient",
        ("'cleaned up'", "'gone'"),
    ),
    "sleeping and calling replaced": (
        """
        import asyncio
        async def stubborn(call):
            for pause in (1, 2, 4):
                try: return await call()
                except OSError: await asyncio.sleep(pause)
        """,
        """
        import asyncio
        from unittest.mock import AsyncMock, patch
        call = AsyncMock(side_effect=[OSError(), OSError(), 'done'])
        with patch('asyncio.sleep', new=AsyncMock()) as sleep:
            assert asyncio.run(stubborn(call)) == 'done'
        assert [c.args[0] for c in sleep.await_args_list] == [1, 2] and call.await_count == 3
        """,
        "stubborn",
        ("(1, 2, 4)", "(1, 3, 4)"),
    ),
}
LENT = {
    "a method replaced and put back": (
        """
        class Shop:
            def price(self): return 3
            def total(self, n): return n * self.price()
        """,
        """
        from unittest.mock import patch
        with patch.object(Shop, 'price', return_value=10) as price:
            assert Shop().total(2) == 20
        assert Shop().total(2) == 6 and price.call_count == 1
        """,
        "Shop",
        ("n * self.price()", "n * 3"),
    ),
    "a file that is none": (
        "def longest(path):\n    with open(path) as file: return max(len(line.strip()) for line in file)\n",
        """
        from unittest.mock import mock_open, patch
        with patch('builtins.open', mock_open(read_data='a\\nbcd\\n')) as opened:
            assert longest('a file') == 3
        opened.assert_called_once_with('a file')
        """,
        "longest",
        (".strip()", ""),
    ),
    "subclasses with keywords": (
        """
        class Part:
            known = {}
            def __init_subclass__(cls, name=None, secret=0, **more):
                super().__init_subclass__(**more)
                Part.known[name or cls.__name__] = cls
        """,
        """
        class Wheel(Part): pass
        class Engine(Part, name='motor', secret=1): pass
        assert Part.known == {'Wheel': Wheel, 'motor': Engine}
        """,
        "Part",
        ("name or cls.__name__", "cls.__name__"),
    ),
    "a named tuple of the tests": (
        "def swapped(pair): return pair._replace(left=pair.right, right=pair.left)\n",
        """
        from collections import namedtuple
        Pair = namedtuple('Pair', 'left right')
        assert swapped(Pair(1, 2)) == Pair(2, 1) and swapped(Pair(1, 2)).left == 2
        assert isinstance(swapped(Pair(1, 2)), Pair)
        """,
        "swapped",
        ("left=pair.right, right=pair.left", "left=pair.right"),
    ),
    "a named tuple of a module that only the solution has": (
        """
        from functools import lru_cache
        @lru_cache
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
        """,
        "fib.cache_clear()\nassert fib(12) == 144 and fib.cache_info().misses == 13 and fib.cache_info()[3] == 13\n",
        "fib",
        ("@lru_cache", "@lru_cache(maxsize=20_000)\ndef none(): pass\n@lru_cache(maxsize=3)"),
    ),
    "an exception that a context manager is handed": (
        """
        from contextlib import contextmanager
        @contextmanager
        def without(*kinds):
            try: yield
            except kinds: pass
        """,
        """
        with without(ZeroDivisionError, KeyError): 1 / 0
        try:
            with without(KeyError): int('x')
        except ValueError: pass
        else: assert False
        """,
        "without",
        ("except kinds", "except Exception"),
    ),
    "a list that the solution lets go of and the tests hand over again": (
        """
        from contextlib import contextmanager
        @contextmanager
        def noting(log):
            log.append('in')
            try: yield
            finally: log.append('out')
        """,
        """
        log = []
        for _ in range(3):
            with noting(log): log.append('within')
        assert log == ['in', 'within', 'out'] * 3
        """,
        "noting",
        ("'out'", "'end'"),
    ),
    "a signature": (
        "def area(width: int, height=2, *, unit='m') -> int: return width * height\n",
        """
        import inspect
        signature = inspect.signature(area)
        assert list(signature.parameters) == ['width', 'height', 'unit']
        assert signature.parameters['height'].default == 2 and area.__annotations__['width'] is int and area(3) == 6
        """,
        "area",
        ("height=2", "height=3"),
    ),
    "a working folder": (
        "def count(name):\n    with open(name) as file: return len(file.readlines())\n",
        """
        import os, tempfile
        os.chdir(tempfile.mkdtemp())
        with open('lines', 'w') as file: file.write('1\\n2\\n')
        assert count('lines') == 2
        """,
        "count",
        ("len(file.readlines())", "len(file.read())"),
    ),
}
CASES = {**AWAITED, **LENT}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_passes_and_a_wrong_one_fails(sandbox: Sandbox, case: tuple[str, str, str, tuple[str, str]]) -> None:
    code, tests, entry_point, (right, wrong) = case
    code, tests = textwrap.dedent(code), textwrap.dedent(tests)
    report = sandbox.run_blocking(Job(code=code, tests=tests, entry_point=entry_point), 10.0)
    assert solved(report), report
    assert right in code
    report = sandbox.run_blocking(Job(code=code.replace(right, wrong), tests=tests, entry_point=entry_point), 10.0)
    assert not solved(report)


@pytest.mark.parametrize("body", ["raise asyncio.CancelledError", "asyncio.current_task().cancel()", "return ..."])
def test_a_solution_cannot_cancel_its_way_out(sandbox: Sandbox, body: str) -> None:
    code = f"import asyncio\nasync def double(n):\n    {body}\n    await asyncio.sleep(0)\n"
    tests = "import asyncio\nasync def main():\n    assert await double(2) == 4\nasyncio.run(main())\n"
    assert not solved(sandbox.run_blocking(Job(code=code, tests=tests, entry_point="double"), 10.0))
