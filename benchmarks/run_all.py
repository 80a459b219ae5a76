"""Every benchmark with one command: `python benchmarks/run_all.py`.

Runs the same two-trial problems through this project (a task run per step, bulk, all cached, without
Prefect) and through the peers, each in an environment of its own, against one scripted endpoint; prints
one table, checks the performance targets, and writes JSON that a later run can be compared with.

    python benchmarks/run_all.py                                   # a short run without peers
    python benchmarks/run_all.py --problems 1000 --peers all       # the figures of the README
    python benchmarks/run_all.py --only sizes --sizes 100,1000,10000,50000 --latency 20
                                                                   # how cost grows with size
    python benchmarks/run_all.py --compare earlier.json

Ratios within one run mean something; absolute figures belong to the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_startup import first_call_ratio, monitor_share
from benchmarks.endpoint import EndpointProcess, endpoint_process
from benchmarks.harness import REQUIREMENTS, ROOT, Server, drive, environment_of, prefect_server

PACKAGES = ("prefect", "openai", "pydantic", "redis", "fastapi", "httpx")
GOALS = (
    ("per_step_vs_prefect", "a task run per step / plain Prefect", ">=", 5.0),
    ("bulk_vs_inspect", "bulk / Inspect AI", ">=", 2.3),
    ("bulk_vs_langgraph", "bulk / LangGraph", ">=", 1.0),
    ("cached_per_minute", "all cached, bulk, episodes/min", ">=", 10_000.0),
    ("peak_mb", "most memory, client and server, MB", "<", 500.0),
    ("lost", "records lost", "<=", 0.0),
    ("first_call_ratio", "first LLM call / import openai", "<=", 1.3),
    ("monitor_share", "monitor's share of a run's CPU", "<", 0.02),
    ("size_ratio", "CPU per episode, largest size / 1,000", "<=", 1.3),
)


def main() -> int:
    """Run what is asked for; 1 when a goal or a performance target was missed."""
    options = arguments()
    rows: list[dict[str, Any]] = []
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", file=sys.stderr)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as scratch,
        endpoint_process(latency=options.latency / 1000) as endpoint,
    ):
        bench = Bench(options, endpoint, Path(scratch), rows)
        if options.only in (None, "rows"):
            bench.peers()
            bench.ours()
        if options.only in (None, "sizes"):
            bench.sizes()
    figures = derived(rows, options)
    if not options.no_startup and options.only in (None, "startup"):
        figures["first_call_ratio"] = first_call_ratio()
        if any(row["calls"] and row["name"].startswith("ours") for row in rows):
            figures["monitor_share"] = monitor_share(rows)
    result = {"machine": machine(), "options": {k: str(v) for k, v in vars(options).items()}, "rows": rows}
    result["figures"] = figures
    print(table(rows))
    missed = print_goals(figures) + print_targets(rows)
    if options.compare is not None:
        print(compared(json.loads(options.compare.read_text()), result))
    if options.suites:
        missed += suites()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {options.json}", file=sys.stderr)
    return 1 if missed else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200, help="problems of each row")
    parser.add_argument("--prefect-problems", type=int, default=None, help="of plain Prefect, which is slow")
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--latency", type=float, default=200.0, help="milliseconds a call takes")
    parser.add_argument("--granularity", type=int, default=64, help="steps per task run in bulk")
    parser.add_argument("--peers", default="", help="all, or some of " + ", ".join(REQUIREMENTS))
    parser.add_argument("--peer-python", action="append", default=[], metavar="PEER=PYTHON")
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "reflexion-benchmarks")
    parser.add_argument("--sizes", default="", help="also in bulk at these numbers of problems: 1000,10000,50000")
    parser.add_argument("--only", choices=("rows", "sizes", "startup"), default=None, help="this part alone")
    parser.add_argument("--no-startup", action="store_true", help="leave the start-up times out")
    parser.add_argument("--suites", action="store_true", help="run the pytest-benchmark suites too")
    parser.add_argument("--json", type=Path, default=Path("benchmark-results/latest.json"))
    parser.add_argument("--compare", type=Path, default=None, help="an earlier JSON")
    options = parser.parse_args()
    names = list(REQUIREMENTS) if options.peers == "all" else [p for p in options.peers.split(",") if p]
    unknown = set(names) - REQUIREMENTS.keys()
    if unknown:
        parser.error(f"--peers: {', '.join(sorted(unknown))} is none of {', '.join(REQUIREMENTS)}")
    options.peers = names
    try:
        options.peer_python = {k: Path(v) for k, _, v in (text.partition("=") for text in options.peer_python)}
        options.sizes = [int(text) for text in options.sizes.split(",") if text]
    except ValueError as exc:
        parser.error(f"--sizes: {exc}")
    return options


class Bench:
    """Runs the drivers one after another and collects their rows."""

    def __init__(
        self, options: argparse.Namespace, endpoint: EndpointProcess, folder: Path, rows: list[dict[str, Any]]
    ) -> None:
        self.options, self.endpoint, self.folder, self.rows = options, endpoint, folder, rows

    def peers(self) -> None:
        """The peers, each in an environment of its own."""
        for peer in self.options.peers:
            python = environment_of(peer, self.options.peer_python, self.options.environments)
            if peer == "prefect":
                with prefect_server() as server:
                    number = self.options.prefect_problems or self.options.problems
                    self._row("plain Prefect", python, "prefect_peer.py", number, server=server)
            else:
                self._row(peer, python, f"{peer}_peer.py", self.options.problems)

    def ours(self) -> None:
        """This project, with a task run per step, in bulk, all cached, and without Prefect."""
        number, size = self.options.problems, self.options.granularity
        with prefect_server(tuned=True) as server:
            self._ours("ours, a task run per step", number, 1, "step", server)
        with prefect_server(tuned=True) as server:
            self._ours(f"ours, bulk {size}", number, size, "bulk", server)
            self._ours(f"ours, bulk {size}, all cached", number, size, "bulk", server, again=True)
        self._ours("ours, without Prefect", number, 0, "direct", None)

    def sizes(self) -> None:
        """Bulk at growing sizes, each against a fresh server."""
        for number in self.options.sizes:
            with prefect_server(tuned=True) as server:
                name = f"ours, bulk {self.options.granularity}, {number:,} problems"
                self._ours(name, number, self.options.granularity, f"size{number}", server)

    def _ours(
        self, name: str, problems: int, granularity: int, salt: str, server: Server | None, *, again: bool = False
    ) -> None:
        more = [
            *("--granularity", str(granularity)),
            *("--folder", str(self.folder)),
            *("--name", f"{salt}{'-again' if again else ''}"),
        ]
        self._row(name, Path(sys.executable), "reflexion_peer.py", problems, server=server, salt=salt, more=more)

    def _row(
        self,
        name: str,
        python: Path,
        script: str,
        problems: int,
        *,
        server: Server | None = None,
        salt: str = "p",
        more: list[str] | None = None,
    ) -> None:
        print(f"{name}: {problems:,} problems …", file=sys.stderr, flush=True)
        calls = self.endpoint.stats()["calls"]
        command = ["--problems", str(problems), "--concurrency", str(self.options.concurrency)]
        command += ["--url", self.endpoint.url, "--salt", salt, *(more or [])]
        figures = drive(python, script, command, server=server)
        if figures["solved"] != problems:
            raise RuntimeError(f"{name}: {figures['solved']} of {problems} problems were solved: it is no fair run")
        self.rows.append(
            {
                "name": name,
                "problems": problems,
                "episodes_per_minute": 60 * problems / figures["seconds"],
                "client_ms": 1000 * figures["cpu_seconds"] / problems,
                "server_ms": 1000 * figures["server_cpu_seconds"] / problems,
                "peak_mb": figures["peak_mb"],
                "made": figures["made"],
                "lost": figures["made"] - figures["recorded"],
                "calls": self.endpoint.stats()["calls"] - calls,
                "load": os.getloadavg()[0],
                "targets": figures.get("targets", []),
            }
        )
        # A long run that is stopped has told this much.
        print(table(self.rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)


def derived(rows: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, float]:
    """The figures that goals are about, as far as this run has them."""
    rate = {row["name"]: row["episodes_per_minute"] for row in rows}
    bulk = f"ours, bulk {options.granularity}"
    own = [row for row in rows if row["name"].startswith("ours")]
    figures: dict[str, float] = {}
    if own:
        figures["peak_mb"] = max(row["peak_mb"] for row in own)
        figures["lost"] = float(sum(row["lost"] for row in own))
    if f"{bulk}, all cached" in rate:
        figures["cached_per_minute"] = rate[f"{bulk}, all cached"]
    for key, ours, theirs in (
        ("per_step_vs_prefect", "ours, a task run per step", "plain Prefect"),
        ("bulk_vs_inspect", bulk, "inspect"),
        ("bulk_vs_langgraph", bulk, "langgraph"),
    ):
        if ours in rate and theirs in rate:
            figures[key] = rate[ours] / rate[theirs]
    sized = {row["problems"]: row["client_ms"] + row["server_ms"] for row in own if row["name"].endswith("problems")}
    if 1000 in sized and max(sized) > 1000:
        figures["size_ratio"] = sized[max(sized)] / sized[1000]
    return figures


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| | problems | episodes/min | client ms/episode | server ms/episode | peak MB | task runs | lost "
        "| LLM calls |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['name']} | {r['problems']:,} | {r['episodes_per_minute']:,.0f} | {r['client_ms']:.1f} | "
        f"{r['server_ms']:.1f} | {r['peak_mb']:.0f} | {r['made']:,} | {r['lost']} | {r['calls']:,} |"
        for r in rows
    ]
    return "\n".join(lines)


def print_goals(figures: dict[str, float]) -> int:
    """Say which goals are reached; the number that are missed."""
    missed = 0
    for key, title, sign, goal in GOALS:
        if key not in figures:
            print(f"not measured  {title} {sign} {goal:g}")
            continue
        value = figures[key]
        reached = {">=": value >= goal, "<=": value <= goal, "<": value < goal}[sign]
        missed += not reached
        print(f"{'reached' if reached else 'MISSED':13s} {title}: {value:,.4g} ({sign} {goal:g})")
    return missed


def print_targets(rows: list[dict[str, Any]]) -> int:
    """Hold the runs against the performance targets, from Prefect's records; the number that are missed.

    Cache hits are a target of runs that have something to hit, so they are those of the cached run.
    """
    missed = 0
    for row in rows:
        for target in row["targets"]:
            cached = row["name"].endswith("all cached")
            if (target["name"] == "reflection_hit_rate") != cached:
                continue
            missed += target["status"] == "missed"
            shown = "no data" if target["value"] is None else f"{target['value']:.4g} {target['unit']}"
            print(f"{target['status']:13s} {target['name']}: {shown} ({row['name']})")
    return missed


def compared(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    """This run beside an earlier one."""
    before = {row["name"]: row for row in earlier["rows"]}
    lines = [f"Compared with {earlier['machine']['commit'][:12]} on {earlier['machine']['processor']}:"]
    for row in now["rows"]:
        old = before.get(row["name"])
        if old is not None:
            rate = row["episodes_per_minute"] / old["episodes_per_minute"] - 1
            cost = (row["client_ms"] + row["server_ms"]) / max(old["client_ms"] + old["server_ms"], 1e-9) - 1
            lines.append(f"  {row['name']}: throughput {rate:+.0%}, CPU per episode {cost:+.0%}")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit.stdout.strip() or "unknown",
        "processor": f"{os.cpu_count()} x {platform.processor() or platform.machine()}",
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "load": os.getloadavg()[0],
    }


def suites() -> int:
    """The pytest-benchmark suites, with their own tables."""
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-only", "--benchmark-columns=median,ops,rounds"]
    found = sorted(str(path) for path in (ROOT / "benchmarks").glob("bench_*.py"))
    return int(subprocess.run([*command, *found], cwd=ROOT, check=False).returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
