"""What an episode costs each part of a production set-up, and what a night of many problems would need.

    python benchmarks/bench_scale.py [--problems 1000] [--steps-per-task-run 64] [--night 1000000 --hours 8]

Starts PostgreSQL, Redis, and the Prefect server and its services as `deployments/compose.yaml` has them, and a
scripted endpoint that answers at once. One process runs a batch; two processes run one each at the same time.
The model is fitted to the first measurement and held against the second, so its error is known. All parts
share this machine, so throughput here is bound by its processors; the model's figures are processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import redis

from benchmarks.endpoint import endpoint_process
from benchmarks.scale_model import PARTS, Cost, needs, predict
from tests.support.evals import write_problems
from tests.support.site import Site

DRAIN_SECONDS = 180.0
FEW = 8
"""Problems of the run that shows what a run costs beside its episodes."""


def cpu_of(processes: list[psutil.Process]) -> float:
    """Seconds of processor time of processes that run, and of their children that ended."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        except psutil.Error:
            continue
    return total


class Meter:
    """The processor time and the memory of the parts that stay."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def processes(self) -> dict[str, list[psutil.Process]]:
        """The processes of each part that runs all the time."""
        postgres = psutil.Process(self.site.postgres.pid)
        return {
            "server": [*self.site.processes_of("server"), *self.site.processes_of("services")],
            "database": [postgres, *postgres.children(recursive=True)],
            "redis": [psutil.Process(self.site.redis.pid)],
        }

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time so far."""
        return {part: cpu_of(found) for part, found in self.processes().items()}

    def memory(self) -> dict[str, float]:
        """Bytes of memory of the largest process of each part."""
        return {part: float(max(p.memory_info().rss for p in found)) for part, found in self.processes().items()}

    def stored(self) -> dict[str, float]:
        """Bytes in the database, in Redis and in the runs' folders."""
        with redis.Redis.from_url(self.site.redis.url) as client:
            used = client.info("memory")["used_memory"]
        files = sum(p.stat().st_size for p in self.site.runs.rglob("*") if p.is_file())
        return {"database": self.site.database_bytes(), "redis": float(used), "folder": float(files)}


def run(site: Site, url: str, datasets: list[str], granularity: int) -> dict[str, Any]:
    """One process for each dataset, all at once, until the server has recorded everything."""
    meter = Meter(site)
    before, stored, before_runs = meter.cpu(), meter.stored(), recorded(site)
    began, started = time.monotonic(), os.times()
    environment = site.client_environment() | {
        "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": "none",
        "REFLEXION_CACHE": site.redis.url_with(site.redis.password, 1),
        "REFLEXION_MEMORY": site.redis.url_with(site.redis.password, 1),
    }
    command = [sys.executable, "-c", "from reflexion.cli.main import main; main()", "eval", "--llm", "mock", "--json"]
    command += ["--steps-per-task-run", str(granularity), "--concurrency", "64"]
    processes = [
        subprocess.Popen([*command, d], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for d in datasets
    ]
    summaries: list[dict[str, Any]] = []
    for process in processes:
        out, err = process.communicate()
        if process.returncode != 0:
            raise SystemExit(err)
        summaries.append(json.loads(out))
    ended, seconds = os.times(), time.monotonic() - began
    wait_until_recorded(site, before_runs)
    after, now = meter.cpu(), meter.stored()
    episodes = sum(s["episodes"] for s in summaries)
    worker = (ended.children_user - started.children_user) + (ended.children_system - started.children_system)
    return {
        "processes": len(datasets),
        "episodes": episodes,
        "seconds": seconds,
        "busy_seconds": max(s["wall_seconds"] for s in summaries),
        "episodes_per_minute": 60 * episodes / max(s["wall_seconds"] for s in summaries),
        "cpu": {"worker": worker, **{part: after[part] - before[part] for part in after}},
        "stored": {name: now[name] - stored[name] for name in now},
        "memory": {"worker": 1e6 * max(s["peak_rss_mb"] for s in summaries), **meter.memory()},
    }


def recorded(site: Site) -> int:
    """Task runs on record."""
    return int(site.post("task_runs/count", {}))


def wait_until_recorded(site: Site, before: int) -> None:
    """Return when the number of task runs has not grown for some seconds."""
    deadline, known, since = time.monotonic() + DRAIN_SECONDS, before, time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < 4:
        now = recorded(site)
        if now != known:
            known, since = now, time.monotonic()
        time.sleep(0.2)


def cost_of(measured: dict[str, Any], small: dict[str, Any]) -> Cost:
    """What one more episode costs; `small` is a run of a few, which pays for starts and reports all the same."""
    runs = measured["processes"]
    episodes = measured["episodes"] - runs * small["episodes"]
    cpu = {part: (measured["cpu"][part] - runs * small["cpu"][part]) / episodes for part in PARTS}
    stored = {
        name: max(0.0, size - runs * small["stored"][name]) / episodes for name, size in measured["stored"].items()
    }
    return Cost(cpu, stored, measured["memory"])


def main() -> None:
    """Measure, check the model, and print what a night needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1000, help="of each process")
    parser.add_argument("--steps-per-task-run", type=int, default=64)
    parser.add_argument("--night", type=int, default=1_000_000, help="problems of the night")
    parser.add_argument("--hours", type=float, default=8.0, help="of the night")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    site = Site()
    try:
        site.launch()
        with tempfile.TemporaryDirectory() as name, endpoint_process(latency=0.0) as endpoint:
            folder = Path(name)
            # Prompts of their own for each process: nothing comes from the cache. The first few warm all up.
            sets = [write_problems(folder / f"{n}.jsonl", options.problems, start=100_000 * n) for n in (1, 2, 3)]
            few = [write_problems(folder / f"few-{n}.jsonl", FEW, start=9000 + 100 * n) for n in (1, 2)]
            run(site, endpoint.url, few[:1], options.steps_per_task_run)
            small = run(site, endpoint.url, few[1:], options.steps_per_task_run)
            one = run(site, endpoint.url, sets[:1], options.steps_per_task_run)
            two = run(site, endpoint.url, sets[1:], options.steps_per_task_run)
    finally:
        site.close()
    report(one, two, small, options)


def report(one: dict[str, Any], two: dict[str, Any], small: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the costs, the model's error, and the night."""
    cost, check = cost_of(one, small), cost_of(two, small)
    print("| part | processor time per episode, 1 process | 2 processes | difference |\n|---|---|---|---|")
    for part in PARTS:
        a, b = 1000 * cost.cpu[part], 1000 * check.cpu[part]
        print(f"| {part} | {a:.2f} ms | {b:.2f} ms | {(b - a) / a:+.0%} |")
    print(f"| all | {1000 * cost.cpu_total:.2f} ms | {1000 * check.cpu_total:.2f} ms | "
          f"{check.cpu_total / cost.cpu_total - 1:+.0%} |")  # fmt: skip
    print("\n| processes | episodes/min measured | model | difference |\n|---|---|---|---|")
    for measured in (one, two):
        model = 60 * predict(cost, measured["processes"], os.cpu_count() or 1)
        got = measured["episodes_per_minute"]
        print(f"| {measured['processes']} | {got:.0f} | {model:.0f} | {model / got - 1:+.0%} |")
    night = needs(cost, options.night, options.hours)
    print(
        f"\n{options.night:,} problems in {options.hours:g} h are {night.episodes_per_second:.1f} episodes a second:\n"
    )
    print("| part | processors | processes | memory of one |\n|---|---|---|---|")
    for part in PARTS:
        memory = cost.memory[part] / 1e6
        print(f"| {part} | {night.processors[part]:.2f} | {night.processes[part]} | {memory:.0f} MB |")
    kept = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in night.stored.items())
    print(f"\nKept: {kept}. Memory in all: {night.memory / 1e9:.1f} GB. Load: {os.getloadavg()[0]:.1f}.")
    if options.json is not None:
        figures = {"one": one, "two": two, "cost": asdict(cost), "night": asdict(night)}
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
