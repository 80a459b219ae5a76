"""Sets of programs that read standard input: their cases become tests, which their own solution passes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reflexion.datasets import Dataset, open_dataset
from reflexion.errors import DatasetError
from reflexion.types import Problem

ADD = "print(sum(map(int, input().split())))"


def opened(path: Path, *records: dict[str, Any], **options: Any) -> Dataset:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return open_dataset(path, **options)


def passes(problem: Problem, program: str) -> bool:
    def run_program(stdin: str) -> str:
        done = subprocess.run([sys.executable, "-c", program], input=stdin, capture_output=True, text=True, check=False)
        return done.stdout

    scope = {"run_program": run_program, "same_output": lambda got, wanted: got.split() == wanted.split()}
    try:
        exec(problem.tests or "", scope)
    except AssertionError:
        return False
    return True


FORMS: dict[str, dict[str, Any]] = {
    "APPS": {
        "question": "Add two numbers.",
        "input_output": json.dumps({"inputs": ["1 2\n", "5 5\n"], "outputs": ["3\n", "10\n"]}),
        "solutions": json.dumps([ADD]),
        "starter_code": "",
    },
    "APPS, lines": {"question": "Add.", "input_output": {"inputs": [["1 2"]], "outputs": [["3"]]}, "solutions": [ADD]},
    "CodeContests": {
        "name": "1_A",
        "description": "Add two numbers.",
        "public_tests": {"input": ["1 2"], "output": ["3"]},
        "private_tests": {"input": ["4 4"], "output": ["8"]},
        "generated_tests": {"input": ["0 0"], "output": ["0"]},
        "solutions": {"language": [2, 3], "solution": ["int main(){}", ADD]},
    },
    "LiveCodeBench": {
        "question_content": "Add two numbers.",
        "public_test_cases": json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}]),
        "private_test_cases": json.dumps([{"input": "7 2", "output": "9", "testtype": "stdin"}]),
        "starter_code": "",
    },
    "programs": {"prompt": "Add.", "tests": [{"input": "1 2", "output": "3"}], "solution": ADD},
    "programs, test_cases": {"prompt": "Add.", "test_cases": [{"input": "1 2", "expected_output": "3"}]},
    "programs, columns": {"prompt": "Add.", "tests": {"input": ["1 2"], "output": ["3"]}},
    "programs, text": {"question": "Add.", "tests": "[{'input': '1 2', 'output': '3'}]"},
    "programs, numbers": {"prompt": "Add.", "tests": [{"stdin": "1 2", "stdout": 3}]},
}


@pytest.mark.parametrize("form", FORMS)
def test_cases_become_tests(tmp_path: Path, form: str) -> None:
    dataset = opened(tmp_path / "d.jsonl", FORMS[form])
    problem = dataset[0]
    assert (dataset.format, problem.entry_point) == (form.partition(",")[0], "__main__")
    assert "reads from standard input" in problem.prompt
    assert problem.tests is not None
    assert all(line.startswith("assert same_output(run_program('") for line in problem.tests.splitlines())
    assert passes(problem, str(problem.metadata.get("own_solution", ADD)))
    assert not passes(problem, "print(7)")


@pytest.mark.parametrize("form", ["CodeContests", "LiveCodeBench"])
def test_public_cases_may_be_seen_and_all_decide(tmp_path: Path, form: str) -> None:
    problem = opened(tmp_path / "d.jsonl", FORMS[form])[0]
    assert problem.visible_tests == ("assert same_output(run_program('1 2'), '3')",)
    assert problem.tests is not None and problem.tests.splitlines()[0] == problem.visible_tests[0]
    assert not passes(problem, "print(3)")


FUNCTIONS: list[dict[str, Any]] = [
    {
        "question": "Add.",
        "input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2], [0, 0]], "outputs": [[3], [0]]}),
        "starter_code": "class Solution:\n    def add(self, a, b):\n        ",
    },
    {
        "question": "Add.",
        "input_output": {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]},
        "starter_code": "def add(a, b):\n    ",
    },
    {
        "question_content": "Add.",
        "public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
        "private_test_cases": "[]",
        "starter_code": "class Solution:\n    def add(self, a: int, b: int) -> int:\n        ",
        "metadata": '{"func_name": "add"}',
    },
]


@pytest.mark.parametrize("record", FUNCTIONS, ids=["method", "function", "functional"])
@pytest.mark.parametrize(("body", "right"), [("a + b", True), ("a - b", False), ("str(a + b)", False)])
def test_a_function_s_name_makes_it_a_function(tmp_path: Path, record: dict[str, Any], body: str, right: bool) -> None:
    problem = opened(tmp_path / "d.jsonl", record)[0]
    method = "class Solution" in record["starter_code"]
    assert problem.entry_point == ("Solution().add" if method else "add")
    assert record["starter_code"].strip() in problem.prompt
    code = (
        f"class Solution:\n    def add(self, a, b):\n        return {body}"
        if method
        else f"def add(a, b): return {body}"
    )
    scope: dict[str, Any] = {}
    exec(code, scope)
    if right:
        exec(problem.tests or "", scope)
    else:
        with pytest.raises(AssertionError):
            exec(problem.tests or "", scope)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (FORMS["APPS"] | {"input_output": '{"inputs": ["1"], "outputs": []}'}, "'inputs' and 'outputs', of one length"),
        (FORMS["APPS"] | {"input_output": ""}, "field 'input_output' is not an object"),
        (FORMS["APPS"] | {"input_output": {"inputs": [], "outputs": []}}, "no case of input and output is left"),
        (FORMS["CodeContests"] | {"private_tests": {"input": ["1"]}}, "field 'private_tests' needs the lists"),
        (
            FORMS["LiveCodeBench"] | {"private_test_cases": "eJxrYJmaygABBYbmxgA="},
            "packed as a pickle, which is not read",
        ),
        (FUNCTIONS[0] | {"input_output": {"fn_name": "add", "inputs": [1], "outputs": [2]}}, "a list of arguments"),
    ],
)
def test_what_makes_no_cases_is_refused(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        opened(tmp_path / "d.jsonl", record)
    assert message in str(caught.value) and "d.jsonl:1: " in str(caught.value)
