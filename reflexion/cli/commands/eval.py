"""`reflexion eval DATASET`: a batch, through Prefect or direct."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from cyclopts import Group, Parameter

from reflexion._files import storage_errors
from reflexion.cli.connecting import reporting
from reflexion.cli.console import BatchProgress, print_result
from reflexion.cli.options import (
    LOOP,
    RUN,
    BatchOptions,
    CacheOptions,
    ModelOptions,
    ShardOptions,
    flag,
    option,
    parameters_from,
)
from reflexion.errors import ConfigurationError
from reflexion.run.batch_run import BatchResult, check_batch, execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.settings import Settings
from reflexion.sharding.shard_parameters import ShardedParameters
from reflexion.tasks.prefect_settings import load_settings

__all__ = ["Outcome", "evaluate", "through_prefect", "with_progress", "write_junit"]

OUTPUT = Group("Output", sort_key=20)

T = TypeVar("T")


class Outcome(NamedTuple):
    """What the exit code depends on."""

    name: str
    pass_rate: float
    stopped: str | None


def evaluate(
    dataset: Annotated[
        str,
        Parameter(
            help="starter, humaneval, hotpot-sample, gsm8k-sample, rooms, a file, or hf:OWNER/NAME[:CONFIG[:SPLIT]]."
        ),
    ],
    /,
    *,
    model: ModelOptions | None = None,
    batch: BatchOptions | None = None,
    cache: CacheOptions | None = None,
    sharded: ShardOptions | None = None,
    strategies: Annotated[
        str | None,
        option("Several strategies on the same problems, in one table and report: none,reflexion; or: all.", LOOP),
    ] = None,
    direct: Annotated[bool, flag("Run in this process, without Prefect.", RUN)] = False,
    fail_under: Annotated[
        float | None,
        Parameter(help="Exit with 3 when the pass rate (of the best strategy) is below: 0.8.", group=OUTPUT),
    ] = None,
    junit: Annotated[Path | None, Parameter(help="Also write JUnit XML to this file.", group=OUTPUT)] = None,
    json: Annotated[bool, flag("Print the figures as one JSON object, and nothing else on stdout.", OUTPUT)] = False,
    verbose: Annotated[bool, flag("Show Prefect's log.", OUTPUT)] = False,
) -> int:
    """Run a dataset through the loop and write the run's folder.

    Each step is a Prefect task run, unless --direct is given. The folder, runs/NAME, has every
    episode (episodes.jsonl), the figures (summary.json) and a page to look at (report.html).

    For example:

    - reflexion eval starter --llm local --limit 4
    - reflexion eval humaneval --llm gpt-4o-mini --strategies none,reflexion
    - reflexion eval q.csv --map prompt=question --where level=hard --repeat 5

    With --shards, parts of the dataset are flow runs of their own, in processes of this machine or on
    a work pool.
    """
    from reflexion.cli.main import EXIT_GATE

    sharded = sharded or ShardOptions()
    check_shard_options(sharded, direct=direct, several=strategies is not None)
    parameters = parameters_from(
        BatchParameters if sharded.shards is None else ShardedParameters,
        model or ModelOptions(),
        batch or BatchOptions(),
        cache or CacheOptions(),
        sharded,
        dataset=dataset,
    )
    if fail_under is not None and not 0 <= fail_under <= 1:
        raise ConfigurationError(f"--fail-under: {fail_under} is not a share between 0 and 1")
    settings = load_settings()
    _warn_of_equal_repeats(parameters)
    if strategies is not None:
        from reflexion.cli.commands.eval_strategies import compare_strategies

        outcome = compare_strategies(
            parameters, strategies, settings, direct=direct, verbose=verbose, json=json, junit=junit
        )
    else:
        check_batch(parameters, settings)
        outcome = _evaluate(parameters, settings, direct=direct, verbose=verbose, json=json, junit=junit)
    if outcome.stopped is not None:
        print(f"reflexion: the run stopped: {outcome.stopped}", file=sys.stderr)  # noqa: T201
        print(f"Resume with: {resume_command(outcome.name)}", file=sys.stderr)  # noqa: T201
        return EXIT_GATE
    if fail_under is not None and outcome.pass_rate < fail_under:
        print(  # noqa: T201
            f"reflexion: pass rate {outcome.pass_rate:.3f} is below --fail-under {fail_under}", file=sys.stderr
        )
        return EXIT_GATE
    return 0


def check_shard_options(sharded: ShardOptions, *, direct: bool, several: bool) -> None:
    """Refuse options that would have no effect.

    Args:
        several: whether several strategies are compared.

    Raises:
        ConfigurationError: names the option.
    """
    if sharded.shards is not None and direct:
        raise ConfigurationError("--shards: shards are flow runs; leave --direct out")
    if sharded.shards is not None and several:
        raise ConfigurationError("--shards: one strategy at a time; leave --strategies out")
    if sharded.shards is None:
        plain = ShardOptions()
        given = [f.name for f in fields(ShardOptions) if getattr(sharded, f.name) != getattr(plain, f.name)]
        if given:
            raise ConfigurationError(f"--{given[0].replace('_', '-')}: needs --shards, the number of shards")


def _evaluate(
    parameters: BatchParameters, settings: Settings, *, direct: bool, verbose: bool, json: bool, junit: Path | None
) -> Outcome:
    def execute(progress: BatchProgress) -> BatchResult:
        if direct:
            return asyncio.run(execute_batch(parameters, settings=settings, progress=progress))
        sharded = isinstance(parameters, ShardedParameters)
        flow = "reflexion.flows.sharded:sharded_evaluation" if sharded else "reflexion.flows.batch:batch_evaluation"
        return through_prefect(progress, flow, parameters, verbose=verbose)

    result = with_progress(execute)
    if junit is not None:
        write_junit([result.folder], junit)
    if json:
        print(result.summary.model_dump_json())  # noqa: T201
    else:
        print_result(result)
    return Outcome(result.summary.run, result.summary.pass_rate or 0.0, result.stopped)


def _warn_of_equal_repeats(parameters: BatchParameters) -> None:
    if parameters.repeat > 1 and parameters.temperature == 0:
        print(  # noqa: T201
            "reflexion: --repeat at temperature 0: a model that is certain answers each time the same, and pass@k "
            "is then pass@1; give --temperature 0.8, for example",
            file=sys.stderr,
        )


def with_progress(execute: Callable[[BatchProgress], T], name: str | None = None) -> T:
    """Do something while a bar shows how it goes on; an interrupt says how to resume.

    Args:
        name: of the comparison, if the runs are those of one.
    """
    with BatchProgress(resume=resume_command, name=name) as progress:
        try:
            return execute(progress)
        except (KeyboardInterrupt, asyncio.CancelledError):
            if progress.folder is not None:
                progress.say(f"Interrupted. {progress.folder.path} keeps every finished episode.")
                progress.say(f"Resume with: {resume_command(name or progress.folder.name)}")
            raise KeyboardInterrupt from None


def through_prefect(progress: BatchProgress, flow: str, *arguments: Any, verbose: bool) -> Any:
    """Run a flow, named as `module:attribute`, in this process."""
    if not verbose:
        # Prefect's console log would write through the bar; its log in the UI is untouched.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from prefect.exceptions import CancelledRun, TerminationSignal

    from reflexion.flows.batch import PROGRESS
    from reflexion.flows.stopping import FOREGROUND

    def starting() -> None:
        progress.say("Starting a local Prefect server (the first start makes its database, about a minute) …")

    FOREGROUND.set(True)
    module, _, attribute = flow.partition(":")
    token = PROGRESS.set(progress)
    try:
        with reporting(starting):
            return getattr(import_module(module), attribute).run(*arguments)
    except CancelledRun:
        progress.say("The run was cancelled from Prefect's UI or API.")
        raise KeyboardInterrupt from None
    except TerminationSignal:
        # Prefect's word for SIGTERM before and after the flow's own code; to a person it is Ctrl-C.
        raise KeyboardInterrupt from None
    finally:
        PROGRESS.reset(token)


def write_junit(folders: Sequence[Path], path: Path) -> None:
    """JUnit XML of one run or several.

    Raises:
        StorageError: the file cannot be written.
    """
    from reflexion.report import to_junit

    with storage_errors(path):
        path.write_text(to_junit(*folders), encoding="utf-8")


def resume_command(name: str) -> str:
    """The command line that carries on with a run; a password in it has to be typed again."""
    from reflexion.run.run_folder import mask_passwords

    arguments: list[str] = _without_headers(mask_passwords(sys.argv[1:]))
    if not any(a == "--name" or a.startswith("--name=") for a in arguments):
        arguments = [*arguments, "--name", name]
    return shlex.join(["reflexion", *arguments])


def _without_headers(arguments: list[str]) -> list[str]:
    """Arguments in which the values of headers are masked."""
    shown: list[str] = []
    for argument in arguments:
        option, sign, given = argument.partition("=")
        if option == "--extra-header" and sign:
            shown.append(f"{option}={given.partition('=')[0]}=***")
        elif shown and shown[-1] == "--extra-header":
            shown.append(f"{argument.partition('=')[0]}=***")
        else:
            shown.append(argument)
    return shown
