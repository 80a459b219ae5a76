"""Opens the live parts of a run from what it was asked to do: models, evaluators, memory, cache.

The one place where names and URLs become objects, for the agent, the command line and the flows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from reflexion import errors
from reflexion.errors import ConfigurationError
from reflexion.llm.base import LLM, Sampling
from reflexion.prompts import DEFAULT_PROMPTS, Prompts
from reflexion.steps import EpisodeOptions, Runner, Runtime, StepObserver, perform
from reflexion.types import Episode, Problem, StepName, Strategy

if TYPE_CHECKING:
    from reflexion.cache.base import StepCache
    from reflexion.evaluators.base import Evaluator
    from reflexion.memory.base import Memory

__all__ = ["Session", "checked_options", "open_agent_session", "raise_if_fatal"]


@dataclass
class Session:
    """An opened run: its runtime, its cache and how its steps are carried out."""

    runtime: Runtime
    cache: StepCache | None
    ttl: Mapping[StepName, float]
    refresh: bool = False

    @property
    def runner(self) -> Runner:
        """Carries steps out in this process, through the cache if there is one."""
        if self.cache is None:
            return perform
        from reflexion.direct import cached_runner

        return cached_runner(self.cache, self.ttl, refresh=self.refresh)


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
        shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
        lines.append(f"{name}: {error['msg']}{shown}")
    return "; ".join(lines)


def raise_if_fatal(episode: Episode) -> None:
    """Raise the error of an episode that every other episode would meet too."""
    if episode.error is not None and episode.error.fatal:
        kind = getattr(errors, episode.error.kind, errors.RunFailedError)
        raise kind(episode.error.message)


def evaluator_source(
    spec: str | Evaluator | Callable[..., Any] | None,
    judge: Callable[[], LLM],
    *,
    reveal_answers: bool = False,
    timeout: float = 10.0,
) -> Callable[[Problem], Evaluator]:
    """Which evaluator judges a problem: the one asked for, else the problem's own, else inferred."""
    from reflexion.evaluators import resolve_evaluator, wrap_callable
    from reflexion.evaluators.base import Evaluator as EvaluatorProtocol

    if spec is not None and not isinstance(spec, str):
        fixed = spec if isinstance(spec, EvaluatorProtocol) else wrap_callable(spec)
        return lambda problem: fixed

    def source(problem: Problem) -> Evaluator:
        return resolve_evaluator(
            spec or problem.evaluator, problem, judge=judge(), reveal_answers=reveal_answers, timeout=timeout
        )

    return source


@asynccontextmanager
async def open_agent_session(
    *,
    options: EpisodeOptions,
    models: Mapping[str, str | LLM | None],
    evaluator: str | Evaluator | Callable[..., Any] | None = None,
    observers: Sequence[StepObserver] = (),
    memory: Memory | str | None = None,
    cache: StepCache | str | bool | None = None,
    ttl: str = "7d",
    prompts: Prompts = DEFAULT_PROMPTS,
    base_url: str | None = None,
    api_key: str | None = None,
    concurrency: int | None = None,
) -> AsyncIterator[Session]:
    """Open the parts a `ReflexionAgent` needs; what it opened is closed with it."""
    from reflexion.cache import MemoryStepCache, open_cache
    from reflexion.cache.ttl import parse_ttl
    from reflexion.settings import Settings

    settings = Settings()
    async with AsyncExitStack() as stack:
        opened: dict[str, LLM] = {}

        async def model(spec: str | LLM | None, fallback: LLM | None = None) -> LLM:
            if spec is None and fallback is not None:
                return fallback
            if spec is not None and not isinstance(spec, str):
                return spec
            name = spec or ""
            if name not in opened:
                opened[name] = open_model(spec, settings, base_url=base_url, api_key=api_key, concurrency=concurrency)
                stack.push_async_callback(opened[name].aclose)
            return opened[name]

        actor = await model(models.get("actor"))
        reflector = await model(models.get("reflector"), actor)
        judge = await model(models.get("judge"), actor)
        if isinstance(memory, str):
            memory = await open_owned_memory(memory, options.omega, stack)
        if cache is None or cache is True:
            store: StepCache | None = MemoryStepCache()
        elif cache is False:
            store = None
        elif isinstance(cache, str):
            store = await _opened(open_cache(cache))
            stack.push_async_callback(store.aclose)
        else:
            store = cache
        runtime = Runtime(
            options=options,
            actor=lambda index: actor,
            reflector=reflector,
            evaluator=evaluator_source(evaluator, lambda: judge, timeout=settings.evaluation_timeout),
            prompts=prompts,
            memory=memory,
            observers=tuple(observers),
            run="agent",
        )
        yield Session(runtime, store, parse_ttl(ttl))
