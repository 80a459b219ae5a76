"""What each server setting of `deployments/server.env` brings: server time per task run, before and after.

    python benchmarks/server_settings.py [--problems 60] [--also NAME=VALUE,… …]

Adds the settings one after another and runs the same batch, a task run per step, against a fresh server
each time. Processor time is compared, which a busy machine disturbs less than throughput.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.endpoint import endpoint_process
from benchmarks.harness import drive, prefect_server
from reflexion.tasks.server_defaults import SERVER_SETTINGS

FEED_OFF = {
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
}
"""Not among the project's settings: the event feed and automations would go."""


def main() -> None:
    """Print a line for each set of settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=VALUE,…", help="try these on top")
    options = parser.parse_args()
    problems = options.problems
    steps: list[tuple[str, dict[str, str]]] = [("Prefect's own", {})]
    if options.also:
        steps = [("the project's settings", dict(SERVER_SETTINGS))]
        for text in options.also:
            given = dict(pair.split("=", 1) for pair in text.split(","))
            steps.append((f"with {text}", SERVER_SETTINGS | given))
    else:
        for name, value in SERVER_SETTINGS.items():
            steps.append((f"+ {name}={value}", steps[-1][1] | {name: value}))
        steps.append(("+ event persister and triggers off", steps[-1][1] | FEED_OFF))
    print(
        "| settings | server ms/task run | client ms/task run | episodes/min | peak MB | load |\n"
        "|---|---|---|---|---|---|"
    )
    with endpoint_process(latency=0.2) as endpoint, tempfile.TemporaryDirectory() as folder:
        for number, (title, settings) in enumerate(steps):
            with prefect_server(settings) as server:
                command = ["--problems", str(problems), "--url", endpoint.url, "--salt", f"s{number}-"]
                command += ["--granularity", "1", "--folder", folder, "--name", f"s{number}"]
                figures = drive(Path(sys.executable), "reflexion_peer.py", command, server=server)
            made = figures["made"]
            print(
                f"| {title} | {1000 * figures['server_cpu_seconds'] / made:.1f} | "
                f"{1000 * figures['cpu_seconds'] / made:.1f} | {60 * problems / figures['seconds']:.0f} | "
                f"{figures['peak_mb']:.0f} | {os.getloadavg()[0]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
