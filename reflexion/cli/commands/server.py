"""`reflexion server`: a Prefect server with the settings that batches need."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

from cyclopts import Parameter

from reflexion.errors import ConfigurationError
from reflexion.tasks.server_defaults import SERVER_SETTINGS

__all__ = ["server", "server_command"]


def server_command(host: str, port: int) -> list[str]:
    """The command line of the server."""
    return [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]


def server(
    *,
    host: Annotated[str, Parameter(help="Address to listen on; others than loopback are open to all.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on.")] = 4200,
) -> int:
    """Start `prefect server start` with tuned settings; it runs until it is interrupted.

    The settings are those of deployments/server.env; a variable that is set stays as it is.
    """
    _check_free(host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"For the runs: export PREFECT_API_URL=http://{shown}:{port}/api", file=sys.stderr)  # noqa: T201
    command = server_command(host, port)
    sys.stderr.flush()
    # Replaced, not wrapped: signals and the exit code are the server's own.
    os.execve(command[0], command, {**SERVER_SETTINGS, **os.environ})  # noqa: S606


def _check_free(host: str, port: int) -> None:
    if not 0 < port < 65536:
        raise ConfigurationError(f"--port: {port} is not a port (1 to 65535)")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise ConfigurationError(
            f"{host}:{port} cannot be used: {exc.strerror or exc}; choose another --port"
        ) from None
