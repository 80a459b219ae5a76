"""`reflexion run "TASK"`: one problem, direct or as a flow run."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from cyclopts import Parameter

from reflexion.cli.connecting import reporting
from reflexion.cli.options import CacheOptions, ModelOptions, flag, parameters_from
from reflexion.run.parameters import EpisodeParameters
from reflexion.telemetry.error_words import harmless
from reflexion.types import Episode, Outcome

__all__ = ["run"]


def run(
    task: Annotated[str, Parameter(help="What the model is asked.")],
    /,
    *,
    answer: Annotated[str | None, Parameter(help="Reference answer; else the judging model decides.")] = None,
    model: ModelOptions | None = None,
    cache: CacheOptions | None = None,
    prefect: Annotated[bool, flag("Make it a Prefect flow run.")] = False,
    json: Annotated[bool, flag("Print the episode as JSON.")] = False,
) -> int:
    """Work on one problem and show its trials."""
    from reflexion.cli.main import EXIT_FAILED

    parameters = parameters_from(
        EpisodeParameters, model or ModelOptions(), cache or CacheOptions(), problem=task, answer=answer
    )
    if prefect:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        from reflexion.flows.episode import episode as flow

        with reporting(lambda: print("Starting a local Prefect server …", file=sys.stderr)):  # noqa: T201
            ended: Episode = flow.run(parameters)
    else:
        import asyncio

        from reflexion.run.batch_run import execute_episode
        from reflexion.tasks.prefect_settings import load_settings

        ended = asyncio.run(execute_episode(parameters, settings=load_settings()))
    if json:
        print(ended.model_dump_json(exclude_defaults=True))  # noqa: T201
    else:
        show(ended)
    if ended.error is not None:
        words = harmless(ended.error.message)
        print(f"reflexion: error: {ended.error.kind}: {words}", file=sys.stderr)  # noqa: T201
    return EXIT_FAILED if ended.outcome is Outcome.ERROR else 0


def show(episode: Episode) -> None:
    """The trials of an episode, for people."""
    from rich.console import Console
    from rich.text import Text

    from reflexion.actors.act_prompts import told_turns

    console = Console(highlight=False)
    for trial in episode.trials:
        evaluation = trial.evaluation
        verdict = "not judged" if evaluation is None else "passed" if evaluation.passed else "failed"
        style = "green" if verdict == "passed" else "red"
        console.print(Text.assemble((f"Trial {trial.index}: ", "bold"), (verdict, style)))
        # What a model wrote is shown as it is, never read as markup.
        if trial.trajectory:
            console.print(Text(harmless(told_turns(trial.trajectory)), style="dim"))
        console.print(Text(harmless(trial.answer or trial.error or "(no answer)")))
        if evaluation is not None and not evaluation.passed and evaluation.feedback:
            console.print(Text(harmless(f"Feedback: {evaluation.feedback}"), style="yellow"))
        if trial.reflection is not None:
            console.print(
                Text(harmless(f"Reflection: {trial.reflection.text or trial.reflection.error}"), style="cyan")
            )
    usage, saved = episode.usage, episode.saved
    console.print(
        f"{episode.outcome.value} in {episode.seconds:.1f} s, {usage.calls} LLM calls, {usage.total} tokens, "
        f"{saved.total} saved by the cache"
    )
