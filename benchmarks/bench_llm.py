"""What the client costs beside the bare SDK, how it finds an endpoint's rate, and how it takes faults.

Ratios within one run; absolute figures depend on the machine.
Run: `python -m benchmarks.bench_llm`, or `pytest benchmarks/bench_llm.py` for the timings alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.endpoint import EndpointProcess, endpoint_process
from reflexion.llm import ChatRequest, Message, OpenAIChat
from reflexion.llm.pacing.limits import Limiter, limiter_for

SYSTEM = "You solve the task. Answer briefly."


def request(number: int) -> ChatRequest:
    """A request of the size of a first trial."""
    task = f"[task:{number}] What is six times seven? Answer with the number only."
    return ChatRequest(messages=(Message(role="system", content=SYSTEM), Message(role="user", content=task)))


# -- overhead ------------------------------------------------------------------------------------------


async def _at_once(call: Callable[[int], Awaitable[Any]], calls: int, concurrency: int) -> None:
    numbers = iter(range(calls))

    async def worker() -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(worker() for _ in range(concurrency)))


async def overhead(url: str, *, calls: int = 300, rounds: int = 5, concurrency: int = 20) -> dict[str, float]:
    """CPU milliseconds per call of the bare SDK and of ours, taken in turns; the ratio of the medians."""
    from openai import AsyncOpenAI

    bare = AsyncOpenAI(base_url=url, api_key="x", max_retries=0)
    ours = OpenAIChat("m", url, "x", concurrency=concurrency)

    async def call_bare(number: int) -> str | None:
        messages: Any = [{"role": m.role, "content": m.content} for m in request(number).messages]
        reply = await bare.chat.completions.create(model="m", messages=messages, temperature=0.0, max_tokens=512)
        return reply.choices[0].message.content

    async def call_ours(number: int) -> str:
        return (await ours.chat(request(number))).text

    took: dict[str, list[float]] = {"bare": [], "ours": []}
    for call in (call_bare, call_ours):
        await _at_once(call, concurrency * 2, concurrency)  # connections, imports, caches
    for _ in range(rounds):
        for name, call in (("bare", call_bare), ("ours", call_ours)):
            began = time.process_time()
            await _at_once(call, calls, concurrency)
            took[name].append(1000 * (time.process_time() - began) / calls)
    await bare.close()
    await ours.aclose()
    medians = {name: statistics.median(values) for name, values in took.items()}
    return {
        **{f"{k}_cpu_ms": round(v, 3) for k, v in medians.items()},
        "ratio": round(medians["ours"] / medians["bare"], 3),
    }


# -- adaptive concurrency ------------------------------------------------------------------------------


async def adaptive(
    endpoint: EndpointProcess, rate: float, *, warm: float = 30.0, measured: float = 10.0, callers: int = 200
) -> dict[str, Any]:
    """Send as much as the limiter allows for `warm` seconds, then measure: share of the rate, share of 429s.

    `reached_after` is the first second from which three seconds in a row were at 85 % of the rate.
    """
    llm = OpenAIChat("m", endpoint.url, "x", max_attempts=100, call_timeout=600)
    limiter: Limiter = llm.limiter
    began = time.monotonic()
    done: list[float] = []

    async def caller(index: int) -> None:
        while time.monotonic() - began < warm + measured:
            await llm.chat(request(index))
            done.append(time.monotonic() - began)

    tasks = [asyncio.create_task(caller(i)) for i in range(callers)]
    await asyncio.sleep(warm)
    before = await asyncio.to_thread(endpoint.stats)
    await asyncio.sleep(measured)
    after = await asyncio.to_thread(endpoint.stats)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await llm.aclose()
    calls, refused = after["calls"] - before["calls"], after["s429"] - before["s429"]
    per_second = [sum(second <= t < second + 1 for t in done) for second in range(int(warm + measured))]
    reached = next((s for s in range(len(per_second) - 2) if min(per_second[s : s + 3]) >= 0.85 * rate), None)
    return {
        "rate": rate,
        "achieved": round((calls - refused) / measured, 1),
        "share_of_rate": round((calls - refused) / measured / rate, 3),
        "share_of_429": round(refused / calls, 4) if calls else None,
        "reached_after": reached,
        "limit": limiter.limit,
        "changes": len(limiter.changes),
    }


# -- faults --------------------------------------------------------------------------------------------


async def faults(
    clean: EndpointProcess, faulty: EndpointProcess, *, calls: int = 1000, callers: int = 100, fixed: int | None = None
) -> dict[str, Any]:
    """The same calls with and without faults: nothing lost, nothing twice, and the ratio of wall times."""
    walls: dict[str, float] = {}
    answered: dict[str, int] = {}
    for name, endpoint in (("clean", clean), ("faulty", faulty)):
        endpoint.reset()
        llm = OpenAIChat("m", endpoint.url, "x", attempt_timeout=5.0, max_attempts=30, concurrency=fixed)
        replies: dict[int, str] = {}

        async def call(number: int, llm: OpenAIChat = llm, replies: dict[int, str] = replies) -> None:
            reply = await llm.chat(request(number))
            if number in replies:
                raise RuntimeError(f"call {number} was answered twice")
            replies[number] = reply.text

        began = time.monotonic()
        await _at_once(call, calls, callers)
        walls[name] = time.monotonic() - began
        answered[name] = len(replies)
        if name == "faulty":
            limiter = limiter_for(endpoint.url, fixed)
        await llm.aclose()
    stats = faulty.stats()
    return {
        "calls": calls,
        "answered": answered["faulty"],
        "distinct": stats["distinct"],
        "duplicates_in_flight": stats["duplicates_in_flight"],
        "requests": stats["calls"],
        "429": stats["s429"],
        "500": stats["s500"],
        "hung": stats["hung"],
        "wall_clean": round(walls["clean"], 2),
        "wall_faulty": round(walls["faulty"], 2),
        "ratio": round(walls["faulty"] / walls["clean"], 2),
        "limit_at_end": limiter.limit,
    }


# -- pytest-benchmark ----------------------------------------------------------------------------------


def test_bench_call(benchmark: Any) -> None:
    """One call, with nothing but the loopback between."""
    with endpoint_process() as endpoint, asyncio.Runner() as runner:
        llm = OpenAIChat("m", endpoint.url, "x")
        benchmark(lambda: runner.run(llm.chat(request(1))))
        runner.run(llm.aclose())


def test_bench_bare_call(benchmark: Any) -> None:
    """The same by the bare SDK."""
    from openai import AsyncOpenAI

    with endpoint_process() as endpoint, asyncio.Runner() as runner:
        client = AsyncOpenAI(base_url=endpoint.url, api_key="x", max_retries=0)
        messages: Any = [{"role": m.role, "content": m.content} for m in request(1).messages]

        async def call() -> Any:
            return await client.chat.completions.create(model="m", messages=messages)

        benchmark(lambda: runner.run(call()))
        runner.run(client.close())


def main() -> None:
    """Print each measurement as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["overhead", "adaptive", "faults"])
    parser.add_argument(
        "--rate", type=float, nargs="+", default=[20.0, 40.0, 100.0], help="requests a second the endpoint admits"
    )
    parser.add_argument("--warm", type=float, default=30.0, help="seconds before adaptive concurrency is measured")
    parser.add_argument("--calls", type=int, default=1000, help="calls of the faults scenario")
    args = parser.parse_args()
    if "overhead" in args.what:
        with endpoint_process() as endpoint:
            print(json.dumps({"overhead": asyncio.run(overhead(endpoint.url))}), flush=True)
    if "adaptive" in args.what:
        for rate in args.rate:
            with endpoint_process(rate=rate, latency=0.2) as endpoint:
                print(json.dumps({"adaptive": asyncio.run(adaptive(endpoint, rate, warm=args.warm))}), flush=True)
    if "faults" in args.what:
        with (
            endpoint_process(latency=0.1) as clean,
            endpoint_process(latency=0.1, p429=0.3, p500=0.1, phang=0.01) as faulty,
        ):
            for name, fixed in (("faults_adaptive", None), ("faults_fixed_100", 100)):
                result = asyncio.run(faults(clean, faulty, calls=args.calls, fixed=fixed))
                print(json.dumps({name: result}), flush=True)


if __name__ == "__main__":
    main()
