"""A command and the Prefect server its flow reports to: started where none is named, its failures one message."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from reflexion.errors import ConfigurationError, RunFailedError

__all__ = ["reporting", "server_errors_told"]


@contextmanager
def reporting(starting: Callable[[], object]) -> Generator[None]:
    """Around a flow in this process: it has a server, and that server has everything when this ends.

    Args:
        starting: says that a local server is started, which takes a while.

    Raises:
        ConfigurationError: the server refuses the credentials, or requests without.
        RunFailedError: it cannot be reached.
    """
    from reflexion.tasks import local_server

    with server_errors_told():
        try:
            if local_server.is_needed():
                starting()
                local_server.start()
            yield
        finally:
            local_server.finish_sending()


@contextmanager
def server_errors_told() -> Generator[None]:
    """Turn a refused or failed connection to the Prefect server into an error of this package.

    Raises:
        ConfigurationError: the server refuses the credentials, or requests without.
        RunFailedError: it cannot be reached.
    """
    import httpx

    try:
        yield
    except httpx.HTTPStatusError as exc:
        if exc.response.status_code not in (401, 403):
            raise
        raise ConfigurationError(
            f"the Prefect server at {_server()} refuses these credentials, or requests without; "
            "set PREFECT_API_AUTH_STRING to its USER:PASSWORD"
        ) from None
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise RunFailedError(
            f"the Prefect server at {_server()} cannot be reached; start it, for example with `reflexion server`, "
            "or unset PREFECT_API_URL for a local one"
        ) from None


def _server() -> str:
    from prefect.settings import PREFECT_API_URL

    from reflexion.run.run_folder import mask_passwords

    return mask_passwords(PREFECT_API_URL.value() or "the local server")
