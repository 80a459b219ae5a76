"""`episode`: one problem as one flow run."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Self

import prefect.runtime.flow_run

from flows.runnable import runnable_flow
from reflexion.batch import execute_episode
from reflexion.config import EpisodeParameters
from reflexion.types import Episode
from tasks.steps import task_runs

__all__ = ["EpisodeRun", "episode"]


class EpisodeRun(Episode):
    """An episode that can be awaited, which gives itself: see `flows.runnable`."""

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self


def run_name() -> str:
    """The beginning of the problem and the model."""
    given = prefect.runtime.flow_run.parameters.get("parameters")
    p = given if isinstance(given, EpisodeParameters) else EpisodeParameters.model_validate(given)
    text = " ".join(p.problem.split())
    return f"{text[:60]}{'…' if len(text) > 60 else ''} · {p.llm or 'default model'}"


@runnable_flow(
    name="episode",
    description="Run one problem through the Reflexion loop: trial → evaluate → reflect → memorize.",
    flow_run_name=run_name,
    persist_result=False,
    validate_parameters=True,
)
async def episode(parameters: EpisodeParameters) -> EpisodeRun:
    """Run one problem.

    Returns:
        The episode: its trials, and how it ended.

    Raises:
        InputError: a parameter is wrong.
        AuthenticationError, ModelNotFoundError, EndpointError: no call can succeed.
    """
    ended = await execute_episode(parameters, runner=task_runs)
    return EpisodeRun.model_validate(ended.model_dump())
