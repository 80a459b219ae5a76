"""The starter set: sixteen problems whose tests a right solution passes and a wrong one does not."""

from __future__ import annotations

from typing import Any

import pytest

from reflexion.datasets import open_dataset
from reflexion.types import Problem

SOLUTIONS = {
    "largest": "def largest(numbers): return max(numbers)",
    "count_vowels": "def count_vowels(text): return sum(c in 'aeiou' for c in text.lower())",
    "is_palindrome": "def is_palindrome(word): return word.lower() == word.lower()[::-1]",
    "factorial": "import math\ndef factorial(n): return math.prod(range(1, n + 1))",
    "sum_of_evens": "def sum_of_evens(numbers): return sum(n for n in numbers if n % 2 == 0)",
    "reverse_words": "def reverse_words(sentence): return ' '.join(reversed(sentence.split()))",
    "fizzbuzz": "def fizzbuzz(n): return 'Fizz' * (n % 3 == 0) + 'Buzz' * (n % 5 == 0) or str(n)",
    "is_prime": "def is_prime(n): return n > 1 and all(n % k for k in range(2, n))",
    "fibonacci": "def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)",
    "remove_duplicates": "def remove_duplicates(items): return list(dict.fromkeys(items))",
    "count_words": "from collections import Counter\ndef count_words(text): return dict(Counter(text.split()))",
    "second_largest": "def second_largest(numbers): return ([None, None] + sorted(set(numbers)))[-2]",
    "is_anagram": "def is_anagram(first, second): return sorted(first.lower()) == sorted(second.lower())",
    "shift_letters": (
        "def shift_letters(text, k):\n"
        "    return ''.join(chr((ord(c) - 97 + k) % 26 + 97) if 'a' <= c <= 'z' else c for c in text)"
    ),
    "is_balanced": (
        "def is_balanced(text):\n"
        "    while '()' in text or '[]' in text:\n"
        "        text = text.replace('()', '').replace('[]', '')\n"
        "    return not text"
    ),
    "run_length": (
        "from itertools import groupby\n"
        "def run_length(text): return ''.join(c + str(len(list(g))) for c, g in groupby(text))"
    ),
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
    assert len(hidden) >= 3
    assert not any(line.removeprefix("assert ") in problem.prompt for line in hidden)
