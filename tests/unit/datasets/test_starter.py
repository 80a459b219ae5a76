"""The starter set: sixteen problems whose tests a right solution passes and a wrong one does not."""

from __future__ import annotations

from typing import Any

import pytest

from reflexion.datasets import open_dataset
from reflexion.types import Problem

SOLUTIONS = {
    "is_even": "def is_even(n): return n % 2 == 0",
    "largest": "def largest(numbers): return max(numbers)",
    "reverse_text": "def reverse_text(text): return text[::-1]",
    "square_all": "def square_all(numbers): return [n * n for n in numbers]",
    "sum_of_evens": "def sum_of_evens(numbers): return sum(n for n in numbers if n % 2 == 0)",
    "keep_positive": "def keep_positive(numbers): return [n for n in numbers if n > 0]",
    "min_max": "def min_max(numbers): return min(numbers), max(numbers)",
    "count_words": "def count_words(sentence): return len(sentence.split())",
    "average": "def average(numbers): return sum(numbers) / len(numbers) if numbers else 0",
    "total": "def total(numbers): return sum(numbers)",
    "flatten": "def flatten(lists): return [item for part in lists for item in part]",
    "clamp": "def clamp(value, low, high): return min(max(value, low), high)",
    "is_leap_year": "def is_leap_year(year): return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)",
    "remove_duplicates": "def remove_duplicates(items): return list(dict.fromkeys(items))",
    "is_prime": "def is_prime(n): return n > 1 and all(n % k for k in range(2, n))",
    "fibonacci": "def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)",
}

PROBLEMS = list(open_dataset("starter"))


def _passes(problem: Problem, solution: str) -> bool:
    scope: dict[str, Any] = {}
    exec(solution, scope)
    assert problem.tests is not None
    try:
        exec(problem.tests, scope)
        for test in problem.visible_tests:
            exec(test, scope)
    except AssertionError:
        return False
    return True


def test_there_are_sixteen_with_a_solution_each() -> None:
    assert len(PROBLEMS) == 16
    assert {p.entry_point for p in PROBLEMS} == set(SOLUTIONS)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.id)
def test_a_right_solution_passes(problem: Problem) -> None:
    assert problem.entry_point is not None
    assert _passes(problem, SOLUTIONS[problem.entry_point])


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.id)
@pytest.mark.parametrize("constant", [None, 0, True, False, "", []], ids=repr)
def test_a_constant_does_not_pass(problem: Problem, constant: object) -> None:
    assert not _passes(problem, f"def {problem.entry_point}(*args): return {constant!r}")


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.id)
def test_the_prompt_shows_the_signature_and_no_hidden_test(problem: Problem) -> None:
    assert f"def {problem.entry_point}(" in problem.prompt
    assert problem.visible_tests
    assert problem.tests is not None
    hidden = set(problem.tests.splitlines()) - set(problem.visible_tests)
    assert len(hidden) >= 2
    assert not any(line.removeprefix("assert ") in problem.prompt for line in hidden)
