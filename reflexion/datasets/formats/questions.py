"""Published sets of questions: HotpotQA, SQuAD, TriviaQA, BoolQ, DROP, GSM8K, SVAMP, MATH and their like."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from reflexion.datasets.formats.fields import Field, Format, Record, Unfit, is_string, is_text
from reflexion.datasets.formats.messages import is_prompt, prompt_text
from reflexion.datasets.text_cells import as_list, read_cell
from reflexion.types import Document

__all__ = ["QUESTION_FORMATS", "READING_FORMATS", "documents_of", "is_documents"]

NORMALISED = "em"
"""Evaluator of the sets whose own rule is SQuAD's normalisation: HotpotQA, SQuAD and TriviaQA."""


# -- documents ---------------------------------------------------------------------------------------------


def is_documents(value: Any) -> bool:
    """Whether documents can be read out of it."""
    return documents_of(value) is not None


def documents_of(value: Any) -> tuple[Document, ...] | None:
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
        parts: list[Any] = cast("list[Any]", text) if isinstance(text, list) else [text]
        if not (isinstance(title, str) and all(isinstance(p, str) for p in parts)):
            return None
        documents.append(Document(title=title, text="".join(parts).strip()))
    return tuple(documents)


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        document = cast("Record", item)
        return document.get("title"), document.get("text", document.get("sentences"))
    if isinstance(item, list) and len(cast("list[Any]", item)) == 2:
        return cast("list[Any]", item)[0], cast("list[Any]", item)[1]
    return None, None


def _passage(text: Any, title: Any = None) -> tuple[Document, ...]:
    return (Document(title=title if is_text(title) else "Passage", text=text.strip()),) if is_text(text) else ()


# -- reading -----------------------------------------------------------------------------------------------


def _hotpot(record: Record) -> dict[str, Any]:
    return {
        "prompt": record["question"],
        "answer": record["answer"],
        "evaluator": NORMALISED,
        "context": documents_of(record["context"]),
    }


_UNANSWERABLE = ["unanswerable", "no answer", "noanswer"]


def _squad(record: Record) -> dict[str, Any]:
    answers = _object(record["answers"])
    given = _distinct(answers.get("text") if answers is not None else _texts_in(record["answers"]))
    return {
        "prompt": f"{record['question'].strip()}\n\nAnswer in the passage's own words. If it does not hold the "
        "answer, reply: unanswerable.",
        "answer": given or list(_UNANSWERABLE),
        "evaluator": NORMALISED,
        "context": _passage(record["context"], record.get("title")),
    }


def _texts_in(value: Any) -> list[Any]:
    """Texts of `[{"text": …}, …]`, as the set was first published, or of a list of texts."""
    items = as_list(value) or []
    return [cast("Record", item).get("text") if isinstance(item, Mapping) else item for item in items]


def _trivia(record: Record) -> dict[str, Any]:
    answer = _object(record["answer"]) or {}
    names = ("value", "aliases", "normalized_value", "normalized_aliases")
    given = _distinct([text for name in names for text in _several(answer.get(name))])
    if not given:
        raise Unfit("field 'answer' holds neither 'value' nor 'aliases'")
    return {"prompt": record["question"], "answer": given, "evaluator": NORMALISED}


def _bool_q(record: Record) -> dict[str, Any]:
    question = record["question"].strip()
    return {
        "prompt": f"{question if question.endswith('?') else question + '?'}\n\nAnswer yes or no.",
        "answer": ["yes", "true"] if _truth(record["answer"]) else ["no", "false"],
        "context": _passage(record.get("passage"), record.get("title")),
    }


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).strip().casefold() in ("true", "yes", "1")


def _drop(record: Record) -> dict[str, Any]:
    spans = _distinct((_object(record["answers_spans"]) or {}).get("spans"))
    if not spans:
        raise Unfit("field 'answers_spans' holds no 'spans'")
    return {"prompt": record["question"], "answer": spans, "context": _passage(record["passage"])}


# -- numbers and mathematics -------------------------------------------------------------------------------


def _gsm8k(record: Record) -> dict[str, Any]:
    rationale, _, final = record["answer"].rpartition("####")
    return {
        "prompt": record["question"],
        "answer": final.strip().replace(",", ""),
        "evaluator": "numeric",
        "metadata": {"rationale": rationale.strip()},
    }


def _word_problem(body: tuple[str, ...], question: str, answer: str) -> Callable[[Record], dict[str, Any]]:
    """Of a story and a question about it, whose answer is a number, perhaps with its unit in brackets."""

    def build(record: Record) -> dict[str, Any]:
        story = next((record[n].strip() for n in body if is_text(record.get(n))), "")
        if story and not story.endswith((".", "?", "!", ",")):
            story += "."
        given = record[answer]
        if isinstance(given, str):
            given = read_cell(given) if given.lstrip().startswith("[") else given
        if isinstance(given, list):
            if len(cast("list[Any]", given)) != 1:
                raise Unfit(f"field {answer!r} must hold one number, not {str(cast('Any', given))[:40]}")
            given = cast("list[Any]", given)[0]
        text = given if isinstance(given, str) else _number_text(given)
        return {
            "prompt": f"{story} {record[question].strip()}".strip(),
            "answer": re.sub(r"\s*\(.*\)\s*$", "", text).strip() or text,
            "evaluator": "numeric",
        }

    return build


def _number_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _math(record: Record) -> dict[str, Any]:
    answer = record["answer"] if record.get("answer") is not None else boxed(record["solution"])
    if answer is None:
        raise Unfit("field 'solution' has no result in \\boxed{…}, and there is no field 'answer'")
    if isinstance(answer, str) and re.fullmatch(r"0+\d+", answer.strip()):
        answer = answer.strip().lstrip("0") or "0"  # AIME writes 33 as 033
    return {"prompt": record["problem"], "answer": answer, "metadata": {"rationale": record["solution"]}}


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}` or `\fbox{…}` of a text, braces balanced; None: there is none."""
    starts = list(re.finditer(r"\\(?:boxed|fbox)\s*(\{|\S)", text))
    if not starts:
        return None
    if starts[-1][1] != "{":
        return starts[-1][1]  # \boxed 5
    depth, begin = 1, starts[-1].end()
    for position in range(begin, len(text)):
        if text[position] in "{}" and text[position - 1] != "\\":
            depth += 1 if text[position] == "{" else -1
            if depth == 0:
                return text[begin:position].strip()
    return None


# -- a question and its answer -----------------------------------------------------------------------------

_ASKED = ("question", "problem", "query", "Question", "Problem")
_ANSWERED = (
    "answer",
    "answers",
    "possible_answers",
    "aliases",
    "Answer",
    "gold_answer",
    "final_answer",
    "ground_truth",
)
_SEVERAL = ("answers", "possible_answers", "aliases")
_ALIASES = ("answer_aliases", "aliases")


def _question(record: Record) -> dict[str, Any]:
    name = next(n for n in _ANSWERED if record.get(n) is not None)
    answer = record[name]
    if isinstance(answer, str) and "####" in answer:
        raise Unfit(f"field {name!r} has its result after '####', and the first row has not; give all rows one form")
    if name in _SEVERAL:
        items = as_list(answer)
        answer = answer if items is None else _texts_in(items)
    if isinstance(answer, bool):
        return _bool_q({"question": next(record[n] for n in _ASKED if is_text(record.get(n))), "answer": answer})
    if isinstance(answer, dict):
        raise Unfit(
            f"field {name!r} is an object with {', '.join(map(repr, cast('Record', answer)))}; say which of it is "
            f"the answer: --map answer={name}.{next(iter(cast('Record', answer)), 'value')}"
        )
    more = [alias for n in _ALIASES if n != name for alias in _several(record.get(n))]
    if more:
        answer = [*(cast("list[Any]", answer) if isinstance(answer, list) else [answer]), *more]
    return {
        "prompt": next(record[n] for n in _ASKED if is_text(record.get(n))),
        "answer": answer,
        "context": documents_of(record.get("context")) or _passage(record.get("context") or record.get("passage")),
    }


def _input(answer: str) -> Callable[[Record], dict[str, Any]]:
    def build(record: Record) -> dict[str, Any]:
        given = record[answer]
        listed = _texts_in(given) if isinstance(given, list) or str(given).startswith("[") else []
        letter = isinstance(given, str) and re.fullmatch(r"\([A-Z]\)", given.strip()) is not None
        return {
            "prompt": prompt_text(record["input"]),
            "answer": listed or given,
            "evaluator": "choice" if letter else None,
        }

    return build


# -- reading of fields -------------------------------------------------------------------------------------


def _object(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):
        value = read_cell(value)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _several(value: Any) -> list[Any]:
    return as_list(value) or ([value] if is_text(value) and as_list(value) is None else [])


def _distinct(values: Sequence[Any] | None) -> list[str]:
    return list(dict.fromkeys(str(v) for v in values or () if v is not None and str(v).strip()))


def _is_object(value: Any) -> bool:
    return _object(value) is not None


def _is_answers(value: Any) -> bool:
    return _is_object(value) or as_list(value) is not None


def _is_final_answer(value: Any) -> bool:
    return isinstance(value, str) and "####" in value


def _is_number(value: Any) -> bool:
    """A number, a text with one, or a list of one."""
    if isinstance(value, list):
        return bool(cast("list[Any]", value)) and all(map(_is_number, cast("list[Any]", value)))
    if isinstance(value, str):
        return re.search(r"\d", value) is not None and len(value) <= 60
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().casefold() in ("true", "false"))


def _is_given(value: Any) -> bool:
    return value not in (None, "", [])


_TEXT = "a text that is not empty"
_QUESTION = Field(("question",), is_text, _TEXT, required=True)


def _word_format(name: str, body: tuple[str, ...], question: str, answer: str) -> Format:
    fields = [
        Field((question,), is_text, _TEXT, required=True),
        Field((answer,), _is_number, "a number", required=True),
    ]
    if body:
        fields.append(Field(body, is_text, _TEXT, required=True))
    return Format(name, tuple(fields), _word_problem(body, question, answer), selective=True)


READING_FORMATS: tuple[Format, ...] = (
    Format(
        "HotpotQA",
        (
            _QUESTION,
            Field(("answer",), is_string, "a text", required=True),
            Field(("context",), is_documents, "a list of [title, [sentence, …]]", required=True),
        ),
        _hotpot,
    ),
    Format(
        "GSM8K",
        (_QUESTION, Field(("answer",), _is_final_answer, "a text with the result after '####'", required=True)),
        _gsm8k,
    ),
)
"""Tried before plain records, since they may have a prompt as well."""

QUESTION_FORMATS: tuple[Format, ...] = (
    Format(
        "SQuAD",
        (
            _QUESTION,
            Field(("context",), is_text, _TEXT, required=True),
            Field(("answers",), _is_answers, "an object with 'text', a list", required=True),
            Field(("title",), is_string, "a text"),
        ),
        _squad,
    ),
    Format(
        "TriviaQA",
        (_QUESTION, Field(("answer",), _is_object, "an object with 'value' and 'aliases'", required=True)),
        _trivia,
        selective=True,
    ),
    Format(
        "BoolQ",
        (
            _QUESTION,
            Field(("passage",), is_text, _TEXT, required=True),
            Field(("answer",), _is_truth, "true or false", required=True),
        ),
        _bool_q,
    ),
    Format(
        "DROP",
        (
            _QUESTION,
            Field(("passage",), is_text, _TEXT, required=True),
            Field(("answers_spans",), _is_object, "an object with 'spans'", required=True),
        ),
        _drop,
        selective=True,
    ),
    _word_format("SVAMP", ("Body",), "Question", "Answer"),
    _word_format("ASDiv", ("body",), "question", "answer"),
    _word_format("MultiArith", (), "question", "final_ans"),
    _word_format("MAWPS", (), "sQuestion", "lSolutions"),
    Format(
        "MATH",
        (
            Field(("problem",), is_text, _TEXT, required=True),
            Field(("solution",), is_text, "a text with the result in \\boxed{…}", required=True),
            Field(("answer",), _is_given, "a text or a number"),
        ),
        _math,
        selective=True,
    ),
    Format(
        "question and answer",
        (
            Field(_ASKED, is_text, _TEXT, required=True),
            Field(_ANSWERED, _is_given, "any JSON value", required=True),
            Field(("answer_aliases",), lambda v: as_list(v) is not None, "a list of texts"),
            Field(("context",), lambda v: is_string(v) or is_documents(v), "a text, or a list of documents"),
            Field(("passage",), is_string, "a text"),
        ),
        _question,
        selective=True,
    ),
    Format(
        "OpenAI evals",
        (
            Field(("input",), is_prompt, "a text that is not empty, or a list of messages", required=True),
            Field(("ideal",), _is_given, "a text, or a list of texts", required=True),
        ),
        _input("ideal"),
    ),
    Format(
        "BIG-bench",
        (
            Field(("input",), is_prompt, "a text that is not empty, or a list of messages", required=True),
            Field(("target",), _is_given, "a text, or a list of texts", required=True),
        ),
        _input("target"),
    ),
)
"""Tried after plain records, in this order."""
