"""What Prefect is told before it is imported: values that make its local server start and keep up.

Only defaults are given: a variable that is set stays as it is, and a server named by PREFECT_API_URL
has settings of its own (`deployments/server.env`).
"""

from __future__ import annotations

import os
from pathlib import Path

from reflexion.errors import ConfigurationError

__all__ = ["DEFAULTS", "SERVER_SETTINGS", "prepare"]

SERVER_SETTINGS: dict[str, str] = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "256",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""What a server is started with; `deployments/server.env` says what each brings and what it costs."""

DEFAULTS: dict[str, str] = SERVER_SETTINGS | {
    # The first start makes the database: 40 s on two cores, and Prefect's own limit is 20 s.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # A server whose database restarts answers 500 for some seconds: a run must not end for that.
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
    # A line for each of thousands of task runs helps nobody, and each is sent to the server.
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
}


def prepare() -> None:
    """Set every default that is not set, and make Prefect's home; harmless when called twice.

    Raises:
        ConfigurationError: PREFECT_HOME is no folder that can be made.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    home = os.environ.get("PREFECT_HOME")
    if home:
        try:
            # Prefect makes the folder itself, but not the folders above it.
            Path(home).expanduser().mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigurationError(
                f"PREFECT_HOME={home}: {exc.strerror or exc}; name a folder that can be written"
            ) from None
