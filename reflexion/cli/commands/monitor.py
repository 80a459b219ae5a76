"""`reflexion monitor`: performance of what was run, from Prefect's records."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from reflexion.errors import ConfigurationError

if TYPE_CHECKING:
    from reflexion.tasks.performance_records import RunReport, Scope

__all__ = ["monitor"]

WHICH, OUTPUT = Group("Which runs"), Group("Output")


def monitor(
    *,
    flow_run_id: Annotated[str | None, Parameter(name="--flow-run", help="One flow run.", group=WHICH)] = None,
    deployment: Annotated[str | None, Parameter(help="A deployment: NAME or FLOW/NAME.", group=WHICH)] = None,
    since: Annotated[
        str | None, Parameter(help="How far back: 30m, 1h, 7d; 1h when nothing else is named.", group=WHICH)
    ] = None,
    watch: Annotated[bool, Parameter(negative="", help="Go on until interrupted.", group=OUTPUT)] = False,
    interval: Annotated[float, Parameter(help="Seconds between two looks with --watch.", group=OUTPUT)] = 5.0,
    json: Annotated[bool, Parameter(negative="", help="Print the report as JSON.", group=OUTPUT)] = False,
    prometheus_port: Annotated[
        int | None, Parameter(help="Serve the figures at /metrics on this port of 127.0.0.1.", group=OUTPUT)
    ] = None,
) -> int:
    """Report response times, errors, cache hits and throughput from Prefect's records.

    With --watch or --prometheus-port it goes on until it is interrupted; a watched flow run that has
    ended ends it.
    """
    if json and (watch or prometheus_port is not None):
        raise ConfigurationError("--json prints one report; it does not go with --watch or --prometheus-port")
    if interval <= 0:
        raise ConfigurationError(f"--interval: {interval:g} is not more than 0 seconds")
    if since is None and flow_run_id is None and deployment is None:
        since = "1h"
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from reflexion.flows.monitoring import report_from_records, scope_of

    def scope() -> Scope:
        return scope_of(flow_run=flow_run_id, deployment=deployment, since=since)

    scope()
    if not os.environ.get("PREFECT_API_URL"):
        print("PREFECT_API_URL is not set: reading the local database …", file=sys.stderr)  # noqa: T201
    if watch or prometheus_port is not None:
        with _exporter(prometheus_port) as exporter:
            asyncio.run(_watch(scope, interval, exporter, show=watch))
        return 0
    report = asyncio.run(report_from_records(scope()))
    _print(report.to_json() if json else report.to_markdown(), plain=json)
    return 0


async def _watch(scope: Callable[[], Scope], interval: float, exporter: _Exporter | None, *, show: bool) -> None:
    from reflexion.flows.monitoring import report_from_records

    while True:
        report: RunReport = await report_from_records(scope(), wait=0)
        if exporter is not None:
            exporter.text = report.to_prometheus().encode()
        if show:
            _print(report.to_markdown(), clear=True)
        if scope().flow_run is not None and not report.running and exporter is None:
            return
        await asyncio.sleep(interval)


def _print(text: str, *, plain: bool = False, clear: bool = False) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    if plain or not console.is_terminal:
        print(text, flush=True)  # noqa: T201
        return
    if clear:
        console.clear()
    console.print(Markdown(text))


class _Exporter:
    """Serves the newest figures to Prometheus."""

    def __init__(self, port: int) -> None:
        self.text = b""
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path.split("?")[0] == "/metrics"
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                body = exporter.text if known else b"the figures are at /metrics\n"
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Scrapes are not worth a line each."""

        try:
            self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as exc:
            raise ConfigurationError(f"--prometheus-port: {port} cannot be used: {exc}") from None


@contextmanager
def _exporter(port: int | None) -> Generator[_Exporter | None]:
    if port is None:
        yield None
        return
    exporter = _Exporter(port)
    thread = threading.Thread(target=exporter.server.serve_forever, name="reflexion-metrics", daemon=True)
    thread.start()
    print(f"metrics: http://127.0.0.1:{exporter.server.server_port}/metrics", file=sys.stderr)  # noqa: T201
    try:
        yield exporter
    finally:
        exporter.server.shutdown()
        exporter.server.server_close()
        thread.join(timeout=5)
