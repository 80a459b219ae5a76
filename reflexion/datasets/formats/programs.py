"""Programs that read standard input: APPS, TACO, CodeContests, LiveCodeBench, and plain cases of input and output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from reflexion.datasets.formats.fields import Field, Format, Record, Unfit, is_anything, is_string, is_text
from reflexion.datasets.formats.functions import fenced
from reflexion.datasets.text_cells import as_list, read_cell

__all__ = ["PROGRAM_FORMATS", "cases_of", "program_tests"]

PROGRAM = "__main__"
"""Entry point of a problem whose answer is a whole program."""

_ASK = "Write a Python program that reads from standard input and prints the result. Reply with it in one code block."

Case = tuple[str, str]

_INPUTS = ("input", "inputs", "stdin", "Input")
_OUTPUTS = ("output", "outputs", "expected_output", "expected", "stdout", "Output")


def cases_of(value: Any) -> list[Case] | None:
    """Pairs of standard input and output out of the forms in which they are written; None: none of these.

    `[{"input": …, "output": …}, …]`, `{"input": […], "output": […]}`, `[[input, output], …]`, or one of them as text.
    """
    if isinstance(value, str):
        value = read_cell(value)
    if isinstance(value, dict):
        columns = cast("Record", value)
        left, right = _column(columns, _INPUTS), _column(columns, _OUTPUTS)
        if left is None or right is None or len(left) != len(right):
            return None
        pairs: list[tuple[Any, Any]] = list(zip(left, right, strict=True))
    elif isinstance(value, list):
        pairs = [_pair(item) for item in cast("list[Any]", value)]
    else:
        return None
    cases = [(_stream(a), _stream(b)) for a, b in pairs]
    known = [(a, b) for a, b in cases if a is not None and b is not None]
    return known if len(known) == len(cases) else None


def _column(columns: Record, names: Sequence[str]) -> list[Any] | None:
    value = next((columns[n] for n in names if n in columns), None)
    return cast("list[Any]", value) if isinstance(value, list) else None


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, dict):
        case = cast("Record", item)
        return next((case[n] for n in _INPUTS if n in case), None), next((case[n] for n in _OUTPUTS if n in case), None)
    if isinstance(item, list) and len(cast("list[Any]", item)) == 2:
        return cast("list[Any]", item)[0], cast("list[Any]", item)[1]
    return None, None


def _stream(value: Any) -> str | None:
    """Text of a stream; a list is one of lines, and a number stands by itself."""
    if isinstance(value, list):
        parts = [_stream(item) for item in cast("list[Any]", value)]
        known = [part for part in parts if part is not None]
        return "\n".join(known) if len(known) == len(parts) else None
    if isinstance(value, bool) or value is None:
        return None
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else None


def program_tests(cases: Sequence[Case]) -> tuple[str, ...]:
    """One assert a case; `run_program` and `same_output` come from the sandbox."""
    return tuple(f"assert same_output(run_program({given!r}), {wanted!r})" for given, wanted in cases)


def _program(
    text: str, hidden: Sequence[Case], visible: Sequence[Case] = (), *, starter: str = "", own: str | None = None
) -> dict[str, Any]:
    if not hidden and not visible:
        raise Unfit("no case of input and output is left; leave the row out")
    parts = [text.strip(), _ASK if not starter.strip() else f"{_ASK} Begin with:\n\n{fenced(starter)}"]
    return {
        "prompt": "\n\n".join(parts),
        "entry_point": PROGRAM,
        "tests": "\n".join(program_tests([*visible, *hidden])) + "\n",
        "visible_tests": program_tests(visible),
        "metadata": {"own_solution": own} if own else {},
    }


_SAME_RESULT = """
def _plain(value):
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return {str(k): _plain(v) for k, v in value.items()} if isinstance(value, dict) else value

"""


def _function(
    text: str, name: str, calls: Sequence[tuple[list[Any], Any]], visible: int, *, starter: str, own: str | None
) -> dict[str, Any]:
    """A function under test with calls of it; the first `visible` of them may be seen."""
    entry = f"Solution().{name}" if "class Solution" in f"{starter}{own or ''}" or not starter.strip() else name
    shown = starter if starter.strip() else f"class Solution:\n    def {name}(self, …):\n        …\n"
    asserts = [f"assert _plain({entry}({', '.join(map(repr, args))})) == _plain({wanted!r})" for args, wanted in calls]
    seen = [f"assert {entry}({', '.join(map(repr, args))}) == {wanted!r}" for args, wanted in calls[:visible]]
    return {
        "prompt": f"{text.strip()}\n\nComplete this code. Reply with all of it in one code block.\n\n{fenced(shown)}",
        "entry_point": entry,
        "tests": _SAME_RESULT + "\n".join(asserts) + "\n",
        "visible_tests": tuple(seen),
        "metadata": {"own_solution": own} if own else {},
    }


# -- APPS and TACO -----------------------------------------------------------------------------------------


def _apps(record: Record) -> dict[str, Any]:
    given = record["input_output"]
    columns: Any = read_cell(given) if isinstance(given, str) else given
    if not isinstance(columns, dict):
        raise Unfit("field 'input_output' is not an object with 'inputs' and 'outputs'; leave the row out")
    solutions = as_list(record.get("solutions")) or []
    own = next((s for s in solutions if is_text(s)), None)
    starter = record.get("starter_code") or ""
    name: Any = cast("Record", columns).get("fn_name")
    if not name:
        cases = cases_of(cast("Any", columns))
        if cases is None:
            raise Unfit("field 'input_output' needs the lists 'inputs' and 'outputs', of one length and of texts")
        return _program(record["question"], cases, starter=starter, own=own)
    left, right = _column(cast("Record", columns), _INPUTS), _column(cast("Record", columns), _OUTPUTS)
    if not left or not right or len(left) != len(right) or not all(isinstance(a, list) for a in left):
        raise Unfit("field 'input_output' needs a list of arguments in 'inputs' for each of 'outputs'")
    # The set writes a result as a list of one.
    results = [cast("list[Any]", r)[0] if isinstance(r, list) and len(cast("list[Any]", r)) == 1 else r for r in right]
    return _function(record["question"], str(name), list(zip(left, results, strict=True)), 0, starter=starter, own=own)


# -- CodeContests ------------------------------------------------------------------------------------------

_PYTHON3 = 3
"""Python 3 in the numbering of CodeContests."""


def _code_contests(record: Record) -> dict[str, Any]:
    visible = _read(record, "public_tests")
    hidden = [*_read(record, "private_tests"), *_read(record, "generated_tests")]
    return _program(record["description"], hidden, visible, own=_python_solution(record.get("solutions")))


def _read(record: Record, name: str) -> list[Case]:
    value = record.get(name)
    if value is None or value == "":
        return []
    cases = cases_of(value)
    if cases is None:
        raise Unfit(f"field {name!r} needs the lists 'input' and 'output', of one length and of texts")
    return cases


def _python_solution(value: Any) -> str | None:
    columns = read_cell(value) if isinstance(value, str) else value
    if not isinstance(columns, dict):
        return None
    languages, texts = cast("Record", columns).get("language"), cast("Record", columns).get("solution")
    if not isinstance(languages, list) or not isinstance(texts, list):
        return None
    pairs = zip(cast("list[Any]", languages), cast("list[Any]", texts), strict=False)
    return next((text for language, text in pairs if language in (_PYTHON3, "PYTHON3") and is_text(text)), None)


# -- LiveCodeBench -----------------------------------------------------------------------------------------


def _live_code_bench(record: Record) -> dict[str, Any]:
    public, hidden = as_list(record["public_test_cases"]), as_list(record.get("private_test_cases") or "[]")
    if public is None:
        raise Unfit("field 'public_test_cases' is not a list of cases")
    if hidden is None:
        raise Unfit(
            "field 'private_test_cases' is packed as a pickle, which is not read; unpack it to JSON, "
            "or judge by the public cases: --map tests=public_test_cases --map prompt=question_content"
        )
    everything = [*public, *hidden]
    starter = record.get("starter_code") or ""
    if not any(isinstance(c, dict) and cast("Record", c).get("testtype") == "functional" for c in everything):
        seen, rest = cases_of(public), cases_of(hidden)
        if seen is None or rest is None:
            raise Unfit("field 'public_test_cases' or 'private_test_cases': every case needs 'input' and 'output'")
        return _program(record["question_content"], rest, seen, starter=starter)
    calls = [_call(case) for case in everything]
    name = _method(record.get("metadata"), starter)
    return _function(record["question_content"], name, calls, len(public), starter=starter, own=None)


def _call(case: Any) -> tuple[list[Any], Any]:
    try:
        fields = cast("Record", case)
        return [json.loads(line) for line in fields["input"].splitlines() if line.strip()], json.loads(fields["output"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unfit(f"a case of a function needs JSON in 'input' and 'output', not {str(case)[:60]!r}") from None


def _method(metadata: Any, starter: str) -> str:
    given = read_cell(metadata) if isinstance(metadata, str) else metadata
    name = cast("Record", given).get("func_name") if isinstance(given, dict) else None
    if not name:
        name = next((part.partition("(")[0] for part in starter.split("def ")[1:] if "(" in part), None)
    if not name:
        raise Unfit("the name of the function under test is missing: 'func_name' in 'metadata', or a starter_code")
    return str(name).strip()


# -- plain -------------------------------------------------------------------------------------------------

_QUESTIONS = ("prompt", "question", "description", "problem", "problem_statement", "question_content")


def _plain_program(record: Record) -> dict[str, Any]:
    text = next(record[n] for n in _QUESTIONS if is_text(record.get(n)))
    hidden = next((c for n in ("tests", "test_cases") if (c := cases_of(record.get(n)))), [])
    visible = cases_of(record.get("visible_tests")) or []
    own = next((record[n] for n in ("solution", "code", "canonical_solution") if is_text(record.get(n))), None)
    return _program(text, hidden, visible, starter=record.get("starter_code") or "", own=own)


def _is_cases(value: Any) -> bool:
    return bool(cases_of(value))


_STARTER = Field(("starter_code",), is_string, "Python code")

PROGRAM_FORMATS: tuple[Format, ...] = (
    Format(
        "LiveCodeBench",
        (
            Field(("question_content",), is_text, "a text that is not empty", required=True),
            Field(("public_test_cases",), is_anything, "a list of cases", required=True),
            Field(("private_test_cases",), is_anything, "a list of cases"),
            _STARTER,
        ),
        _live_code_bench,
        selective=True,
    ),
    Format(
        "APPS",
        (
            Field(("question",), is_text, "a text that is not empty", required=True),
            Field(("input_output",), is_anything, "an object with 'inputs' and 'outputs'", required=True),
            Field(("solutions",), is_anything, "a list of programs"),
            _STARTER,
        ),
        _apps,
        selective=True,
    ),
    Format(
        "CodeContests",
        (
            Field(("description",), is_text, "a text that is not empty", required=True),
            Field(("public_tests", "private_tests"), is_anything, "an object with 'input' and 'output'", required=True),
            Field(("private_tests",), is_anything, "an object with 'input' and 'output'"),
            Field(("generated_tests",), is_anything, "an object with 'input' and 'output'"),
            Field(("solutions",), is_anything, "an object with 'language' and 'solution'"),
            Field(("incorrect_solutions",), is_anything, "an object with 'language' and 'solution'"),
        ),
        _code_contests,
        selective=True,
    ),
    Format(
        "programs",
        (
            Field(_QUESTIONS, is_text, "a text that is not empty", required=True),
            Field(("tests", "test_cases"), _is_cases, 'a list of {"input": …, "output": …}', required=True),
            Field(("visible_tests",), _is_cases, 'a list of {"input": …, "output": …}'),
            Field(("solution", "code", "canonical_solution"), is_string, "a program"),
            _STARTER,
        ),
        _plain_program,
        selective=True,
    ),
)
"""In the order in which they are tried."""
