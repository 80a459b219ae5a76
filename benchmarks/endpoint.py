"""A scripted OpenAI-compatible endpoint in a process of its own, so that it costs the measured one nothing.

Run it by hand: `python benchmarks/endpoint.py --port 8801 --latency 0.2`. `GET /stats` tells the counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reflexion.testing import ScriptedEndpoint


class EndpointProcess:
    """A running endpoint: its base URL and its counts."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + path, timeout=10) as response:
            return json.load(response)

    def stats(self) -> dict[str, Any]:
        """The counts since the start or the last reset."""
        return self._get("/stats")

    def reset(self) -> None:
        """Begin to count anew."""
        self._get("/reset")


@contextmanager
def endpoint_process(**options: float) -> Iterator[EndpointProcess]:
    """Start an endpoint with these options of `ScriptedEndpoint`, and stop it at the end."""
    command = [sys.executable, "-m", "benchmarks.endpoint"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the endpoint did not start (exit code {process.wait(10)})")
        yield EndpointProcess(url)
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


async def _serve(options: dict[str, Any]) -> None:
    async with ScriptedEndpoint(**options) as endpoint:
        print(endpoint.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("latency", "p429", "p500", "phang", "rate", "burst", "retry-after"):
        parser.add_argument(f"--{name}", type=float, default=argparse.SUPPRESS)
    parser.add_argument("--seed", type=lambda text: int(float(text)), default=argparse.SUPPRESS)
    parser.add_argument("--port", type=lambda text: int(float(text)), default=argparse.SUPPRESS)
    try:
        asyncio.run(_serve(vars(parser.parse_args())))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
