"""Code out of replies in all the forms in which models give it.

The replies are ours, so their code may run in the test's own process.
"""

from __future__ import annotations

import html
import json
from typing import Any

import pytest

from reflexion.evaluators.code import extract_code

PROMPT = "Write clamp(x, low, high)."
RIGHT = "def clamp(x, low, high):\n    if x < low:\n        return low\n    return high if x > high else x\n"
WRONG = "def clamp(x, low, high):\n    return x\n"
SHORT = "def clamp(x, low, high): return max(low, min(x, high))"


def fenced(code: str, info: str = "python") -> str:
    return f"```{info}\n{code}```\n"


def is_right(reply: str, prompt: str = PROMPT) -> bool:
    space: dict[str, Any] = {"__name__": "solution"}
    try:
        exec(compile(extract_code(reply, prompt, "clamp"), "<solution>", "exec", dont_inherit=True), space)
        return [space["clamp"](x, 2, 4) for x in (1, 3, 9)] == [2, 3, 4]
    except Exception:
        return False


FORMS: dict[str, list[str]] = {
    "blocks": [fenced(RIGHT), f"Sure:\n\n{fenced(RIGHT, 'py')}\nThat is it.", fenced(RIGHT, ""), f"```python\n{RIGHT}"],
    "one line": [f"```python {SHORT} ```", f"Take `{SHORT}`.", f"```{SHORT}```", f"``{SHORT}``"],
    "bare": [
        RIGHT,
        f"Here's the function, it's short:\n\n{RIGHT}\nIt works since it's simple (is it not?).",
        f"# Solution\n{RIGHT}\n## Why\n- `x` is compared.\n- That's all.\n",
        f"Solution:\n{RIGHT}\nOutput: 3\nDone\n",
        f"python\n{RIGHT}",
        "Code:\n\n" + "".join(f"    {line}\n" for line in RIGHT.splitlines()) + "\nGood luck.\n",
    ],
    "bare, with marks of prompts": [
        f"{RIGHT}```\nUse:\n```python\nclamp(1, 2, 3)\n```\n",
        f"{RIGHT}```\nThat's how.\n",
        f"{RIGHT}[DONE]\n",
        f"[BEGIN]\n{RIGHT}[DONE]\n\nYou are an expert",
        f"Yes, sure\n\n{RIGHT}\nComplexity: O(n)\n",
    ],
    "examples of use": [
        fenced(RIGHT) + "Use:\n" + fenced("print(clamp(1, 2, 4))\n"),
        fenced(RIGHT) + "gives\n" + fenced("2\n", ""),
        fenced(RIGHT) + fenced("def test_clamp():\n    assert clamp(0, 1, 2) == 5\ntest_clamp()\n"),
        fenced(RIGHT) + fenced("from solution import clamp\nclamp(1, 2, 3)\n"),
        f"{RIGHT}\nprints\n```\n3\n```\n",
        fenced(RIGHT + "\nif __name__ == '__main__':\n    print(clamp(1, 2, 4))\n"),
    ],
    "other languages": [
        fenced("int clamp(int x);\n", "c") + fenced(RIGHT),
        fenced(RIGHT) + fenced("python clamp.py\n", "bash"),
        fenced(RIGHT, "javascript"),
        fenced(RIGHT, "text"),
    ],
    "drafts": [
        fenced(WRONG) + "No:\n" + fenced(RIGHT),
        f"{WRONG}\nThat forgets the limits.\n\n{RIGHT}\nNow it's right.",
        f"<think>\n{fenced(WRONG)}</think>\n{RIGHT}",
        fenced(WRONG, "")
        + fenced("class Solution:\n" + "".join(f"    {li}\n" for li in RIGHT.splitlines())).replace(
            "clamp(x", "clamp(self, x"
        ),
    ],
    "parts": [
        fenced("import math\n") + fenced("def clamp(x, a, b):\n    return int(max(a, math.floor(min(x, b))))\n"),
        fenced("def least(a, b):\n    return a if a < b else b\nprint(least(1, 2) / 0)\n")
        + fenced("def clamp(x, a, b):\n    return max(a, least(x, b))\n"),
        fenced("def clamp(x, a, b):\n    return most(a, least(x, b))\n")
        + fenced("def least(a, b):\n    return -most(-a, -b)\n")
        + fenced("def most(a, b):\n    return a if a > b else b\n"),
        fenced("import math\n" + WRONG) + fenced("def clamp(x, a, b):\n    return int(math.fabs(max(a, min(x, b))))\n"),
        fenced("class Limit:\n    def of(self, x, b):\n        return min(x, b)\n")
        + fenced("class Both(Limit):\n    pass\ndef clamp(x, a, b):\n    return max(a, Both().of(x, b))\n"),
    ],
    "definitions": [
        "clamp = lambda x, low, high: max(low, min(x, high))",
        fenced("from typing import Callable\nclamp: Callable[..., int] = lambda x, a, b: max(a, min(x, b))\n"),
        fenced(RIGHT.replace("clamp", "limit") + "\nclamp = limit\n") + fenced("clamp(1, 2, 3)\n"),
    ],
    "methods": [
        "class Solution:\n    def clamp(self, x, a, b):\n        return max(a, min(x, b))\n",
        fenced("class Solution:\n    @staticmethod\n    def clamp(x, a, b):\n        return max(a, min(x, b))\n"),
        fenced("class Tools:\n    @classmethod\n    def clamp(cls, x, a, b):\n        return max(a, min(x, b))\n"),
        fenced(
            "class A:\n    def __init__(self, n=1):\n        self.seen = []\n    def clamp(self, x, a, b):\n"
            "        self.seen.append(x)\n        assert len(self.seen) == 1\n        return max(a, min(x, b))\n"
        ),
    ],
    "end tokens": [
        f"{RIGHT.rstrip()}<|endoftext|>",
        f"{fenced(RIGHT).rstrip()}<|im_end|>\n<|im_start|>user\nWrite another.\n{fenced(WRONG)}",
        f"{RIGHT}</s>",
        f"```python\n{RIGHT.rstrip()}<|eot_id|>\n```",
        f"{RIGHT}<end_of_turn>\n",
    ],
    "marks that nobody sees": [
        "\ufeff" + RIGHT,
        fenced("\ufeff" + RIGHT),
        RIGHT.replace("    ", "\u00a0" * 4),
        fenced(RIGHT.replace("low:", "low\u200b:")),
        fenced(RIGHT).replace("\n", "\r\n"),
        RIGHT.replace("\n", "\r"),
        RIGHT + "\0",
    ],
    "disguises": [
        html.escape(RIGHT),
        fenced(html.escape(RIGHT)),
        f'<pre><code class="language-python">{RIGHT}</code></pre>',
        f"[PYTHON]\n{RIGHT}[/PYTHON]",
        fenced(RIGHT.replace("if x <", "\u201cdoc\u201d\n    if x <")),
        fenced(RIGHT.replace("(", "\uff08").replace(",", "\uff0c")),
        "".join(f"{n:2} | {line}\n" for n, line in enumerate(RIGHT.splitlines(), 1)),
        fenced("!pip install nothing\n" + RIGHT),
    ],
    "sessions": [
        ">>> " + RIGHT.replace("\n", "\n... ").rstrip() + "\n>>> clamp(3, 2, 1)\n1\n",
        fenced(">>> " + RIGHT.replace("\n", "\n... ").rstrip() + "\n>>> 1 / 0\nTraceback\n", "pycon").replace(
            ">>> 1 / 0", ">>> 3"
        ),
        "In [1]: " + RIGHT.replace("\n", "\n   ...: ").rstrip() + "\n",
    ],
    "JSON": [
        json.dumps({"thought": "easy enough", "code": RIGHT}),
        fenced(json.dumps({"answer": {"text": "as asked", "python": RIGHT}}) + "\n", "json"),
        json.dumps([{"solution": fenced(RIGHT)}]),
        '{"code": "' + RIGHT + '"}',
        "As you wish:\n" + json.dumps({"completion": RIGHT}),
        json.dumps(RIGHT),
    ],
    "cut by a limit": [
        f"```python\n{RIGHT}\ndef test_cla",
        f"{RIGHT}\nprint(clamp(1,",
        f'```python\n{RIGHT}\nprint("the res',
        f"```python\n{RIGHT}\nfor x in range(3):\n    print(clamp(x, 1",
    ],
}


@pytest.mark.parametrize(
    ("form", "number"), [(form, n) for form, replies in FORMS.items() for n in range(len(replies))]
)
def test_right_code_is_found_in_any_form(form: str, number: int) -> None:
    reply = FORMS[form][number]
    assert is_right(reply), extract_code(reply, PROMPT, "clamp")


@pytest.mark.parametrize(
    "reply",
    [
        fenced(RIGHT) + fenced(WRONG),
        f"<think>\n{fenced(RIGHT)}</think>\n{WRONG}",
        f"<think>\n{fenced(RIGHT)}But wait",
        fenced(RIGHT) + "Shorter:\n" + fenced("def clamp(x, low, high):\n    return max(low,\n"),
        fenced(RIGHT + "x = = 3\n"),
        fenced(RIGHT + "    y = = 3\n"),
        f"{RIGHT}    y = = 3\n    z = 4\n",
        fenced(RIGHT.replace("clamp", "limit")),
        "class A:\n    def __init__(self, n): ...\n    def clamp(self, x, a, b):\n        return max(a, min(x, b))\n",
        "".join(f"class {c}:\n    def clamp(self, x, a, b):\n        return max(a, min(x, b))\n" for c in "AB"),
        fenced("def clamp(x, a, b):\n    return max(a, min(x, b), *Counter())\n"),
        "I would rather not.",
        "```python\n```",
    ],
)
def test_what_is_not_right_does_not_become_so(reply: str) -> None:
    assert not is_right(reply)


def test_code_without_the_function_is_given_for_its_error_to_be_told() -> None:
    code = extract_code(fenced(RIGHT.replace("clamp", "limit")) + fenced("print(limit(1, 2, 3))\n"), PROMPT, "clamp")
    assert code == RIGHT.replace("clamp", "limit")


@pytest.mark.parametrize(
    ("annotation", "supplied"),
    [
        ("List[int]", "from typing import List\n"),
        ("Optional[Dict[str, Any]]", "from typing import Any, Dict, Optional\n"),
        ("'List[int]'", ""),
        ("Tuple[int, ...]", "from typing import Tuple\n"),
    ],
)
def test_names_of_typing_are_supplied(annotation: str, supplied: str) -> None:
    own = f"def f(x: {annotation}):\n    return x\n"
    assert extract_code(fenced(own), "Write f.", "f") == supplied + own


@pytest.mark.parametrize(
    "own", ["List = list\n", "from typing import *\n", "class List(list): ...\n", "List: type = list\n"]
)
def test_nothing_is_supplied_that_an_answer_has(own: str) -> None:
    code = own + "def f(x: List):\n    return x\n"
    assert extract_code(fenced(code), "Write f.", "f") == code


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        ("print(int(input()) * 2)\n", "print(int(input()) * 2)\n"),
        (fenced("n = int(input())\nprint(n)\n") + "For 3:\n" + fenced("3\n", ""), "n = int(input())\nprint(n)\n"),
        (fenced("import sys\n") + fenced("print(sys.stdin.read())\n"), "import sys\nprint(sys.stdin.read())\n"),
        ("It's this:\n\nfor n in open(0):\n    print(n)\n\nThat's all.", "for n in open(0):\n    print(n)\n"),
        ("<think>print(0)</think>`print(1)`", "print(1)\n"),
        (fenced("def main():\n    print(1)\n\nif __name__ == '__main__':\n    main()\n"), None),
    ],
)
def test_a_whole_program_is_asked_for_by_its_name(reply: str, program: str | None) -> None:
    code = extract_code(reply, "Read a number and print it.", "__main__")
    assert code == program if program is not None else code.endswith("    main()\n")
