"""Published dataset formats: how each is recognised, and how a record becomes a `Problem`."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, cast

from reflexion.errors import DatasetError
from reflexion.types import Document, Problem

__all__ = ["FORMATS", "Format", "detect", "identifier"]

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a format: its names, of which the first one present counts, and what it must hold."""

    names: tuple[str, ...]
    accepts: Callable[[Any], bool]
    wanted: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write problems down."""

    name: str
    fields: tuple[Field, ...]
    build: Callable[[Record], dict[str, Any]]
    """Turns a checked record into fields of `Problem`, without `id` and without what is left over."""
    by_name: dict[str, Field] = dataclass_field(init=False)
    needed: tuple[Field, ...] = dataclass_field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {name: f for f in self.fields for name in f.names})
        object.__setattr__(self, "needed", tuple(f for f in self.fields if f.required))

    def lacks(self, record: Record) -> str | None:
        """Why a record is not of this format, or None."""
        absent = ["/".join(f.names) for f in self.fields if f.required and _get(record, f) is None]
        if absent:
            return "no " + ", no ".join(repr(name) for name in absent)
        return next((f"{_name(record, f)!r} is not {f.wanted}" for f in self.fields if not _fits(record, f)), None)

    def check(self, record: Record, path: Path, number: int) -> None:
        """Raise when a record cannot become a problem.

        Raises:
            DatasetError: naming the line and the field.
        """
        if not self._is_plainly_right(record):
            self._explain(record, f"{path}:{number}")

    def _is_plainly_right(self, record: Record) -> bool:
        """The quick answer for the millions of good records; False: look closer."""
        for name, value in record.items():
            field = self.by_name.get(name)
            if field is not None and value is not None and not field.accepts(value):
                return False
        for field in self.needed:
            for name in field.names:
                if record.get(name) is not None:
                    break
            else:
                return False
        identifier = _raw_id(record)
        return identifier is None or (identifier.__class__ in (str, int) and identifier != "")

    def _explain(self, record: Record, where: str) -> None:
        for field in self.fields:
            if not _fits(record, field):
                value = _get(record, field)
                if value is None:
                    raise DatasetError(
                        f"{where}: field {'/'.join(field.names)!r} is missing; it must be {field.wanted}"
                    )
                raise DatasetError(
                    f"{where}: field {_name(record, field)!r} must be {field.wanted}, not {_show(value)}"
                )
        value = _raw_id(record)
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int) or value == ""):
            raise DatasetError(f"{where}: field 'id' must be a text or a whole number, not {_show(value)}")

    def problem(self, record: Record, number: int) -> Problem:
        """The problem of a checked record; fields the format does not know become metadata."""
        given = record.get("metadata")
        metadata = dict(cast("Record", given)) if isinstance(given, Mapping) else {}
        metadata |= {k: v for k, v in record.items() if k not in self.by_name and k not in _OWN and v is not None}
        built = self.build(record)
        metadata |= built.pop("metadata", {})
        return Problem(id=identifier(record, number), metadata=metadata, **built)


_IDS = ("id", "_id", "task_id")
_OWN = frozenset((*_IDS, "metadata"))


def _raw_id(record: Record) -> Any:
    for name in _IDS:
        value = record.get(name)
        if value is not None:
            return value
    return None


def identifier(record: Record, number: int) -> str:
    """A record's id: `id`, `_id` or `task_id`, else the number of its line."""
    value = _raw_id(record)
    return str(number if value is None else value)


def _name(record: Record, field: Field) -> str:
    return next((n for n in field.names if record.get(n) is not None), field.names[0])


def _get(record: Record, field: Field) -> Any:
    return record.get(_name(record, field))


def _fits(record: Record, field: Field) -> bool:
    value = _get(record, field)
    return not field.required if value is None else field.accepts(value)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_strings(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(v, str) for v in cast("list[Any]", value))
    )


def _is_final_answer(value: Any) -> bool:
    return isinstance(value, str) and "####" in value


def _is_anything(value: Any) -> bool:
    return True


def _is_environment(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, Mapping) and _is_text(cast("Record", value).get("name")))


def _is_documents(value: Any) -> bool:
    return _documents(value) is not None


def _documents(value: Any) -> tuple[Document, ...] | None:
    """Documents out of `[[title, [sentence, …]], …]`, `{"title": […], "sentences": […]}` or objects."""
    if isinstance(value, Mapping):
        columns = cast("Record", value)
        titles, texts = columns.get("title"), columns.get("sentences")
        if not (isinstance(titles, list) and isinstance(texts, list)):
            return None
        pairs = list(zip(cast("list[Any]", titles), cast("list[Any]", texts), strict=False))
    elif isinstance(value, list):
        pairs = [_pair(item) for item in cast("list[Any]", value)]
    else:
        return None
    documents: list[Document] = []
    for title, text in pairs:
        body = "".join(cast("list[str]", text)) if isinstance(text, list) and _is_strings(text) else text
        if not (isinstance(title, str) and isinstance(body, str)):
            return None
        documents.append(Document(title=title, text=body.strip()))
    return tuple(documents)


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        document = cast("Record", item)
        return document.get("title"), document.get("text", document.get("sentences"))
    if isinstance(item, list) and len(cast("list[Any]", item)) == 2:
        return cast("list[Any]", item)[0], cast("list[Any]", item)[1]
    return None, None


_PROMPT = Field(("prompt",), _is_text, "a text that is not empty", required=True)
_ENTRY_POINT = ("entry_point",)


def _strings(value: Any) -> tuple[str, ...]:
    lines = value.splitlines() if isinstance(value, str) else cast("list[str]", value or [])
    return tuple(line for line in lines if line.strip())


def _plain(record: Record) -> dict[str, Any]:
    tests = record.get("tests")
    return {
        "prompt": record["prompt"],
        "answer": record.get("answer"),
        "evaluator": record.get("evaluator"),
        "entry_point": record.get("entry_point"),
        "tests": "\n".join(cast("list[str]", tests)) if isinstance(tests, list) else tests,
        "visible_tests": _strings(record.get("visible_tests")),
        "context": _documents(context) or () if (context := record.get("context")) else (),
        "environment": record.get("environment"),
    }


_COMPLETE = "Complete this Python function. Reply with the whole function, imports included, in one code block."


def _human_eval(record: Record) -> dict[str, Any]:
    name: str = record["entry_point"]
    return {
        "prompt": f"{_COMPLETE}\n\n{record['prompt']}",
        "entry_point": name,
        "tests": f"{record['test']}\n\ncheck({name})\n",
        "visible_tests": docstring_tests(record["prompt"], name),
        "metadata": _keep(record, "canonical_solution"),
    }


_WRONG_EXAMPLES = frozenset({"median([-10, 4, 6, 1000, 10, 20])"})
"""Examples that the published solution and tests contradict (HumanEval/47): they would mislead."""


def docstring_tests(code: str, name: str) -> tuple[str, ...]:
    """The `>>>` examples of a function's docstring as asserts.

    Only expressions that name the function and whose result is a literal; none when the code does
    not parse.
    """
    try:
        functions = [n for n in ast.parse(code).body if isinstance(n, ast.FunctionDef) and n.name == name]
        text = (ast.get_docstring(functions[-1]) or "") if functions else ""
        examples = doctest.DocTestParser().get_examples(text)
    except (SyntaxError, ValueError):
        return ()
    asserts: list[str] = []
    for example in examples:
        source, wanted = example.source.strip(), example.want.strip()
        if source in _WRONG_EXAMPLES:
            continue
        try:
            tree = ast.parse(source, mode="eval")
            ast.literal_eval(wanted)
        except (SyntaxError, ValueError):
            continue
        if any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree)):
            asserts.append(f"assert {source} == {wanted}")
    return tuple(asserts)


def _mbpp(record: Record) -> dict[str, Any]:
    text = record.get("text") or record["prompt"]
    tests: list[str] = record["test_list"]
    setup = "\n".join([*_strings(record.get("test_imports")), *_strings(record.get("test_setup_code"))])
    return {
        # The text does not say what the function is called, so the first test is shown.
        "prompt": f"{text}\n\nYour code should pass this test:\n{tests[0]}",
        "entry_point": _called_function(record["code"], tests[0]),
        "tests": "\n".join([setup, *tests, *_strings(record.get("challenge_test_list"))]).strip() + "\n",
        "visible_tests": (tests[0],),
        "metadata": _keep(record, "code"),
    }


def _called_function(code: str, test: str) -> str | None:
    """The function of `code` that `test` names, else the first one `test` calls."""
    try:
        defined = {n.name for n in ast.walk(ast.parse(code)) if isinstance(n, ast.FunctionDef)}
        called = [
            n.func.id for n in ast.walk(ast.parse(test)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
    except SyntaxError:
        return None
    return next((name for name in called if name in defined), next(iter(called), None))


def _gsm8k(record: Record) -> dict[str, Any]:
    rationale, _, final = record["answer"].rpartition("####")
    return {
        "prompt": record["question"],
        "answer": final.strip().replace(",", ""),
        "evaluator": "numeric",
        "metadata": {"rationale": rationale.strip()},
    }


def _hotpot(record: Record) -> dict[str, Any]:
    return {"prompt": record["question"], "answer": record["answer"], "context": _documents(record["context"])}


def _keep(record: Record, name: str) -> dict[str, Any]:
    return {name: record[name]} if record.get(name) is not None else {}


def _is_tests(value: Any) -> bool:
    return isinstance(value, list) and bool(cast("list[Any]", value)) and _is_strings(value)


_QUESTION = Field(("question",), _is_text, "a text that is not empty", required=True)

FORMATS: tuple[Format, ...] = (
    Format(
        "HumanEval",
        (
            _PROMPT,
            Field(("test",), _is_text, "Python code that defines check(candidate)", required=True),
            Field(_ENTRY_POINT, _is_text, "the name of the function under test", required=True),
            Field(("canonical_solution",), _is_string, "Python code"),
        ),
        _human_eval,
    ),
    Format(
        "MBPP",
        (
            Field(("text", "prompt"), _is_text, "a text that is not empty", required=True),
            Field(("code",), _is_string, "Python code", required=True),
            Field(("test_list",), _is_tests, "a list of asserts", required=True),
            Field(("test_setup_code",), _is_strings, "Python code"),
            Field(("test_imports",), _is_strings, "a list of imports"),
            Field(("challenge_test_list",), _is_strings, "a list of asserts"),
        ),
        _mbpp,
    ),
    Format(
        "HotpotQA",
        (
            _QUESTION,
            Field(("answer",), _is_string, "a text", required=True),
            Field(("context",), _is_documents, "a list of [title, [sentence, …]]", required=True),
        ),
        _hotpot,
    ),
    Format(
        "GSM8K",
        (_QUESTION, Field(("answer",), _is_final_answer, "a text with the result after '####'", required=True)),
        _gsm8k,
    ),
    Format(
        "plain",
        (
            _PROMPT,
            Field(("answer",), _is_anything, "any JSON value"),
            Field(("evaluator",), _is_text, "the name of an evaluator"),
            Field(("tests",), _is_strings, "Python code, or a list of asserts"),
            Field(("visible_tests",), _is_strings, "a list of asserts"),
            Field(_ENTRY_POINT, _is_text, "the name of the function under test"),
            Field(("context",), _is_documents, 'a list of {"title": …, "text": …}'),
            Field(("environment",), _is_environment, 'the name of an environment, or an object with its "name"'),
        ),
        _plain,
    ),
)
"""In the order in which they are tried."""


def detect(record: Record, where: str) -> Format:
    """The format of a file, by its first record.

    Raises:
        DatasetError: naming each format and what the record lacks for it.
    """
    reasons: list[str] = []
    for candidate in FORMATS:
        reason = candidate.lacks(record)
        if reason is None:
            return candidate
        reasons.append(f"{candidate.name} ({reason})")
    found = ", ".join(repr(name) for name in record) or "none"
    raise DatasetError(
        f"{where}: unknown format; fields found: {found}; tried {'; '.join(reversed(reasons))}. "
        "Name the field that holds the prompt with a mapping: --map prompt=FIELD"
    )
