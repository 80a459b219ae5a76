"""Feedback and verdicts on Python answers, from real runs in the sandbox."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from reflexion.datasets import open_dataset
from reflexion.evaluators import describe_sandbox, resolve_evaluator
from reflexion.types import Evaluation, Problem, Trial

LARGEST = Problem(
    id="p",
    prompt="Write largest(numbers).",
    entry_point="largest",
    visible_tests=("assert largest([3, 9, 2]) == 9", "assert largest([1]) == 1"),
    tests="assert largest([3, 9, 2]) == 9\nassert largest([-7531, -8642]) == -7531\n",
)
HIDDEN = LARGEST.model_copy(update={"visible_tests": ()})


async def judge(problem: Problem, answer: str, timeout: float = 5.0, **options: Any) -> Evaluation:
    evaluator = resolve_evaluator("python", problem, timeout=timeout, **options)
    assert evaluator.check(problem) is None
    return await evaluator.evaluate(problem, Trial(index=1, answer=answer))


async def test_a_right_answer_passes() -> None:
    evaluation = await judge(LARGEST, "Here:\n```python\ndef largest(numbers):\n    return max(numbers)\n```")
    assert evaluation.passed and evaluation.visible_passed and evaluation.failure_class is None


async def test_a_failing_visible_test_is_shown_with_what_it_got() -> None:
    evaluation = await judge(LARGEST, "def largest(numbers):\n    return min(numbers)\n")
    assert evaluation.failure_class == "WrongAnswer" and evaluation.visible_passed is False
    assert evaluation.feedback == "assert largest([3, 9, 2]) == 9\n  got 2, wanted 9"


async def test_an_exception_names_the_line() -> None:
    evaluation = await judge(LARGEST, "def largest(numbers):\n    return numbers[10]\n")
    assert evaluation.failure_class == "IndexError"
    assert "in your line 2: return numbers[10]" in evaluation.feedback


async def test_hidden_tests_decide_and_are_never_quoted() -> None:
    evaluation = await judge(LARGEST, "def largest(numbers):\n    return max([0, *numbers])\n")
    assert not evaluation.passed and evaluation.visible_passed is True
    assert evaluation.feedback == "The tests you know pass, but a hidden test failed: wrong result."
    assert evaluation.failure_class == "WrongAnswer"


async def test_values_of_hidden_tests_do_not_leak_through_errors() -> None:
    code = "def largest(numbers):\n    if numbers[0] < 0:\n        raise ValueError(numbers)\n    return max(numbers)\n"
    evaluation = await judge(LARGEST, code)
    assert evaluation.failure_class == "ValueError" and "7531" not in evaluation.feedback
    assert "in your line 3" in evaluation.feedback
    code = code.replace("raise ValueError(numbers)", "return {}[numbers[0]]")
    evaluation = await judge(LARGEST, code)
    assert evaluation.failure_class == "KeyError" and "7531" not in evaluation.feedback


async def test_without_visible_tests_the_place_of_the_solutions_own_error_is_told_and_no_value() -> None:
    evaluation = await judge(HIDDEN, "def largest(numbers):\n    raise ValueError(f'got {numbers}')\n")
    assert evaluation.visible_passed is None
    assert "ValueError" in evaluation.feedback and "in your line 2: raise ValueError" in evaluation.feedback
    assert "7531" not in evaluation.feedback


async def test_a_made_up_class_of_exception_tells_no_value() -> None:
    code = "def largest(numbers):\n    raise type('E' + '_'.join(map(str, numbers)), (Exception,), {})\n"
    evaluation = await judge(HIDDEN, code)
    assert evaluation.failure_class == "Exception" and "7531" not in evaluation.feedback
    named = await judge(HIDDEN, "class Empty(ValueError): pass\ndef largest(numbers):\n    raise Empty\n")
    assert named.failure_class == "Empty"


_TELLING = {
    "a line made up by compiling": "exec(compile('\\n' * (numbers[0] - 1) + '1/0', '<solution>', 'exec'))",
    "a line of a syntax error": "raise SyntaxError('no', ('<solution>', numbers[0], 1, ''))",
    "an exit code": "import os; os._exit(numbers[0])",
    "the size of a value": "return 'x' * ((17 << 20) + numbers[0])",
    "a message between the processes": """
    import sys
    for module in list(sys.modules.values()):
        if hasattr(module, 'describe_failure'):
            told = {'kind': 'ValueError', 'message': 'v%d' % numbers[0], 'line': 1, 'source': 'v%d' % numbers[0]}
            module.describe_failure = lambda *_: told
    raise ValueError""",
}


@pytest.mark.parametrize("body", _TELLING.values(), ids=_TELLING)
async def test_nothing_that_a_solution_does_tells_what_hidden_tests_hand_it(body: str) -> None:
    hidden = HIDDEN.model_copy(update={"tests": "assert largest([113, 7]) == 113"})
    evaluation = await judge(hidden, f"def largest(numbers):\n    {body}\n" + "# a comment\n" * 200)
    assert not evaluation.passed and "113" not in evaluation.feedback and "17825905" not in evaluation.feedback


_REMEMBERING = {
    "in a list": "seen = []\ndef largest(n):\n    seen.append(n)\n    return seen\n",
    "in a default": "def largest(n, seen=[]):\n    seen.append(n)\n    return str(seen)\n",
    "in an exception": "seen = []\ndef largest(n):\n    seen.append(n)\n    raise ValueError(seen)\n",
}


@pytest.mark.parametrize("code", _REMEMBERING.values(), ids=_REMEMBERING)
async def test_what_a_solution_remembers_of_hidden_tests_is_not_shown_by_visible_ones(code: str) -> None:
    evaluation = await judge(LARGEST, code)
    assert evaluation.visible_passed is False and "7531" not in evaluation.feedback


async def test_visible_tests_use_what_hidden_ones_import_and_define() -> None:
    tests = "import math\ndef near(a, b): return math.isclose(a, b)\nassert near(largest([7531]), 7531)"
    visible = ("assert near(largest([1, 2]), 2) and math.isclose(largest([3]), 3)",)
    problem = LARGEST.model_copy(update={"tests": tests, "visible_tests": visible})
    evaluation = await judge(problem, "def largest(numbers):\n    return max(numbers)\n")
    assert evaluation.passed and evaluation.visible_passed
    needy = problem.model_copy(update={"visible_tests": ("assert largest([1]) == biggest",)})
    needy = needy.model_copy(update={"tests": "biggest = 1\nassert largest([1]) == biggest", "prompt": "Write it."})
    evaluation = await judge(needy, "def largest(numbers):\n    return max(numbers)\n")
    assert evaluation.passed and evaluation.visible_passed


async def test_only_visible_tests_decide_when_there_are_no_others() -> None:
    problem = LARGEST.model_copy(update={"tests": None})
    assert (await judge(problem, "def largest(numbers):\n    return max(numbers)\n")).passed
    evaluation = await judge(problem, "def largest(numbers):\n    return 9\n")
    assert not evaluation.passed and evaluation.score == 0.5


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        ("def largest(numbers:\n    pass", "SyntaxError", "line 1"),
        ("I cannot do that.", "SyntaxError", "cannot be run"),
        ("def biggest(n): return 1", "NameError", "'largest'"),
        ("import no_such_module\ndef largest(n): return 1", "ModuleNotFoundError", "no_such_module"),
        ("raise SystemExit\ndef largest(n): return 1", "SystemExit", "cannot be run"),
    ],
)
async def test_code_that_cannot_be_loaded(code: str, kind: str, told: str) -> None:
    evaluation = await judge(LARGEST, code)
    assert evaluation.failure_class == kind and told in evaluation.feedback


async def test_an_endless_loop_is_a_timeout_that_names_the_test() -> None:
    code = "def largest(numbers):\n    while len(numbers) > 1: pass\n    return numbers[0]\n"
    evaluation = await judge(LARGEST, code, timeout=0.5)
    assert evaluation.failure_class == "Timeout"
    assert evaluation.feedback.startswith("assert largest([3, 9, 2]) == 9\n  did not come to its end")


async def test_a_loop_in_a_hidden_test_only() -> None:
    code = "def largest(numbers):\n    while numbers[0] < 0: pass\n    return max(numbers)\n"
    evaluation = await judge(LARGEST, code, timeout=0.5)
    assert evaluation.failure_class == "Timeout" and evaluation.visible_passed is True
    assert "a hidden test did not come to its end" in evaluation.feedback and "7531" not in evaluation.feedback


async def test_an_early_exit_is_no_success() -> None:
    evaluation = await judge(HIDDEN, "import os\nos._exit(0)")
    assert not evaluation.passed and evaluation.failure_class == "Exited"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "'tests' is missing"),
        ({"tests": "x = 1\nassert (\n"}, "'tests' is not valid Python, line 2"),
        ({"visible_tests": ("assert 1", "assert f( ==")}, "item 2"),
    ],
)
def test_problems_that_cannot_be_judged(fields: dict[str, Any], named: str) -> None:
    problem = Problem(id="p", prompt="?", **fields)
    reason = resolve_evaluator("python", problem).check(problem)
    assert reason is not None and named in reason


def test_all_starter_problems_can_be_judged() -> None:
    for problem in open_dataset("starter"):
        assert resolve_evaluator(None, problem).check(problem) is None


def test_the_sandbox_says_what_it_does_not_stop() -> None:
    assert "Not stopped:" in describe_sandbox()


async def test_a_time_out_that_hardly_used_the_processor_is_run_again_alone_and_not_kept() -> None:
    code = "import time\ndef largest(numbers):\n    time.sleep(5)\n    return max(numbers)\n"
    evaluation = await judge(LARGEST, code, timeout=0.4)
    assert evaluation.failure_class == "Timeout" and evaluation.uncertain and evaluation.details["retested"] is True
    quick = await judge(LARGEST, "def largest(numbers):\n    return 1 / 0\n")
    assert not quick.uncertain and "retested" not in quick.details


async def test_lines_in_feedback_are_the_answers_own() -> None:
    prompt = 'import math\n\n\ndef area(r: float) -> float:\n    """Area of a circle."""\n'
    problem = Problem(id="p", prompt=prompt, tests="assert area(2) > 12\n", entry_point="area")
    evaluation = await judge(problem, "```python\ndef area(r):\n    return r.missing\n```")
    assert "in your line 2: return r.missing" in evaluation.feedback
    body = await judge(problem, "    x = r * math.pi\n    return x.missing\n")
    assert "in your line 2: return x.missing" in body.feedback


async def test_what_the_sandbox_does_not_allow_is_said() -> None:
    pools = "from multiprocessing import Pool\ndef largest(n):\n    with Pool(2) as p: return max(p.map(abs, n))\n"
    assert "No processes can be started here" in (await judge(HIDDEN, pools)).feedback
    absent = await judge(HIDDEN, "import scipy\ndef largest(n): return max(n)\n")
    assert "Only the standard library can be imported here" in absent.feedback


def test_the_interpreter_and_the_rules_are_part_of_the_key() -> None:
    config = resolve_evaluator("python", LARGEST).config
    assert platform.python_version() in config["interpreter"] and config["rules"] >= 2
