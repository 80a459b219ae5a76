"""Where a reply states its answer."""

from __future__ import annotations

import pytest

from reflexion.evaluators.reading.answers import stated_answer
from reflexion.evaluators.reading.normalisation import bare


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Oslo lies north.\nAnswer: Oslo", "Oslo"),
        ("**Answer:** Oslo", "Oslo"),
        ("*Answer*: Oslo", "Oslo"),
        ("Final Answer = Oslo", "Oslo"),
        ("So the answer is Oslo.", "Oslo"),
        ("The final answer would be: **Oslo**", "Oslo"),
        ("The answer to the question of the capital is Oslo", "Oslo"),
        ("The answer, therefore, is Oslo.", "Oslo"),
        ("Answer (one word): Oslo", "Oslo"),
        ("## Final Answer\n\nOslo\n", "Oslo"),
        ("Answer:\n\n- Oslo", "Oslo"),
        ("The answer is as follows:\nOslo", "Oslo"),
        ("Thus.\n#### Oslo", "Oslo"),
        ("Result: Oslo", "Oslo"),
        ('{"reason": "north", "answer": "Oslo"}', "Oslo"),
        ('```json\n{"final_answer": "Oslo"}\n```', "Oslo"),
        ("<b>Answer:</b> Oslo", "Oslo"),
        ("Well.\n<answer>\nOslo\n</answer>\nBye.", "Oslo"),
        ("<answer>Oslo", "Oslo"),
        ("Thought: north.\nAction: Finish[Oslo]", "Oslo"),
        ("It is $\\boxed{\\text{Oslo}}$.", "\\text{Oslo}"),
        ("\\boxed{\\frac{1}{2}} is it", "\\frac{1}{2}"),
        ("\\boxed{\\boxed{3}}", "3"),
        ("\\boxed{\\frac{1}{2}", "\\frac{1}{2}"),
        ("Oslo<|im_end|>", "Oslo"),
    ],
)
def test_marks(reply: str, answer: str) -> None:
    assert bare(stated_answer(reply).text) == answer


@pytest.mark.parametrize(
    "reply",
    [
        "Die Antwort lautet Oslo.",
        "La r\u00e9ponse est : Oslo",
        "La respuesta correcta.\nRespuesta: Oslo",
        "A resposta \u00e9 Oslo",
        "La risposta \u00e8 Oslo.",
        "Het antwoord is Oslo",
        "\u041e\u0442\u0432\u0435\u0442: Oslo",
        "Odpowied\u017a: Oslo",
        "Svar: Oslo",
        "\u7b54\u6848\uff1aOslo",
        "\u6700\u7ec8\u7b54\u6848\u662fOslo\u3002",
        "\u7b54\u3048\uff1aOslo",
        "\uc815\ub2f5: Oslo",
        "\u0627\u0644\u0625\u062c\u0627\u0628\u0629: Oslo",
    ],
)
def test_marks_in_other_languages(reply: str) -> None:
    statement = stated_answer(reply)
    assert statement.marked and bare(statement.text) == "Oslo"


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Answer: Rome\nNo.\nAnswer: Oslo", "Oslo"),
        ("The answer is Rome? No, the answer is Oslo", "Oslo"),
        ("\\boxed{Rome}, or rather \\boxed{Oslo}", "Oslo"),
        ("#### Rome\n#### Oslo", "Oslo"),
    ],
)
def test_the_last_of_several_marks_counts(reply: str, answer: str) -> None:
    assert stated_answer(reply).text == answer


@pytest.mark.parametrize("later", ["Answer: Rome", "The answer is Rome.", "#### Rome", "Rome"])
@pytest.mark.parametrize("ended", ["\\boxed{Oslo}", "<answer>Oslo</answer>", "Finish[Oslo]"])
def test_a_mark_that_has_an_end_counts_more_than_one_that_has_none(ended: str, later: str) -> None:
    assert stated_answer(f"{ended}\n{later}").text == "Oslo"


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ("First.\n\nOslo\n", "Oslo"),
        ("```\nOslo\n```", "Oslo"),
        ("What is the answer?\nOslo", "Oslo"),
        ("The answer is not Rome.\nOslo", "Oslo"),
        ("In answer to that, I say\nOslo", "Oslo"),
        ("Panswer: no\nOslo", "Oslo"),
        ("", ""),
    ],
)
def test_what_is_not_marked_is_read_from_the_last_line(reply: str, line: str) -> None:
    statement = stated_answer(reply)
    assert (statement.text, statement.marked) == (line, False)
