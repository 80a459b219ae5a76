"""Plain Prefect: the steps as `@task` functions, as its documentation shows, timed until all is recorded."""

from __future__ import annotations

import asyncio
from typing import Any

from common import ACT, ANSWER, MAX_TRIALS, REFLECT, Clock, with_answer, with_lessons, work
from openai import AsyncOpenAI
from prefect import flow, get_client, task
from prefect.cache_policies import INPUTS

todo = work()
client = AsyncOpenAI(base_url=todo.url, max_retries=5)
made: list[int] = []


async def ask(system: str, user: str) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    reply = await client.chat.completions.create(model="mock", messages=messages)
    return reply.choices[0].message.content or ""


@task(cache_policy=INPUTS, persist_result=True)
async def trial(text: str, lessons: list[str], index: int) -> str:
    return await ask(ACT, with_lessons(text, lessons))


@task(cache_policy=INPUTS, persist_result=True)
async def evaluate(answer: str, text: str) -> bool:
    return ANSWER in answer


@task(cache_policy=INPUTS, persist_result=True)
async def reflect(text: str, answer: str, index: int) -> str:
    return await ask(REFLECT, with_answer(text, answer))


@task
async def memorize(text: str, lesson: str) -> str:
    return lesson


async def episode(text: str, slots: asyncio.Semaphore) -> bool:
    async with slots:
        lessons: list[str] = []
        for index in range(MAX_TRIALS):
            answer = await trial(text, lessons, index)
            made.append(2)
            if await evaluate(answer, text):
                return True
            lessons = [*lessons, await memorize(text, await reflect(text, answer, index))]
            made.append(2)
        return False


@flow
async def batch() -> int:
    slots = asyncio.Semaphore(todo.concurrency)
    return sum(await asyncio.gather(*(episode(text, slots) for text in todo.prompts)))


async def recorded(api: Any) -> int:
    response = await api._client.post(
        "/task_runs/count",
        json={"flows": {"name": {"any_": ["batch"]}}, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}},
    )
    return int(response.json())


async def main() -> None:
    async with get_client() as api:
        before = await recorded(api)
        clock = Clock()
        solved = await batch()
        best, moved = -1, clock.wall
        while (now := await recorded(api) - before) < sum(made):
            if now > best:
                best, moved = now, asyncio.get_running_loop().time()
            elif asyncio.get_running_loop().time() - moved > 60:
                break
            await asyncio.sleep(0.25)
        clock.tell(solved=solved, made=sum(made), recorded=now)


asyncio.run(main())
