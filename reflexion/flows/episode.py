"""`episode`: one problem as one flow run."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Self

import prefect.runtime.flow_run
from prefect.artifacts import acreate_markdown_artifact

from reflexion.flows.artifacts import best_effort
from reflexion.flows.runnable import runnable_flow
from reflexion.run.batch_run import execute_episode
from reflexion.run.parameters import EpisodeParameters
from reflexion.tasks.prefect_settings import aload_settings
from reflexion.tasks.step_tasks import task_runs
from reflexion.types import Episode

__all__ = ["EpisodeRun", "episode"]


class EpisodeRun(Episode):
    """An episode that can be awaited, which gives itself: see `reflexion.flows.runnable`."""

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
    ended = await execute_episode(parameters, runner=task_runs, settings=await aload_settings())
    await best_effort(lambda: acreate_markdown_artifact(episode_page(parameters, ended), key="reflexion-episode"))
    return EpisodeRun.model_validate(ended.model_dump())


def episode_page(parameters: EpisodeParameters, ended: Episode) -> str:
    """The trials of an episode, as Markdown; what a model wrote stays text, whatever it contains."""
    lines = [f"## {ended.outcome.value} after {len(ended.trials)} trials", "", *_quoted(parameters.problem), ""]
    for trial in ended.trials:
        judged = trial.evaluation
        verdict = "not judged" if judged is None else "passed" if judged.passed else "failed"
        lines += [f"### Trial {trial.index}: {verdict}", "", *_quoted(trial.answer or trial.error or ""), ""]
        if judged is not None and not judged.passed and judged.feedback:
            lines += ["Feedback:", "", *_quoted(judged.feedback), ""]
        if trial.reflection is not None:
            lines += ["Reflection:", "", *_quoted(trial.reflection.text), ""]
    if ended.error is not None:
        lines += ["### Error", "", *_quoted(f"{ended.error.kind}: {ended.error.message}"), ""]
    usage = ended.usage
    lines.append(
        f"{ended.seconds:.1f} s, {usage.calls} LLM calls, {usage.total} tokens, {ended.saved.total} from cache"
    )
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> list[str]:
    """A block of code: indented, since no text can end such a block."""
    return [f"    {line}" for line in text.splitlines() or ["(nothing)"]]
