"""Tool calls in plain text, in every form models write them in."""

from __future__ import annotations

import pytest

from reflexion.actors.text_calls import Action, read_reply, tagged_calls

FORMS = {
    "Action: search[Ada Lovelace]": "Ada Lovelace",
    'Action: search["Ada Lovelace"]': "Ada Lovelace",
    "**Action:** search[Ada Lovelace]": "Ada Lovelace",
    "Action 1: search[Ada Lovelace]": "Ada Lovelace",
    "action: `search` Ada Lovelace": "Ada Lovelace",
    "Action: search: Ada Lovelace": "Ada Lovelace",
    "Action: search[Ada [the Countess] Lovelace]": "Ada [the Countess] Lovelace",
    "Action: search[Ada Lovelace": "Ada Lovelace",
    "Action: search\nAction Input: Ada Lovelace": "Ada Lovelace",
    'Action: search\nAction Input: {"query": "Ada"}': {"query": "Ada"},
    'Action: search("Ada", 3)': ["Ada", 3],
    'Action: search(query="Ada")': {"query": "Ada"},
    "Action: search(it's Ada)": "it's Ada",
    'Action: search {"query": "Ada"}': {"query": "Ada"},
    'Action: search[{"query": "Ada"}]': {"query": "Ada"},
    'Action: {"name": "search", "arguments": {"query": "Ada"}}': {"query": "Ada"},
    'Action: {"tool": "search",\n "parameters": {"query": "Ada"}}': {"query": "Ada"},
    '<tool_call>\n{"name": "search", "arguments": {"query": "Ada"}}\n</tool_call>': {"query": "Ada"},
    '<tool_call>{"name": "search", "arguments": {"query": "Ada"}}': {"query": "Ada"},
}


@pytest.mark.parametrize("form", FORMS)
def test_an_action_is_read(form: str) -> None:
    said = read_reply(f"Thought: I look.\n{form}\nObservation: invented\nAnswer: 1815")
    assert said.action is not None and said.answer is None
    assert (said.action.name, said.action.arguments) == ("search", FORMS[form])
    assert said.thought == "I look." and "invented" not in said.used


@pytest.mark.parametrize(
    ("reply", "thought", "answer"),
    [
        ("Thought: clear.\nAnswer: 1815", "clear.", "1815"),
        ("Final Answer: 1815\nin London", "", "1815\nin London"),
        ("Action: finish[1815]", "", "1815"),
        ('Action: finish {"answer": "1815"}', "", "1815"),
        ("**Answer**: 1815\nAction: search[x]", "", "1815\nAction: search[x]"),
    ],
)
def test_an_answer_is_read(reply: str, thought: str, answer: str) -> None:
    said = read_reply(reply)
    assert (said.thought, said.action, said.answer) == (thought, None, answer)


@pytest.mark.parametrize("reply", ["", "I do not know.", "Thought: hm\nObservation: x\nAction: search[y]", "Action:"])
def test_neither_is_read_where_there_is_none(reply: str) -> None:
    said = read_reply(reply)
    assert said.action is None and said.answer is None


def test_what_is_no_call_has_no_name() -> None:
    said = read_reply("Action: 42!")
    assert said.action == Action("", "42!", "42!")
    assert read_reply("Action: [x]\n").action == Action("", "[x]", "[x]")
    assert [a.name for a in tagged_calls('<tool_call>{"name": "a"}</tool_call> <tool_call>[]</tool_call>')] == ["a"]
    assert [a.name for a in tagged_calls('<tool_call>{"arguments": {}}</tool_call>')] == [""]
