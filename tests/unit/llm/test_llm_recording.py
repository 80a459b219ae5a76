"""Every exchange written down, and answered again from what was written."""

import asyncio
import json

import pytest

from reflexion.errors import ConfigurationError, RefusalError, ReplayMissError, StorageError
from reflexion.llm import ChatRequest, Message, RecordingLLM, ReplayLLM, Sampling, open_llm
from reflexion.testing import ScriptedEndpoint, ScriptedLLM


def ask(text: str, **fields) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), **fields)


async def record(path, script, requests):
    llm = RecordingLLM(ScriptedLLM(script, model="tiny"), path)
    return [await llm.chat(r) for r in requests]


async def test_a_recording_answers_as_the_model_did(tmp_path):
    requests = [ask("a"), ask("b", role="reflector"), ask("c", sampling=Sampling(seed=1))]
    recorded = await record(tmp_path / "r.jsonl", ["1", "2", "3"], requests)
    replay = open_llm(f"replay:{tmp_path / 'r.jsonl'}")
    assert [await replay.chat(r) for r in reversed(requests)] == recorded[::-1]
    assert replay.model == "tiny"


async def test_repeats_are_answered_in_their_order(tmp_path):
    path = tmp_path / "r.jsonl"
    await record(path, ["first", "second", "other"], [ask("a"), ask("a"), ask("a", salt="1.1")])
    replay = ReplayLLM(path)
    texts = [(await replay.chat(r)).text for r in (ask("a"), ask("a", salt="1.1"), ask("a"), ask("a"))]
    assert texts == ["first", "other", "second", "second"]


async def test_what_was_never_asked_fails_and_says_how_it_differs(tmp_path):
    path = tmp_path / "r.jsonl"
    await record(path, ["1"], [ask("What is six times seven?")])
    replay = ReplayLLM(path)
    with pytest.raises(ReplayMissError, match=r"sampling\.temperature is 0\.7, recorded 0\.0"):
        await replay.chat(ask("What is six times seven?", sampling=Sampling(temperature=0.7)))
    with pytest.raises(ReplayMissError, match="never sent"):
        await replay.chat(ask("Something else"))


async def test_errors_are_recorded_and_raised_again(tmp_path):
    path = tmp_path / "r.jsonl"
    llm = RecordingLLM(ScriptedLLM([RefusalError("no")]), path)
    with pytest.raises(RefusalError):
        await llm.chat(ask("a"))
    with pytest.raises(RefusalError, match="no"):
        await ReplayLLM(path).chat(ask("a"))


async def test_no_secret_and_no_address_is_written(tmp_path):
    path = tmp_path / "r.jsonl"
    key = "sk-very-secret-key-123456"
    async with ScriptedEndpoint(faults=[None, "401"]) as endpoint:
        llm = open_llm("m", base_url=endpoint.url.replace("//", "//user:hidden@"), api_key=key, record=path)
        await llm.chat(ask("a"))
        with pytest.raises(Exception, match="401"):
            await llm.chat(ask("b"))
        await llm.aclose()
    content = path.read_text()
    assert len(content.splitlines()) == 2
    assert key not in content and "hidden" not in content


async def test_roles_and_concurrent_calls_share_a_file(tmp_path):
    path = tmp_path / "deep" / "r.jsonl"
    llms = [RecordingLLM(ScriptedLLM(lambda r: r.messages[0].content * 50, model=f"m{i}"), path) for i in range(3)]
    await asyncio.gather(*(llm.chat(ask(f"{i}-{j}")) for i, llm in enumerate(llms) for j in range(40)))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 120
    assert {line["model"] for line in lines} == {"m0", "m1", "m2"}
    replay = ReplayLLM(path)
    assert (await replay.chat(ask("2-7"))).text == "2-7" * 50


async def test_half_a_line_of_a_killed_recorder_does_no_harm(tmp_path):
    path = tmp_path / "r.jsonl"
    await record(path, ["1"], [ask("a")])
    path.write_bytes(path.read_bytes() + b'{"format":1,"requ')
    assert (await ReplayLLM(path).chat(ask("a"))).text == "1"


async def test_a_recorder_never_joins_its_line_to_a_broken_one(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"format":1,"requ')
    await record(path, ["1"], [ask("a")])
    broken, whole = path.read_bytes().splitlines()
    assert broken == b'{"format":1,"requ' and json.loads(whole)["reply"]["text"] == "1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 1: not a recorded exchange"),
        ("{}", "'format' is missing"),
        ('{"format": 1}', "'request' is missing"),
        ('{"format": 99, "request": {}, "reply": {}}', "format 99 is newer"),
        ('{"format": 1, "request": {"messages": 3}, "reply": {}}', "line 1: not a recorded exchange"),
        ("[1]", "line 1: not a recorded exchange"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = tmp_path / "r.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigurationError, match=message):
        ReplayLLM(path)


def test_a_missing_or_empty_recording_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_llm(f"replay:{tmp_path / 'none.jsonl'}")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ConfigurationError, match="no exchange"):
        open_llm(f"replay:{tmp_path / 'empty.jsonl'}")
    with pytest.raises(ConfigurationError, match="replay: needs the path"):
        open_llm("replay:")


async def test_a_file_that_cannot_be_written_is_a_clear_error(tmp_path):
    with pytest.raises(StorageError, match="--record"):
        RecordingLLM(ScriptedLLM(), tmp_path)
    full = RecordingLLM(ScriptedLLM(["1"]), "/dev/full")
    with pytest.raises(StorageError, match="--record"):
        await full.chat(ask("a"))


async def test_another_recording_is_another_model_to_the_cache(tmp_path):
    await record(tmp_path / "a.jsonl", ["1"], [ask("a")])
    await record(tmp_path / "b.jsonl", ["2"], [ask("a")])
    identities = [ReplayLLM(tmp_path / n).identity for n in ("a.jsonl", "b.jsonl")]
    assert identities[0]["recording"] != identities[1]["recording"]
    recorder = RecordingLLM(ScriptedLLM(model="x"), tmp_path / "a.jsonl")
    assert recorder.identity == {"model": "x"}
