"""Inspect AI with a Reflexion solver; it records every sample in its log."""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ.setdefault("OPENAI_API_KEY", "unused")
os.environ["INSPECT_DISPLAY"] = "none"

from common import ACT, ANSWER, MAX_TRIALS, REFLECT, Clock, with_answer, with_lessons, work
from inspect_ai import Task
from inspect_ai import eval as run
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import solver


@solver
def reflexion() -> Any:
    async def ask(system: str, user: str) -> Any:
        return await get_model().generate([ChatMessageSystem(content=system), ChatMessageUser(content=user)])

    async def solve(state: Any, generate: Any) -> Any:
        lessons: list[str] = []
        for _ in range(MAX_TRIALS):
            state.output = await ask(ACT, with_lessons(state.input_text, lessons))
            if ANSWER in state.output.completion:
                break
            reflection = await ask(REFLECT, with_answer(state.input_text, state.output.completion))
            lessons.append(reflection.completion)
        return state

    return solve


todo = work()
samples = MemoryDataset([Sample(input=text, target=ANSWER) for text in todo.prompts])
task = Task(dataset=samples, solver=reflexion(), scorer=includes())
clock = Clock()
with tempfile.TemporaryDirectory() as logs:
    log = run(
        task,
        model="openai/gpt-4",
        model_base_url=todo.url,
        model_args={"responses_api": False},
        max_connections=todo.concurrency,
        max_samples=todo.concurrency,
        max_tasks=1,
        log_dir=logs,
        display="none",
    )[0]
    accuracy = log.results.scores[0].metrics["accuracy"].value if log.results else 0.0
    recorded = len(log.samples or [])
clock.tell(solved=round(accuracy * todo.problems), made=todo.problems, recorded=recorded)
