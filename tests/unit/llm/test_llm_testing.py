"""The public testing tools, the choice of a model by name, and what importing costs."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request

import pytest

import reflexion.llm
from reflexion.errors import RefusalError, ReplayMissError
from reflexion.llm import LLM, ChatRequest, Message, OpenAIChat, default_spec, open_llm
from reflexion.testing import FAULTS, ScriptedEndpoint, ScriptedLLM, fill_schema, learns_from_reflection

ASK = ChatRequest(messages=(Message(role="user", content="What is six times seven?"),))


async def test_a_script_is_followed_and_remembered():
    llm = ScriptedLLM(["one", RefusalError("no")], model="tiny", cost_usd=0.5)
    assert isinstance(llm, LLM)
    reply = await llm.chat(ASK)
    assert (reply.text, reply.model, reply.usage.cost_usd) == ("one", "tiny", 0.5)
    with pytest.raises(RefusalError):
        await llm.chat(ASK)
    with pytest.raises(ReplayMissError, match="no reply for request 3"):
        await llm.chat(ASK)
    assert llm.requests == [ASK] * 3 and llm.usage == reply.usage
    await llm.aclose()
    assert llm.closed


async def test_a_function_answers_and_concurrency_is_seen():
    llm = ScriptedLLM(lambda request: request.role, latency=0.01)
    replies = await asyncio.gather(*(llm.chat(ASK.model_copy(update={"role": "judge"})) for _ in range(5)))
    assert [r.text for r in replies] == ["judge"] * 5
    assert llm.peak_in_flight == 5 and llm.in_flight == 0


def test_the_default_script_learns_only_from_its_own_reflection():
    answer = learns_from_reflection()
    assert answer("question") == "41"
    lesson = answer("question. Reflect on your failure.")
    assert answer(f"question. Earlier lesson: {lesson}") == "42"


def test_schemas_are_filled():
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}, "n": {"type": "integer"}, "o": {"anyOf": [{"type": "null"}]}},
        "$defs": {"A": {"type": "array", "items": {"enum": ["x", "y"]}}},
    }
    assert fill_schema(schema, "text") == {"a": ["x"], "n": 1, "o": None}


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in ("hang", "close", "close_mid_body")])
def test_every_fault_is_an_http_reply(fault):
    with ScriptedEndpoint(faults=[fault]) as endpoint:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
        request = urllib.request.Request(f"{endpoint.url}/chat/completions", body)
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                status = response.status
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
    assert status == (int(fault) if fault.isdigit() else 200)


def test_an_endpoint_counts_and_resets():
    with ScriptedEndpoint(models=["a", "b"]) as endpoint:
        root = endpoint.url.removesuffix("/v1")

        def get(path):
            with urllib.request.urlopen(f"{root}{path}", timeout=5) as response:
                return json.load(response)

        assert [m["id"] for m in get("/v1/models")["data"]] == ["a", "b"]
        llm = OpenAIChat("a", endpoint.url)
        asyncio.run(_ask_and_close(llm))
        assert (get("/stats")["calls"], get("/stats")["answered"]) == (1, 1)
        get("/reset")
        assert get("/stats")["calls"] == 0


async def _ask_and_close(llm):
    await llm.chat(ASK)
    await llm.aclose()


async def test_an_endpoint_sees_duplicates_in_flight():
    async with ScriptedEndpoint(latency=0.05) as endpoint:
        llm = OpenAIChat("m", endpoint.url)
        await llm.chat(ASK)  # the first call of a model goes alone
        await asyncio.gather(llm.chat(ASK), llm.chat(ASK))
        await llm.aclose()
    assert endpoint.stats.duplicates_in_flight == 1 and len(endpoint.stats.distinct) == 1


async def test_an_endpoint_admits_its_rate():
    async with ScriptedEndpoint(rate=50, burst=5, retry_after=None) as endpoint:
        llm = OpenAIChat("m", endpoint.url, concurrency=20, max_attempts=50)
        started = time.monotonic()
        await asyncio.gather(*(llm.chat(ASK) for _ in range(25)))
        took = time.monotonic() - started
        await llm.aclose()
    assert endpoint.stats.s429 > 0
    assert took >= (25 - 5) / 50


# -- the choice of a model -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "spec"),
    [
        ({}, "local"),
        ({"OPENAI_API_KEY": " "}, "local"),
        ({"OPENAI_API_KEY": "k"}, "gpt-4o-mini"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, "gpt-4o-mini"),
        ({"OPENAI_API_KEY": "k", "REFLEXION_LLM": "gpt-4o"}, "gpt-4o"),
    ],
)
def test_the_default_model_follows_the_environment(environ, spec):
    assert default_spec(environ) == spec


def test_a_name_with_a_colon_is_a_model_of_the_endpoint():
    llm = open_llm(" llama3.1:8b ", base_url="http://127.0.0.1:11434/v1")
    assert llm.model == "llama3.1:8b"


def test_all_names_are_there():
    assert len(set(reflexion.llm.__all__)) == len(reflexion.llm.__all__)
    for name in reflexion.llm.__all__:
        assert getattr(reflexion.llm, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = reflexion.llm.nothing


def test_importing_loads_nothing_heavy():
    modules = [
        "llm.endpoint.openai_chat",
        "llm.local",
        "llm.wrappers.recording",
        "llm.batch_jobs.batch_api",
        "llm.wrappers.batched_asks",
        "llm.prices",
        "llm.wrappers.budget",
        "llm.structured",
        "llm.roles",
        "testing",
    ]
    heavy = ["openai", "httpx", "httpx2", "genai_prices", "tenacity", "xllamacpp", "numpy", "prefect"]
    program = (
        f"import sys\nfor name in {modules!r}: __import__('reflexion.' + name)\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
