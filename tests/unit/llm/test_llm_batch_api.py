"""Half-price jobs: gathered, found again after a restart, asked again where they expire."""

import asyncio
import json

import pytest
from batch_fake import BatchEndpoint

from reflexion.errors import (
    AuthenticationError,
    CallTimeoutError,
    ConfigurationError,
    EndpointError,
    RateLimitError,
    RequestRejectedError,
    StorageError,
)
from reflexion.llm import BatchApiLLM, ChatRequest, Message, OpenAIChat, open_llm


def ask(text: str, **fields) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), **fields)


def model(endpoint, state, **options) -> BatchApiLLM:
    options = {"linger": 0.05, "poll_first": 0.02, "poll_most": 0.05, "max_attempts": 3} | options
    return BatchApiLLM(options.pop("model", "m"), state, endpoint.url, "sk-secret-key", **options)


async def wait_until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_round_of_requests_is_one_job_at_half_price(tmp_path):
    async with BatchEndpoint(lambda p: f"answer to {p}") as endpoint:
        llm = model(endpoint, tmp_path / "jobs.json", model="gpt-4o-mini")
        replies = await asyncio.gather(*(llm.chat(ask(f"q{i}")) for i in range(30)))
        direct = OpenAIChat("gpt-4o-mini", endpoint.url)
        full = await direct.chat(ask("q0"))
        await direct.aclose()
        await llm.aclose()
    assert [r.text for r in replies] == [f"answer to q{i}" for i in range(30)]
    assert len(endpoint.jobs) == 1
    assert full.usage.cost_usd is not None
    assert replies[0].usage.cost_usd == pytest.approx(full.usage.cost_usd / 2)
    assert replies[0].usage.prompt == full.usage.prompt


async def test_rounds_follow_each_other(tmp_path):
    async with BatchEndpoint() as endpoint:
        llm = model(endpoint, tmp_path / "jobs.json")

        async def episode(i):
            first = await llm.chat(ask(f"q{i}"))
            return await llm.chat(ask(f"q{i}: reflect on {first.text}"))

        replies = await asyncio.gather(*(episode(i) for i in range(5)))
        await llm.aclose()
    assert len(endpoint.jobs) == 2 and all("PLAN-OK" in r.text for r in replies)


async def test_the_same_request_is_made_once_and_repeats_are_not_the_same(tmp_path):
    async with BatchEndpoint() as endpoint:
        llm = model(endpoint, tmp_path / "jobs.json")
        await asyncio.gather(llm.chat(ask("q")), llm.chat(ask("q")), llm.chat(ask("q", salt="1.1")))
        await llm.aclose()
    assert len(endpoint.files["file-0"].splitlines()) == 2


async def test_a_restarted_process_finds_its_jobs_and_pays_once(tmp_path):
    state = tmp_path / "jobs.json"
    async with BatchEndpoint(lambda p: f"answer to {p}", looks=10**6) as endpoint:
        first = model(endpoint, state)
        tasks = [asyncio.create_task(first.chat(ask(f"q{i}"))) for i in range(5)]
        await wait_until(lambda: endpoint.jobs and json.loads(state.read_text())["jobs"][0]["batch_id"])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await first.aclose()

        endpoint.plans["batch_0"][0] = 0  # meanwhile it ends
        second = model(endpoint, state)
        replies = await asyncio.gather(*(second.chat(ask(f"q{i}")) for i in range(3)))
        late = await second.chat(ask("q4"))
        await second.aclose()
    assert [r.text for r in (*replies, late)] == ["answer to q0", "answer to q1", "answer to q2", "answer to q4"]
    assert len(endpoint.jobs) == 1


async def test_a_process_killed_between_making_and_noting_a_job_finds_it(tmp_path):
    state = tmp_path / "jobs.json"
    async with BatchEndpoint() as endpoint:
        first = model(endpoint, state)
        await first.chat(ask("q"))
        await first.aclose()
        noted = json.loads(state.read_text())
        noted["jobs"][0]["batch_id"] = None  # as it was before the reply came
        state.write_text(json.dumps(noted))
        second = model(endpoint, state)
        await second.chat(ask("q"))
        await second.aclose()
    assert len(endpoint.jobs) == 1


async def test_a_job_that_was_noted_and_never_made_is_made(tmp_path):
    state = tmp_path / "jobs.json"
    async with BatchEndpoint(looks=10**6) as endpoint:
        first = model(endpoint, state)
        task = asyncio.create_task(first.chat(ask("q")))
        await wait_until(lambda: endpoint.jobs)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await first.aclose()
        noted = json.loads(state.read_text())
        noted["jobs"][0]["batch_id"] = None
        state.write_text(json.dumps(noted))
        endpoint.jobs.clear()
        endpoint.looks = 0
        second = model(endpoint, state)
        assert (await second.chat(ask("q"))).text == "41"
        await second.aclose()
    assert len(endpoint.jobs) == 1


async def test_a_job_whose_making_was_not_answered_is_not_made_twice(tmp_path):
    async with BatchEndpoint(lose_create=1) as endpoint:
        llm = model(endpoint, tmp_path / "jobs.json")
        assert (await llm.chat(ask("q"))).text == "41"
        await llm.aclose()
    assert len(endpoint.jobs) == 1


async def test_what_expires_is_asked_again(tmp_path):
    async with BatchEndpoint(lambda p: f"answer to {p}", ends=[lambda n: n // 2]) as endpoint:
        llm = model(endpoint, tmp_path / "jobs.json")
        replies = await asyncio.gather(*(llm.chat(ask(f"q{i}")) for i in range(6)))
        await llm.aclose()
    assert [r.text for r in replies] == [f"answer to q{i}" for i in range(6)]
    assert len(endpoint.jobs) == 2
    assert endpoint.stats.answered == 6
    assert sorted(r.attempts for r in replies) == [1, 1, 1, 2, 2, 2]


async def test_what_keeps_expiring_is_given_up(tmp_path):
    async with BatchEndpoint(ends=[lambda n: 0] * 5) as endpoint:
        llm = model(endpoint, tmp_path / "jobs.json", max_submissions=2)
        with pytest.raises(CallTimeoutError, match="expired"):
            await llm.chat(ask("q"))
        await llm.aclose()
    assert len(endpoint.jobs) == 2


@pytest.mark.parametrize(("end", "message"), [("failed", "Enqueued token limit"), ("cancelled", "cancelled")])
async def test_a_job_that_fails_fails_its_requests_and_is_forgotten(tmp_path, end, message):
    state = tmp_path / "jobs.json"
    async with BatchEndpoint(ends=[end]) as endpoint:
        if end == "cancelled":
            endpoint.completion = lambda body: pytest.fail("cancelled before anything was answered")
            endpoint._end = lambda job, how: job.update(status=how)
        llm = model(endpoint, state)
        results = await asyncio.gather(llm.chat(ask("a")), llm.chat(ask("b")), return_exceptions=True)
        await llm.aclose()
    for error in results:
        assert isinstance(error, RequestRejectedError) and message in str(error)
    assert json.loads(state.read_text())["jobs"] == []


async def test_requests_fail_one_by_one(tmp_path):
    spoilt = {
        "bad": {"status_code": 400, "body": {"error": {"message": "too long", "code": "context_length_exceeded"}}},
        "busy": {"status_code": 429, "body": {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}},
    }
    async with BatchEndpoint(spoilt=spoilt) as endpoint:
        llm = model(endpoint, tmp_path / "jobs.json", max_submissions=2)
        good, bad, busy = await asyncio.gather(
            llm.chat(ask("good")), llm.chat(ask("bad")), llm.chat(ask("busy")), return_exceptions=True
        )
        await llm.aclose()
    assert good.text == "41"
    assert isinstance(bad, RequestRejectedError) and "too long" in str(bad)
    assert isinstance(busy, RateLimitError) and len(endpoint.jobs) == 2


async def test_the_endpoint_may_stumble_while_it_is_looked_at(tmp_path):
    async with BatchEndpoint(looks=3) as endpoint:
        endpoint.admin_faults = [500, 429]
        llm = model(endpoint, tmp_path / "jobs.json")
        task = asyncio.create_task(llm.chat(ask("q")))
        await wait_until(lambda: endpoint.jobs)
        endpoint.admin_faults = [503]
        assert (await task).text == "41"
        await llm.aclose()


async def test_a_wrong_key_ends_all_waiting_and_shows_nothing(tmp_path):
    state = tmp_path / "jobs.json"
    async with BatchEndpoint() as endpoint:
        endpoint.admin_faults = [401] * 9
        llm = model(endpoint, state)
        with pytest.raises(AuthenticationError) as caught:
            await llm.chat(ask("q"))
        await llm.aclose()
    assert "sk-secret-key" not in str(caught.value) + repr(llm) + state.read_text()


async def test_an_endpoint_without_batches_is_named(tmp_path):
    async with BatchEndpoint() as endpoint:
        endpoint.admin_faults = [404]
        llm = model(endpoint, tmp_path / "jobs.json")
        with pytest.raises(RequestRejectedError, match="no Batch API"):
            await llm.chat(ask("q"))
        await llm.aclose()


async def test_an_endpoint_that_is_gone_is_an_error_not_a_hang(tmp_path):
    async with BatchEndpoint() as endpoint:
        pass
    llm = model(endpoint, tmp_path / "jobs.json")
    with pytest.raises(EndpointError, match="cannot connect"):
        await llm.chat(ask("q"))
    await llm.aclose()


@pytest.mark.parametrize("content", ["no", "[]", '{"format": 99}', '{"format": 1}', '{"format": 1, "jobs": [{}]}'])
def test_a_state_file_that_is_none_is_a_clear_error(tmp_path, content):
    state = tmp_path / "jobs.json"
    state.write_text(content)
    with pytest.raises(StorageError, match=r"jobs\.json"):
        BatchApiLLM("m", state, "http://127.0.0.1:1/v1")


def test_embedded_models_have_no_batch_jobs(tmp_path):
    with pytest.raises(ConfigurationError, match="--batch-api"):
        open_llm("local", batch_state=tmp_path / "jobs.json")
    llm = open_llm("m", base_url="http://127.0.0.1:1/v1", batch_state=tmp_path / "jobs.json")
    assert isinstance(llm, BatchApiLLM) and llm.identity["model"] == "m"
