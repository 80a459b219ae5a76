"""Multiple choice: MMLU, ARC, AQuA, RACE, MedMCQA, GPQA, TruthfulQA and their like, and plain options."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from string import ascii_uppercase
from typing import Any, cast

from reflexion.datasets.formats.fields import Field, Format, Record, Unfit, is_string, is_text
from reflexion.datasets.formats.messages import is_prompt, prompt_text
from reflexion.datasets.text_cells import read_cell
from reflexion.keys import digest
from reflexion.types import Document

__all__ = ["CHOICE_FORMATS", "options_of"]

_OWN_LABEL = re.compile(r"\s*[(\[]?([A-Za-z])\s*[)\].:]\s*(?=\S)")

Options = tuple[list[str], list[str]]
"""Labels as the file gives them, and texts."""


def options_of(value: Any) -> Options | None:
    """Labels and texts of options out of the forms in which they are written; None: none of these.

    A list of texts, `{"A": text, …}`, `{"text": […], "label": […]}`, `[{"label": …, "text": …}, …]`, or one of
    them as text. Labels that stand in the texts themselves (`A)5`) are taken off.
    """
    if isinstance(value, str):
        value = read_cell(value) or _in_one_text(value)
    labels: list[Any] | None = None
    if isinstance(value, dict):
        columns = cast("Record", value)
        texts: Any = columns.get("text", columns.get("choices", columns.get("texts")))
        if isinstance(texts, list):
            labels = cast("Any", columns.get("label"))
        else:
            labels, texts = list(columns), list(columns.values())
            if not all(isinstance(n, str) and len(n) == 1 for n in labels):
                return None
    elif isinstance(value, list) and all(isinstance(v, dict) for v in cast("list[Any]", value)):
        items = cast("list[Record]", value)
        labels = [item.get("label", item.get("key")) for item in items]
        texts = [item.get("text", item.get("content")) for item in items]
        labels = None if None in labels else labels
    else:
        texts = value
    if not isinstance(texts, list) or not 2 <= len(cast("list[Any]", texts)) <= len(ascii_uppercase):
        return None
    shown = [_option_text(t) for t in cast("list[Any]", texts)]
    known = [t for t in shown if t is not None]
    if len(known) != len(shown):
        return None
    if labels is None:
        return _labels_in_texts(known)
    return ([str(n) for n in labels], known) if len(labels) == len(known) else None


def _in_one_text(text: str) -> dict[str, str] | None:
    """Options that stand in one text, as `a ) 38 , b ) 27`."""
    marks = list(re.finditer(r"(?:^|[,;\n])\s*([A-Za-z])\s*[).]\s*", text))
    if [m[1].upper() for m in marks] != list(ascii_uppercase[: len(marks)]) or len(marks) < 2:
        return None
    ends = [*(m.start() for m in marks[1:]), len(text)]
    return {m[1].upper(): text[m.end() : end].strip() for m, end in zip(marks, ends, strict=True)}


def _option_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value)
    return str(value).strip() if isinstance(value, int | float) or is_text(value) else None


def _labels_in_texts(texts: list[str]) -> Options:
    found = [_OWN_LABEL.match(text) for text in texts]
    letters = [m[1].upper() for m in found if m is not None]
    if letters == list(ascii_uppercase[: len(texts)]):
        return letters, [text[m.end() :] for text, m in zip(texts, found, strict=True) if m is not None]
    return list(ascii_uppercase[: len(texts)]), texts


def multiple_choice(question: Any, options: Options, answer: Any, *, passage: Any = None) -> dict[str, Any]:
    """A problem whose options stand in the prompt as lines `A) …`, and whose answer is a letter.

    Raises:
        Unfit: the answer names none of the options, or could mean two.
    """
    labels, texts = options
    text = prompt_text(question)
    lines = [f"{letter}) {option}" for letter, option in zip(ascii_uppercase, texts, strict=False)]
    if not _shows(text, texts):
        text = "\n".join([text.rstrip(), "", *lines])
    return {
        "prompt": text,
        "answer": ascii_uppercase[_place(labels, texts, answer)],
        "evaluator": "choice",
        "context": (Document(title="Passage", text=passage.strip()),) if is_text(passage) else (),
    }


def _shows(text: str, options: Sequence[str]) -> bool:
    """Whether a prompt lists the options already, each on a line with its letter."""
    lines = {line.strip() for line in text.splitlines()}
    return all(
        not lines.isdisjoint({f"{letter}) {o}", f"({letter}) {o}", f"{letter}. {o}", f"{letter}: {o}"})
        for letter, o in zip(ascii_uppercase, options, strict=False)
    )


def _place(labels: Sequence[str], texts: Sequence[str], answer: Any) -> int:
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    shown = f"{answer!r}"[:40]
    if isinstance(answer, int) and not isinstance(answer, bool):
        if str(answer) in labels:
            return labels.index(str(answer))
        if 0 <= answer < len(texts):
            return answer
        raise Unfit(
            f"the answer {shown} is no place among {len(texts)} options, counted from 0; give a letter or a text"
        )
    if not isinstance(answer, str | bool):
        raise Unfit(f"the answer {shown} is neither a letter, a place counted from 0, nor the text of an option")
    wanted = str(answer).strip()
    bare = re.sub(r"^[(\[]?(\w)[)\].:]?$", r"\1", wanted)
    by_label = [i for i, label in enumerate(labels) if label.casefold() == bare.casefold()]
    by_text = [i for i, text in enumerate(texts) if text.casefold() == wanted.casefold()]
    by_place = [int(bare)] if bare.isdecimal() and int(bare) < len(texts) else []
    readings = by_label if len(by_label) == 1 else sorted({*by_text[:1], *by_place})
    if len(readings) == 1:
        return readings[0]
    if readings:
        raise Unfit(f"the answer {shown} is the text of one option and the place of another; give letters instead")
    raise Unfit(f"the answer {shown} is none of the options {', '.join(labels)}, nor the text of one")


def shuffled(texts: Sequence[str], question: str) -> list[str]:
    """The options in an order that depends on their content alone: as published, the right one stands first."""
    return sorted(texts, key=lambda text: digest([question, text]))


# -- the forms ---------------------------------------------------------------------------------------------

_QUESTIONS = (
    "prompt",
    "question",
    "query",
    "question_stem",
    "problem",
    "input",
    "ctx",
    "goal",
    "sentence",
    "Question",
    "Problem",
)
_OPTIONS = ("options", "choices", "endings")
_ANSWERS = (
    "answer",
    "answerKey",
    "correct",
    "answer_key",
    "correct_option",
    "correct_answer",
    "label",
    "gold",
    "target",
)
_PLACES = ("answer_index", "answer_idx", "cop", "gold_index")
_PASSAGES = ("passage", "article", "context", "support")


def _first(record: Record, names: Sequence[str]) -> Any:
    return next((record[n] for n in names if record.get(n) is not None and record[n] != ""), None)


def _with_options(record: Record) -> dict[str, Any]:
    options = options_of(_first(record, _OPTIONS))
    assert options is not None, "a field of the format"
    answer = _first(record, (*_ANSWERS, *_PLACES))
    built = multiple_choice(_first(record, _QUESTIONS), options, answer, passage=_first(record, _PASSAGES))
    return built | ({"evaluator": record["evaluator"]} if record.get("evaluator") else {})


_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("A", "B", "C", "D", "E"),
    ("opa", "opb", "opc", "opd", "ope"),
    ("option_a", "option_b", "option_c", "option_d", "option_e"),
    ("option1", "option2", "option3", "option4", "option5"),
    ("sol1", "sol2"),
    ("answer0", "answer1", "answer2", "answer3"),
    ("answerA", "answerB", "answerC"),
)
"""Names of columns that hold one option each."""


def _with_columns(record: Record) -> dict[str, Any]:
    names = next(([n for n in c if record.get(n) is not None] for c in _COLUMNS if record.get(c[1]) is not None), [])
    texts = [_option_text(record[n]) for n in names]
    known = [t for t in texts if t is not None]
    if len(known) != len(names) or len(known) < 2:
        raise Unfit(f"fields {', '.join(map(repr, names))}: every option must be a text or a number")
    counted = names[0] in ("option1", "answerA")  # the sets of these count their places from 1
    labels = [str(i) for i in range(1, len(names) + 1)] if counted else list(ascii_uppercase)
    answer = _first(record, (*_ANSWERS, *_PLACES))
    return multiple_choice(
        _first(record, _QUESTIONS), (labels[: len(known)], known), answer, passage=_first(record, _PASSAGES)
    )


def _with_stem(record: Record) -> dict[str, Any]:
    """A question that is an object with its options, as ARC and its like were first published."""
    question = cast("Record", record["question"])
    options = options_of(question.get("choices"))
    if options is None or not is_text(question.get("stem")):
        raise Unfit("field 'question' must hold a text in 'stem' and options in 'choices'")
    return multiple_choice(question["stem"], options, _first(record, _ANSWERS), passage=question.get("para"))


def _right_and_wrong(right: str, wrong: tuple[str, ...], question: str) -> Callable[[Record], dict[str, Any]]:
    def build(record: Record) -> dict[str, Any]:
        texts = [_option_text(record.get(n)) for n in (right, *wrong)]
        known = [t for t in texts if t is not None]
        if len(known) != len(texts) or len(set(known)) != len(known):
            raise Unfit(f"field {right!r} and its wrong ones must be texts that differ")
        order = shuffled(known, record[question])
        answer = order.index(known[0])
        labels = list(ascii_uppercase[: len(order)])
        return multiple_choice(record[question], (labels, order), answer, passage=_first(record, _PASSAGES))

    return build


def _truthful(record: Record) -> dict[str, Any]:
    targets: Any = record["mc1_targets"]
    columns = cast("Record", read_cell(targets) if isinstance(targets, str) else targets)
    if isinstance(columns.get("choices"), list):
        marks = dict(zip(cast("list[str]", columns["choices"]), cast("list[Any]", columns.get("labels")), strict=False))
    else:
        marks = dict(columns)
    right = [text for text, mark in marks.items() if mark == 1]
    if len(right) != 1 or len(marks) < 2:
        raise Unfit("field 'mc1_targets' must mark exactly one of its choices with 1")
    order = shuffled(list(marks), record["question"])
    labels = list(ascii_uppercase[: len(order)])
    return multiple_choice(record["question"], (labels, order), order.index(right[0]))


def _is_options(value: Any) -> bool:
    return options_of(value) is not None


def _is_answer(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, str) and isinstance(read_cell(value), dict))


def _is_stem(value: Any) -> bool:
    return isinstance(value, dict) and "stem" in value


_TEXT = "a text that is not empty"
_OPTION = "an option"
_ANSWER = Field((*_ANSWERS, *_PLACES), _is_answer, "a letter, a place counted from 0, or the text of an option", True)
_PASSAGE = Field(_PASSAGES, is_string, "a text")
_QUESTION = Field(_QUESTIONS, is_prompt, "a text that is not empty, or a list of messages", True)


def _columns_format(names: tuple[str, ...]) -> Format:
    options = tuple(Field((n,), _is_answer, _OPTION, required=i < 2) for i, n in enumerate(names))
    return Format("options in columns", (_QUESTION, *options, _ANSWER, _PASSAGE), _with_columns, selective=True)


def _wrong_format(name: str, question: str, right: str, wrong: tuple[str, ...]) -> Format:
    options = tuple(Field((n,), _is_answer, _OPTION, required=True) for n in (right, *wrong))
    fields = (Field((question,), is_text, _TEXT, required=True), *options, _PASSAGE)
    return Format(name, fields, _right_and_wrong(right, wrong, question), selective=True)


CHOICE_FORMATS: tuple[Format, ...] = (
    Format(
        "TruthfulQA",
        (
            Field(("question",), is_text, _TEXT, required=True),
            Field(("mc1_targets",), _is_object, "an object of choices and labels", required=True),
        ),
        _truthful,
        selective=True,
    ),
    Format(
        "ARC",
        (Field(("question",), _is_stem, "an object with 'stem' and 'choices'", required=True), _ANSWER),
        _with_stem,
        selective=True,
    ),
    _wrong_format("GPQA", "Question", "Correct Answer", tuple(f"Incorrect Answer {i}" for i in (1, 2, 3))),
    _wrong_format("SciQ", "question", "correct_answer", tuple(f"distractor{i}" for i in (1, 2, 3))),
    Format(
        "multiple choice",
        (
            _QUESTION,
            Field(_OPTIONS, _is_options, "a list of options", required=True),
            _ANSWER,
            _PASSAGE,
            Field(("evaluator",), is_text, "the name of an evaluator"),
        ),
        _with_options,
        selective=True,
    ),
    *map(_columns_format, _COLUMNS),
)
"""In the order in which they are tried."""
