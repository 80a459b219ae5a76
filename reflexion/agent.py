"""`ReflexionAgent`: the loop for one or many problems, from Python, without Prefect."""

from __future__ import annotations

import asyncio
import threading
import uuid
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from reflexion.errors import ConfigurationError
from reflexion.llm.chat_model import LLM, Sampling
from reflexion.loop.algorithm import run_episode
from reflexion.loop.prompts import DEFAULT_PROMPTS, Prompts
from reflexion.loop.steps import Actor, EpisodeOptions, Runner, Runtime, StepObserver, build_steps
from reflexion.types import Episode, Problem, Strategy

if TYPE_CHECKING:
    from reflexion.actors.tools import Tool
    from reflexion.cache.step_cache import StepCache
    from reflexion.evaluators.evaluator import Evaluator
    from reflexion.loop.algorithm import Steps
    from reflexion.memory.episodic_memory import Memory
    from reflexion.run.wiring import Session
    from reflexion.telemetry import PerformanceMonitor

__all__ = ["ReflexionAgent"]

T = TypeVar("T")


class _LoopThread:
    """An event loop of its own: in the caller's thread when that has none, else in a thread.

    Kept between calls, so that connections and locks of one call serve the next.
    """

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._lock = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._run(coroutine)
        # A loop is running here (a notebook): block this call, not that loop's rules.
        result: list[T] = []
        failure: list[BaseException] = []

        def target() -> None:
            try:
                result.append(self._run(coroutine))
            except BaseException as exc:  # noqa: BLE001 - carried to the calling thread
                failure.append(exc)

        thread = threading.Thread(target=target, name="reflexion-agent")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._runner is None:
                self._runner = asyncio.Runner()
            return self._runner.run(coroutine)

    @property
    def started(self) -> bool:
        """Whether there is a loop."""
        return self._runner is not None

    def close(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._close()
        else:  # a loop cannot be closed from inside another one
            thread = threading.Thread(target=self._close, name="reflexion-agent-close")
            thread.start()
            thread.join()

    def _close(self) -> None:
        with self._lock:
            if self._runner is not None:
                self._runner.close()
                self._runner = None


class _Sessions:
    """The opened parts of an agent, one set for each event loop: connections and locks belong to theirs."""

    def __init__(self, opener: Callable[[], AbstractAsyncContextManager[Session]]) -> None:
        self._opener = opener
        self._opened: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, asyncio.Task[tuple[AsyncExitStack, Runtime, Runner]]
        ] = weakref.WeakKeyDictionary()

    async def steps(self) -> Steps:
        """Steps for one call of the agent: an own run to the memory, or one call would not recall another's."""
        loop = asyncio.get_running_loop()
        opening = self._opened.get(loop)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            opening = self._opened[loop] = asyncio.ensure_future(self._open())
        _, runtime, runner = await asyncio.shield(opening)
        return build_steps(replace(runtime, run=f"agent-{uuid.uuid4().hex}"), runner)

    async def _open(self) -> tuple[AsyncExitStack, Runtime, Runner]:
        stack = AsyncExitStack()
        session = await stack.enter_async_context(self._opener())
        return stack, session.runtime, session.runner

    async def aclose(self) -> None:
        """Close what the running event loop has opened."""
        opening = self._opened.pop(asyncio.get_running_loop(), None)
        if opening is not None:
            stack, _, _ = await opening
            await stack.aclose()


def _release(thread: _LoopThread, sessions: _Sessions) -> None:
    if thread.started:
        thread.run(sessions.aclose())
    thread.close()


class ReflexionAgent:
    """An agent that tries, is judged, reflects and tries again (Shinn et al. 2023).

    Args:
        llm: `"local"` (an embedded model), `"gguf:PATH"`, `"replay:FILE"`, the name of a model of an
            OpenAI-compatible endpoint, or any object with the `LLM` protocol. None: `local` when no
            endpoint is configured in the environment.
        max_trials: trials of one problem at most.
        strategy: what a trial sees of the past.
        evaluator: name of an evaluator, an `Evaluator`, or a function of `(problem, answer)` that gives
            bool, score or `Evaluation`. None: inferred from the problem; with no reference answer and no
            tests, the same model judges.
        actor: how a trial is made: `direct`, `cot`, or `react`, in turns with tools. None: `react` if there are
            tools, else `direct`.
        tools: typed functions, or names such as `"documents"` and `"module:function"`, that the model may call.
        max_turns: turns of one trial at most. None: 8, and 30 in an environment.
        reflector, judge: models of their own for these roles. None: `llm`.
        performance_monitor: is told of every step.
        memory: a memory, or the URL of one, that outlives the agent. None: an episode remembers only its
            own trials, as in the paper.
        cache: a step cache, or the URL of one. None: repeated queries are answered from this process's
            memory. False: no cache.
        ttl: how long cached steps live: `"7d"`, or by step: `"trial=1d,reflect=30d"`.
        sampling: sampling parameters of trials and reflections.
        reflection_max_tokens: tokens of a reflection at most. None: 128, or a trial's if those are fewer.
        judge_max_tokens, tests_max_tokens: tokens of a verdict and of generated tests at most. None: as the
            evaluator says.
        reasoning_effort: how much the models should think, in their provider's words.
        extra_body: fields sent along with every request.
        extra_headers: headers sent along with every request; their values are shown nowhere.
        concurrency: episodes at a time in `run_many`.
        sandbox_packages: installed packages that tests and answers may import beside the standard library.

    Raises:
        ConfigurationError: an option is wrong, or the model cannot be had.

    Example:
        >>> agent = ReflexionAgent(llm="gpt-4")
        >>> episode = agent.run("Name the largest planet of the solar system.")  # doctest: +SKIP
        >>> episode.solved, episode.answer  # doctest: +SKIP
        (True, 'Jupiter')
    """

    def __init__(
        self,
        llm: str | LLM | None = None,
        *,
        max_trials: int = 3,
        strategy: Strategy | str = Strategy.REFLEXION,
        evaluator: str | Evaluator | Callable[..., Any] | None = None,
        actor: Actor | None = None,
        tools: Sequence[Tool | Callable[..., Any] | str] = (),
        max_turns: int | None = None,
        reflector: str | LLM | None = None,
        judge: str | LLM | None = None,
        performance_monitor: PerformanceMonitor | StepObserver | None = None,
        memory: Memory | str | None = None,
        cache: StepCache | str | bool | None = None,
        ttl: str = "7d",
        sampling: Sampling | None = None,
        prompts: Prompts = DEFAULT_PROMPTS,
        base_url: str | None = None,
        api_key: str | None = None,
        concurrency: int = 20,
        sandbox_packages: Sequence[str] = (),
        reflection_max_tokens: int | None = None,
        judge_max_tokens: int | None = None,
        tests_max_tokens: int | None = None,
        reasoning_effort: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        from reflexion.actors.tools import as_tools
        from reflexion.llm.endpoint.extras import Extras, parse_extra_body, parse_extra_headers
        from reflexion.run.wiring import checked_options, open_agent_session

        if concurrency < 1:
            raise ConfigurationError(f"concurrency must be at least 1, not {concurrency}")
        self._options = checked_options(
            max_trials=max_trials,
            strategy=strategy,
            sampling=sampling,
            actor=actor or ("react" if tools else "direct"),
            max_turns=max_turns,
            reflection_tokens=reflection_max_tokens,
        )
        for name, limit in (("judge_max_tokens", judge_max_tokens), ("tests_max_tokens", tests_max_tokens)):
            if limit is not None and limit < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {limit}")
        extras = Extras(parse_extra_body(extra_body), parse_extra_headers(extra_headers), reasoning_effort)
        # Found out now: what is wrong with a tool is the caller's to mend, not the first run's.
        as_tools(tools)
        self._observers = (performance_monitor,) if performance_monitor is not None else ()
        self._concurrency = concurrency
        self._thread = _LoopThread()
        self._sessions = _Sessions(
            partial(
                open_agent_session,
                options=self._options,
                models={"actor": llm, "reflector": reflector, "judge": judge},
                evaluator=evaluator,
                tools=tuple(tools),
                observers=self._observers,
                memory=memory,
                cache=cache,
                ttl=ttl,
                prompts=prompts,
                base_url=base_url,
                api_key=api_key,
                concurrency=concurrency,
                sandbox_packages=tuple(sandbox_packages),
                judge_tokens=judge_max_tokens,
                tests_tokens=tests_max_tokens,
                extras=extras,
            )
        )
        # The last one made is called first; at the interpreter's end it is too late for connections.
        weakref.finalize(self, self._thread.close)
        weakref.finalize(self, _release, self._thread, self._sessions).atexit = False

    @property
    def options(self) -> EpisodeOptions:
        """What shapes its episodes."""
        return self._options

    def run(self, task: str | Problem) -> Episode:
        """Work on one problem. Blocks; inside a running event loop it works in a thread of its own.

        Raises:
            AuthenticationError, ModelNotFoundError: the endpoint refuses every call.
        """
        return self._thread.run(self.arun(task))

    def run_many(self, tasks: Iterable[str | Problem]) -> list[Episode]:
        """Work on independent problems in parallel; the episodes come in the order of the tasks.

        One problem that fails never fails the others: its episode has the outcome `error`.
        """
        return self._thread.run(self.arun_many(tasks))

    async def arun(self, task: str | Problem) -> Episode:
        """As `run`, for async code."""
        steps = await self._sessions.steps()
        return await self._episode(steps, _problem(task, 1))

    async def arun_many(self, tasks: Iterable[str | Problem]) -> list[Episode]:
        """As `run_many`, for async code."""
        steps = await self._sessions.steps()
        numbered = enumerate([_problem(task, n) for n, task in enumerate(tasks, 1)])
        episodes: dict[int, Episode] = {}

        async def work() -> None:
            for position, problem in numbered:
                episodes[position] = await self._episode(steps, problem)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(work())
        except ExceptionGroup as group_error:
            # Workers fail for one reason only, a fatal one, and all for the same.
            raise group_error.exceptions[0] from None
        return [episodes[position] for position in sorted(episodes)]

    def close(self) -> None:
        """Release connections, and the embedded model if nobody else uses it."""
        _release(self._thread, self._sessions)

    async def aclose(self) -> None:
        """As `close`, for async code: what the running event loop has opened."""
        await self._sessions.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _episode(self, steps: Steps, problem: Problem) -> Episode:
        from reflexion.run.wiring import raise_if_fatal

        episode = await run_episode(
            problem,
            steps,
            max_trials=self._options.max_trials,
            strategy=self._options.strategy,
            omega=self._options.omega,
        )
        for observer in self._observers:
            record = getattr(observer, "record_episode", None)
            if record is not None:
                record(episode)
        raise_if_fatal(episode)
        return episode


def _problem(task: str | Problem, number: int) -> Problem:
    return task if isinstance(task, Problem) else Problem(id=f"task-{number}", prompt=task)
