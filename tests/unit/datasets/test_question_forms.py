"""Published sets of questions, and multiple choice in the forms in which it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reflexion.datasets import Dataset, open_dataset
from reflexion.datasets.formats.questions import boxed
from reflexion.errors import DatasetError

YES, NO = ["yes", "true"], ["no", "false"]


def opened(path: Path, *records: dict[str, Any], **options: Any) -> Dataset:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return open_dataset(path, **options)


FORMS: list[tuple[str, dict[str, Any], str, Any, str | None]] = [
    ("SVAMP", {"Body": "Mia had 8 figs", "Question": "How many now?", "Answer": "5.0", "Type": "Subtraction"},
     "Mia had 8 figs. How many now?", "5.0", "numeric"),
    ("SVAMP", {"Body": "It is -3 degrees.", "Question": "And 4 less?", "Answer": -7.0}, "It is -3 degrees. And 4 less?",
     "-7", "numeric"),
    ("ASDiv", {"body": "A box holds 9 pears.", "question": "How many in 2?", "answer": "18 (pears)"},
     "A box holds 9 pears. How many in 2?", "18", "numeric"),
    ("MultiArith", {"question": "2 rows of 6?", "final_ans": "12"}, "2 rows of 6?", "12", "numeric"),
    ("MAWPS", {"sQuestion": "7 and 7?", "lSolutions": [14.0]}, "7 and 7?", "14", "numeric"),
    ("MATH", {"problem": "Half?", "solution": "Thus $\\boxed{\\frac{1}{2}}$.", "level": "Level 2"}, "Half?",
     "\\frac{1}{2}", None),
    ("MATH", {"problem": "Sum?", "solution": "So 7.", "answer": "7", "subject": "Algebra"}, "Sum?", "7", None),
    ("MATH", {"problem": "Sum?", "solution": "So 33.", "answer": "033"}, "Sum?", "33", None),
    ("TriviaQA", {"question": "Swiss capital?", "answer": {"value": "Bern", "aliases": ["Bern", "Berne"]}},
     "Swiss capital?", ["Bern", "Berne"], "em"),
    ("BoolQ", {"question": "is ice cold", "passage": "Ice is frozen water.", "answer": True},
     "is ice cold?\n\nAnswer yes or no.", YES, None),
    ("BoolQ", {"question": "is ice hot?", "passage": "Ice is frozen.", "answer": "False"},
     "is ice hot?\n\nAnswer yes or no.", NO, None),
    ("DROP", {"question": "Who won?", "passage": "Lund won.", "answers_spans": {"spans": ["Lund", "Lund"]}},
     "Who won?", ["Lund"], None),
    ("question and answer", {"question": "Largest planet?", "answer": "Jupiter"}, "Largest planet?", "Jupiter", None),
    ("question and answer", {"question": "Who?", "answers": ["Ada", "Lovelace"]}, "Who?", ["Ada", "Lovelace"], None),
    ("question and answer", {"question": "Who?", "possible_answers": '["Ada", "A."]'}, "Who?", ["Ada", "A."], None),
    ("question and answer", {"question": "Who?", "answer": "Ada", "answer_aliases": ["A"]}, "Who?", ["Ada", "A"], None),
    ("question and answer", {"problem": "1+1?", "answer": 2, "id": "x"}, "1+1?", 2, None),
    ("question and answer", {"question": "Is it?", "answer": False}, "Is it?\n\nAnswer yes or no.", NO, None),
    ("OpenAI evals", {"input": [{"role": "user", "content": "Hue of grass?"}], "ideal": ["green", "Green"]},
     "Hue of grass?", ["green", "Green"], None),
    ("BIG-bench", {"input": "Not true is?\nOptions:\n(A) yes\n(B) no", "target": "(B)"},
     "Not true is?\nOptions:\n(A) yes\n(B) no", "(B)", "choice"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "record", "prompt", "answer", "evaluator"), FORMS)
def test_a_published_form_needs_no_mapping(
    tmp_path: Path, name: str, record: dict[str, Any], prompt: str, answer: Any, evaluator: str | None
) -> None:
    dataset = opened(tmp_path / "d.jsonl", record)
    problem = dataset[0]
    assert (dataset.format, problem.prompt, problem.answer) == (name, prompt, answer)
    assert problem.evaluator == evaluator


@pytest.mark.parametrize(
    ("answers", "accepted"),
    [
        ({"text": ["the Aare", "Aare"], "answer_start": [3, 7]}, ["the Aare", "Aare"]),
        ([{"text": "Aare", "answer_start": 7}], ["Aare"]),
        ({"text": [], "answer_start": []}, ["unanswerable", "no answer", "noanswer"]),
    ],
)
def test_squad(tmp_path: Path, answers: Any, accepted: list[str]) -> None:
    record = {
        "id": "s",
        "title": "Bern",
        "question": "Which river?",
        "context": "It lies on the Aare.",
        "answers": answers,
    }
    problem = opened(tmp_path / "d.jsonl", record)[0]
    assert (problem.answer, problem.evaluator, problem.context[0].title) == (accepted, "em", "Bern")
    assert problem.prompt.startswith("Which river?") and problem.context[0].text == "It lies on the Aare."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("so \\boxed{3}", "3"),
        ("\\boxed{1} and then \\boxed{\\sqrt{2}+\\{1\\}}", "\\sqrt{2}+\\{1\\}"),
        ("\\fbox{a}", "a"),
        ("\\boxed 5 is it", "5"),
        ("\\boxed{never closed", None),
        ("nothing", None),
    ],
)
def test_what_a_solution_frames_is_its_answer(text: str, value: str | None) -> None:
    assert boxed(text) == value


CHOICES: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"question": "q", "choices": ["red", "blue", "green"], "answer": 2}, "C", ["red", "blue", "green"]),
    ({"question": "q", "choices": ["1", "2", "3"], "answer": 0, "subject": "s"}, "A", ["1", "2", "3"]),
    ({"question": "q", "options": ["A)5", "B)6"], "correct": "B", "rationale": "r"}, "B", ["5", "6"]),
    ({"question": "q", "options": {"A": "up", "B": "down"}, "answer": "a"}, "A", ["up", "down"]),
    ({"question": "q", "choices": {"text": ["up", "down"], "label": ["1", "2"]}, "answerKey": "2"}, "B",
     ["up", "down"]),
    ({"question": "q", "options": [{"label": "A", "text": "up"}, {"label": "B", "text": "down"}], "answer": "B"}, "B",
     ["up", "down"]),
    ({"question": "q", "options": "['up' 'down']", "answer": "down"}, "B", ["up", "down"]),
    ({"question": "q", "options": ["up", "down"], "answer": "(B)"}, "B", ["up", "down"]),
    ({"question": "q", "options": ["up", "down"], "answer_index": 1, "category": "c"}, "B", ["up", "down"]),
    ({"prompt": "q", "options": ["B", "A"], "answer": "A"}, "A", ["B", "A"]),
    ({"question": "q", "A": "up", "B": "down", "C": 3, "D": None, "answer": "C"}, "C", ["up", "down", "3"]),
    ({"question": "q", "opa": "up", "opb": "down", "opc": "in", "opd": "out", "cop": 3}, "D",
     ["up", "down", "in", "out"]),
    ({"sentence": "q", "option1": "cup", "option2": "jug", "answer": "2"}, "B", ["cup", "jug"]),
    ({"goal": "q", "sol1": "push", "sol2": "pull", "label": 0}, "A", ["push", "pull"]),
    ({"article": "Text.", "question": "q", "options": ["up", "down"], "answer": "A"}, "A", ["up", "down"]),
    ({"ctx": "q", "endings": ["runs", "sits"], "label": "1"}, "B", ["runs", "sits"]),
    ({"Problem": "q", "options": "a ) 38 , b ) 1,250 , c ) none", "correct": "b"}, "B", ["38", "1,250", "none"]),
    ({"question": "q", "answerA": "hop", "answerB": "run", "answerC": "nap", "label": "1"}, "A", ["hop", "run", "nap"]),
    ({"question": {"stem": "q", "choices": [{"label": "A", "text": "up"}, {"label": "B", "text": "down"}]},
      "answerKey": "B"}, "B", ["up", "down"]),
]  # fmt: skip


@pytest.mark.parametrize(("record", "letter", "options"), CHOICES)
def test_options_stand_in_the_prompt_and_a_letter_is_the_answer(
    tmp_path: Path, record: dict[str, Any], letter: str, options: list[str]
) -> None:
    problem = opened(tmp_path / "d.jsonl", record)[0]
    lines = [f"{'ABCD'[i]}) {option}" for i, option in enumerate(options)]
    assert (problem.prompt, problem.answer, problem.evaluator) == ("\n".join(["q", "", *lines]), letter, "choice")
    assert [d.text for d in problem.context] == (["Text."] if "article" in record else [])


@pytest.mark.parametrize(
    ("record", "right"),
    [
        ({"Question": "q", "Correct Answer": "iron", **{f"Incorrect Answer {i}": f"w{i}" for i in (1, 2, 3)}}, "iron"),
        ({"question": "q", "correct_answer": "zinc", **{f"distractor{i}": f"w{i}" for i in (1, 2, 3)}}, "zinc"),
        ({"question": "q", "mc1_targets": {"choices": ["lead", "tin", "w"], "labels": [0, 1, 0]}}, "tin"),
        ({"question": "q", "mc1_targets": {"gold": 1, "tin": 0}}, "gold"),
    ],
)
def test_what_is_published_in_an_order_that_tells_is_put_in_another(
    tmp_path: Path, record: dict[str, Any], right: str
) -> None:
    problem = opened(tmp_path / "d.jsonl", record)[0]
    assert f"{problem.answer}) {right}" in problem.prompt.splitlines()
    again = opened(tmp_path / "e.jsonl", record)[0]
    assert again.prompt == problem.prompt


def test_right_options_come_in_every_place(tmp_path: Path) -> None:
    records = [
        {"Question": f"q{n}", "Correct Answer": "yes", **{f"Incorrect Answer {i}": f"w{i}" for i in (1, 2, 3)}}
        for n in range(60)
    ]
    assert {p.answer for p in opened(tmp_path / "d.jsonl", *records)} == set("ABCD")


def test_options_that_a_prompt_shows_are_not_added_again(tmp_path: Path) -> None:
    for mark in ("A) {}\nB) {}", "(A) {}\n(B) {}", "A. {}\nB. {}"):
        prompt = "Which?\n" + mark.format("up", "down")
        assert (
            opened(tmp_path / "d.jsonl", {"prompt": prompt, "options": ["up", "down"], "answer": "B"})[0].prompt
            == prompt
        )


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, "the answer 2 is no place among 2 options"),
        ({"question": "q", "choices": ["a", "b"], "answer": -1}, "the answer -1 is no place among 2 options"),
        ({"question": "q", "choices": ["x", "y"], "answer": "z"}, "the answer 'z' is none of the options A, B"),
        (
            {"question": "q", "choices": ["1", "0", "2"], "answer": "1"},
            "'1' is the text of one option and the place of",
        ),
        ({"question": "q", "answer": {"right": "x"}, "answers": []}, "neither 'value' nor 'aliases'"),
        ({"problem": "p", "solution": "none", "level": "1"}, "no result in \\boxed{…}"),
        ({"sQuestion": "q", "lSolutions": [1, 2]}, "must hold one number"),
        ({"problem": "p", "answer": {"right": "x", "why": "y"}}, "--map answer=answer.right"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_row(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        opened(tmp_path / "d.jsonl", record)
    assert message in str(caught.value) and "d.jsonl:1: " in str(caught.value)


def test_rows_of_two_forms_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"d\.jsonl:2: field 'answer' has its result after '####'"):
        opened(tmp_path / "d.jsonl", {"question": "a", "answer": "3"}, {"question": "b", "answer": "so\n#### 4"})


@pytest.mark.parametrize(
    ("cell", "answer"), [("['Rom', 'Roma']", ["Rom", "Roma"]), ("[1, 2]", "[1, 2]"), ("Rom", "Rom")]
)
def test_a_list_of_texts_in_a_table_s_cell_is_one_of_accepted_answers(tmp_path: Path, cell: str, answer: Any) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f'prompt,answer\nCity?,"{cell}"\n')
    assert open_dataset(path)[0].answer == answer
    as_json = opened(tmp_path / "d.jsonl", {"prompt": "City?", "answer": cell})[0]
    assert as_json.answer == cell, "JSON has lists of its own: a text is a text"
