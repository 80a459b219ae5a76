"""Reuse of reflections for similar failures."""

from __future__ import annotations

import asyncio
import http.server
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflexion.cache import MemoryStepCache, open_cache
from reflexion.errors import ConfigurationError, EndpointError, MalformedReplyError, RequestRejectedError
from reflexion.reuse.embeddings import EndpointEmbedder
from reflexion.reuse.similar_failures import (
    EmbeddingSimilarity,
    Failure,
    LexicalSimilarity,
    ReflectionIndex,
    SimilarityProvider,
    open_reflection_index,
)
from tests.redis_server import RedisServer, free_port
from tests.waiting import wait_until

REVERSE = "Write a function reverse_words(s) that reverses the order of the words in a sentence."
REVERSE_TOO = "Write a function reverse_word_order(text) that reverses the order of words in a sentence."
PRIMES = "Return the number of prime numbers below n, using a sieve."
WRONG = "AssertionError: reverse_words('a b') returned 'b  a', expected 'b a'"
WRONG_TOO = "AssertionError: reverse_word_order('a b') returned 'b  a', expected 'b a'"
SLOW = "TimeoutError: the tests took longer than 10 s"

similarity = LexicalSimilarity().similarity


def failure(problem: str = REVERSE, feedback: str = WRONG) -> Failure:
    return Failure(problem=problem, feedback=feedback)


async def learn(index: ReflectionIndex, key: str = "k", text: str = "Split first.", **more: str | None) -> None:
    given = {"evaluator": "python", "failure_class": "AssertionError", "problem": REVERSE, "feedback": WRONG} | more
    await index.add(key, text, **given)  # type: ignore[arg-type]


async def ask(index: ReflectionIndex, threshold: float = 0.6, **more: str | None) -> tuple[str, str, float] | None:
    given = {"evaluator": "python", "failure_class": "AssertionError", "problem": REVERSE_TOO, "feedback": WRONG_TOO}
    found = await index.find(threshold=threshold, **(given | more))  # type: ignore[arg-type]
    return None if found is None else (found.key, found.text, found.similarity)


texts = st.text(st.sampled_from("abcdefg ABC 123 .,()\nä"), max_size=60)
failures = st.builds(Failure, problem=texts, feedback=texts)


@given(failures, failures)
def test_lexical_similarity_is_symmetric_and_from_0_to_1(a: Failure, b: Failure) -> None:
    assert 0.0 <= similarity(a, b) == similarity(b, a) <= 1.0


@given(failures)
def test_a_failure_is_fully_similar_to_itself(a: Failure) -> None:
    assert similarity(a, a) == 1.0


def test_alike_failures_are_more_similar_than_others() -> None:
    alike = similarity(failure(), failure(REVERSE_TOO, WRONG_TOO))
    assert alike > 0.6
    assert similarity(failure(), failure(PRIMES, SLOW)) < 0.3
    assert similarity(failure(), failure(PRIMES, WRONG)) < alike, "the same feedback does not make up for the problem"
    assert similarity(failure(), failure(REVERSE, SLOW)) < alike, "nor the same problem for the feedback"
    assert similarity(failure(), failure(REVERSE, "")) == 0.0


async def test_the_most_similar_is_found() -> None:
    index = ReflectionIndex()
    await learn(index, "far", "Use a sieve.", problem=PRIMES, feedback=WRONG)
    await learn(index, "near", "Split first.")
    found = await ask(index)
    assert found is not None and found[:2] == ("near", "Split first.") and 0.6 <= found[2] < 1.0
    assert await ask(index, threshold=0.99) is None
    assert await ask(index, threshold=1.0, problem=REVERSE, feedback=WRONG) == ("near", "Split first.", 1.0)


@pytest.mark.parametrize("field", ["evaluator", "failure_class", "scope"])
async def test_kind_class_and_scope_must_be_equal(field: str) -> None:
    index = ReflectionIndex()
    await learn(index)
    assert await ask(index, problem=REVERSE, feedback=WRONG, **{field: "other"}) is None
    await learn(index, "other", **{field: "other"})
    found = await ask(index, **{field: "other"})
    assert found is not None and found[0] == "other"


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01, float("nan")])
async def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        await ask(ReflectionIndex(), threshold)


async def test_the_oldest_goes_beyond_the_limit() -> None:
    index = ReflectionIndex(limit=2)
    for key in "abc":
        await learn(index, key, f"lesson {key}")
        await learn(index, key, "added twice")
    assert len(index) == 2
    found = await ask(index)
    assert found is not None and found[:2] == ("b", "lesson b"), "of equally similar ones the oldest"
    with pytest.raises(ConfigurationError, match="limit is 0"):
        ReflectionIndex(limit=0)


async def test_empty_reflections_are_not_kept() -> None:
    index = ReflectionIndex()
    await learn(index, text="  ")
    assert len(index) == 0


async def test_many_are_compared_off_the_event_loop() -> None:
    index = ReflectionIndex()
    for number in range(300):
        await learn(index, f"k{number}", problem=f"{PRIMES} {number}")
    await learn(index, "near")
    found = await ask(index)
    assert found is not None and found[0] == "near"


@pytest.fixture(params=["local", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "steps")
    else:
        with RedisServer.start() as server:
            yield server.url


async def test_reflections_are_shared_through_the_store(url: str) -> None:
    one, two = open_cache(url), open_cache(url)
    writer, reader = open_reflection_index(one), open_reflection_index(two)
    assert await ask(reader) is None
    await learn(writer)

    async def seen() -> bool:
        return await ask(reader) is not None

    await wait_until(seen)
    later = open_reflection_index(two)
    assert await ask(later) == await ask(writer)
    await one.aclose()
    await two.aclose()


async def test_the_store_keeps_a_bounded_number(url: str) -> None:
    cache = open_cache(url)
    index = open_reflection_index(cache, limit=10)
    for number in range(60):
        await learn(index, f"k{number}")
    other = open_reflection_index(cache, limit=1000)
    assert await ask(other) is not None
    # Redis shortens a stream by whole nodes of 100 entries.
    assert 10 <= len(other) <= (30 if "redis" not in url else 110)
    assert len(index) == 10
    await cache.aclose()


async def test_damaged_lines_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = open_cache(str(tmp_path))
    await learn(open_reflection_index(cache))
    with (tmp_path / "reflections.jsonl").open("ab") as file:
        file.write(b"\x80\x04pickle\n{}\nhalf a li")
    index = open_reflection_index(cache)
    assert await ask(index) is not None and len(index) == 1
    assert "2 kept reflections cannot be read" in caplog.text
    await cache.aclose()


async def test_without_a_store_the_index_is_the_process_own() -> None:
    assert len(open_reflection_index(None)) == len(open_reflection_index(MemoryStepCache())) == 0


# Embeddings


class Counting:
    """Embeds by counting letters; tells how many texts it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += len(texts)
        return [[float(text.count(letter)) for letter in "aeiourst'="] for text in texts]


async def test_embeddings_find_the_most_similar_and_are_kept(url: str) -> None:
    embed = Counting()
    provider = EmbeddingSimilarity(embed, "letters")
    assert isinstance(provider, SimilarityProvider)
    cache = open_cache(url)
    index = open_reflection_index(cache, provider)
    await learn(index, "far", problem=PRIMES)
    await learn(index, "near")
    found = await ask(index, threshold=0.9)
    assert found is not None and found[0] == "near"
    asked = embed.asked
    again = open_reflection_index(cache, EmbeddingSimilarity(embed, "letters"))
    assert await ask(again, threshold=0.9) == found
    assert embed.asked - asked == 2, "kept vectors are not asked for again"
    other = open_reflection_index(cache, EmbeddingSimilarity(embed, "another model"))
    asked = embed.asked
    assert await ask(other, threshold=0.9) == found
    assert embed.asked - asked > 2, "another model's vectors are not used"
    await cache.aclose()


async def test_empty_texts_are_not_embedded() -> None:
    embed = Counting()
    provider = EmbeddingSimilarity(embed)
    a, b = await provider.represent([failure(REVERSE, ""), failure(REVERSE, "")])
    assert embed.asked == 1
    assert provider.scores(a, [b]) == [pytest.approx(1.0)]


async def test_a_provider_that_gives_too_few_vectors_is_an_error() -> None:
    async def embed(texts: Sequence[str]) -> list[list[float]]:
        return [[1.0]]

    with pytest.raises(MalformedReplyError, match="one vector"):
        await EmbeddingSimilarity(embed).represent([failure()])


async def test_a_provider_that_fails_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    failing = True

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        if failing:
            raise EndpointError("the endpoint is down")
        return await Counting()(texts)

    index = ReflectionIndex(EmbeddingSimilarity(embed))
    with caplog.at_level(logging.WARNING, "reflexion.cache"):
        await learn(index)
        assert await ask(index) is None
    assert caplog.text.count("the endpoint is down") == 1
    failing = False
    assert await ask(index, problem=REVERSE, feedback=WRONG) is not None, "what was added meanwhile is compared now"


class Endpoint(http.server.BaseHTTPRequestHandler):
    """`/v1/embeddings`, with rows out of order as the protocol allows."""

    protocol_version = "HTTP/1.1"
    keys: ClassVar[list[str | None]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.keys.append(self.headers["Authorization"])
        if body["model"] == "unknown":
            self.answer(400, {"error": {"message": "no such model", "code": "bad"}})
            return
        rows = [{"object": "embedding", "index": n, "embedding": [float(n), 1.0]} for n in range(len(body["input"]))]
        if body["model"] == "short":
            rows.pop()
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        self.answer(200, {"object": "list", "model": body["model"], "data": rows[::-1], "usage": usage})

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_vectors_come_from_an_openai_compatible_endpoint(endpoint: str) -> None:
    embed = EndpointEmbedder("small", base_url=endpoint, api_key="key")
    assert await embed(["a", "b", "c"]) == [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]
    assert Endpoint.keys[-1] == "Bearer key"
    await embed.aclose()
    await embed.aclose()


async def test_an_endpoints_errors_are_ours(endpoint: str) -> None:
    embed = EndpointEmbedder("unknown", base_url=endpoint, api_key="sesame")
    with pytest.raises(RequestRejectedError, match="no such model") as caught:
        await embed(["a"])
    assert "sesame" not in str(caught.value)
    await embed.aclose()
    short = EndpointEmbedder("short", base_url=endpoint)
    with pytest.raises(MalformedReplyError, match="1 vectors for 2 texts"):
        await short(["a", "b"])
    await short.aclose()


async def test_an_endpoint_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    embed = EndpointEmbedder("small", base_url=f"http://127.0.0.1:{free_port()}/v1", retries=0)
    with pytest.raises(EndpointError):
        await asyncio.wait_for(embed(["a"]), 30)
    await embed.aclose()
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        EndpointEmbedder("small")
