"""A whole dataset: bounded concurrency, a record of every episode, and runs that can be resumed.

The same engine serves direct runs and flows; they differ in the runner that carries steps out.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from reflexion import errors
from reflexion.errors import DatasetError, RunFailedError, StorageError
from reflexion.loop.algorithm import Attempt, run_episode
from reflexion.loop.steps import Runner, StepCall, StepObserver, build_steps
from reflexion.loop.strategies import view_past
from reflexion.run.checks import check_problems
from reflexion.run.garbage import calm_collector
from reflexion.run.parameters import BatchParameters, EpisodeParameters
from reflexion.run.resumed import carry_over, spent_by
from reflexion.run.run_folder import RunFolder, check_run_name, default_run_name
from reflexion.run.wiring import Gate, Session, open_session, raise_if_all_failed, raise_if_fatal, spec_of
from reflexion.run.workers import CREW, Crew
from reflexion.settings import Settings
from reflexion.telemetry.summary import Summary
from reflexion.types import Episode, EpisodeError, Frozen, Outcome, Problem, Strategy

if TYPE_CHECKING:
    from reflexion.datasets import Dataset
    from reflexion.telemetry.sampler import ProcessSampler

__all__ = [
    "ADAPTIVE_EPISODES",
    "BatchResult",
    "Part",
    "Progress",
    "RunnerFactory",
    "check_batch",
    "dataset_of",
    "direct_runner",
    "execute_batch",
    "execute_episode",
    "mark_rest",
    "new_name",
    "run_record",
]

ADAPTIVE_EPISODES = 128
"""Episodes under way when the number of calls adapts itself: enough to keep any endpoint busy."""

STANDBY = 8
"""Episodes under way for each that may be at work: the rest wait to try a call again."""

REPORTED_EPISODES = 10_000
"""Episodes up to which a run ends with its report.html; `reflexion report` makes larger ones."""

RunnerFactory = Callable[[Session], AbstractAsyncContextManager[Runner]]


class BatchResult(Frozen):
    """A finished batch: its folder and its figures.

    It can be awaited, which gives itself, so that `await batch_evaluation(...)` and
    `batch_evaluation(...)` have one type.
    """

    folder: Path
    summary: Summary
    stopped: str | None = None
    """Why the run ended before its end (a budget ran out), or None."""

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self


class Progress(Protocol):
    """Is told how a batch goes on."""

    def started(self, folder: RunFolder, total: int, done: int) -> None:
        """The run begins: episodes in total, and those on record from before."""
        ...

    def finished(self, episode: Episode) -> None:
        """An episode came to its end."""
        ...


@dataclass(frozen=True)
class Part:
    """The part of a run that is carried out here, if it is not the whole.

    Attributes:
        run: name of the whole run, under which lessons are kept.
        index: which part, from 0.
        count: of how many.
        digest: the dataset's; another content under the same name is refused.
        earlier: episodes on record elsewhere; those of this part that ended are taken over.
    """

    run: str
    index: int
    count: int
    digest: str
    earlier: Iterable[Episode] = ()

    def of(self, dataset: Dataset) -> Dataset:
        """The part of the dataset.

        Raises:
            DatasetError: it is not the dataset the run was split by.
        """
        if dataset.digest != self.digest:
            raise DatasetError(
                f"{dataset.path}: its content is not that of the dataset the run {self.run!r} was split by; "
                "the same file must be readable wherever a shard runs"
            )
        return dataset.shard(self.index, self.count)

    def take_over(self, plan: Plan) -> None:
        """Put on record what ended elsewhere."""
        mine: set[tuple[str, int]] | None = None
        for episode in self.earlier:
            mine = mine if mine is not None else set(plan.order())
            key = (episode.problem_id, episode.repeat)
            ended = episode.outcome in (Outcome.SOLVED, Outcome.FAILED)
            if ended and key in mine and not plan.folder.done(*key):
                plan.folder.append(episode, earlier=True)


@dataclass
class Plan:
    """What a run covers, and what of it is left to do."""

    dataset: Dataset
    repeat: int
    strategy: Strategy
    folder: RunFolder
    stopped: EpisodeError | None = None
    """Why no further episode is begun."""
    finished: bool = False
    """Whether every episode was gone through."""

    @property
    def total(self) -> int:
        """Episodes of the whole run."""
        return len(self.dataset) * self.repeat

    def order(self) -> Iterator[tuple[str, int]]:
        """Every episode in the dataset's order."""
        for problem in self.dataset:
            for repeat in range(self.repeat):
                yield problem.id, repeat

    def left(self) -> Iterator[tuple[Problem, int]]:
        """The episodes that are not done, lazily: a large dataset is never held whole."""
        for problem in self.dataset:
            for repeat in range(self.repeat):
                if self.stopped is not None:
                    return
                if not self.folder.done(problem.id, repeat):
                    yield problem, repeat


@asynccontextmanager
async def direct_runner(session: Session) -> AsyncGenerator[Runner]:
    """Steps carried out in this process, without Prefect."""
    yield session.runner


def dataset_of(parameters: BatchParameters) -> Dataset:
    """The dataset a batch names."""
    from reflexion.datasets import open_dataset

    return open_dataset(
        parameters.dataset,
        limit=parameters.limit,
        offset=parameters.offset,
        shuffle_seed=parameters.shuffle_seed,
        mapping=parameters.field_map or None,
        where=parameters.where or None,
    )


def run_record(parameters: BatchParameters, dataset: Dataset, spec: str, notes: Sequence[str] = ()) -> dict[str, Any]:
    """What a run's folder tells of what it was started with.

    Args:
        spec: the model of the first trial.
        notes: what was said of its verdicts before the first call.
    """
    return parameters.model_dump(mode="json", exclude={"name"}) | {
        "llm": spec,
        "dataset": dataset.name,
        "dataset_digest": dataset.digest,
        "notes": list(notes),
    }


def check_batch(parameters: BatchParameters, settings: Settings) -> None:
    """Find what is wrong with a batch before anything is started.

    Raises:
        InputError: as `execute_batch` would raise it.
    """
    from reflexion.cache.ttl import parse_ttl

    parse_ttl(parameters.ttl or settings.ttl)
    if parameters.name is not None:
        check_run_name(parameters.name)
    dataset_of(parameters)


async def execute_episode(
    parameters: EpisodeParameters,
    *,
    runner: RunnerFactory = direct_runner,
    settings: Settings | None = None,
    observers: Sequence[StepObserver] = (),
) -> Episode:
    """Work on one problem.

    Raises:
        InputError: a parameter is wrong.
        AuthenticationError, ModelNotFoundError, EndpointError: no call can succeed.
    """
    problem = Problem(id="problem", prompt=parameters.problem, answer=parameters.answer)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session(parameters, settings or Settings(), observers=observers))
        check_problems([problem], session.runtime, "task")
        options = session.runtime.options
        episode = await run_episode(
            problem,
            build_steps(session.runtime, await stack.enter_async_context(runner(session))),
            max_trials=options.max_trials,
            strategy=options.strategy,
            omega=options.omega,
        )
    raise_if_fatal(episode)
    return episode


async def execute_batch(
    parameters: BatchParameters,
    *,
    runner: RunnerFactory = direct_runner,
    settings: Settings | None = None,
    observers: Sequence[StepObserver] = (),
    progress: Progress | None = None,
    run_name: str | None = None,
    gate: Gate | None = None,
    part: Part | None = None,
) -> BatchResult:
    """Run a dataset to its end, or carry on with a run that was stopped.

    Every finished episode is on disk before the next one of its worker begins. When the run is
    cancelled, what is finished stays, and `finish` is still carried out: the same name resumes it.

    Raises:
        InputError: the dataset, a parameter or a problem is wrong; nothing was run.
        RunFailedError: the endpoint refuses or cannot be reached, so that no episode could succeed.
        StorageError: the run's folder cannot be written.
    """
    from reflexion.datasets.unused_fields import verdict_notes
    from reflexion.llm import limit_changes
    from reflexion.telemetry.sampler import ProcessSampler

    settings = settings or Settings()
    started, began = time.perf_counter(), time.time()
    dataset = dataset_of(parameters)
    spec = spec_of(parameters, settings)
    root = Path(parameters.runs) if parameters.runs else settings.runs
    if part is not None:
        dataset = part.of(dataset)
    async with AsyncExitStack() as stack:
        sampler = stack.enter_context(ProcessSampler())
        name = parameters.name or run_name
        if name is None:
            usual = default_run_name(dataset.name, spec, parameters.strategy, datetime.now())
            name = stack.enter_context(new_name(root, usual))
        session = await stack.enter_async_context(
            open_session(
                parameters,
                settings,
                dataset=dataset.name,
                folder=root / check_run_name(name),
                observers=observers,
                gate=gate,
            )
        )
        checked = await asyncio.to_thread(check_problems, dataset, session.runtime, dataset.name)
        notes = (*verdict_notes(dataset, checked.tally, actor=spec, judge=session.judge), *checked.notes)
        folder = stack.enter_context(
            RunFolder.start(root, name, parameters=run_record(parameters, dataset, spec, notes))
        )
        spent = spent_by(folder) if len(folder) else None
        await session.bind_run(part.run if part is not None else name, folder.path, stack, spent)
        plan = Plan(dataset, parameters.repeat, parameters.strategy, folder)
        if part is not None:
            part.take_over(plan)
        if progress is not None:
            done = sum(folder.done(*key) for key in plan.order()) if len(folder) else 0
            progress.started(folder, plan.total, done)
        try:
            run = await stack.enter_async_context(runner(session))
            stack.enter_context(calm_collector())
            await _look_ahead(plan, session, run, progress)
            await _work(plan, session, run, parameters, progress)
            plan.finished = plan.stopped is None
        finally:
            if not plan.finished:
                mark_rest(plan)
            changes = limit_changes(began)
            if changes:
                folder.extend("concurrency.json", [asdict(change) for change in changes])
            summary = folder.finish(
                plan.order(),
                wall_seconds=time.perf_counter() - started,
                peak_rss_mb=_peak(sampler),
                granularity=parameters.steps_per_task_run,
            )
    if part is None and summary.episodes <= REPORTED_EPISODES:
        from reflexion.report import write_report

        await asyncio.to_thread(write_report, folder.path)
    return _result(plan, summary, whole=part is None)


def _result(plan: Plan, summary: Summary, *, whole: bool) -> BatchResult:
    """How the run ended.

    Raises:
        RunFailedError: no episode could succeed, or of the whole run none came to its end.
    """
    folder, stopped = plan.folder, plan.stopped
    if stopped is not None and stopped.fatal:
        kind = getattr(errors, stopped.kind, RunFailedError)
        raise RunFailedError(f"{stopped.message} (the run stopped; {folder.path} keeps what is finished)") from (
            kind(stopped.message)
        )
    if whole and stopped is None:
        raise_if_all_failed(folder, summary)
    return BatchResult(folder=folder.path, summary=summary, stopped=stopped.message if stopped is not None else None)


@contextmanager
def new_name(root: Path, name: str) -> Generator[str]:
    """The name, numbered if a run has it: two that begin in the same second must not become one.

    The folder is made at once, so that no other process takes it, and removed if nothing comes of it.

    Raises:
        StorageError: the folder cannot be made.
    """
    for number in itertools.count(1):
        chosen = name if number == 1 else f"{name}-{number}"
        try:
            (root / chosen).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as exc:
            raise StorageError(f"{root / chosen}: the run's folder cannot be made ({exc.strerror or exc})") from exc
        try:
            yield chosen
        finally:
            with suppress(OSError):
                (root / chosen).rmdir()
        return


def mark_rest(plan: Plan) -> None:
    """Put what was not run on record as such; a resumed run does it."""
    for problem_id, repeat in plan.order():
        if not plan.folder.recorded(problem_id, repeat):
            plan.folder.append(
                Episode(problem_id=problem_id, repeat=repeat, strategy=plan.strategy, outcome=Outcome.NOT_RUN)
            )


def _peak(sampler: ProcessSampler) -> float | None:
    from reflexion.telemetry.sampler import MEGABYTE

    sampler.sample()
    return sampler.peak / MEGABYTE if sampler.peak is not None else None


def _put_on_record(plan: Plan, session: Session, progress: Progress | None, episode: Episode) -> None:
    plan.folder.append(episode)
    for observer in session.runtime.observers:
        record = getattr(observer, "record_episode", None)
        if record is not None:
            record(episode)
    if progress is not None:
        progress.finished(episode)


async def _look_ahead(plan: Plan, session: Session, runner: Runner, progress: Progress | None) -> None:
    from reflexion.run.lookahead import TakesDoneSteps, episodes_from_cache

    if session.cache is None or not isinstance(runner, TakesDoneSteps):
        return
    async with aclosing(episodes_from_cache(plan.left(), session)) as found:
        async for episode, steps in found:
            runner.note(steps)
            key = (episode.problem_id, episode.repeat)
            if plan.folder.recorded(*key):
                episode = carry_over(next(plan.folder.episodes([key])), episode)  # noqa: PLW2901
            _put_on_record(plan, session, progress, episode)


async def _warm_up(plan: Plan, session: Session) -> None:
    """Get the model's client ready, or the first episodes wait for it. A run that finds its steps needs none."""
    warm_up = getattr(session.runtime.actor(1), "warm_up", None)
    first = next(plan.left(), None)
    if warm_up is None or first is None:
        return
    problem, repeat = first
    trial = StepCall(session.runtime, "trial", Attempt(problem, 1, repeat, view_past(plan.strategy, [])))
    if session.cache is None or await session.cache.get(trial.key) is None:
        await warm_up()


async def _work(
    plan: Plan, session: Session, runner: Runner, parameters: BatchParameters, progress: Progress | None
) -> None:
    options = session.runtime.options
    await _warm_up(plan, session)
    steps = build_steps(session.runtime, runner)
    left = plan.left()
    answered = False

    async def carry_out(problem: Problem, repeat: int) -> bool:
        """Run one episode; whether others may follow."""
        nonlocal answered
        episode = await run_episode(
            problem,
            steps,
            max_trials=options.max_trials,
            strategy=options.strategy,
            repeat=repeat,
            omega=options.omega,
        )
        answered = answered or any(not t.cached for t in episode.trials)
        if plan.folder.recorded(problem.id, repeat):
            episode = carry_over(next(plan.folder.episodes([(problem.id, repeat)])), episode)
        error = episode.error
        # An endpoint that answered before is only away for a while: the episode failed, the run
        # goes on. A wrong key or an unknown model will not get better.
        if error is not None and error.fatal and not (answered and error.kind == "EndpointError"):
            plan.stopped = plan.stopped or error
            return False
        if episode.outcome is Outcome.NOT_RUN:
            plan.stopped = plan.stopped or episode.error
            plan.folder.append(episode)  # the trials it made before the budget ran out were paid for
            return False
        _put_on_record(plan, session, progress, episode)
        return True

    async def work() -> None:
        surplus = False
        try:
            for problem, repeat in left:
                if not await carry_out(problem, repeat) or (surplus := crew.too_many):
                    break
        finally:
            crew.leave(finished=not surplus)

    # Workers hired in the midst of a step must not take over its context.
    outside = contextvars.copy_context()

    def hire() -> None:
        context = outside.copy()
        context.run(CREW.set, crew)
        group.create_task(work(), context=context)

    fixed = parameters.concurrency or session.concurrency
    places = min(fixed or ADAPTIVE_EPISODES, max(plan.total, 1))
    # Where the number of calls adapts itself there are episodes enough as it is.
    crew = Crew(places, places * STANDBY if fixed else places, hire)
    try:
        async with asyncio.TaskGroup() as group:
            crew.fill()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
