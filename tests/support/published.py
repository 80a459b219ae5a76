"""Records in the forms of published sets, with odd values, each with a right and a wrong reply."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["FORMS", "Item", "items"]

NAMES = ("Zoë", "O'Neil", "Ångström", "José", "Ng", "Łukasz", 'Al "Ace" Bo', "D'Arcy")


class Item(NamedTuple):
    """A record as its set has it, a reply that solves it, and one that does not."""

    record: dict[str, Any]
    right: str
    wrong: str


def _number(chance: random.Random) -> int:
    return chance.choice((1, -1)) * chance.choice((0, 1, 7, 12, 100, 999, 1_000, 12_345, 1_000_000, 10**12 + 3))


def _worded(number: int, chance: random.Random) -> str:
    text = chance.choice((f"{number}", f"{number:,}", f"**{number}**", f"\\boxed{{{number}}}"))
    return chance.choice(("So 3 + 4 steps lead there.\n\nThe answer is {}.", "Answer: {}", "{}")).format(text)


def gsm8k(i: int, chance: random.Random) -> Item:
    value = _number(chance)
    record = {"question": f"{chance.choice(NAMES)} has {i}. How many?", "answer": f"<<1+1=2>>2\n#### {value:,}"}
    return Item(record, _worded(value, chance), _worded(-value or 1, chance))


def svamp(i: int, chance: random.Random) -> Item:
    value = _number(chance)
    record = {
        "ID": f"chal-{i}",
        "Body": f"{chance.choice(NAMES)} had {i} nuts",
        "Question": "How many are left?",
        "Equation": "( 3.0 - 1.0 )",
        "Answer": chance.choice((float(value), value, str(float(value)))),
        "Type": "Subtraction",
    }
    return Item(record, _worded(value, chance), _worded(value + 1, chance))


def multi_arith(i: int, chance: random.Random) -> Item:
    value = _number(chance)
    record = {"question": f"{i} rows of {value}?", "final_ans": str(value)}
    return Item(record, _worded(value, chance), _worded(value * 10 + 1, chance))


def math(i: int, chance: random.Random) -> Item:
    value, odd = _number(chance), 2 * i + 1
    right, wrong = chance.choice(
        (
            (f"{value}", f"{value + 2}"),
            (f"\\frac{{{odd}}}{{2}}", f"\\frac{{{odd + 2}}}{{2}}"),
            (f"{i}\\sqrt{{2}}", f"{i + 1}\\sqrt{{2}}"),
            (f"x^{{{i}}}+1", f"x^{{{i}}}-1"),
        )
    )
    solution = f"First $\\boxed{{}}$ is drawn. Therefore the value is $\\boxed{{{right}}}$."
    record = {"problem": f"Find item {i}.", "solution": solution, "level": "Level 3", "type": "Algebra"}
    return Item(record, f"We get $\\boxed{{{right}}}$.", f"We get $\\boxed{{{wrong}}}$.")


def hotpot(i: int, chance: random.Random) -> Item:
    answer = f"{chance.choice(NAMES)} the {i}."
    context = [["Title", [f"It was {answer}", " So it is said."]], ["Other", ["Nothing."]]]
    record = {"_id": f"h{i}", "question": "Who was it?", "answer": answer, "context": context, "level": "hard"}
    return Item(record, f"Answer: {answer}", f"Answer: {chance.choice(NAMES)} the {i + 1}.")


def mmlu(i: int, chance: random.Random) -> Item:
    choices = [f"{i}", f"-{i + 1}", chance.choice(NAMES), f"{i}.5 kg"]
    chance.shuffle(choices)
    place = chance.randrange(4)
    record = {"question": f"Which is number {i}?", "choices": choices, "answer": place, "subject": "anatomy"}
    say = chance.choice(("The answer is ({}).", "{}", "Answer: {}", "**{}**"))
    return Item(record, say.format("ABCD"[place]), say.format("ABCD"[(place + 1) % 4]))


def _values(chance: random.Random) -> list[Any]:
    pool = [0, -3, 2.5, "", "a'b", 'q"q', "ü\n", None, True, [1, [2]], {"k": 1}, 10**20, -0.0]
    return chance.sample(pool, 4)


def _body(i: int, call: str) -> str:
    return f"return [{i}, {call}]"


def _code(name: str, body: str, chance: random.Random) -> str:
    code = f"def {name}(x):\n    {body}\n"
    return chance.choice((f"```python\n{code}```", f"Here it is:\n\n```\n{code}```\nDone.", code))


def _asserts(name: str, i: int, chance: random.Random) -> list[str]:
    return [f"assert {name}({v!r}) == {[i, v]!r}" for v in _values(chance)]


def mbpp(i: int, chance: random.Random) -> Item:
    name = f"pair_{i}"
    record = {
        "task_id": i,
        "text": f"Write a function to pair a value with {i}.",
        "code": f"def {name}(x):\n    {_body(i, 'x')}",
        "test_list": _asserts(name, i, chance),
        "test_setup_code": chance.choice(("", "import math")),
        "challenge_test_list": [f"assert {name}(1) == 'never'"],
    }
    return Item(record, _code(name, _body(i, "x"), chance), _code(name, _body(i, "[x]"), chance))


def mbpp_plus(i: int, chance: random.Random) -> Item:
    plain = mbpp(i, chance).record
    name, values = f"pair_{i}", _values(chance)
    script = (
        f"inf = float('inf')\ninputs = {[[v] for v in values]!r}\nresults = {[[i, v] for v in values]!r}\n"
        f"for n, (args, wanted) in enumerate(zip(inputs, results)):\n    assert {name}(*args) == wanted\n"
    )
    record = {
        "task_id": i,
        "prompt": plain["text"],
        "code": plain["code"],
        "test_imports": [],
        "test_list": plain["test_list"][:1],
        "test": script,
    }
    few = f"return {[i]!r} + [x] if x == {values[0]!r} else None"
    return Item(record, _code(name, _body(i, "x"), chance), _code(name, few, chance))


def human_eval_plus(i: int, chance: random.Random) -> Item:
    name, values = f"pair_{i}", _values(chance)
    record = {
        "task_id": f"HumanEval/{i}",
        "prompt": f'def {name}(x):\n    """ Pair a value with {i}.\n    >>> {name}(1)\n    [{i}, 1]\n    """\n',
        "entry_point": name,
        "canonical_solution": f"    {_body(i, 'x')}\n",
        "base_input": [[values[0]]],
        "plus_input": [[v] for v in [*values[1:], chance.choice((float("inf"), 1e308, -7))]],
        "contract": "",
        "atol": 0,
    }
    bare = chance.random() < 0.3
    right = f"    {_body(i, 'x')}\n" if bare else _code(name, _body(i, "x"), chance)
    return Item(record, right, _code(name, _body(i + 1, "x"), chance))


def leet_code(i: int, chance: random.Random) -> Item:
    name = f"pairUp{i}"
    head = f"class Solution:\n    def {name}(self, x: Optional[int]) -> List[Any]:\n        "
    test = "\n".join(f"    assert candidate(x={v!r}) == {[i, v]!r}" for v in _values(chance))
    record = {
        "task_id": f"pair-up-{i}",
        "question_id": i,
        "problem_description": f"Pair x with {i}.",
        "starter_code": head,
        "prompt": "import math\nfrom typing import *\n\nclass ListNode:\n    val = 0\n",
        "completion": f"{head}{_body(i, 'x')}\n",
        "entry_point": f"Solution().{name}",
        "test": f"def check(candidate):\n{test}\n",
    }
    return Item(record, f"```python\n{head}{_body(i, 'x')}\n```", f"```python\n{head}{_body(i, 'str(x)')}\n```")


def class_eval(i: int, chance: random.Random) -> Item:
    name = f"Till{i}"
    head = f"class {name}:\n    def __init__(self):\n        self.total = {i}\n\n    def add(self, x):\n"
    right, wrong = f"{head}        self.total += x\n        return self.total\n", f"{head}        return x\n"
    record = {
        "task_id": f"ClassEval_{i}",
        "skeleton": f'{head}        """Add to the total."""\n',
        "test": f"import unittest\n\n\nclass {name}TestAdd(unittest.TestCase):\n    def test_add(self):\n"
        f"        till = {name}()\n        self.assertEqual(till.add(2), {i + 2})\n"
        f"        self.assertAlmostEqual(till.add(0.5), {i + 2.5})\n        self.assertEqual(till.total, {i + 2.5})\n",
        "solution_code": right,
        "import_statement": ["import math"],
        "class_name": name,
        "test_classes": [f"{name}TestAdd"],
    }
    return Item(record, f"```python\n{right}```", f"```python\n{wrong}```")


def big_code_bench(i: int, chance: random.Random) -> Item:
    values = _values(chance)
    head = "import json\n\ndef task_func(x):\n"
    body, bad = f"    return json.dumps([{i}, x])\n", f"    return json.dumps([{i}, str(x)])\n"
    cases = "\n".join(f"        self.assertEqual(json.loads(task_func({v!r})), [{i}, {v!r}])" for v in values)
    record = {
        "task_id": f"BigCodeBench/{i}",
        "complete_prompt": f'{head}    """Write {i} and x as JSON."""\n',
        "instruct_prompt": f"Write {i} and x as JSON. You should write code starting with:\n```\n{head}```",
        "canonical_solution": body,
        "code_prompt": head,
        "test": f"import unittest\nimport json\n\nclass TestCases(unittest.TestCase):\n    def test(self):\n{cases}\n",
        "entry_point": "task_func",
        "libs": "['json']",
    }
    return Item(record, f"```python\n{head}{body}```", f"```python\n{head}{bad}```")


def apps(i: int, chance: random.Random) -> Item:
    pairs = [(chance.randrange(-50, 50), chance.randrange(10**6)) for _ in range(3)]
    cases = {"inputs": [f"{a} {b}\n" for a, b in pairs], "outputs": [f"{a + b + i}\n" for a, b in pairs]}
    right = f"print(sum(map(int, input().split())) + {i})"
    record = {
        "problem_id": i,
        "question": f"Add two numbers and {i}.",
        "solutions": json.dumps([right]),
        "input_output": json.dumps(cases),
        "starter_code": "",
    }
    return Item(record, f"```python\n{right}\n```", f"```python\n{right}\nprint()\nprint(1)\n```")


FORMS: dict[str, Callable[[int, random.Random], Item]] = {
    "GSM8K": gsm8k,
    "SVAMP": svamp,
    "MultiArith": multi_arith,
    "MATH": math,
    "HotpotQA": hotpot,
    "multiple choice": mmlu,
    "MBPP": mbpp,
    "MBPP+": mbpp_plus,
    "EvalPlus": human_eval_plus,
    "LeetCode": leet_code,
    "ClassEval": class_eval,
    "BigCodeBench": big_code_bench,
    "APPS": apps,
}
"""How a record of each form is made from a number and a source of chance."""


def items(form: str, count: int) -> Iterator[Item]:
    """Records of a form, the same ones each time."""
    chance = random.Random(form)
    return (FORMS[form](i, chance) for i in range(count))
