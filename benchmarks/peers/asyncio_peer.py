"""Plain asyncio over the official client: nothing is cached, tracked or recorded."""

from __future__ import annotations

import asyncio

from common import ACT, ANSWER, MAX_TRIALS, REFLECT, Clock, with_answer, with_lessons, work
from openai import AsyncOpenAI


async def main() -> None:
    todo = work()
    client = AsyncOpenAI(base_url=todo.url, max_retries=5)
    slots = asyncio.Semaphore(todo.concurrency)

    async def ask(system: str, user: str) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        reply = await client.chat.completions.create(model="mock", messages=messages)
        return reply.choices[0].message.content or ""

    async def episode(text: str) -> bool:
        async with slots:
            lessons: list[str] = []
            for _ in range(MAX_TRIALS):
                answer = await ask(ACT, with_lessons(text, lessons))
                if ANSWER in answer:
                    return True
                lessons.append(await ask(REFLECT, with_answer(text, answer)))
            return False

    clock = Clock()
    solved = await asyncio.gather(*(episode(text) for text in todo.prompts))
    clock.tell(solved=sum(solved), made=0, recorded=0)


asyncio.run(main())
