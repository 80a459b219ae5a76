"""`reflexion cache`: what the step cache holds and saved, why a step was not found, and clearing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import App, Parameter

from reflexion.cache.step_cache import CacheFilter, CacheStats, StepCache
from reflexion.errors import ConfigurationError, StorageError
from reflexion.tasks.prefect_settings import aload_settings, load_settings

if TYPE_CHECKING:
    from reflexion.run.explain import Explanation, StepComparison
    from reflexion.run.run_folder import RunFolder

__all__ = ["app"]

app = App(name="cache", help="The step cache: figures, reasons for misses, clearing.")

T = TypeVar("T")
CacheUrl = Annotated[str | None, Parameter(help="URL of the step cache; else REFLEXION_CACHE or the local folder.")]
Json = Annotated[bool, Parameter(negative="", help="Print JSON.")]


@app.command
def stats(*, cache: CacheUrl = None, json: Json = False) -> int:
    """Entries, bytes, hit rates, tokens and money saved, by step and model."""
    found = _with_cache(cache, lambda store: store.stats())
    if json:
        _print_json(_stats_json(found))
    else:
        _show_stats(found)
    return 0


@app.command
def explain(
    run_a: Annotated[str, Parameter(help="Name of a run, or its folder.")],
    run_b: Annotated[str, Parameter(help="Name of another run, or its folder.")],
    problem: Annotated[str, Parameter(help="Id of a problem.")],
    /,
    *,
    repeat: Annotated[int, Parameter(help="Which of its episodes, from 0.")] = 0,
    runs: Annotated[Path | None, Parameter(help="Folder of the runs.")] = None,
    cache: CacheUrl = None,
    json: Json = False,
) -> int:
    """Name the fields in which the cache keys of the same step differ in two runs."""
    from reflexion.run.explain import explain_runs

    settings = load_settings()
    a, b = (open_run(name, runs or settings.runs) for name in (run_a, run_b))

    async def compare() -> Explanation:
        async with (
            _opened(cache or _cache_of(a) or settings.cache) as cache_a,
            _opened(cache or _cache_of(b) or settings.cache) as cache_b,
        ):
            return await explain_runs(a, b, problem, cache_a, cache_b, repeat=repeat)

    found = asyncio.run(compare())
    if json:
        _print_json(found.model_dump(mode="json"))
    else:
        _show_explanation(found)
    return 0


@app.command
def clear(
    *,
    dataset: Annotated[str | None, Parameter(help="Entries of this dataset.")] = None,
    model: Annotated[str | None, Parameter(help="Entries of this model.")] = None,
    run: Annotated[str | None, Parameter(help="Entries this run computed.")] = None,
    step: Annotated[Literal["trial", "evaluate", "reflect"] | None, Parameter(help="Entries of this step.")] = None,
    older_than: Annotated[str | None, Parameter(help="Entries older than this, such as 30d.")] = None,
    all: Annotated[bool, Parameter(negative="", help="Every entry.")] = False,
    cache: CacheUrl = None,
    json: Json = False,
) -> int:
    """Remove entries; all the conditions given must hold."""
    from reflexion.cache.ttl import parse_duration

    age = parse_duration(older_than, "--older-than") if older_than is not None else None
    which = CacheFilter(dataset=dataset, model=model, run=run, step=step, older_than=age)
    if all is (which != CacheFilter()):
        raise ConfigurationError(
            "cache clear: give --dataset, --model, --run, --step or --older-than, or --all for every entry"
        )
    removed = _with_cache(cache, lambda store: store.clear(which))
    _tell(json, {"removed": removed}, f"{removed} entries removed")
    return 0


@app.command
def prune(*, cache: CacheUrl = None, json: Json = False) -> int:
    """Remove expired entries."""
    removed = _with_cache(cache, lambda store: store.prune())
    _tell(json, {"removed": removed}, f"{removed} expired entries removed")
    return 0


@asynccontextmanager
async def _opened(url: str | None) -> AsyncGenerator[StepCache]:
    """A cache that must be there: a run goes on without it, a question about it has no other answer."""
    from reflexion.cache import open_cache

    cache = open_cache(url or (await aload_settings()).cache)
    try:
        _check_there(cache)
        yield cache
        _check_there(cache)
    finally:
        await cache.aclose()


def _check_there(cache: StepCache) -> None:
    if getattr(getattr(cache, "link", None), "lost", False):
        raise StorageError(f"cache: {cache.location} cannot be reached; start it or name another with --cache")


def _with_cache(url: str | None, ask: Callable[[StepCache], Awaitable[T]]) -> T:
    async def work() -> T:
        async with _opened(url) as cache:
            return await ask(cache)

    return asyncio.run(work())


def open_run(name: str, root: Path) -> RunFolder:
    """A run by its name below `root`, or by its folder.

    Raises:
        ConfigurationError: there is none.
    """
    from reflexion.run.run_folder import RunFolder

    path = root / name
    return RunFolder.open(path if path.is_dir() or not Path(name).is_dir() else Path(name))


def _cache_of(run: RunFolder) -> str | None:
    """The cache a run was given, unless its record leaves a password out."""
    url = run.parameters.get("cache")
    return url if isinstance(url, str) and ":***@" not in url else None


def _stats_json(stats: CacheStats) -> dict[str, Any]:
    data = stats.model_dump(mode="json")
    for row, step in zip(data["steps"], stats.steps, strict=True):
        row["hit_rate"] = _rate(step.hits, step.misses)
    data["hit_rate"] = _rate(sum(s.hits for s in stats.steps), sum(s.misses for s in stats.steps))
    return data


def _rate(hits: int, misses: int) -> float | None:
    return hits / (hits + misses) if hits + misses else None


def _percent(hits: int, misses: int) -> str:
    rate = _rate(hits, misses)
    return "none" if rate is None else f"{rate:.1%}"


def _show_stats(stats: CacheStats) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{stats.backend}: {stats.location}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("step", "model", "entries", "MB", "hits", "misses", "hit rate", "tokens saved", "US$ saved"):
        table.add_column(name, justify="left" if name in ("step", "model") else "right", no_wrap=name != "model")
    for s in stats.steps:
        cost = "unknown" if s.saved.cost_usd is None else f"{s.saved.cost_usd:.4f}"
        figures = (s.entries, f"{s.bytes / 1e6:.1f}", s.hits, s.misses, _percent(s.hits, s.misses))
        table.add_row(s.step, s.model or "none", *(str(f) for f in figures), f"{s.saved.total:,}", cost)
    console.print(table)
    hits, misses = sum(s.hits for s in stats.steps), sum(s.misses for s in stats.steps)
    console.print(
        f"{stats.entries} entries, {stats.bytes / 1e6:.1f} MB, {stats.expired} expired, "
        f"{stats.corrupt} unreadable; {_percent(hits, misses)} of {hits + misses} look-ups answered"
    )


def _show_explanation(found: Explanation) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    repeat = f", repeat {found.repeat}" if found.repeat else ""
    console.print(Text(f"{found.problem}{repeat}: {found.run_a} → {found.run_b}", style="bold"))
    for step in found.steps:
        console.print(Text(f"  {step.step + ' ' + str(step.trial):<12}{_verdict(step, found)}"))
    differing = [s for s in found.steps if s.state == "different"]
    if len(differing) > 1:
        first = differing[0]
        console.print(f"The first difference is at {first.step} {first.trial}; the steps after it build on it.")


def _verdict(step: StepComparison, found: Explanation) -> str:
    names = {"a": found.run_a, "b": found.run_b}
    if step.state == "same":
        return "the same key"
    if step.state != "different":
        return f"only in {names[step.state[-1]]}"
    if step.gone:
        return f"different keys; the entry of {' and '.join(names[s] for s in step.gone)} expired or was cleared"
    return "; ".join(map(str, step.differences))


def _tell(json: bool, data: dict[str, Any], text: str) -> None:
    if json:
        _print_json(data)
    else:
        print(text)  # noqa: T201


def _print_json(data: Any) -> None:
    import orjson

    print(orjson.dumps(data).decode())  # noqa: T201
