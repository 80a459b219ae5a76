"""The command `reflexion`.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or input, 3 a gate or a budget was not met, 130
interrupted. With `--json`, stdout carries one JSON object and nothing else.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from rich.console import Console

from reflexion import __version__
from reflexion.errors import InputError, ReflexionError

__all__ = ["EXIT_FAILED", "EXIT_GATE", "EXIT_INTERRUPTED", "EXIT_USAGE", "app", "main"]

EXIT_FAILED, EXIT_USAGE, EXIT_GATE, EXIT_INTERRUPTED = 1, 2, 3, 130

app = App(
    name="reflexion",
    help="Reflexion agents, evaluated in batch, on Prefect.",
    version=__version__,
    console=Console(soft_wrap=True),
    error_console=Console(stderr=True),
)
# Named, not imported: `reflexion run` must not wait for what only `reflexion eval` needs.
app.command("reflexion.cli.commands.eval:evaluate", name="eval")
app.command("reflexion.cli.commands.run:run", name="run")
app.command("reflexion.cli.commands.cache:app", name="cache")
app.command("reflexion.cli.commands.memory:app", name="memory")
app.command("reflexion.cli.commands.monitor:monitor", name="monitor")
app.command("reflexion.cli.commands.server:server", name="server")
app.command("reflexion.cli.commands.serve:serve", name="serve")
app.command("reflexion.cli.commands.report:report", name="report")
app.command("reflexion.cli.commands.report:compare", name="compare")
app.command("reflexion.cli.commands.doctor:doctor", name="doctor")


def execute(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line and give its exit code; errors are one message on stderr."""
    try:
        code = app(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return EXIT_USAGE  # its message is printed already
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read stdout has had enough (`| head`); the interpreter must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except InputError as exc:
        return fail(exc, EXIT_USAGE)
    except ReflexionError as exc:
        return fail(exc, EXIT_FAILED)
    return code if isinstance(code, int) else 0


def fail(error: ReflexionError, code: int) -> int:
    """Say what went wrong, in one message."""
    from reflexion.telemetry.error_words import harmless

    print(f"reflexion: error: {harmless(str(error))}", file=sys.stderr)  # noqa: T201
    logging.getLogger("reflexion").debug("traceback", exc_info=error)
    return code


def main() -> None:
    """Entry point of the console script."""
    sys.exit(execute())
