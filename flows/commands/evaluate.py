"""`reflexion eval DATASET`: a batch, through Prefect or direct."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from typing import Annotated

from cyclopts import Group, Parameter

from flows.commands.options import BatchOptions, CacheOptions, ModelOptions, parameters_from
from flows.console import BatchProgress, print_result
from reflexion.batch import BatchResult, check_batch, execute_batch
from reflexion.config import BatchParameters
from reflexion.errors import ConfigurationError
from reflexion.settings import Settings

__all__ = ["evaluate"]

OUTPUT = Group("Output")


def evaluate(
    dataset: Annotated[str, Parameter(help="starter, humaneval, or the path of a file.")],
    /,
    *,
    model: ModelOptions | None = None,
    batch: BatchOptions | None = None,
    cache: CacheOptions | None = None,
    direct: Annotated[bool, Parameter(negative="", help="Run in this process, without Prefect.")] = False,
    fail_under: Annotated[
        float | None, Parameter(help="Exit with 3 when the pass rate is below this.", group=OUTPUT)
    ] = None,
    json: Annotated[bool, Parameter(negative="", help="Print the summary as JSON.", group=OUTPUT)] = False,
    verbose: Annotated[bool, Parameter(negative="", help="Show Prefect's log.", group=OUTPUT)] = False,
) -> int:
    """Run a dataset through the loop and write the run's folder.

    Each step is a Prefect task run, unless --direct is given.
    """
    from flows.cli import EXIT_GATE

    parameters = parameters_from(
        BatchParameters,
        model or ModelOptions(),
        batch or BatchOptions(),
        cache or CacheOptions(),
        dataset=dataset,
    )
    if fail_under is not None and not 0 <= fail_under <= 1:
        raise ConfigurationError(f"--fail-under: {fail_under} is not a share between 0 and 1")
    settings = Settings()
    check_batch(parameters, settings)
    result = run_with_progress(parameters, settings, direct=direct, verbose=verbose)
    if json:
        print(result.summary.model_copy().model_dump_json())  # noqa: T201
    else:
        print_result(result)
    if result.stopped is not None:
        print(f"reflexion: the run stopped: {result.stopped}", file=sys.stderr)  # noqa: T201
        print(f"Resume with: {resume_command(result.summary.run)}", file=sys.stderr)  # noqa: T201
        return EXIT_GATE
    rate = result.summary.pass_rate or 0.0
    if fail_under is not None and rate < fail_under:
        print(f"reflexion: pass rate {rate:.3f} is below --fail-under {fail_under}", file=sys.stderr)  # noqa: T201
        return EXIT_GATE
    return 0


def run_with_progress(parameters: BatchParameters, settings: Settings, *, direct: bool, verbose: bool) -> BatchResult:
    """Run a batch while a bar shows how it goes on; an interrupt says how to resume."""
    with BatchProgress(resume=resume_command) as progress:
        try:
            if direct:
                return asyncio.run(execute_batch(parameters, settings=settings, progress=progress))
            return _run_flow(parameters, progress, verbose=verbose)
        except (KeyboardInterrupt, asyncio.CancelledError):
            if progress.folder is not None:
                progress.say(f"Interrupted. {progress.folder.path} keeps every finished episode.")
                progress.say(f"Resume with: {resume_command(progress.folder.name)}")
            raise KeyboardInterrupt from None


def _run_flow(parameters: BatchParameters, progress: BatchProgress, *, verbose: bool) -> BatchResult:
    if not verbose:
        # Prefect's console log would write through the bar; its log in the UI is untouched.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if not os.environ.get("PREFECT_API_URL"):
        progress.say("Starting a local Prefect server (the first start makes its database, about a minute) …")
    from prefect.exceptions import TerminationSignal

    from flows.batch import PROGRESS, batch_evaluation

    token = PROGRESS.set(progress)
    try:
        return batch_evaluation.run(parameters)
    except TerminationSignal:
        # Prefect's word for SIGTERM before and after the flow's own code; to a person it is Ctrl-C.
        raise KeyboardInterrupt from None
    finally:
        PROGRESS.reset(token)


def resume_command(name: str) -> str:
    """The command line that carries on with a run; a password in it has to be typed again."""
    from reflexion.runs import mask_passwords

    arguments: list[str] = mask_passwords(sys.argv[1:])
    if not any(a == "--name" or a.startswith("--name=") for a in arguments):
        arguments = [*arguments, "--name", name]
    return shlex.join(["reflexion", *arguments])
