"""Where a reply's thought ends and its answer begins."""

from __future__ import annotations

import pytest

from reflexion.loop.thought import Split, split_thought


@pytest.mark.parametrize(
    ("reply", "thought", "answer"),
    [
        ("<think>Nine eggs.</think>\n9", "Nine eggs.", "9"),
        ("<THINKING>\nNine eggs.\n</THINKING>9", "Nine eggs.", "9"),
        ('<reasoning effort="low">Nine eggs.</reasoning>9', "Nine eggs.", "9"),
        ("[THINK]Nine eggs.[/THINK]9", "Nine eggs.", "9"),
        ("<|begin_of_thought|>Nine.<|end_of_thought|>\n<|begin_of_solution|>9<|end_of_solution|>", "Nine.", "9"),
        ("\u25c1think\u25b7Nine.\u25c1/think\u25b79", "Nine.", "9"),
        ("<seed:think>Nine.</seed:think>9", "Nine.", "9"),
        ("<think>one</think>\n<think>two</think>\nend", "one\ntwo", "end"),
    ],
)
def test_thoughts_come_in_many_tags(reply: str, thought: str, answer: str) -> None:
    split = split_thought(reply)
    assert (split.thought, split.answer.strip(), split.cut) == (thought, answer, False)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<think>a <think>b</think> c</think>d", "d"),
        ("<think>Shall I open another <think> here? No.</think>d", "d"),
        ("<think>a</think></think>d", "d"),
    ],
)
def test_nested_thoughts_end_with_the_outer_one(reply: str, answer: str) -> None:
    assert split_thought(reply).answer == answer


@pytest.mark.parametrize("thought", ["It is 3.", "It is 3.\n```\ncode(\n", "Two and one\n\n"])
def test_a_thought_without_its_opening_tag_began_with_the_reply(thought: str) -> None:
    assert split_thought(f"{thought}</think>\nthree").answer == "three"


@pytest.mark.parametrize(
    "reply",
    ["<think>It is", "[THINK]It is 3. Answer: 3", "Well.\n<think>It", "<|channel|>analysis<|message|>It is"],
)
def test_a_reply_that_ends_within_a_thought_holds_no_answer(reply: str) -> None:
    assert split_thought(reply).cut
    assert "3" not in split_thought(reply).answer


@pytest.mark.parametrize(
    "reply",
    [
        "Write `<think>` first and `</think>` last.",
        "The tag is called '</think>' there.",
        "```html\n<think>\nx\n</think>\n```\nThat's it.",
        "~~~\n</think>\n~~~\nThat's it.",
        "I would <think> so.",
        "no tags, x < y",
    ],
)
def test_tags_that_are_talked_about_are_text(reply: str) -> None:
    assert split_thought(reply) == Split("", reply)


@pytest.mark.parametrize(
    ("reply", "thought", "answer"),
    [
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Oslo<|return|>",
            "Hm.",
            "Oslo",
        ),
        ("<|channel|>final<|message|>Oslo", "", "Oslo"),
        ("analysisThe capital. So Oslo.assistantfinalOslo", "The capital. So Oslo.", "Oslo"),
    ],
)
def test_channels_other_than_the_final_one_are_thoughts(reply: str, thought: str, answer: str) -> None:
    assert split_thought(reply) == Split(thought, answer)
