"""LangGraph: a graph of trial, evaluate and reflect, as its own Reflexion example draws it."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

from common import ACT, ANSWER, MAX_TRIALS, REFLECT, Clock, with_answer, with_lessons, work
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph


class Episode(TypedDict):
    text: str
    answer: str
    lessons: list[str]
    trials: int
    solved: bool


async def main() -> None:
    todo = work()
    model = ChatOpenAI(model="mock", base_url=todo.url, max_retries=5)

    async def trial(state: Episode) -> dict[str, Any]:
        reply = await model.ainvoke([("system", ACT), ("user", with_lessons(state["text"], state["lessons"]))])
        return {"answer": reply.content, "trials": state["trials"] + 1}

    async def evaluate(state: Episode) -> dict[str, Any]:
        return {"solved": ANSWER in state["answer"]}

    async def reflect(state: Episode) -> dict[str, Any]:
        reply = await model.ainvoke([("system", REFLECT), ("user", with_answer(state["text"], state["answer"]))])
        return {"lessons": [*state["lessons"], reply.content]}

    def after(state: Episode) -> str:
        return END if state["solved"] or state["trials"] >= MAX_TRIALS else "reflect"

    graph = StateGraph(Episode)
    for name, step in (("trial", trial), ("evaluate", evaluate), ("reflect", reflect)):
        graph.add_node(name, step)
    graph.add_edge(START, "trial")
    graph.add_edge("trial", "evaluate")
    graph.add_conditional_edges("evaluate", after)
    graph.add_edge("reflect", "trial")
    app = graph.compile()
    slots = asyncio.Semaphore(todo.concurrency)

    async def episode(text: str) -> bool:
        async with slots:
            ended = await app.ainvoke({"text": text, "answer": "", "lessons": [], "trials": 0, "solved": False})
            return bool(ended["solved"])

    clock = Clock()
    solved = await asyncio.gather(*(episode(text) for text in todo.prompts))
    clock.tell(solved=sum(solved), made=0, recorded=0)


asyncio.run(main())
