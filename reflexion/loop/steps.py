"""The four steps as plain async functions, and the calls that runners cache, record and carry out.

A `StepCall` knows its own cache key and how to carry itself out. A *runner* is any async callable
that takes one and returns its output: the plain one here, the caching one of `reflexion.run.cached_steps`, or
one that wraps each call in a Prefect task run (`tasks/`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast

from pydantic import Field

from reflexion.errors import MalformedReplyError, ReflexionError, RefusalError
from reflexion.keys import digest
from reflexion.llm.chat_model import LLM, ChatReply, ChatRequest, Sampling
from reflexion.loop.algorithm import Attempt, Steps
from reflexion.loop.asking import EMPTY_REPLY, ask, finish_of, kept_thought, reply_fields, without_answer
from reflexion.loop.prompt_budget import TokenBudget, within
from reflexion.loop.prompts import DEFAULT_PROMPTS, Prompts
from reflexion.loop.strategies import OMEGA
from reflexion.types import (
    Evaluation,
    Frozen,
    Lesson,
    Problem,
    Reflection,
    StepName,
    StepOutput,
    Strategy,
    Trial,
)

if TYPE_CHECKING:
    from reflexion.actors.tools import Tool
    from reflexion.cache.step_cache import CachedStep
    from reflexion.evaluators.evaluator import Evaluator
    from reflexion.memory.episodic_memory import Memory

__all__ = [
    "STEP_VERSIONS",
    "Actor",
    "EpisodeOptions",
    "Reflector",
    "Runner",
    "Runtime",
    "StepCall",
    "StepObserver",
    "ToolMode",
    "build_steps",
    "perform",
    "reflect_once",
    "reflect_request",
]

T = TypeVar("T")

Actor = Literal["direct", "cot", "react"]
"""How a trial is made: by one call, by one call that thinks first, or in turns with tools."""

REFLECTION_TOKENS = 128
"""Tokens of a reflection at most, where nothing is said."""

ToolMode = Literal["auto", "native", "text"]
"""How tools are called: by function calling, by lines of text, or (`auto`) as the model can."""

STEP_VERSIONS: dict[StepName, int] = {"trial": 2, "evaluate": 2, "reflect": 2, "memorize": 1}
"""Raised when a step's code changes what it returns for the same inputs; part of the cache key."""


class EpisodeOptions(Frozen):
    """What shapes an episode. Every field is JSON-safe; none is a secret."""

    max_trials: int = Field(default=3, ge=1, le=100)
    strategy: Strategy = Strategy.REFLEXION
    evaluator: str | None = None
    actor: Actor = "direct"
    max_turns: int | None = Field(default=None, ge=1, le=1000, description="Turns of an acting trial; None: by kind.")
    tool_mode: ToolMode = "auto"
    tool_timeout: float = Field(default=10.0, gt=0, description="Seconds one call of a tool may take.")
    sampling: Sampling = Sampling()
    reflection_tokens: int | None = Field(
        default=None, ge=1, description="Tokens of a reflection at most; None: 128, or a trial's if those are fewer."
    )
    omega: int = Field(default=OMEGA, ge=1, description="Lessons a trial sees at most.")
    transfer: int = Field(default=0, ge=0, description="Lessons of similar problems a trial sees at most.")


class StepObserver(Protocol):
    """Is told of every step: what `PerformanceMonitor` implements."""

    def record_step(self, step: StepName, output: StepOutput | None, wall_seconds: float) -> None:
        """A step came to its end, computed or cached."""
        ...

    def record_error(self, step: StepName, error: BaseException) -> None:
        """A step failed."""
        ...


class Reflector(Protocol):
    """Draws a reflection some other way than by one call: batched, or reused from a similar failure."""

    async def reflect(self, call: StepCall) -> Reflection:
        """The reflection for a failed trial."""
        ...


def reflection_sampling(options: EpisodeOptions) -> Sampling:
    """Sampling of reflections: as trials, but short, since a lesson is one or two sentences."""
    most = options.reflection_tokens or min(REFLECTION_TOKENS, options.sampling.max_tokens or REFLECTION_TOKENS)
    return options.sampling.model_copy(update={"max_tokens": most})


@dataclass
class Runtime:
    """The live parts an episode needs. Built once for a run, shared by all its episodes."""

    options: EpisodeOptions
    actor: Callable[[int], LLM]
    """The model for trial `index` (from 1): escalation is a choice by trial."""
    reflector: LLM
    evaluator: Callable[[Problem], Evaluator]
    prompts: Prompts = DEFAULT_PROMPTS
    memory: Memory | None = None
    observers: tuple[StepObserver, ...] = ()
    run: str = ""
    dataset: str = ""
    tools: Callable[[Problem], tuple[Tool, ...]] = lambda problem: ()
    """The tools an acting trial of a problem has."""

    custom_reflector: Reflector | None = None
    reflection_fields: dict[str, Any] = field(default_factory=dict[str, Any])
    """What else shapes reflections (reuse, batching): part of their cache key."""

    budget: TokenBudget | None = None
    """Tokens a prompt may have; None: as many as it takes."""

    @cached_property
    def samplings(self) -> dict[str, dict[str, Any]]:
        """Sampling parameters of trials and of reflections as they enter cache keys."""
        trial, reflect = self.options.sampling, reflection_sampling(self.options)
        return {"trial": trial.model_dump(mode="json"), "reflect": reflect.model_dump(mode="json")}

    def calibrate(self, request: ChatRequest, reply: ChatReply) -> None:
        """Let the endpoint's own count correct the estimate of tokens."""
        if self.budget is not None and reply.usage.calls == 1 and not reply.usage.unknown:
            self.budget.counter.learn(sum(len(m.content) for m in request.messages), reply.usage.prompt)

    def follow(self, llm: LLM) -> None:
        """Let the prompt budget follow the window a model's endpoint told, if it did."""
        self.budget = within(self.budget, getattr(llm, "learned_window", None))

    def episode_id(self, problem: Problem, repeat: int) -> str:
        """Names one episode across processes and resumed runs."""
        return f"{self.run}/{problem.id}/{repeat}"


class _Once(Generic[T]):
    """A value worked out when it is first asked for. `functools.cached_property` takes a lock to do so."""

    def __init__(self, work: Callable[[Any], T]) -> None:
        self._work, self._name = work, work.__name__
        self.__doc__ = work.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        value = instance.__dict__[self._name] = self._work(instance)
        return value


class StepCall:
    """One step of one episode, ready to be carried out.

    A plain object on purpose: Prefect walks through dataclasses and models among a task's parameters,
    which costs more than the step itself.
    """

    def __init__(self, runtime: Runtime, step: StepName, attempt: Attempt, trial: Trial | None = None) -> None:
        self.runtime = runtime
        self.step: StepName = step
        self.attempt = attempt
        self.trial = trial
        self.executed = False
        self.output: StepOutput | None = None
        """What it gave, once it was carried out in this process."""
        self.found: CachedStep | None = None
        """The cache entry that answers it, once it was looked up."""
        self.restored: StepOutput | None = None
        """The output `found` holds."""

    def __repr__(self) -> str:
        a = self.attempt
        return f"StepCall({self.step} {a.index} of {a.problem.id!r}, repeat {a.repeat})"

    @property
    def name(self) -> str:
        """What the run's record shows: step, problem, trial and repeat."""
        a = self.attempt
        repeat = f"~{a.repeat}" if a.repeat else ""
        return f"{self.step}:{a.problem.id}{repeat}#{a.index}"

    @property
    def feedback(self) -> str:
        """The feedback on the call's trial."""
        return _feedback(self.trial) if self.trial is not None else ""

    @_Once
    def evaluator(self) -> Evaluator:
        """The evaluator of this call's problem."""
        return self.runtime.evaluator(self.attempt.problem)

    @_Once
    def cacheable(self) -> bool:
        """Whether the step costs enough to be cached: model calls and sandboxed tests do."""
        if self.step == "evaluate":
            return self.evaluator.expensive
        return self.step != "memorize"

    @_Once
    def model(self) -> str | None:
        """The model asked, if the step asks one."""
        if self.step == "trial":
            return self.runtime.actor(self.attempt.index).model
        return self.runtime.reflector.model if self.step == "reflect" else None

    @_Once
    def fields(self) -> dict[str, Any]:
        """What the cache key is made of: everything that shapes the output, and no secret.

        Texts that may be long stand as digests, so that `cache explain` can name the field without
        printing it.
        """
        attempt, runtime = self.attempt, self.runtime
        fields: dict[str, Any] = {
            "step": self.step,
            "version": STEP_VERSIONS[self.step],
            "problem": attempt.problem.digest,
        }
        if self.step == "evaluate":
            assert self.trial is not None
            fields["evaluator"] = self.evaluator.config
            fields["answer"] = digest([self.trial.answer, self.trial.error, self.trial.finish_reason])
            # A judge may answer differently when asked again, so repeats must not share a verdict;
            # tests of the same answer give the same verdict in every repeat.
            if self.evaluator.config.get("model") is not None:
                fields["repeat"] = attempt.repeat
            return fields
        fields |= {
            "trial": attempt.index,
            "repeat": attempt.repeat,
            "lessons": [digest(text)[:16] for text in attempt.past.lessons],
            "sampling": runtime.samplings["reflect" if self.step == "reflect" else "trial"],
        }
        if runtime.budget is not None and runtime.budget.asked is not None:
            fields["prompt_tokens"] = runtime.budget.asked
        if self.step == "trial":
            last = attempt.past.last
            fields |= {
                "prompt": runtime.prompts.trial_digest,
                "model": runtime.actor(attempt.index).identity,
                "actor": runtime.options.actor,
                "last": digest([*_seen(last), _feedback(last)])[:16] if last is not None else None,
            }
            if runtime.options.actor == "react":
                from reflexion.actors.react import act_fields

                fields |= act_fields(runtime, attempt.problem)
        elif self.step == "reflect":
            assert self.trial is not None
            fields |= {
                "prompt": runtime.prompts.reflect_digest,
                "model": runtime.reflector.identity,
                "answer": digest([*_seen(self.trial), self.trial.error])[:16],
                "feedback": digest(_feedback(self.trial))[:16],
                **runtime.reflection_fields,
            }
        return fields

    @_Once
    def key(self) -> str:
        """The cache key: SHA-256 over the canonical JSON of `fields`."""
        return digest(self.fields)

    def restore(self, value: dict[str, Any]) -> StepOutput:
        """The output from a cached value, marked as cached.

        Raises:
            pydantic.ValidationError: when the value does not fit; callers treat it as a miss.
        """
        return OUTPUTS[self.step].model_validate({**value, "cached": True, "key": self.key})


OUTPUTS: dict[StepName, type[StepOutput]] = {"trial": Trial, "evaluate": Evaluation, "reflect": Reflection}

Runner = Callable[[StepCall], Awaitable[StepOutput | None]]


def _seen(trial: Trial) -> list[Any]:
    """What a prompt shows of a trial: its answer, and its turns if it has any."""
    return [trial.answer, *([list(trial.trajectory)] if trial.trajectory else [])]


def _feedback(trial: Trial) -> str:
    return trial.evaluation.feedback if trial.evaluation is not None else ""


async def perform(call: StepCall) -> StepOutput | None:
    """Carry out a step: the plain runner, and what every other runner ends in."""
    call.executed = True
    return await _PERFORM[call.step](call)


async def _trial(call: StepCall) -> Trial:
    runtime, attempt = call.runtime, call.attempt
    if runtime.options.actor == "react":
        from reflexion.actors.react import act

        return await act(call)
    llm, started = runtime.actor(attempt.index), time.perf_counter()

    def build() -> ChatRequest:
        cot = runtime.options.actor == "cot"
        return ChatRequest(
            messages=runtime.prompts.trial_messages(attempt.problem, attempt.past, runtime.budget, cot=cot),
            sampling=runtime.options.sampling,
            salt=f"{attempt.repeat}.{attempt.index}",
        )

    try:
        request, reply = await ask(runtime, llm, build)
    except (MalformedReplyError, RefusalError) as exc:
        # No usable answer is a failed trial, not a failed episode: the next trial may do better.
        return Trial(
            index=attempt.index,
            answer="",
            model=llm.model,
            finish_reason=finish_of(exc),
            lessons=attempt.past.lessons,
            seconds=time.perf_counter() - started,
            **without_answer(exc),
        )
    runtime.calibrate(request, reply)
    return Trial(
        index=attempt.index,
        answer=reply.text.strip(),
        thought=kept_thought(reply.thought),
        finish_reason=reply.finish_reason,
        lessons=attempt.past.lessons,
        **reply_fields(reply),
    )


async def _evaluate(call: StepCall) -> Evaluation:
    assert call.trial is not None
    return await call.evaluator.evaluate(call.attempt.problem, call.trial)


async def _reflect(call: StepCall) -> Reflection:
    if call.runtime.custom_reflector is not None:
        return await call.runtime.custom_reflector.reflect(call)
    return await reflect_once(call)


def reflect_request(call: StepCall) -> ChatRequest:
    """The request for a reflection on the call's failed trial."""
    runtime, attempt = call.runtime, call.attempt
    assert call.trial is not None
    return ChatRequest(
        messages=runtime.prompts.reflect_messages(attempt.problem, attempt.past, call.trial, runtime.budget),
        sampling=reflection_sampling(runtime.options),
        role="reflector",
        salt=f"{attempt.repeat}.{attempt.index}",
    )


async def reflect_once(call: StepCall) -> Reflection:
    """Draw a reflection by one call of the reflector.

    Raises:
        RetryableError, PermanentError: as the model raises them; a reply without an answer gives a reflection
            without a text that says why, since the episode can go on without.
    """
    runtime, index = call.runtime, call.attempt.index
    try:
        request, reply = await ask(runtime, runtime.reflector, partial(reflect_request, call))
    except (MalformedReplyError, RefusalError) as exc:
        return Reflection(trial=index, text="", model=runtime.reflector.model, **without_answer(exc))
    runtime.calibrate(request, reply)
    text = reply.text.strip()
    return Reflection(
        trial=index,
        text=text,
        thought=kept_thought(reply.thought),
        error=None if text else EMPTY_REPLY,
        **reply_fields(reply),
    )


def _lesson_key(episode: str, index: int) -> str:
    return digest([episode, index])[:32]


async def _memorize(call: StepCall) -> None:
    runtime, attempt, trial = call.runtime, call.attempt, call.trial
    assert trial is not None and trial.reflection is not None and trial.evaluation is not None
    if runtime.memory is None or not trial.reflection.text:
        return
    episode = runtime.episode_id(attempt.problem, attempt.repeat)
    await runtime.memory.add(
        Lesson(
            key=_lesson_key(episode, attempt.index),
            problem=attempt.problem.digest,
            episode=episode,
            run=runtime.run,
            trial=attempt.index,
            text=trial.reflection.text,
            prompt=attempt.problem.prompt,
            feedback=trial.evaluation.feedback,
            evaluator=trial.evaluation.evaluator,
            failure_class=trial.evaluation.failure_class,
            created=time.time(),
        )
    )


_PERFORM: dict[StepName, Callable[[StepCall], Awaitable[StepOutput | None]]] = {
    "trial": _trial,
    "evaluate": _evaluate,
    "reflect": _reflect,
    "memorize": _memorize,
}


def build_steps(runtime: Runtime, runner: Runner = perform) -> Steps:
    """The loop's four steps, carried out by `runner` and told to the runtime's observers."""

    async def run(call: StepCall) -> StepOutput | None:
        started = time.perf_counter()
        try:
            output = await runner(call)
        except ReflexionError as exc:
            for observer in runtime.observers:
                observer.record_error(call.step, exc)
            raise
        wall = time.perf_counter() - started
        if output is not None and output.key is None and call.cacheable:
            # On record, so that two runs can be asked why the same step had different keys.
            output = output.model_copy(update={"key": call.key})
        for observer in runtime.observers:
            observer.record_step(call.step, output, wall)
        return output

    async def trial(attempt: Attempt) -> Trial:
        output = cast(Trial, await run(StepCall(runtime, "trial", attempt)))
        # The entry may have been written by another trial with the same key; the index is ours.
        return output if output.index == attempt.index else output.model_copy(update={"index": attempt.index})

    async def evaluate(attempt: Attempt, judged: Trial) -> Evaluation:
        return cast(Evaluation, await run(StepCall(runtime, "evaluate", attempt, judged)))

    async def reflect(attempt: Attempt, judged: Trial) -> Reflection:
        return cast(Reflection, await run(StepCall(runtime, "reflect", attempt, judged)))

    async def memorize(attempt: Attempt, judged: Trial) -> None:
        await run(StepCall(runtime, "memorize", attempt, judged))

    if runtime.memory is None:
        return Steps(trial, evaluate, reflect, memorize)
    memory = runtime.memory

    async def recall(problem: Problem, repeat: int) -> Sequence[Lesson]:
        from reflexion.memory.episodic_memory import Query

        query = Query(
            problem=problem.digest,
            prompt=problem.prompt,
            episode=runtime.episode_id(problem, repeat),
            run=runtime.run,
            own=runtime.options.omega,
            similar=runtime.options.transfer,
        )
        return await memory.recall(query)

    async def settle(attempt: Attempt, trials: Sequence[Trial], passed: bool) -> None:
        episode = runtime.episode_id(attempt.problem, attempt.repeat)
        seen = [
            _lesson_key(episode, t.index)
            for t in trials[:-1]
            if t.reflection is not None and t.reflection.text in attempt.past.lessons
        ]
        seen += attempt.past.recalled
        if seen:
            await memory.credit(seen, passed, by=f"{episode}#{attempt.index}")

    return Steps(trial, evaluate, reflect, memorize, recall, settle)
