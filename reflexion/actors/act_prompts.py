"""What an acting model is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import orjson
from pydantic import Field, JsonValue

from reflexion.keys import digest
from reflexion.types import Frozen

__all__ = ["ActPrompts", "told_turns"]


class ActPrompts(Frozen):
    """Templates of the actor `react`."""

    system: dict[str, str] = Field(
        default={
            "text": (
                "Solve the problem. Use the tools where they help, then give only the final answer, as short as "
                "possible."
            ),
            "python": (
                "You write Python. Use the tools where they help, then answer with the complete function in one "
                "```python block."
            ),
            "environment": "You act in a small world to reach a goal. Do one thing at a time.",
        }
    )
    textual: str = (
        "{system}\n\nTools:\n{tools}\n\nReply with a thought, and then either one line that uses a tool:\n"
        "Action: tool[argument]\nor, when you know it, the answer:\nAnswer: the final answer"
    )
    textual_environment: str = (
        "{system}\n\n{tools}Reply with a thought, and then one line with what you do next:\nAction: what to do"
    )
    tools: str = "Tools:\n{tools}\nA tool is used by:\nAction: tool[argument]\n\n"
    # Shown before the problem where tools are called by text: models follow what they see more than what they read.
    examples: dict[str, tuple[str, ...]] = Field(
        default={
            "search": (
                "Where was the author of Blue Hills born?",
                "Thought: I must find the author of Blue Hills.\nAction: search[Blue Hills]",
                "Observation: Blue Hills: Blue Hills is a novel by Ann Ray.",
                "Thought: Now I must find where Ann Ray was born.\nAction: search[Ann Ray]",
                "Observation: Ann Ray: Ann Ray was a writer. She was born in Delm.",
                "Thought: Ann Ray was born in Delm.\nAnswer: Delm",
            ),
            "calculate": (
                "A box holds 12 eggs. How many eggs are in 7 boxes, if 5 eggs are broken?",
                "Thought: Seven boxes hold 12 * 7 eggs, and 5 are broken.\nAction: calculate[12 * 7 - 5]",
                "Observation: 79",
                "Thought: That is what was asked for.\nAnswer: 79",
            ),
        },
        description="By name of a tool: what the user and the model say in turns.",
    )
    command: str = "Do one thing in the world, such as: {commands}"
    observation: str = "Observation: {text}"
    last_turn: str = "There are no more tool calls. Give the final answer now."
    no_action: str = "Say what you do next."
    observation_limit: int = Field(default=2000, ge=100, description="Characters of one observation shown.")

    @cached_property
    def digest(self) -> str:
        """Digest of what shapes the turns of a trial."""
        return digest(self.model_dump())[:16]


def told_turns(turns: Sequence[Mapping[str, JsonValue]]) -> str:
    """The turns of a trial as text: what a reflection or a later trial sees of them."""
    lines: list[str] = []
    for turn in turns:
        if turn.get("thought"):
            lines.append(f"Thought: {turn['thought']}")
        if "tool" in turn:
            given = turn.get("arguments")
            shown = given if isinstance(given, str) else orjson.dumps(given).decode()
            lines.append(f"Action: {turn['tool']} {shown}")
        elif "action" in turn:
            lines.append(f"Action: {turn['action']}")
        if "observation" in turn:
            lines.append(f"Observation: {turn['observation']}")
        if "answer" in turn:
            lines.append(f"Answer: {turn['answer']}")
    return "\n".join(lines)
