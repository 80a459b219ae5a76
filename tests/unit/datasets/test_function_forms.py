"""Published sets of functions and classes: the record's own solution passes its tests, and a wrong one does not."""

from __future__ import annotations

import csv
import json
import unittest
from pathlib import Path
from typing import Any

import pytest

from reflexion.datasets import Dataset, open_dataset
from reflexion.errors import DatasetError
from reflexion.types import Problem


def opened(path: Path, *records: dict[str, Any], **options: Any) -> Dataset:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return open_dataset(path, **options)


def passes(problem: Problem, solution: str | None = None) -> bool:
    """Whether a solution, the record's own if none is given, passes the hidden tests."""
    scope: dict[str, Any] = {}
    exec(str(problem.metadata["own_solution"]) if solution is None else solution, scope)
    try:
        exec(problem.tests or "", scope)
    except AssertionError:
        return False
    cases = [v for v in scope.values() if isinstance(v, type) and issubclass(v, unittest.TestCase)]
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in cases)
    result = unittest.TestResult()
    suite.run(result)
    return result.wasSuccessful()


def human_eval(number: int) -> dict[str, Any]:
    return {
        "task_id": f"Shift/{number}",
        "prompt": f'from typing import List\n\n\ndef shift{number}(xs: List[int]):\n    """Add {number}.\n\n'
        f'    >>> shift{number}([1])\n    [{number + 1}]\n    """\n',
        "entry_point": f"shift{number}",
        "canonical_solution": f"    return [x + {number} for x in xs]\n",
        "test": f"def check(candidate):\n    assert candidate([0, 5]) == [{number}, {number + 5}]\n",
    }


@pytest.mark.parametrize("number", [1, 7, 40])
@pytest.mark.parametrize("called", [False, True])
def test_human_eval(tmp_path: Path, number: int, called: bool) -> None:
    record = human_eval(number)
    if called:
        record["test"] += f"\ncheck(shift{number})\n"
    dataset = opened(tmp_path / "d.jsonl", record)
    problem = dataset[0]
    assert (dataset.format, problem.entry_point) == ("HumanEval", f"shift{number}")
    assert problem.tests is not None and problem.tests.count(f"check(shift{number})") == 1
    assert problem.visible_tests == (f"assert shift{number}([1]) == [{number + 1}]",)
    assert list(problem.metadata) == ["own_solution"]
    assert passes(problem)
    assert not passes(problem, f"def shift{number}(xs):\n    return [x - 1 for x in xs]")


@pytest.mark.parametrize("inputs", [[[[1, 2]]], [[[]], [[3, -9]]], "[[[10]]]"])
def test_inputs_beside_the_tests_are_held_against_the_own_solution(tmp_path: Path, inputs: Any) -> None:
    problem = opened(tmp_path / "d.jsonl", {**human_eval(2), "base_input": [[[0]]], "plus_input": inputs, "atol": 0})[0]
    assert passes(problem)
    assert not passes(problem, "def shift2(xs):\n    return [x + 2 for x in xs] if xs in ([0, 5], [0]) else None")
    assert "plus_input" not in problem.metadata


def eval_plus(name: str, body: str, inputs: list[Any], atol: float = 0) -> dict[str, Any]:
    return {
        "task_id": f"Plus/{name}",
        "prompt": f'"""\nWrite a function to {name}.\nassert {name}(2) == {name}(2)\n"""\n',
        "entry_point": name,
        "canonical_solution": f"def {name}(x):\n    return {body}\n",
        "base_input": inputs[:1],
        "plus_input": inputs[1:],
        "contract": "",
        "assertion": "",
        "atol": atol,
    }


@pytest.mark.parametrize(
    ("record", "right", "wrong"),
    [
        (eval_plus("double", "2 * x", [[2], [0], [10**30]]), "x + x", "x * x"),
        (eval_plus("half", "x / 2", [[1], [float("inf")], [3]], 1e-3), "x / 2 + 1e-5", "x / 2 + 0.1"),
        (eval_plus("wrap", "[x, {'k': x / 3}]", [[1], [5], [2]]), "[x, {'k': x / 3}]", "(x, {'k': x / 3})"),
        (eval_plus("invert", "1 / x", [[0], [4], [0.1]]), "1 / x if x else 9", "2 / x if x else 0"),
    ],
    ids=["integers", "tolerance", "containers", "an input the reference refuses"],
)
def test_inputs_without_tests_are_held_against_the_own_solution(
    tmp_path: Path, record: dict[str, Any], right: str, wrong: str
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(record) + "\n")  # writes Infinity as programs do
    dataset = open_dataset(path)
    problem, name = dataset[0], record["entry_point"]
    assert dataset.format == "EvalPlus" and "canonical_solution" in dataset.note
    assert problem.visible_tests == (f"assert {name}(2) == {name}(2)",)
    assert passes(problem)
    assert passes(problem, f"def {name}(x):\n    return {right}")
    assert not passes(problem, f"def {name}(x):\n    return {wrong}")


def mbpp(number: int) -> dict[str, Any]:
    return {
        "task_id": number,
        "prompt": f"Write a function to multiply by {number}.",
        "code": f"def times{number}(x):\n    return {number} * x",
        "test_imports": ["import math"],
        "test_list": [f"assert times{number}(1) == {number}", f"assert math.floor(times{number}(0)) == 0"],
    }


@pytest.mark.parametrize("number", [3, 11, 25])
def test_the_larger_test_of_mbpp_plus_decides(tmp_path: Path, number: int) -> None:
    script = f"inputs = [[1], [5]]\nresults = [{number}, {5 * number}]\nfor i, e in zip(inputs, results):\n"
    record = {**mbpp(number), "source_file": "x", "test": f"{script}    assert times{number}(*i) == e\n"}
    problem = opened(tmp_path / "d.jsonl", record)[0]
    assert problem.visible_tests == (f"assert times{number}(1) == {number}",)
    assert passes(problem)
    few = f"def times{number}(x):\n    return {number} if x == 1 else 0"
    assert not passes(problem, few)
    assert passes(opened(tmp_path / "e.jsonl", mbpp(number))[0], few), "the few tests let it pass"


@pytest.mark.parametrize("write", [str, json.dumps, lambda tests: "[" + "\n ".join(map(repr, tests)) + "]"])
def test_lists_in_text_cells_are_lists(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "d.csv"
    record = {**mbpp(4), "challenge_test_list": [], "test_setup_code": ""}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, record.keys())
        writer.writeheader()
        writer.writerow({k: write(v) if isinstance(v, list) else v for k, v in record.items()})
    for options in ({}, {"mapping": {"tests": "test_list"}}):
        problem = open_dataset(path, **options)[0]
        assert problem.tests == "import math\n" + "\n".join(record["test_list"]) + ("\n" if not options else "")
        assert passes(problem) and not passes(problem, "def times4(x):\n    return x")


LEET = {
    "task_id": "pair-sum",
    "question_id": 9,
    "problem_description": "Give the places of two numbers that add up to target.",
    "starter_code": "class Solution:\n    def pairSum(self, nums: List[int], target: int) -> List[int]:\n        ",
    "prompt": "from typing import *\n\nclass ListNode:\n    pass\n",
    "completion": "class Solution:\n    def pairSum(self, nums: List[int], target: int) -> List[int]:\n"
    "        return [[i, j] for i, a in enumerate(nums) for j, b in enumerate(nums) if i < j and a + b == target][0]\n",
    "entry_point": "Solution().pairSum",
    "test": "def check(candidate):\n    assert candidate(nums=[3, 3], target=6) == [0, 1]\n",
    "input_output": [{"input": "nums = [3,3]", "output": "[0, 1]"}],
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"query": "Solve pair sum.\n\n```python\n" + LEET["starter_code"].strip() + "\n```"},  # type: ignore[union-attr]
        {"entry_point": "pairSum"},
        {"query": "Complete:\n```python\n" + LEET["starter_code"] + "\n```", "starter_code": None},  # type: ignore[operator]
    ],
)
def test_leet_code(tmp_path: Path, change: dict[str, Any]) -> None:
    dataset = opened(tmp_path / "d.jsonl", {**LEET, **change})
    problem = dataset[0]
    assert (dataset.format, problem.entry_point) == ("LeetCode", "Solution().pairSum")
    assert problem.prompt.count("def pairSum") == 1
    assert "```python\nfrom typing import *\n\nclass ListNode:\n    pass\n```" in problem.prompt
    assert passes(problem) and "input_output" not in problem.metadata
    wrong = "class Solution:\n    def pairSum(self, nums, target):\n        return []"
    assert not passes(problem, wrong)


@pytest.mark.parametrize("name", ["twice", "Solution().twice"])
def test_a_method_to_complete_is_reached_by_way_of_its_class(tmp_path: Path, name: str) -> None:
    record = {
        "prompt": 'class Solution:\n    def twice(self, x: int) -> int:\n        """Double it."""\n',
        "entry_point": name,
        "canonical_solution": "        return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(4) == 8\n",
    }
    problem = opened(tmp_path / "d.jsonl", record)[0]
    assert problem.entry_point == "Solution().twice"
    assert problem.prompt.startswith("Complete this Python class.")
    assert passes(problem)


def class_eval(name: str) -> dict[str, Any]:
    return {
        "task_id": f"Class_{name}",
        "skeleton": f"class {name}:\n    def __init__(self):\n        self.items = []\n\n    def put(self, x):\n"
        "        pass\n",
        "solution_code": f"class {name}:\n    def __init__(self):\n        self.items = []\n\n    def put(self, x):\n"
        "        self.items.append(math.floor(x))\n        return self\n",
        "import_statement": ["import math"],
        "class_name": name,
        "test": f"import unittest\n\nclass {name}Test(unittest.TestCase):\n    def test_put(self):\n"
        f"        self.assertEqual({name}().put(2.5).items, [2])\n",
        "methods_info": [],
    }


@pytest.mark.parametrize("name", ["Basket", "Box", "Trunk"])
def test_class_eval(tmp_path: Path, name: str) -> None:
    dataset = opened(tmp_path / "d.jsonl", class_eval(name))
    problem = dataset[0]
    assert (dataset.format, problem.entry_point) == ("ClassEval", name)
    assert f"class {name}" in problem.prompt and "import math" in problem.prompt
    assert passes(problem)
    assert not passes(problem, str(class_eval(name)["skeleton"]))


@pytest.mark.parametrize(
    "head", ["import math\n", "import math\nimport re\n", "from math import floor as f\nimport math\n"]
)
def test_big_code_bench(tmp_path: Path, head: str) -> None:
    signature = f"{head}def task_func(x):\n"
    record = {
        "task_id": "Big/1",
        "complete_prompt": f'{signature}    """Round down."""\n',
        "instruct_prompt": f"Round down. You should write self-contained code starting with:\n```\n{signature}```",
        "canonical_solution": "    return math.floor(x)\n",
        "code_prompt": signature,
        "test": "import unittest\n\nclass TestCases(unittest.TestCase):\n    def test_case_1(self):\n"
        "        self.assertEqual(task_func(1.5), 1)\n",
        "entry_point": "task_func",
        "libs": "['math']",
    }
    dataset = opened(tmp_path / "d.jsonl", record)
    problem = dataset[0]
    assert (dataset.format, problem.prompt) == ("BigCodeBench", record["instruct_prompt"])
    assert passes(problem)
    assert not passes(problem, "def task_func(x):\n    return x")


@pytest.mark.parametrize(
    "name", ["canonical_solution", "code", "solution", "solution_code", "completion", "reference_solution"]
)
def test_the_own_solution_of_a_plain_record_is_kept_once(tmp_path: Path, name: str) -> None:
    plain = {"prompt": "Write one(x).", "tests": "assert one(3) == 1", name: "def one(x):\n    return 1"}
    assert opened(tmp_path / "a.jsonl", plain)[0].metadata == {"own_solution": "def one(x):\n    return 1"}
    without = {"prompt": "Say one.", "answer": "one", name: "because"}
    assert opened(tmp_path / "b.jsonl", without)[0].metadata == {name: "because"}


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "d.parquet"
    pq.write_table(
        pa.Table.from_pylist([mbpp(n) | {"test": f"assert times{n}(2) == {2 * n}"} for n in range(2, 60)]), path
    )
    dataset = open_dataset(path)
    assert dataset.format == "MBPP" and len(dataset) == 58
    assert all(passes(problem) for problem in dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_list": "assert f(1)"}, ":2: field 'test_list' must be a list of asserts, not 'assert f(1)'"),
        ({"test_list": "['assert f(1)', 3]"}, ":2: field 'test_list' must be a list of asserts"),
        ({"plus_input": [1]}, ":2: field 'plus_input' must be a list of lists of arguments, not [1]"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        opened(tmp_path / "d.jsonl", mbpp(1), mbpp(2) | change)
    assert message in str(caught.value)
