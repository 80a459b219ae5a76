"""`sharded_evaluation`: a dataset split into shards, each a flow run of its own, merged into one run."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import prefect.runtime.flow_run
from prefect import get_client
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import PrefectClient
from prefect.states import Cancelled, Completed

from reflexion.datasets.unused_fields import tally_inferred, verdict_notes
from reflexion.errors import ConfigurationError, ReflexionError, RunFailedError
from reflexion.flows.artifacts import BatchWatch, best_effort, watched
from reflexion.flows.batch import PROGRESS
from reflexion.flows.deployed import deploy_on_pool, find_deployment, unserved
from reflexion.flows.runnable import runnable_flow
from reflexion.flows.shards.following import Conductor, ShardStatus
from reflexion.flows.shards.launching import DeploymentLauncher, Launcher, ProcessLauncher
from reflexion.flows.submitted import batch_flow, leave_result
from reflexion.loop.steps import Runner
from reflexion.run.batch_run import (
    REPORTED_EPISODES,
    BatchResult,
    Part,
    dataset_of,
    execute_batch,
    new_name,
    run_record,
)
from reflexion.run.parameters import BatchParameters
from reflexion.run.run_folder import RunFolder, default_run_name
from reflexion.run.wiring import Session, judge_of, raise_if_all_failed, spec_of
from reflexion.settings import Settings
from reflexion.sharding.channel import Channel, EndNote, FolderChannel, open_channel
from reflexion.sharding.merge import ShardedRun
from reflexion.sharding.reporter import SEND_SECONDS, Reporter
from reflexion.sharding.shard_parameters import (
    PROTOCOL,
    Shard,
    ShardedParameters,
    for_shard,
    results_url,
    shard_name,
)
from reflexion.tasks.draining import MadeRuns
from reflexion.tasks.global_limit import llm_gate
from reflexion.tasks.prefect_settings import aload_settings
from reflexion.tasks.shared_runs import bulk_runs
from reflexion.tasks.step_tasks import task_runs
from reflexion.types import Episode

__all__ = ["evaluation_shard", "sharded_evaluation"]

ENTRYPOINT = "reflexion.flows.sharded.evaluation_shard"

HURRIED_SECONDS = 5.0
"""How long a shard that is told to end may take to send its last episodes."""

LOCK_SECONDS = 30.0
"""How long a later attempt waits for an earlier one to let go of the shard's folder."""


# -- one shard -----------------------------------------------------------------------------------------


@runnable_flow(
    name="evaluation-shard",
    description="One shard of a run in shards; `sharded-evaluation` starts it.",
    persist_result=False,
    validate_parameters=True,
)
async def evaluation_shard(parameters: BatchParameters, shard: Shard) -> BatchResult:
    """Carry out one part of a run, and send its episodes to the run.

    Returns:
        The part's folder and its figures.

    Raises:
        InputError: the dataset cannot be read here, or is another one.
        RunFailedError: the endpoint refuses, or was never reached.
    """
    settings, task = await aload_settings(), asyncio.current_task()
    assert task is not None
    channel = open_channel(
        results_url(parameters, settings), folder=Path(shard.folder), run=shard.run, token=shard.token
    )
    reporter = Reporter(channel, shard, task.cancel)
    size, made, watch = parameters.steps_per_task_run, MadeRuns(), BatchWatch(reporter)
    note = EndNote(attempt=shard.attempt, outcome="failed", kind="Terminated", message="the process was told to end")

    def runner(session: Session) -> AbstractAsyncContextManager[Runner]:
        return task_runs(session, made) if size == 1 else bulk_runs(session, size, made)

    try:
        async with reporter.reporting(), watched(watch):
            _check_protocol(shard)
            root = channel.root if isinstance(channel, FolderChannel) else settings.runs / shard.run / "shards"
            await _wait_for_lock(root / shard.name)
            result = await execute_batch(
                _own(parameters, shard, root, channel, settings),
                runner=runner,
                settings=settings,
                gate=await llm_gate(),
                observers=(watch,),
                progress=watch,
                part=Part(shard.run, shard.index, shard.count, shard.dataset_digest, await _earlier(channel, shard)),
            )
        peak = result.summary.peak_rss_mb
        note = EndNote(attempt=shard.attempt, outcome="completed", peak_rss_mb=peak)
        if result.stopped is not None:
            note = note.model_copy(update={"outcome": "stopped", "message": result.stopped})
    except ReflexionError as exc:
        note = note.model_copy(update={"kind": type(exc).__name__, "message": str(exc)})
        raise
    except asyncio.CancelledError:
        if reporter.told is None:
            raise
        task.uncancel()
        note = note.model_copy(update={"kind": "Cancelled", "message": reporter.told})
        return cast(BatchResult, Cancelled(message=f"Ended early: {reporter.told}."))
    except Exception as exc:
        note = note.model_copy(update={"kind": type(exc).__name__, "message": str(exc)})
        raise
    finally:
        ended_early = note.kind in ("Terminated", "Cancelled")
        await reporter.close(note, HURRIED_SECONDS if ended_early else SEND_SECONDS)
        await channel.aclose()
    message = watch.note(made.task_runs, size, result.summary).to_message()
    return cast(BatchResult, Completed(data=result, message=message))


def _check_protocol(shard: Shard) -> None:
    if shard.protocol != PROTOCOL:
        raise ConfigurationError(
            f"the worker has another version (protocol {PROTOCOL}) than the run (protocol {shard.protocol}); "
            "install the same version on both"
        )


def _own(
    parameters: BatchParameters, shard: Shard, root: Path, channel: Channel, settings: Settings
) -> BatchParameters:
    """The shard's parameters, with its folder and the memory that all shards share."""
    changes: dict[str, Any] = {"runs": str(root), "name": shard.name}
    if not (parameters.memory or settings.memory):
        # The run's own memory: beside its record where that is shared, else in the same Redis.
        if isinstance(channel, FolderChannel):
            changes["memory"] = f"sqlite:{channel.root / 'memory.sqlite'}"
        else:
            url = results_url(parameters, settings) or ""
            settings.memory = f"{url}{'&' if '?' in url else '?'}prefix=reflexion-memory-{shard.token}"
            changes["memory_max_age"] = parameters.memory_max_age or "30d"
    return parameters.model_copy(update=changes)


async def _earlier(channel: Channel, shard: Shard) -> Iterable[Episode]:
    """Episodes of the run that are on record elsewhere."""
    if isinstance(channel, FolderChannel):
        return RunFolder.open(shard.folder).episodes() if shard.resumed else ()
    return [Episode.model_validate_json(line) for line in await channel.read(shard.name)]


async def _wait_for_lock(folder: Path) -> None:
    """Wait until an earlier attempt, which was told to give way, has let go of the folder."""
    import fcntl

    path = folder / ".lock"
    deadline = asyncio.get_running_loop().time() + LOCK_SECONDS
    while path.exists():
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if asyncio.get_running_loop().time() > deadline:
            return  # opening it says who has it
        await asyncio.sleep(0.2)


# -- the whole run -------------------------------------------------------------------------------------


def run_name() -> str:
    """Dataset, model, strategy and number of shards."""
    given = prefect.runtime.flow_run.parameters.get("parameters")
    p = given if isinstance(given, ShardedParameters) else ShardedParameters.model_validate(given)
    return p.name or f"{p.dataset} · {p.llm or 'default model'} · {p.strategy} · {p.shards} shards"


@batch_flow(
    name="sharded-evaluation",
    description="Run a dataset in shards, each a flow run of its own, and merge them into one run.",
    flow_run_name=run_name,
    persist_result=False,
    validate_parameters=True,
)
async def sharded_evaluation(parameters: ShardedParameters) -> BatchResult:
    """Run a dataset in shards; each problem is in the run's record once.

    A shard that crashes is started again and resumes: what it had finished is on record, and the steps
    of unfinished episodes are cached. A run that ends early is resumed by its name.

    Returns:
        The run's folder and its figures.

    Raises:
        InputError: the dataset, a parameter, the deployment or the pool is wrong.
        RunFailedError: shards did not finish; names them. What is finished is kept.
    """
    watch = BatchWatch(PROGRESS.get())
    async with AsyncExitStack() as stack:
        conductor, run, channel = await _prepare(parameters, watch, stack)
        complete = False
        try:
            async with watched(watch):
                await conductor.carry_out()
            complete = not any(s.missing for s in conductor.shards.values())
        finally:
            shards = [s.row() for s in conductor.shards.values()]
            report = {"began_after": conductor.began_after, "shards": shards}
            summary = run.finish(report, parameters.steps_per_task_run, complete=complete)
        if complete:
            await _clean_up(channel, [shard_name(index, parameters.shards) for index in conductor.shards])
    if summary.episodes <= REPORTED_EPISODES:
        from reflexion.report import write_report

        await asyncio.to_thread(write_report, run.folder.path)
    stopped = next((s.stopped for s in conductor.shards.values() if s.stopped), None)
    result = BatchResult(folder=run.folder.path, summary=summary, stopped=stopped)
    await watch.publish(result)
    if not complete and stopped is None:
        raise RunFailedError(await _tell_unfinished(result, list(conductor.shards.values())))
    raise_if_all_failed(run.folder, summary)
    await leave_result(result, parameters)
    note = watch.note(conductor.attempts, parameters.steps_per_task_run, summary)
    return cast(BatchResult, Completed(data=result, message=note.to_message()))


async def _prepare(
    parameters: ShardedParameters, watch: BatchWatch, stack: AsyncExitStack
) -> tuple[Conductor, ShardedRun, Channel]:
    """Find what is wrong, then open the run and lay out its shards.

    Raises:
        InputError: as `sharded_evaluation` raises it.
    """
    settings = await aload_settings()
    dataset, count = dataset_of(parameters), parameters.shards
    if count > len(dataset):
        raise ConfigurationError(
            f"shards: {count} is more than the {len(dataset)} problems; use at most {len(dataset)}"
        )
    if parameters.deployment and parameters.pool:
        raise ConfigurationError("deployment and pool: give one of them, not both")
    if parameters.record is not None:
        raise ConfigurationError("record: several shards cannot write one recording; record without shards")
    spec, url = spec_of(parameters, settings), results_url(parameters, settings)
    root = (Path(parameters.runs) if parameters.runs else settings.runs).resolve()
    client = await stack.enter_async_context(get_client())
    deployment = await _deployment(client, parameters)
    name = parameters.name or stack.enter_context(
        new_name(root, default_run_name(dataset.name, spec, parameters.strategy, datetime.now()))
    )
    open_channel(url, folder=root / name, run=name, token="")  # a wrong URL is told before anything is made
    tally = tally_inferred(dataset, asked=parameters.evaluator is not None)
    notes = verdict_notes(dataset, tally, actor=spec, judge=judge_of(parameters, settings))
    folder = stack.enter_context(RunFolder.start(root, name, parameters=run_record(parameters, dataset, spec, notes)))
    run = ShardedRun(folder, dataset, count, parameters=parameters, progress=watch)
    done = sum(folder.done(*key) for key in run.plan.order()) if len(folder) else 0
    watch.started(folder, run.plan.total, done)
    channel = open_channel(url, folder=folder.path, run=name, token=run.token)
    stack.push_async_callback(channel.aclose)
    if deployment is not None:
        launcher: Launcher = DeploymentLauncher(client, deployment)
    else:
        launcher = ProcessLauncher(client, evaluation_shard, ENTRYPOINT, folder.path / "logs")
    at_a_time = parameters.shards_at_a_time or (count if deployment is not None else min(count, os.cpu_count() or 1))
    if parameters.escalate is None:
        # The same model everywhere, whatever a worker's own environment names.
        parameters = parameters.model_copy(update={"llm": spec})
    shard = Shard(
        run=name,
        token=run.token,
        index=0,
        count=count,
        dataset_digest=dataset.digest,
        folder=str(folder.path),
        resumed=done > 0,
    )
    asked = {
        index: (shard.model_copy(update={"index": index}), for_shard(parameters, run.part(index), at_a_time))
        for index in range(count)
        if run.missing(index)
    }
    await channel.clear([shard_name(index, count) for index in asked], episodes=False)
    conductor = Conductor(client, launcher, channel, run, parameters=parameters, asked=asked, at_a_time=at_a_time)
    return conductor, run, channel


async def _deployment(client: PrefectClient, parameters: ShardedParameters) -> Any:
    """The deployment that carries shards out; None: processes of this machine do."""
    if parameters.pool is not None:
        found = await deploy_on_pool(client, evaluation_shard, ENTRYPOINT, parameters.pool)
    elif parameters.deployment is not None:
        found = await find_deployment(client, evaluation_shard, parameters.deployment)
    else:
        return None
    await unserved(client, found)  # what waiting would not mend is said at once
    return found


async def _clean_up(channel: Channel, shards: list[str]) -> None:
    """Remove what the shards left behind, once all of it is in the run's own record."""
    with contextlib.suppress(ReflexionError):
        await channel.clear(shards, episodes=True)


async def _tell_unfinished(result: BatchResult, shards: list[ShardStatus]) -> str:
    """Say what did not finish: in an artifact at length, and in a sentence for the state."""
    failed = [s for s in shards if s.state != "completed"]
    missing = sum(s.missing for s in failed)
    lines = [f"## {missing} episodes of {result.summary.run} were not finished", ""]
    lines += ["| shard | problems | missing | why |", "|---|---|---|---|"]
    lines += [f"| {s.index + 1} | {s.problems} | {s.missing} | {'; '.join(s.reasons)} |" for s in failed]
    lines += ["", f"`{result.folder}` keeps the others; the run is resumed by the name `{result.summary.run}`."]
    text = "\n".join(lines) + "\n"
    await best_effort(lambda: acreate_markdown_artifact(text, key="reflexion-unfinished"))
    named = "; ".join(
        f"shard {s.index + 1} ({s.problems}; {s.missing} missing): {s.reasons[-1] if s.reasons else s.state}"
        for s in failed[:5]
    )
    return (
        f"{len(failed)} of {len(shards)} shards did not finish, {missing} episodes are missing: {named} "
        f"({result.folder} keeps what is finished)"
    )
