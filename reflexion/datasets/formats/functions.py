"""Published sets of functions and classes to write: HumanEval, MBPP, EvalPlus, LeetCode, ClassEval, BigCodeBench."""

from __future__ import annotations

import ast
import doctest
import re
from typing import Any

from reflexion._python_source import parse_python
from reflexion.datasets.formats.differential import differential_tests
from reflexion.datasets.formats.fields import (
    Field,
    Format,
    Record,
    is_anything,
    is_string,
    is_strings,
    is_text,
    lines_of,
    python_text,
    whole_solution,
)
from reflexion.datasets.text_cells import as_list

__all__ = ["FUNCTION_FORMATS", "docstring_tests", "fenced"]

_COMPLETE = "Complete this Python {}. Reply with the whole {}, imports included, in one code block."


def fenced(code: str) -> str:
    """Code as a block of Markdown."""
    return f"```python\n{code.strip(chr(10))}\n```"


# -- HumanEval, and what is written like it ----------------------------------------------------------------


def _human_eval(record: Record) -> dict[str, Any]:
    code: str = record["prompt"]
    name = _entry(record["entry_point"], code)
    tests = _with_call(record["test"], name)
    solution = _solution(record, name)
    if solution is not None and _inputs(record):
        tests += "\n" + differential_tests(solution, record["entry_point"], _inputs(record), record.get("atol"))
        tests += f"check_against_reference({name})\n"
    return {
        "prompt": _task(code, record["entry_point"]),
        "entry_point": name,
        "tests": tests,
        "visible_tests": docstring_tests(code, name),
        "metadata": {} if solution is None else {"own_solution": solution},
    }


def _eval_plus(record: Record) -> dict[str, Any]:
    code, name, solution = record["prompt"], record["entry_point"], _solution(record, record["entry_point"])
    assert solution is not None, "a field of the format"
    written = lines_of(record.get("assertion"))
    shown = docstring_tests(code, name) or tuple(line.strip() for line in code.splitlines() if _is_assert(line))
    tests = differential_tests(solution, name, _inputs(record), record.get("atol"))
    return {
        "prompt": _task(code, name),
        "entry_point": name,
        "tests": "\n".join([tests, f"check_against_reference({name})", *written]) + "\n",
        "visible_tests": shown,
        "metadata": {"own_solution": solution},
    }


def _task(code: str, name: str) -> str:
    """What is asked: code that ends in a head is to be completed, and words stay as they are."""
    if f"def {name.rpartition('.')[2]}" not in code:
        return code
    kind = "class" if _class_of(code, name.rpartition(".")[2]) else "function"
    return f"{_COMPLETE.format(kind, kind)}\n\n{code}"


def _entry(name: str, code: str) -> str:
    """How the function is reached: a method of the prompt's class by way of an object of it."""
    owner = _class_of(code, name) if name.isidentifier() else None
    return f"{owner}().{name}" if owner else name


def _class_of(code: str, name: str) -> str | None:
    """The class of the prompt whose method has the name, unless a function of its own has it too."""
    if re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE):
        return None
    owner: str | None = None
    for line in code.splitlines():
        if match := re.match(r"class (\w+)", line):
            owner = match[1]
        elif re.match(rf"\s+(?:async )?def {re.escape(name)}\b", line):
            return owner
    return None


def _with_call(test: str, name: str) -> str:
    """The tests, with `check` called if they define it and leave the call to the reader."""
    if not re.search(r"^def check\b", test, re.MULTILINE) or re.search(r"^check\(", test, re.MULTILINE):
        return f"{test.rstrip()}\n"
    return f"{test}\n\ncheck({name})\n"


def _solution(record: Record, name: str) -> str | None:
    given = record.get("canonical_solution")
    return whole_solution(given, record["prompt"], name) if is_text(given) else None


def _inputs(record: Record) -> list[Any]:
    return [*(as_list(record.get("base_input")) or []), *(as_list(record.get("plus_input")) or [])]


def _is_assert(line: str) -> bool:
    return line.lstrip().startswith("assert ")


_WRONG_EXAMPLES = frozenset({"median([-10, 4, 6, 1000, 10, 20])"})
"""Examples that the published solution and tests contradict (HumanEval/47): they would mislead."""


def docstring_tests(code: str, name: str) -> tuple[str, ...]:
    """The `>>>` examples of a function's docstring as asserts.

    Only expressions that name the function and whose result is a literal; none when the code does
    not parse.
    """
    try:
        functions = [n for n in parse_python(code).body if isinstance(n, ast.FunctionDef) and n.name == name]
        text = (ast.get_docstring(functions[-1]) or "") if functions else ""
        examples = doctest.DocTestParser().get_examples(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    asserts: list[str] = []
    for example in examples:
        source, wanted = example.source.strip(), example.want.strip()
        if source in _WRONG_EXAMPLES:
            continue
        try:
            tree = parse_python(source, mode="eval")
            ast.literal_eval(wanted)
        except (SyntaxError, ValueError):
            continue
        if any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree)):
            asserts.append(f"assert {source} == {wanted}")
    return tuple(asserts)


# -- MBPP --------------------------------------------------------------------------------------------------


def _mbpp(record: Record) -> dict[str, Any]:
    text = record.get("text") or record["prompt"]
    tests = lines_of(record["test_list"])
    setup = "\n".join([*lines_of(record.get("test_imports")), *_setup_lines(record.get("test_setup_code"))])
    # EvalPlus keeps the few tests it began with beside the many it made.
    decisive = record["test"] if is_text(record.get("test")) else "\n".join(tests)
    name = _called_function(record["code"], tests[0])
    if not is_text(record.get("test")) and name is not None and _inputs(record):
        check = differential_tests(record["code"], name, _inputs(record), record.get("atol"))
        decisive = f"{decisive}\n{check}check_against_reference({name})"
    return {
        # The text does not say what the function is called, so the first test is shown.
        "prompt": f"{text}\n\nYour code should pass this test:\n{tests[0]}",
        "entry_point": name,
        "tests": f"{setup}\n{decisive}".strip() + "\n",
        "visible_tests": (tests[0],),
        "metadata": {"own_solution": record["code"]},
    }


def _setup_lines(code: Any) -> list[str]:
    return [text] if (text := python_text(code)).strip() else []


def _called_function(code: str, test: str) -> str | None:
    """The function of `code` that `test` names, else the first one `test` calls."""
    try:
        defined = {n.name for n in ast.walk(parse_python(code)) if isinstance(n, ast.FunctionDef)}
        called = [
            n.func.id for n in ast.walk(parse_python(test)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return next((name for name in called if name in defined), next(iter(called), None))


def _is_tests(value: Any) -> bool:
    items = as_list(value)
    return bool(items) and is_strings(items)


# -- LeetCode ----------------------------------------------------------------------------------------------

_DESCRIPTIONS = ("query", "problem_description", "description", "question", "content")


def _leet_code(record: Record) -> dict[str, Any]:
    text = next(record[name] for name in _DESCRIPTIONS if is_text(record.get(name)))
    starter, helpers = record.get("starter_code") or "", record.get("prompt") or ""
    parts = [text.strip()]
    if starter.strip() and starter.strip() not in text:
        parts.append(f"Complete this code. Reply with the whole class in one code block.\n\n{fenced(starter)}")
    if helpers.strip():
        parts.append(f"This is defined already:\n\n{fenced(helpers)}")
    solution = next((record[n] for n in ("completion", "canonical_solution", "solution") if is_text(record.get(n))), "")
    name = _entry(record["entry_point"], starter or text)
    return {
        "prompt": "\n\n".join(parts),
        "entry_point": name,
        "tests": _with_call(record["test"], name),
        "metadata": {"own_solution": f"{helpers.rstrip()}\n\n{solution}".lstrip()} if solution else {},
    }


# -- ClassEval and BigCodeBench ----------------------------------------------------------------------------


def _class_eval(record: Record) -> dict[str, Any]:
    imports = python_text(record.get("import_statement"))
    skeleton, name = record["skeleton"], record["class_name"]
    head = "" if imports.strip() in skeleton else f"{imports.strip()}\n\n"
    solution = record.get("solution_code")
    own = {"own_solution": f"{imports}\n{solution}".lstrip()} if is_text(solution) else {}
    return {
        "prompt": f"{_COMPLETE.format('class ' + name, 'class')}\n\n{fenced(head + skeleton)}",
        "entry_point": name,
        "tests": f"{imports}\n{record['test']}".strip() + "\n",
        "metadata": own,
    }


def _big_code_bench(record: Record) -> dict[str, Any]:
    prompt = next(record[n] for n in ("instruct_prompt", "complete_prompt") if is_text(record.get(n)))
    head = record.get("code_prompt") or record.get("complete_prompt")
    solution = record.get("canonical_solution")
    own = whole_solution(solution, head, record["entry_point"]) if is_text(solution) else None
    return {
        "prompt": prompt,
        "entry_point": record["entry_point"],
        "tests": record["test"],
        "metadata": {} if own is None else {"own_solution": own},
    }


_PROMPT = Field(("prompt",), is_text, "a text that is not empty", required=True)
_TEST = Field(("test",), is_text, "Python code that defines check(candidate)", required=True)
_ENTRY_POINT = Field(("entry_point",), is_text, "the name of the function under test", required=True)
_SOLUTION = Field(("canonical_solution",), is_string, "Python code")
_ATOL = Field(("atol",), is_anything, "a tolerance")


def _is_inputs(value: Any) -> bool:
    items = as_list(value)
    return items is not None and all(isinstance(item, list) for item in items)


def _input_field(name: str, *, required: bool = False) -> Field:
    return Field((name,), _is_inputs, "a list of lists of arguments", required)


def _leet_format(descriptions: tuple[str, ...], *, starter: bool) -> Format:
    fields = (
        Field(descriptions, is_text, "a text that is not empty", required=True),
        Field(("starter_code",), is_text, "the code to complete", required=starter),
        _TEST,
        _ENTRY_POINT,
        Field(("prompt",), is_string, "Python code"),
        Field(("completion", "canonical_solution", "solution"), is_string, "Python code"),
        Field(("input_output",), is_anything, "examples"),
    )
    return Format("LeetCode", fields, _leet_code)


FUNCTION_FORMATS: tuple[Format, ...] = (
    Format(
        "BigCodeBench",
        (
            Field(("instruct_prompt", "complete_prompt"), is_text, "a text that is not empty", required=True),
            Field(("test",), is_text, "a unittest TestCase", required=True),
            _ENTRY_POINT,
            _SOLUTION,
            Field(("code_prompt",), is_string, "Python code"),
            Field(("complete_prompt",), is_string, "Python code"),
        ),
        _big_code_bench,
    ),
    Format(
        "ClassEval",
        (
            Field(("skeleton",), is_text, "the class to complete", required=True),
            Field(("test",), is_text, "unittest TestCases", required=True),
            Field(("class_name",), is_text, "the name of the class", required=True),
            Field(("solution_code",), is_string, "Python code"),
            Field(("import_statement",), is_strings, "a list of imports"),
        ),
        _class_eval,
    ),
    _leet_format(_DESCRIPTIONS, starter=True),
    _leet_format(_DESCRIPTIONS[:2], starter=False),  # by names of its own, since the prompt holds helpers only
    Format(
        "HumanEval",
        (_PROMPT, _TEST, _ENTRY_POINT, _SOLUTION, _input_field("base_input"), _input_field("plus_input"), _ATOL),
        _human_eval,
    ),
    Format(
        "EvalPlus",
        (
            _PROMPT,
            _ENTRY_POINT,
            Field(("canonical_solution",), is_text, "Python code", required=True),
            _input_field("base_input", required=True),
            _input_field("plus_input"),
            Field(("assertion",), is_strings, "asserts"),
            _ATOL,
        ),
        _eval_plus,
        note="the file holds inputs and no tests, so that answers are compared with what its canonical_solution gives "
        "for them; tests of your own go first: --map test=FIELD",
    ),
    Format(
        "MBPP",
        (
            Field(("text", "prompt"), is_text, "a text that is not empty", required=True),
            Field(("code",), is_string, "Python code", required=True),
            Field(("test_list",), _is_tests, "a list of asserts", required=True),
            Field(("test",), is_string, "Python code"),
            Field(("test_setup_code",), is_strings, "Python code"),
            Field(("test_imports",), is_strings, "a list of imports"),
            Field(("challenge_test_list",), is_strings, "a list of asserts"),
            _input_field("base_input"),
            _input_field("plus_input"),
        ),
        _mbpp,
    ),
)
"""In the order in which they are tried."""
