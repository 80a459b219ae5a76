"""Options that several commands share, and how they become parameters."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import Group, Parameter
from pydantic import BaseModel, ValidationError

from reflexion.errors import ConfigurationError
from reflexion.llm.endpoint.extras import parse_extra_body, parse_extra_headers
from reflexion.run.parameters import VARIABLES, has_password
from reflexion.run.wiring import describe_validation

__all__ = ["BatchOptions", "CacheOptions", "ModelOptions", "ShardOptions", "flag", "option", "parameters_from"]

M = TypeVar("M", bound=BaseModel)
DATA, RUN, LOOP, MODEL, CACHE, MEMORY, LIMITS, SHARDS = (
    Group(name, sort_key=place)
    for place, name in enumerate(("Dataset", "Run", "Loop", "Model", "Cache", "Memory", "Limits", "Shards"), 2)
)

Strategies = Literal["none", "last_attempt", "reflexion", "last_attempt_and_reflexion"]
Evictions = Literal["oldest", "least_used", "least_useful"]


def option(text: str, group: Group, *names: str) -> Parameter:
    """An option with its help text."""
    return Parameter(name=names or None, help=text, group=group, negative="")


def flag(text: str, group: Group | None = None) -> Parameter:
    """An option without a value: it is off unless given, which its help need not say."""
    if group is None:  # a group of None would hide it
        return Parameter(help=text, negative="", show_default=False)
    return Parameter(help=text, group=group, negative="", show_default=False)


@Parameter(name="*")
@dataclass
class ModelOptions:
    """The model, and how it is asked."""

    llm: Annotated[str | None, option("local, gguf:PATH, replay:FILE, or a model of the endpoint.", MODEL)] = None
    reflector: Annotated[str | None, option("Model that reflects; else the same.", MODEL)] = None
    judge: Annotated[str | None, option("Model that judges; else the same.", MODEL)] = None
    escalate: Annotated[str | None, option("Stronger models for later trials: small->large.", MODEL)] = None
    base_url: Annotated[str | None, option("URL of an OpenAI-compatible endpoint.", MODEL)] = None
    temperature: Annotated[float | None, option("Sampling temperature.", MODEL)] = 0.0
    seed: Annotated[int | None, option("Seed of sampling, and of --shuffle.", MODEL)] = None
    max_completion_tokens: Annotated[int | None, option("Tokens of one reply at most.", MODEL)] = None
    reflection_max_tokens: Annotated[int | None, option("Tokens of a reflection at most; else 128.", MODEL)] = None
    judge_max_tokens: Annotated[int | None, option("Tokens of a judge's reply at most.", MODEL)] = None
    tests_max_tokens: Annotated[int | None, option("Tokens of generated tests at most.", MODEL)] = None
    reasoning_effort: Annotated[
        str | None, option("How much the model should think: low, high, or as its provider says.", MODEL)
    ] = None
    extra_body: Annotated[str | None, option("JSON object whose fields go with every request to the model.", MODEL)] = (
        None
    )
    extra_header: Annotated[
        list[str] | None, option("NAME=VALUE, sent with every request to the model; repeatable.", MODEL)
    ] = None
    max_trials: Annotated[int, option("Trials of a problem at most.", LOOP)] = 3
    strategy: Annotated[Strategies, option("What a trial sees of the past.", LOOP)] = "reflexion"
    evaluator: Annotated[str | None, option("Evaluator; else inferred from the problem.", LOOP)] = None
    actor: Annotated[Literal["direct", "cot", "react"], option("How a trial is made; react uses tools.", LOOP)] = (
        "direct"
    )
    tools: Annotated[
        list[str] | None, option("Tools of react: documents, calculator, module:function; repeatable.", LOOP)
    ] = None
    max_turns: Annotated[int | None, option("Turns of one trial of react at most.", LOOP)] = None
    tool_mode: Annotated[
        Literal["auto", "native", "text"], option("Tool calls: function calling, text, or as can be.", LOOP)
    ] = "auto"
    tool_timeout: Annotated[float, option("Seconds one call of a tool may take.", LOOP)] = 10.0
    omega: Annotated[int, option("Lessons a trial sees at most (the paper's Ω).", LOOP)] = 3
    transfer: Annotated[int, option("Lessons of similar problems a trial sees at most.", LOOP)] = 0
    reveal_answers: Annotated[bool, flag("Let feedback show the reference answer.", LOOP)] = False
    prompt_tokens: Annotated[int | None, option("Tokens of one prompt at most.", LOOP)] = None
    evaluation_timeout: Annotated[float | None, option("Seconds an answer's tests may take.", LOOP)] = None
    sandbox_packages: Annotated[
        list[str] | None, option("Installed packages that tests and answers may import: numpy,pandas.", LOOP)
    ] = None


@Parameter(name="*")
@dataclass
class CacheOptions:
    """The step cache."""

    cache: Annotated[str | None, option("URL of the step cache: a folder, redis://…", CACHE)] = None
    ttl: Annotated[str | None, option("Time to live: 7d, or trial=1d,reflect=30d.", CACHE)] = None
    refresh: Annotated[bool, flag("Compute again what is cached.", CACHE)] = False
    no_cache: Annotated[bool, flag("Neither read nor write the cache.", CACHE)] = False


@Parameter(name="*")
@dataclass
class BatchOptions:
    """A whole dataset."""

    name: Annotated[str | None, option("Name of the run; one that exists is resumed.", RUN)] = None
    runs: Annotated[Path | None, option("Folder of the runs.", RUN)] = None
    where: Annotated[
        list[str] | None, option("Only problems for which this holds: level=hard, id~^HumanEval/1, type!=x.", DATA)
    ] = None
    shuffle: Annotated[bool, flag("Shuffle the problems, by --seed (0 if none is given).", DATA)] = False
    offset: Annotated[int, option("Problems skipped at the start.", DATA)] = 0
    limit: Annotated[int | None, option("Problems at most, the first of those left.", DATA)] = None
    map: Annotated[
        list[str] | None,
        option("What the file calls a field: prompt=question, answer=gold.aliases, 'prompt={story} {ask}'.", DATA),
    ] = None
    repeat: Annotated[int, option("Independent episodes of each problem; more than one give pass@k.", DATA)] = 1
    shuffle_seed: Annotated[int | None, option("Shuffle by a seed of its own.", DATA, "--shuffle-seed")] = None
    concurrency: Annotated[int | None, option("Episodes at a time; else adapted.", RUN)] = None
    steps_per_task_run: Annotated[int, option("Ready steps of one kind that share a task run.", RUN)] = 1
    memory: Annotated[str | None, option("URL of a memory that outlives the run.", MEMORY)] = None
    memory_per_problem: Annotated[int | None, option("Lessons kept of a problem; else --omega.", MEMORY)] = None
    memory_entries: Annotated[int, option("Lessons kept in all.", MEMORY)] = 100_000
    memory_bytes: Annotated[int, option("Bytes of lessons kept in all.", MEMORY)] = 256 * 2**20
    memory_max_age: Annotated[str | None, option("Age at which lessons expire: 90d.", MEMORY)] = None
    memory_eviction: Annotated[Evictions, option("Which lesson goes when the memory is full.", MEMORY)] = "oldest"
    reflection_reuse: Annotated[
        float | None, option("Reuse reflections of failures this similar, 0.85 for example.", MEMORY)
    ] = None
    similarity: Annotated[str, option("Of failures: lexical, or embeddings[:MODEL].", MEMORY)] = "lexical"
    max_cost: Annotated[float | None, option("US dollars the run may spend.", LIMITS)] = None
    max_tokens: Annotated[int | None, option("Tokens the run may spend.", LIMITS)] = None
    reflect_batch: Annotated[int, option("Reflections drawn by one call at most.", LOOP)] = 1
    batch_api: Annotated[bool, flag("Ask through half-price batch jobs.", MODEL)] = False
    record: Annotated[str | None, option("File every exchange with the model is written to.", MODEL)] = None


@Parameter(name="*")
@dataclass
class ShardOptions:
    """A dataset in shards, each a flow run of its own."""

    shards: Annotated[int | None, option("Split the dataset into so many flow runs.", SHARDS)] = None
    deployment: Annotated[str | None, option("Deployment that runs shards; else processes here.", SHARDS)] = None
    pool: Annotated[str | None, option("Work pool that runs shards; a deployment is made.", SHARDS)] = None
    shards_at_a_time: Annotated[int | None, option("Shards under way at once.", SHARDS)] = None
    shard_retries: Annotated[int, option("Times a crashed shard is started again.", SHARDS)] = 2
    wait_for_worker: Annotated[float, option("Seconds to wait for a worker.", SHARDS)] = 25.0
    lost_after: Annotated[float, option("Seconds of silence after which a shard has crashed.", SHARDS)] = 30.0
    results: Annotated[str | None, option("URL results travel by: a shared folder, redis://…", SHARDS)] = None


def parameters_from(model: type[M], *options: Any, **more: Any) -> M:
    """A parameter model from parsed options.

    Raises:
        ConfigurationError: names each wrong field and what is allowed.
    """
    values: dict[str, Any] = {}
    for group in options:
        values |= asdict(group)
    values |= more
    if "no_cache" in values:
        values["use_cache"] = not values.pop("no_cache")
    if values.pop("shuffle", False) and values.get("shuffle_seed") is None:
        values["shuffle_seed"] = values.get("seed") or 0
    for several in ("tools", "where", "sandbox_packages"):
        if several in values:
            values[several] = tuple(values[several] or ())
    if "map" in values:
        values["field_map"] = _field_map(values.pop("map") or [])
    if values.get("ttl") is None:
        values.pop("ttl", None)
    if isinstance(values.get("runs"), Path):
        values["runs"] = str(values["runs"])
    _set_apart_passwords(values)
    _set_apart_headers(values)
    if "extra_body" in values:
        values["extra_body"] = parse_extra_body(values["extra_body"]) or None
    known = {name: value for name, value in values.items() if name in model.model_fields}
    try:
        return model.model_validate(known)
    except ValidationError as exc:
        raise ConfigurationError(describe_validation(exc)) from None


def _set_apart_passwords(values: dict[str, Any]) -> None:
    """Give URLs with a password to the settings: parameters are on record, the environment is not."""
    for name, variable in VARIABLES.items():
        url = values.get(name)
        if isinstance(url, str) and has_password(url):
            os.environ[variable] = url
            values[name] = None


def _set_apart_headers(values: dict[str, Any]) -> None:
    """Give headers to the settings: they are as secret as a key."""
    given = values.pop("extra_header", None)
    if given:
        os.environ["REFLEXION_EXTRA_HEADERS"] = json.dumps(parse_extra_headers(given))


def _field_map(pairs: list[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for pair in pairs:
        ours, sign, theirs = pair.partition("=")
        ours, theirs = ours.strip(), theirs.strip()
        if not sign or not ours or not theirs:
            raise ConfigurationError(f"--map: {pair!r} is not of the form prompt=question")
        if ours in out:
            raise ConfigurationError(f"--map: {ours} is given twice; join fields as in {ours}={out[ours]}+{theirs}")
        out[ours] = theirs
    return out
