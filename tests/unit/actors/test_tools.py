"""Tools: schemas from signatures, what a model writes as arguments, and functions that misbehave."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from reflexion.actors import tool, tools
from reflexion.actors.builtin_tools import BUILTIN, default_tools
from reflexion.actors.tools import Tool, as_tools
from reflexion.errors import ConfigurationError
from reflexion.types import Document, Problem

PROBLEM = Problem(id="p", prompt="q")
UNITED = Problem(
    id="q",
    prompt="Where was the founder of Arlo Mills born?",
    context=(
        Document(title="Arlo Mills", text="Arlo Mills is a village. It was founded by Ida Crane in 1820."),
        Document(title="Ida Crane", text="Ida Crane was a miller. She was born in Port Selby."),
    ),
)


def one(function: Any) -> Tool:
    return as_tools([function])[0]


async def call(function: Any, arguments: Any, problem: Problem = PROBLEM, **more: Any) -> tuple[str, bool]:
    return await one(function).call(arguments, problem, **more)


class Point(BaseModel):
    x: int
    y: int


def test_the_schema_comes_from_the_signature() -> None:
    def find(
        name: str,
        kind: Literal["city", "river"] = "city",
        most: Annotated[int, Field(ge=1)] = 3,
        near: Point | None = None,
    ) -> str:
        """Find a place."""
        return name

    made = one(find)
    schema = made.parameters
    assert made.definition["function"]["description"] == "Find a place."
    assert schema["required"] == ["name"] and schema["additionalProperties"] is False
    assert schema["properties"]["kind"] == {"default": "city", "enum": ["city", "river"], "type": "string"}
    assert schema["properties"]["most"]["minimum"] == 1
    assert schema["$defs"]["Point"]["properties"] == {"x": {"type": "integer"}, "y": {"type": "integer"}}
    assert made.usage.startswith("find(name: string, kind: 'city' | 'river' (optional), most: integer (optional)")


@pytest.mark.parametrize("arguments", [{"a": 40, "b": "2"}, '{"a": 40}', [40, 2], [40], "40", {"a": 40.0}], ids=str)
async def test_arguments_are_read_in_every_form(arguments: Any) -> None:
    def add(a: int, b: int = 2) -> int:
        return a + b

    assert await call(add, arguments) == ("42", False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"a": "many"}, "a: Input should be a valid integer"),
        ({}, "a: Field required"),
        ({"a": 1, "c": 2}, "c: Extra inputs are not permitted"),
        ([1, 2, 3], "3 arguments were given; it takes 1"),
        ('{"a": ', "the arguments are not JSON"),
        (7, "the arguments must be one JSON object"),
    ],
)
async def test_arguments_that_do_not_fit_are_told_to_the_model(arguments: Any, said: str) -> None:
    def double(a: int) -> int:
        return 2 * a

    text, failed = await call(double, arguments)
    assert failed and said in text and "Usage: double(a: integer)" in text


async def test_results_are_texts() -> None:
    loop: list[Any] = []
    loop.append(loop)
    point = Point(x=1, y=2)
    results = [("é", "é"), (None, "done"), ({"a": [1.5]}, '{"a":[1.5]}'), (point, '{"x":1,"y":2}'), (loop, "[[...]]")]

    def give(index: int) -> Any:
        return results[index][0]

    for index, (_, text) in enumerate(results):
        assert await call(give, [index]) == (text, False)


async def test_what_a_tool_raises_is_an_observation() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def raises(what: str) -> None:
        raise {"value": ValueError("no such city"), "stop": StopIteration(1), "exit": SystemExit(3), "rude": Rude()}[
            what
        ]

    async def late(what: str) -> None:
        raise TimeoutError("the service is slow")

    async def gives_up(what: str) -> None:
        raise asyncio.CancelledError

    assert await call(raises, "value") == ("Error: raises raised ValueError: no such city", True)
    assert (await call(raises, "stop"))[0].startswith("Error: raises raised RuntimeError: StopIteration")
    assert await call(raises, "exit") == ("Error: raises raised SystemExit: 3", True)
    assert await call(raises, "rude") == ("Error: raises raised Rude", True)
    assert await call(late, "x") == ("Error: late raised TimeoutError: the service is slow", True)
    assert await call(gives_up, "x") == ("Error: gives_up was cancelled.", True)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def test_a_tool_that_hangs_is_given_up_and_not_called_for_ever(released: threading.Event) -> None:
    calls: list[int] = []

    def hangs() -> None:
        calls.append(1)
        released.wait()

    async def sleeps() -> None:
        await asyncio.Event().wait()

    assert await call(sleeps, {}, seconds=0.01) == ("Error: sleeps did not answer within 0.01 seconds.", True)
    for _ in range(tools.STUCK):
        assert "did not answer within" in (await call(hangs, {}, seconds=0.01))[0]
    text, _ = await call(hangs, {}, seconds=0.01)
    assert "is not available" in text and len(calls) == tools.STUCK


async def test_cancelling_a_call_cancels_it(released: threading.Event) -> None:
    def waits() -> None:
        released.wait()

    task = asyncio.create_task(call(waits, {}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_problem_is_given_and_not_shown() -> None:
    @tool(name="peek", description="Look.", timeout=3, version="7")
    def look(problem: Problem, word: str = "") -> str:
        return problem.id + word

    made = one(look)
    assert list(made.parameters["properties"]) == ["word"]
    assert (made.name, made.description, made.timeout, made.version) == ("peek", "Look.", 3, "7")
    assert await call(look, {"word": "!"}) == ("p!", False)


def test_versions_follow_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found: set[str] = set()
    for factor in (2, 3):
        (tmp_path / f"maths{factor}.py").write_text(f"F = {factor}\ndef times(a: int) -> int:\n    return F * a\n")
        made = as_tools([f"maths{factor}:times"])[0]
        assert made.fingerprint[0] == "times"
        found.add(str(made.fingerprint))
    assert len(found) == 2


def untyped(a):  # type: ignore[no-untyped-def]
    return a


def ping() -> None: ...


def many(*names: str) -> None: ...


def strange(a: threading.Lock) -> None: ...


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([untyped], "parameter 'a' has no type"),
        ([many], "the parameter *names: 'str' cannot be given by name"),
        ([strange], "no JSON schema"),
        ([lambda: 1], "'<lambda>': a name has letters"),
        ([3], "3 is neither a function nor a Tool"),
        ([ping, ping], "two tools are named 'ping'"),
        (["weather"], "unknown tools 'weather'; there are documents, calculator"),
        (["no_such_module:f"], "module 'no_such_module' cannot be imported: ModuleNotFoundError"),
        (["math:cosh2"], "'math' has no 'cosh2'"),
        (["math:"], "not of the form module:function"),
        (["math:pi"], "3.14"),
    ],
)
def test_what_is_no_tool_is_refused(given: list[Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        as_tools(given)
    assert said in str(caught.value)


def test_modules_of_the_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here_tools.py").write_text("def ping() -> str:\n    return 'pong'\nALL = [ping]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    assert [t.name for t in as_tools(["here_tools:ALL"])] == ["ping"]
    (tmp_path / "broken_tools.py").write_text("1 / 0\n")
    with pytest.raises(ConfigurationError, match="cannot be imported: ZeroDivisionError"):
        as_tools(["broken_tools:ping"])


async def test_documents_are_searched_and_looked_up() -> None:
    search, lookup = BUILTIN["documents"]
    found = (await search.call("founder of Arlo Mills", UNITED)).text
    assert found.startswith("Arlo Mills: Arlo Mills is a village.") and "Other documents about it" not in found
    assert (await search.call("Ida Crane", UNITED)).text.endswith("Other documents about it: Arlo Mills.")
    assert "The documents are: Arlo Mills, Ida Crane." in (await search.call("zebra", UNITED)).text
    assert (await lookup.call("born in", UNITED)).text == "(Ida Crane) She was born in Port Selby."
    assert (await lookup.call("zebra", UNITED)).text == "No sentence contains 'zebra'."


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("2 + 3 * 4", "14"), ("(1,200 - 200) / 8", "125"), ("2^10", "1024"), ("$3.50 * 2", "7"), ("-7 // 2", "-4"),
        ("sqrt(16) + max(1, 2)", "6"), ("10 % 4 =", "2"),
    ],
)  # fmt: skip
async def test_the_calculator_works_out(expression: str, result: str) -> None:
    assert await BUILTIN["calculator"][0].call(expression, PROBLEM) == (result, False)


@pytest.mark.parametrize(
    "expression", ["__import__('os')", "9**9**9**9", "1 / 0", "x + 1", "'a' * 9", "(" * 500, "(-8) ** 0.5"]
)
async def test_the_calculator_does_nothing_else(expression: str) -> None:
    text, failed = await BUILTIN["calculator"][0].call(expression, PROBLEM)
    assert failed and text.startswith("Error: calculate raised")


@pytest.mark.parametrize(
    "expression",
    [
        "round(5, -99999999)",
        "round(2.5, 10 ** 9)",
        "max(" + " * ".join(["10 ** 15"] * 120) + ", 1)",
        "(9 ** 9) ** 9 ** 9",
        "9" * 3_000,
    ],
)
async def test_the_calculator_is_never_held_up(expression: str) -> None:
    started = time.process_time()
    text, failed = await BUILTIN["calculator"][0].call(expression, PROBLEM)
    assert failed and ("too large" in text or "places" in text)
    assert time.process_time() - started < 1


def test_a_problem_gets_what_suits_it() -> None:
    assert [t.name for t in default_tools(UNITED)] == ["search", "lookup"]
    assert [t.name for t in default_tools(PROBLEM)] == ["calculate"]
    assert default_tools(Problem(id="c", prompt="q", tests="assert f()")) == ()
    assert [t.suits(PROBLEM) for t in BUILTIN["documents"]] == [False, False]
