"""Opens the live parts of a run from what it was asked to do: models, evaluators, memory, cache.

The one place where names and URLs become objects, for the agent, the command line and the flows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from reflexion import errors
from reflexion.errors import ConfigurationError, RunFailedError
from reflexion.llm.chat_model import LLM, Sampling
from reflexion.loop.prompt_budget import TokenBudget
from reflexion.loop.prompts import DEFAULT_PROMPTS, Prompts
from reflexion.loop.steps import EpisodeOptions, Runner, Runtime, StepObserver, perform
from reflexion.run.models import Gate, OpenedModels
from reflexion.run.parameters import REFUSED_URL, REPLY_TOKENS, BatchParameters, EpisodeParameters
from reflexion.types import Episode, Problem, StepName, Strategy, Usage

if TYPE_CHECKING:
    from reflexion.actors.tools import Tool
    from reflexion.cache.step_cache import StepCache
    from reflexion.evaluators.evaluator import Evaluator
    from reflexion.llm.endpoint.extras import Extras
    from reflexion.llm.wrappers.budget import Budget
    from reflexion.memory.episodic_memory import Memory, MemoryLimits
    from reflexion.reuse.similar_failures import SimilarityProvider
    from reflexion.run.run_folder import RunFolder
    from reflexion.settings import Settings
    from reflexion.telemetry.summary import Summary

__all__ = [
    "Gate",
    "Session",
    "checked_options",
    "describe_validation",
    "evaluator_source",
    "judge_of",
    "open_agent_session",
    "open_session",
    "raise_if_all_failed",
    "raise_if_fatal",
    "spec_of",
]


@dataclass
class Session:
    """An opened run: its runtime, its cache and how its steps are carried out."""

    runtime: Runtime
    cache: StepCache | None
    ttl: Mapping[StepName, float]
    spec: str = ""
    """The actor's model as it was asked for."""
    judge: str = ""
    """The model that judges where nothing else can."""
    concurrency: int | None = None
    """Episodes at a time that suit the model, or None."""
    memory_limits: MemoryLimits | None = None
    """What the run's own memory may hold, if it has one."""
    budget: Budget | None = None
    """What the run may spend."""

    async def bind_run(self, name: str, folder: Path, stack: AsyncExitStack, spent: Usage | None = None) -> None:
        """Tell the runtime which run it serves, and open the run's own memory if no other was named.

        Args:
            spent: by the run so far, if it is resumed: it counts against its budget.
        """
        if self.budget is not None and spent is not None:
            self.budget.cost += spent.cost_usd or 0.0
            self.budget.tokens += spent.total
        self.runtime.run = name
        if self.runtime.memory is None:
            url = f"sqlite:{folder / 'memory.sqlite'}"
            self.runtime.memory = await open_owned_memory(url, stack, self.memory_limits)

    @property
    def runner(self) -> Runner:
        """Carries steps out in this process, through the cache if there is one."""
        if self.cache is None:
            return perform
        from reflexion.run.cached_steps import cached_runner

        return cached_runner(self.cache, self.ttl)


def checked_options(
    *, max_trials: int, strategy: Strategy | str, sampling: Sampling | None = None, **more: Any
) -> EpisodeOptions:
    """Episode options from Python arguments.

    Raises:
        ConfigurationError: names the argument and what is allowed.
    """
    try:
        return EpisodeOptions.model_validate(
            {"max_trials": max_trials, "strategy": strategy, "sampling": sampling or Sampling(), **more}
        )
    except ValidationError as exc:
        raise ConfigurationError(describe_validation(exc)) from None


def describe_validation(exc: ValidationError) -> str:
    """One line for each wrong field: its name, what is wrong, and what was given."""
    lines: list[str] = []
    for error in exc.errors():
        name = ".".join(str(part) for part in error["loc"]) or "value"
        given = error.get("input")
        secret = error["type"] == REFUSED_URL
        shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) and not secret else ""
        lines.append(f"{name}: {error['msg']}{shown}")
    return "; ".join(lines)


def raise_if_fatal(episode: Episode) -> None:
    """Raise the error of an episode that every other episode would meet too."""
    if episode.error is not None and episode.error.fatal:
        kind = getattr(errors, episode.error.kind, errors.RunFailedError)
        raise kind(episode.error.message)


def raise_if_all_failed(folder: RunFolder, summary: Summary) -> None:
    """A run of which no episode came to its end has failed.

    Raises:
        RunFailedError: in the words of the error that most of them met.
    """
    if not summary.episodes or summary.errors < summary.episodes:
        return
    met = Counter(f"{e.error.kind}: {e.error.message}" for e in folder.episodes() if e.error is not None)
    words = met.most_common(1)[0][0] if met else "no reason is on record"
    every = f"every one of its {summary.episodes} episodes" if summary.episodes > 1 else "its one episode"
    raise RunFailedError(f"{words} ({every} ended in an error; {folder.path} keeps the record)")


def evaluator_source(
    spec: str | Evaluator | Callable[..., Any] | None,
    judge: Callable[[], LLM],
    *,
    reveal_answers: bool = False,
    timeout: float = 10.0,
    packages: tuple[str, ...] = (),
    judge_tokens: int | None = None,
    tests_tokens: int | None = None,
) -> Callable[[Problem], Evaluator]:
    """Which evaluator judges a problem: the one asked for, else the problem's own, else inferred.

    Args:
        spec: what was asked for.
        judge: the model evaluators ask.
        reveal_answers: whether feedback may show the reference answer.
        timeout: seconds the tests of one answer may take.
        packages: installed packages that tests and answers may import.
        judge_tokens, tests_tokens: of a verdict and of generated tests at most; None: as the evaluator says.
    """
    from reflexion.evaluators import resolve_evaluator, wrap_callable
    from reflexion.evaluators.evaluator import Evaluator as EvaluatorProtocol

    if spec is not None and not isinstance(spec, str):
        fixed = spec if isinstance(spec, EvaluatorProtocol) else wrap_callable(spec)
        return lambda problem: fixed

    @cache
    def asked(tokens: int | None) -> LLM:
        from reflexion.llm.wrappers.wrapped import LimitedLLM

        return judge() if tokens is None else LimitedLLM(judge(), tokens)

    def source(problem: Problem) -> Evaluator:
        name = spec or problem.evaluator
        writes = (name or "").partition(":")[0].strip() == "generated"
        return resolve_evaluator(
            name,
            problem,
            judge=asked(tests_tokens if writes else judge_tokens),
            reveal_answers=reveal_answers,
            timeout=timeout,
            packages=packages,
        )

    return source


def tool_source(actor: str, given: Sequence[Any]) -> Callable[[Problem], tuple[Tool, ...]]:
    """Which tools a problem's trial has: those asked for that suit it, else what comes with the package.

    Raises:
        ConfigurationError: a tool cannot be had, or the actor uses none.
    """
    if actor != "react":
        if given:
            raise ConfigurationError(f"tools are used by the actor react, and the actor is {actor}; use --actor react")
        return lambda problem: ()
    if not given:
        from reflexion.actors.builtin_tools import default_tools

        return default_tools
    from reflexion.actors.tools import as_tools

    tools = as_tools(given)
    return lambda problem: tuple(t for t in tools if t.suits(problem))


@asynccontextmanager
async def open_agent_session(
    *,
    options: EpisodeOptions,
    models: Mapping[str, str | LLM | None],
    evaluator: str | Evaluator | Callable[..., Any] | None = None,
    tools: Sequence[Any] = (),
    observers: Sequence[StepObserver] = (),
    memory: Memory | str | None = None,
    cache: StepCache | str | bool | None = None,
    ttl: str = "7d",
    prompts: Prompts = DEFAULT_PROMPTS,
    base_url: str | None = None,
    api_key: str | None = None,
    concurrency: int | None = None,
    sandbox_packages: tuple[str, ...] = (),
    judge_tokens: int | None = None,
    tests_tokens: int | None = None,
    extras: Extras | None = None,
) -> AsyncGenerator[Session]:
    """Open the parts a `ReflexionAgent` needs; what is opened here is closed here."""
    from reflexion.cache import MemoryStepCache
    from reflexion.memory.episodic_memory import MemoryLimits
    from reflexion.settings import Settings

    settings = Settings()
    settings.require_values()
    async with AsyncExitStack() as stack:
        opener = OpenedModels(
            settings, stack, base_url=base_url, api_key=api_key, concurrency=concurrency, extras=extras
        )
        actor = opener.get(models.get("actor"))
        reflector = opener.get(models.get("reflector"), actor)
        judge = opener.get(models.get("judge"), actor)
        if isinstance(memory, str):
            memory = await open_owned_memory(memory, stack, MemoryLimits(per_problem=options.omega))
        if cache is None or cache is True:
            store: StepCache | None = MemoryStepCache()
        elif cache is False:
            store = None
        elif isinstance(cache, str):
            store = await open_owned_cache(cache, stack)
        else:
            store = cache
        runtime = Runtime(
            options=options,
            actor=lambda index: actor,
            reflector=reflector,
            evaluator=evaluator_source(
                evaluator,
                lambda: judge,
                timeout=settings.evaluation_timeout,
                judge_tokens=judge_tokens,
                tests_tokens=tests_tokens,
                packages=sandbox_packages,
            ),
            prompts=prompts,
            memory=memory,
            observers=tuple(observers),
            run="agent",
            tools=tool_source(options.actor, tools),
        )
        yield Session(runtime, store, _ttl(ttl))


@asynccontextmanager
async def open_session(
    parameters: BatchParameters | EpisodeParameters,
    settings: Settings,
    *,
    dataset: str = "",
    folder: Path | None = None,
    observers: Sequence[StepObserver] = (),
    gate: Gate | None = None,
) -> AsyncGenerator[Session]:
    """Open the parts a batch or a single episode needs; what is opened here is closed here.

    Args:
        folder: the run's folder, where jobs of the Batch API are kept track of.
        gate: held during each request to a model: a limit shared across processes.

    Raises:
        ConfigurationError: a parameter is wrong, or something it names cannot be had.
        StorageError: the cache refuses (wrong password, written by a newer version).
    """
    from reflexion.llm.endpoint.extras import Extras
    from reflexion.llm.wrappers.budget import Budget

    settings.require_values()
    batch = parameters if isinstance(parameters, BatchParameters) else None
    async with AsyncExitStack() as stack:
        budget = Budget(batch.max_cost, batch.max_tokens) if batch is not None else Budget()
        opener = OpenedModels(
            settings,
            stack,
            base_url=parameters.base_url,
            concurrency=batch.concurrency if batch is not None else None,
            gate=gate,
            budget=budget,
            record=batch.record if batch is not None else None,
            batch_folder=folder if batch is not None and batch.batch_api else None,
            extras=Extras(body=parameters.extra_body or {}, reasoning_effort=parameters.reasoning_effort),
        )
        roles = opener.roles(parameters)
        reflector, judge = opener.get(roles.reflector), opener.get(roles.judge)
        actors = {spec: opener.get(spec) for spec in roles.actors}
        cache = await open_owned_cache(parameters.cache or settings.cache, stack) if parameters.use_cache else None
        limits = _memory_limits(batch) if batch is not None else None
        # A memory that outlives the run is opened first: what is wrong with it shows before anything is made.
        shared = (batch.memory or settings.memory) if batch is not None else None
        runtime = Runtime(
            options=parameters.options(getattr(actors[roles.actors[0]], "reply_tokens", None) or REPLY_TOKENS),
            actor=lambda index: actors[roles.actor_for(index, parameters.max_trials)],
            reflector=reflector,
            evaluator=evaluator_source(
                parameters.evaluator,
                lambda: judge,
                reveal_answers=parameters.reveal_answers,
                timeout=parameters.evaluation_timeout or settings.evaluation_timeout,
                packages=parameters.sandbox_packages,
                judge_tokens=parameters.judge_max_tokens,
                tests_tokens=parameters.tests_max_tokens,
            ),
            observers=tuple(observers),
            dataset=dataset,
            tools=tool_source(parameters.actor, parameters.tools),
            memory=await open_owned_memory(shared, stack, limits) if shared else None,
            budget=_prompt_budget(parameters.prompt_tokens, (*actors.values(), reflector)),
        )
        if batch is not None and batch.reflect_batch > 1:
            from reflexion.loop.reflectors import BatchedReflector

            runtime.custom_reflector = BatchedReflector(runtime, batch.reflect_batch)
            runtime.reflection_fields["batch"] = batch.reflect_batch
        if batch is not None and batch.reflection_reuse is not None:
            from reflexion.reuse.reflection_reuse import reuse_reflections

            # A refreshed run draws its own reflections: it neither finds older ones nor keeps old copies.
            kept = None if batch.refresh else cache
            reuse_reflections(runtime, kept, await _similarity(batch, settings, stack), batch.reflection_reuse)
        if cache is not None and parameters.refresh:
            from reflexion.cache.fresh import FreshCache

            cache = FreshCache(cache, batch.refresh_since if batch is not None else None)
        yield Session(
            runtime,
            cache,
            _ttl(parameters.ttl or settings.ttl),
            spec=roles.actors[0],
            judge=roles.judge,
            concurrency=getattr(actors[roles.actors[0]], "suggested_concurrency", None),
            memory_limits=limits,
            budget=budget,
        )


def _prompt_budget(tokens: int | None, models: Iterable[LLM]) -> TokenBudget | None:
    """The tokens asked for, else what the smallest of the models takes."""
    if tokens is None:
        windows = [w for w in (getattr(model, "prompt_window", None) for model in models) if isinstance(w, int)]
        tokens = min(windows, default=None)
    return TokenBudget(tokens) if tokens is not None else None


def _memory_limits(p: BatchParameters) -> MemoryLimits:
    """What a batch says its memory may hold.

    Raises:
        ConfigurationError: the age is no duration.
    """
    from reflexion.cache.ttl import parse_duration
    from reflexion.memory import make_limits

    age = p.memory_max_age
    return make_limits(
        per_problem=p.memory_per_problem or p.omega,
        entries=p.memory_entries,
        bytes=p.memory_bytes,
        max_age=parse_duration(age, "memory_max_age") if age is not None else None,
        eviction=p.memory_eviction,
    )


async def _similarity(batch: BatchParameters, settings: Settings, stack: AsyncExitStack) -> SimilarityProvider:
    from reflexion.reuse.reflection_reuse import open_similarity

    key = settings.openai_api_key
    provider, close = open_similarity(
        batch.similarity,
        base_url=batch.base_url or settings.openai_base_url,
        api_key=key.get_secret_value() if key is not None else None,
    )
    stack.push_async_callback(close)
    return provider


def spec_of(parameters: BatchParameters | EpisodeParameters, settings: Settings) -> str:
    """The model of the first trial, as reports name it.

    Raises ConfigurationError: the escalation is malformed.
    """
    return OpenedModels(settings, AsyncExitStack()).roles(parameters).actors[0]


def judge_of(parameters: BatchParameters | EpisodeParameters, settings: Settings) -> str:
    """The model that judges where nothing else can. Raises as `spec_of` does."""
    return OpenedModels(settings, AsyncExitStack()).roles(parameters).judge


def _ttl(text: str) -> Mapping[StepName, float]:
    from reflexion.cache.ttl import parse_ttl

    return parse_ttl(text)


async def open_owned_memory(url: str, stack: AsyncExitStack, limits: MemoryLimits | None) -> Memory:
    """A memory that is closed with the stack."""
    from reflexion.memory import open_memory

    memory = open_memory(url, limits)
    stack.push_async_callback(memory.aclose)
    return memory


async def open_owned_cache(url: str | None, stack: AsyncExitStack) -> StepCache:
    """A step cache that is closed with the stack."""
    from reflexion.cache import open_cache

    cache = open_cache(url)
    stack.push_async_callback(cache.aclose)
    return cache
