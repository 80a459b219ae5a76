"""What a run is asked to do: one JSON-safe model for the command line, the flows and the UI's form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, field_validator
from pydantic_core import PydanticCustomError

from reflexion.errors import ConfigurationError
from reflexion.llm.chat_model import Sampling
from reflexion.loop.steps import Actor, EpisodeOptions, ToolMode
from reflexion.types import Frozen, Strategy

__all__ = ["REFUSED_URL", "VARIABLES", "BatchParameters", "EpisodeParameters", "ModelParameters", "has_password"]

REFUSED_URL = "url_with_credentials"
"""Type of the validation error for a URL with a password: its input is never shown."""

VARIABLES = {
    "cache": "REFLEXION_CACHE",
    "memory": "REFLEXION_MEMORY",
    "results": "REFLEXION_RESULTS",
    "base_url": "OPENAI_BASE_URL",
}
"""Where a URL with a password belongs instead."""


_SECRET = re.compile(
    r"(?:^|&)(?:[\w-]*(?:password|passwd|secret|api[_-]?key|access[_-]?token|subscription-key)|key|token|sig|pwd)=",
    re.IGNORECASE,
)
"""A parameter of a URL that is a secret."""


def has_password(url: str) -> bool:
    """Whether a URL carries a password, a key or a token."""
    try:
        parts = urlsplit(url)
        return bool(parts.password) or _SECRET.search(parts.query) is not None
    except ValueError:  # not a URL; whoever opens it says so
        return False


def _without_password(url: str) -> str:
    if has_password(url):
        names = ", ".join(VARIABLES.values())
        raise PydanticCustomError(
            REFUSED_URL,
            "a password does not belong in parameters, which are put on record; "
            "set the variable ({names}) where the run is carried out",
            {"names": names},
        )
    return url


Url = Annotated[str, AfterValidator(_without_password), Field(examples=["redis://127.0.0.1:6379/0"])]


REPLY_TOKENS = 512
"""Tokens of one reply at most, where neither the user nor the model says otherwise."""


def _what_before_how(schema: dict[str, Any]) -> None:
    """Let a form begin with what is worked on: fields of a base class would come first."""
    fields = schema["properties"]
    first = [name for name in ("problem", "answer", "dataset", "shards", "limit", "name", "llm") if name in fields]
    schema["properties"] = {name: fields[name] for name in first} | fields


class ModelParameters(Frozen):
    """What a single problem and a whole dataset have in common."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        # A URL with a password is refused, and the refusal must not show it.
        hide_input_in_errors=True,
        json_schema_extra=_what_before_how,
    )

    llm: str | None = Field(
        default=None,
        title="Model",
        description="`local`, `gguf:PATH`, `replay:FILE`, or a model of the OpenAI-compatible endpoint. "
        "Empty: `local` when no endpoint is configured, else the endpoint's default.",
        examples=["local", "gpt-4o-mini"],
    )
    reflector: str | None = Field(default=None, title="Reflecting model", description="Empty: the same model.")
    judge: str | None = Field(default=None, title="Judging model", description="Empty: the same model.")
    escalate: str | None = Field(
        default=None,
        title="Escalation",
        description="`small->large`: the first trial uses the first model, later trials the later ones.",
        examples=["gpt-4o-mini->gpt-4o"],
    )
    base_url: Annotated[str, AfterValidator(_without_password)] | None = Field(
        default=None,
        title="Endpoint",
        description="URL of an OpenAI-compatible endpoint; empty: OPENAI_BASE_URL. Never a place for a key.",
        examples=["http://127.0.0.1:8000/v1"],
    )
    strategy: Strategy = Field(
        default=Strategy.REFLEXION, title="Strategy", description="What a trial sees of the past."
    )
    max_trials: int = Field(default=3, ge=1, le=100, title="Trials at most", examples=[3])
    evaluator: str | None = Field(
        default=None,
        title="Evaluator",
        description="Empty: inferred from the problem (tests, reference answer, or a judge).",
        examples=["python", "exact", "numeric", "judge", "mypackage.checks:passed"],
    )
    actor: Actor = Field(
        default="direct",
        title="Actor",
        description="How a trial is made: by one call, step by step (`cot`), or in turns with tools (`react`).",
    )
    tools: tuple[str, ...] = Field(
        default=(),
        title="Tools",
        description="Of the actor `react`: `documents`, `calculator`, or your own as `module:function`. "
        "Empty: what suits the problem.",
        examples=[["documents", "mypackage.tools:search"]],
    )
    max_turns: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        title="Turns at most",
        description="Of one trial of the actor `react`. Empty: 8, and 30 in an environment.",
    )
    tool_mode: ToolMode = Field(
        default="auto",
        title="Tool calls",
        description="`native`: function calling; `text`: lines of text; `auto`: as the model can.",
    )
    tool_timeout: float = Field(default=10.0, gt=0, le=3600, title="Seconds for one call of a tool")
    temperature: float | None = Field(default=0.0, ge=0, le=2, title="Temperature")
    seed: int | None = Field(default=None, title="Sampling seed")
    max_completion_tokens: int | None = Field(
        default=None,
        ge=1,
        title="Tokens of one reply at most",
        description="Empty: 512, and 192 for the embedded model.",
    )
    reflection_max_tokens: int | None = Field(
        default=None,
        ge=1,
        title="Tokens of a reflection at most",
        description="Empty: 128. A model that thinks gets the room it needs for that on top, once it showed that.",
    )
    judge_max_tokens: int | None = Field(
        default=None, ge=1, title="Tokens of a judge's reply at most", description="Empty: as the evaluator says."
    )
    tests_max_tokens: int | None = Field(
        default=None, ge=1, title="Tokens of generated tests at most", description="Empty: as the evaluator says."
    )
    reasoning_effort: str | None = Field(
        default=None,
        title="Reasoning effort",
        description="How much the model should think, in its provider's words. Empty: the model's default.",
        examples=["low", "medium", "high"],
    )
    extra_body: dict[str, JsonValue] | None = Field(
        default=None,
        title="Extra body",
        description="Fields sent along with every request to the model, for what its provider wants beyond the "
        "common format. Secret headers belong into REFLEXION_EXTRA_HEADERS where the run is carried out.",
        examples=[{"top_k": 20}],
    )
    omega: int = Field(default=3, ge=1, le=100, title="Lessons seen at most", description="The paper's Ω.")
    transfer: int = Field(
        default=0, ge=0, le=20, title="Lessons of similar problems", description="0: the problem's own only."
    )
    reveal_answers: bool = Field(
        default=False, title="Reveal answers", description="Let feedback show the reference answer."
    )
    prompt_tokens: int | None = Field(
        default=None,
        ge=64,
        title="Tokens of one prompt at most",
        description="Lessons are left out, then feedback is cut, never the problem. Empty: the model's window.",
    )
    evaluation_timeout: float | None = Field(
        default=None, gt=0, le=3600, title="Seconds for an answer's tests", description="Empty: the setting's."
    )

    sandbox_packages: tuple[str, ...] = Field(
        default=(),
        title="Packages in the sandbox",
        description="Installed packages that tests and answers may import beside the standard library.",
        examples=[["numpy"]],
    )

    @field_validator("sandbox_packages", mode="before")
    @classmethod
    def _split_by_commas(cls, value: object) -> object:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            return value
        texts = cast("Sequence[object]", items)
        return tuple(n.strip() for t in texts for n in (t.split(",") if isinstance(t, str) else ()) if n.strip())

    @field_validator(
        "llm", "reflector", "judge", "escalate", "base_url", "evaluator", "reasoning_effort", mode="before"
    )
    @classmethod
    def _blank_is_none(cls, value: object) -> object:
        # A form sends an empty text for a field that was left alone.
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("extra_body")
    @classmethod
    def _usable(cls, value: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        if not value:
            return None
        from reflexion.llm.endpoint.extras import parse_extra_body

        try:
            return parse_extra_body(value)
        except ConfigurationError as exc:
            raise ValueError(str(exc).partition(": ")[2]) from None

    def options(self, reply_tokens: int = REPLY_TOKENS) -> EpisodeOptions:
        """The part that shapes each episode.

        Args:
            reply_tokens: tokens of one reply at most where the parameters leave it open.
        """
        return EpisodeOptions(
            max_trials=self.max_trials,
            strategy=self.strategy,
            evaluator=self.evaluator,
            actor=self.actor,
            max_turns=self.max_turns,
            tool_mode=self.tool_mode,
            tool_timeout=self.tool_timeout,
            sampling=Sampling(
                temperature=self.temperature, seed=self.seed, max_tokens=self.max_completion_tokens or reply_tokens
            ),
            reflection_tokens=self.reflection_max_tokens,
            omega=self.omega,
            transfer=self.transfer,
        )


class EpisodeParameters(ModelParameters):
    """One problem."""

    problem: str = Field(title="Problem", min_length=1, description="What the model is asked.")
    answer: str | None = Field(
        default=None, title="Reference answer", description="Empty: judged by the judging model."
    )
    ttl: str | None = Field(
        default=None,
        title="Time to live of cached steps",
        description="Empty: REFLEXION_TTL, 7 days by default.",
        examples=["7d", "trial=1d,reflect=30d"],
    )
    cache: Url | None = Field(default=None, title="Cache", description="URL; empty: REFLEXION_CACHE or local.")
    refresh: bool = Field(default=False, title="Refresh", description="Compute again what is cached.")
    use_cache: bool = Field(default=True, title="Use the cache")


class BatchParameters(ModelParameters):
    """A dataset."""

    dataset: str = Field(
        title="Dataset",
        min_length=1,
        description="`starter`, `humaneval`, `hotpot-sample`, `gsm8k-sample`, `rooms`, or the path of a file.",
        examples=["starter", "problems.jsonl"],
    )
    name: str | None = Field(
        default=None,
        title="Run name",
        description="Name of the run's folder; a name that exists resumes that run.",
    )
    runs: str | None = Field(default=None, title="Folder of the runs", description="Empty: REFLEXION_RUNS.")
    limit: int | None = Field(default=None, ge=1, title="Problems at most")
    offset: int = Field(default=0, ge=0, title="Problems skipped at the start")
    where: tuple[str, ...] = Field(
        default=(),
        title="Filters",
        description="Conditions on problems that must all hold: `level=hard`, `id~^HumanEval/1`.",
        examples=[["level=hard"]],
    )
    shuffle_seed: int | None = Field(default=None, title="Seed for shuffling", description="Empty: file order.")
    field_map: dict[str, str] = Field(
        default_factory=dict,
        title="Field map",
        description="Our field → the file's field, as `prompt: question`; "
        "also a path (`gold.aliases`), a template (`{story} {ask}`), or fields joined by `+`.",
    )
    repeat: int = Field(default=1, ge=1, le=1000, title="Repeats", description="Independent episodes a problem.")
    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        title="Episodes at a time",
        description="And requests, too; an episode that waits to try a refused call again is not counted. "
        "Empty: adapted to what the endpoint bears.",
    )
    steps_per_task_run: int = Field(
        default=1,
        ge=1,
        le=1024,
        title="Steps per task run",
        description="1: one task run for each step. More: ready steps of one kind share a task run.",
    )
    ttl: str | None = Field(
        default=None,
        title="Time to live of cached steps",
        description="Empty: REFLEXION_TTL, 7 days by default.",
        examples=["7d", "trial=1d,reflect=30d"],
    )
    cache: Url | None = Field(default=None, title="Cache", description="URL; empty: REFLEXION_CACHE or local.")
    refresh: bool = Field(default=False, title="Refresh", description="Compute again what is cached.")
    refresh_since: float | None = Field(
        default=None,
        title="Refresh since",
        description="Unix time: with `refresh`, what was cached before is computed again. Empty: the run's start.",
    )
    use_cache: bool = Field(default=True, title="Use the cache")
    memory: Url | None = Field(default=None, title="Memory", description="URL; empty: of this run alone.")
    memory_per_problem: int | None = Field(
        default=None, ge=1, title="Lessons kept of a problem", description="Empty: as many as a trial sees, Ω."
    )
    memory_entries: int = Field(default=100_000, ge=1, title="Lessons kept in all")
    memory_bytes: int = Field(default=256 * 2**20, ge=1, title="Bytes of lessons kept in all")
    memory_max_age: str | None = Field(
        default=None, title="Age of lessons", description="Empty: they do not expire.", examples=["90d"]
    )
    memory_eviction: Literal["oldest", "least_used", "least_useful"] = Field(
        default="oldest", title="Eviction", description="Which lesson goes when the memory is full."
    )
    max_cost: float | None = Field(default=None, gt=0, title="US dollars at most")
    max_tokens: int | None = Field(default=None, ge=1, title="Tokens at most", description="Of the whole run.")
    reflect_batch: int = Field(default=1, ge=1, le=64, title="Reflections in one call")
    reflection_reuse: float | None = Field(
        default=None, gt=0, le=1, title="Reuse of reflections", description="Similarity from which one is reused."
    )
    similarity: str = Field(
        default="lexical",
        pattern=r"^(lexical|embeddings(:\S+)?)$",
        title="Similarity",
        description="Of failures: `lexical`, or `embeddings` of the endpoint, with a model `embeddings:MODEL`.",
    )
    batch_api: bool = Field(
        default=False, title="Batch API", description="Ask through batch jobs at half the price, within hours."
    )
    record: str | None = Field(default=None, title="Recording", description="File every exchange is written to.")
    results: Url | None = Field(
        default=None,
        title="Results",
        description="URL by which results of shards and submitted runs travel: a shared folder or redis://. "
        "Empty: REFLEXION_RESULTS, or the run's own folder.",
    )

    @field_validator("name", "runs", "cache", "memory", "memory_max_age", "record", "results", mode="before")
    @classmethod
    def _blank_text_is_none(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value
