"""`reflexion memory`: the lessons of the episodic memory, looked at, carried elsewhere, or cleared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import App, Parameter

from reflexion.errors import ConfigurationError
from reflexion.tasks.prefect_settings import load_settings

if TYPE_CHECKING:
    from reflexion.memory.episodic_memory import Memory, MemoryLimits
    from reflexion.types import Lesson

__all__ = ["app"]

app = App(name="memory", help="The episodic memory: figures, lessons, export, import, clearing.")

T = TypeVar("T")
Json = Annotated[bool, Parameter(negative="", help="Print JSON.")]


@Parameter(name="*")
@dataclass
class Target:
    """Which memory is meant."""

    memory: Annotated[str | None, Parameter(help="URL of a memory; else REFLEXION_MEMORY.")] = None
    run: Annotated[str | None, Parameter(help="The run whose own memory is meant.")] = None
    runs: Annotated[Path | None, Parameter(help="Folder of the runs.")] = None

    def url(self, *, make: bool = False) -> str:
        """The memory's URL.

        Args:
            make: whether a file that is not there may be made.

        Raises:
            ConfigurationError: none or two are named, or there is none.
        """
        from reflexion.memory import sqlite_path

        if self.memory is not None and self.run is not None:
            raise ConfigurationError("memory: give --memory or --run, not both")
        settings = load_settings()
        if self.run is not None:
            return _memory_of(self.run, self.runs or settings.runs)
        url = self.memory or settings.memory
        if url is None:
            raise ConfigurationError("memory: name one with --memory URL, or a run's own with --run NAME")
        path = sqlite_path(url)
        if path is not None and not make and not path.exists():
            raise ConfigurationError(f"memory: there is no file {path}")
        return url


def _memory_of(run: str, root: Path) -> str:
    from reflexion.cli.commands.cache import open_run

    folder = open_run(run, root)
    path = folder.path / "memory.sqlite"
    if path.exists():
        return f"sqlite:{path}"
    shared = folder.parameters.get("memory")
    if shared:
        raise ConfigurationError(f"memory: the run {run!r} used the memory {shared}; name it with --memory")
    raise ConfigurationError(f"memory: {folder.path} has no memory")


@app.command
def stats(*, target: Target | None = None, json: Json = False) -> int:
    """How many lessons there are, of how many problems, and what was dropped."""
    found = _with_memory((target or Target()).url(), lambda memory: memory.stats())
    if json:
        _print_json(found.model_dump(mode="json"))
    else:
        print(  # noqa: T201
            f"{found.backend}: {found.entries} lessons of {found.problems} problems, {found.bytes / 1e6:.1f} MB; "
            f"{found.evicted} evicted, {found.expired} expired"
        )
    return 0


@app.command
def show(
    problem: Annotated[str, Parameter(help="Id of a problem, or the beginning of its digest.")],
    /,
    *,
    target: Target | None = None,
    json: Json = False,
) -> int:
    """The lessons of one problem, oldest first."""
    lessons = _with_memory((target or Target()).url(), lambda memory: _lessons_of(memory, problem))
    if not lessons:
        raise ConfigurationError(f"memory: there are no lessons of a problem {problem!r}")
    if json:
        _print_json({"problem": problem, "lessons": [x.model_dump(mode="json") for x in lessons]})
    else:
        _show_lessons(lessons)
    return 0


@app.command
def export(
    file: Annotated[Path, Parameter(help="File of JSON lines, or - for standard output.", allow_leading_hyphen=True)],
    /,
    *,
    target: Target | None = None,
) -> int:
    """Write all lessons as JSON lines, oldest first."""
    from reflexion.memory.transfer import export_lessons

    async def print_all(memory: Memory) -> int:
        count = 0
        async for lesson in memory.export():
            print(lesson.model_dump_json())  # noqa: T201
            count += 1
        return count

    url = (target or Target()).url()
    if str(file) == "-":
        _with_memory(url, print_all)
    else:
        count = _with_memory(url, lambda memory: export_lessons(memory, file))
        print(f"{count} lessons written to {file}")  # noqa: T201
    return 0


@app.command(name="import")
def import_(
    file: Annotated[Path, Parameter(help="File of JSON lines, as export writes it.")],
    /,
    *,
    target: Target | None = None,
    per_problem: Annotated[int, Parameter(help="Lessons kept of a problem.")] = 3,
    entries: Annotated[int, Parameter(help="Lessons kept in all.")] = 100_000,
    bytes: Annotated[int, Parameter(help="Bytes of lessons kept in all.")] = 256 * 2**20,
    max_age: Annotated[str | None, Parameter(help="Age at which lessons expire: 90d.")] = None,
    eviction: Annotated[
        Literal["oldest", "least_used", "least_useful"], Parameter(help="Which lesson goes when it is full.")
    ] = "oldest",
    json: Json = False,
) -> int:
    """Add the lessons of a file; those that are there already are left as they are."""
    from reflexion.cache.ttl import parse_duration
    from reflexion.memory import make_limits
    from reflexion.memory.transfer import import_lessons

    age = parse_duration(max_age, "--max-age") if max_age is not None else None
    limits = make_limits(per_problem=per_problem, entries=entries, bytes=bytes, max_age=age, eviction=eviction)
    url = (target or Target()).url(make=True)
    done = _with_memory(url, lambda memory: import_lessons(memory, file), limits)
    if json:
        _print_json({"added": done.added, "known": done.known})
    else:
        print(f"{done.added} lessons added, {done.known} known already or too large")  # noqa: T201
    return 0


@app.command
def clear(*, target: Target | None = None, json: Json = False) -> int:
    """Remove every lesson."""
    removed = _with_memory((target or Target()).url(), lambda memory: memory.clear())
    if json:
        _print_json({"removed": removed})
    else:
        print(f"{removed} lessons removed")  # noqa: T201
    return 0


@asynccontextmanager
async def _opened(url: str, limits: MemoryLimits | None) -> AsyncGenerator[Memory]:
    from reflexion.memory import open_memory

    memory = open_memory(url, limits)
    try:
        yield memory
    finally:
        await memory.aclose()


def _with_memory(url: str, ask: Callable[[Memory], Awaitable[T]], limits: MemoryLimits | None = None) -> T:
    async def work() -> T:
        async with _opened(url, limits) as memory:
            return await ask(memory)

    return asyncio.run(work())


async def _lessons_of(memory: Memory, problem: str) -> list[Lesson]:
    """By digest if it can be one, else by the problem's id, which stands in the episode's name."""
    if len(problem) >= 4 and all(c in "0123456789abcdef" for c in problem):
        found = await memory.lessons(problem)
        if found:
            return found
    return [x async for x in memory.export() if x.episode.removeprefix(f"{x.run}/").rpartition("/")[0] == problem]


def _show_lessons(lessons: list[Lesson]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for x in lessons:
        when = datetime.fromtimestamp(x.created).strftime("%Y-%m-%d %H:%M")
        head = f"{x.episode}, trial {x.trial}, {when}: seen by {x.uses} trials, {x.wins} of them passed"
        console.print(Text(head, style="bold"))
        if x.feedback:
            console.print(Text(f"Feedback: {x.feedback}", style="yellow"))
        # What a model wrote is shown as it is, never read as markup.
        console.print(Text(x.text, style="cyan"))


def _print_json(data: Any) -> None:
    import orjson

    print(orjson.dumps(data).decode())  # noqa: T201
