"""A run in shards without its flows: how episodes travel, and how each becomes part of the run once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reflexion.datasets import open_dataset
from reflexion.errors import ConfigurationError, DatasetError, StorageError
from reflexion.run.batch_run import Part, execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.run.run_folder import RunFolder
from reflexion.sharding.channel import Channel, EndNote, FolderChannel, Orders, RedisChannel, open_channel
from reflexion.sharding.merge import ShardedRun
from reflexion.sharding.reporter import Reporter
from reflexion.sharding.shard_parameters import Shard, ShardedParameters, for_shard, shard_name
from reflexion.sharding.shard_results import get_result, put_result
from reflexion.testing import ScriptedEndpoint
from reflexion.types import Episode, Outcome, Strategy
from tests.redis_server import RedisServer, free_port
from tests.support.evals import CALLS, write_problems
from tests.waiting import wait_until

NAME = shard_name(0, 2)


class Seen:
    """A progress that counts."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def started(self, folder: RunFolder, total: int, done: int) -> None: ...

    def finished(self, episode: Episode) -> None:
        self.ended.append(episode.problem_id)


def episode(problem: str, outcome: Outcome = Outcome.SOLVED) -> Episode:
    return Episode(problem_id=problem, strategy=Strategy.REFLEXION, outcome=outcome)


def line(problem: str, outcome: Outcome = Outcome.SOLVED) -> bytes:
    return episode(problem, outcome).model_dump_json(exclude_defaults=True).encode() + b"\n"


def shard(**more: object) -> Shard:
    fields = {"run": "r", "token": "t", "index": 0, "count": 2, "dataset_digest": "d", "folder": "/nowhere"}
    return Shard.model_validate(fields | more)


@pytest.fixture(params=["folder", "redis"])
async def channel(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Channel]:
    if request.param == "folder":
        yield open_channel(f"file://{tmp_path}", folder=tmp_path, run="r", token="t")
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    opened = open_channel(server.url, folder=tmp_path, run="r", token=tmp_path.name)
    yield opened
    await opened.aclose()


# -- channels ------------------------------------------------------------------------------------------


async def test_signs_orders_and_ends_are_passed_on(channel: Channel) -> None:
    assert await channel.sign(NAME) == (None, None)
    assert await channel.beat(NAME, "1 a 1") == Orders()
    await channel.order(NAME, Orders(attempt=2, stop=True))
    assert await channel.beat(NAME, "1 a 2") == Orders(attempt=2, stop=True)
    note = EndNote(attempt=2, outcome="failed", kind="DatasetError", message="no such file")
    await channel.end(NAME, note)
    assert await channel.sign(NAME) == ("1 a 2", note)
    await channel.clear([NAME], episodes=False)
    assert await channel.sign(NAME) == (None, None)


async def test_a_folder_is_read_as_it_grows_and_again_when_it_was_sorted(tmp_path: Path) -> None:
    channel = FolderChannel(tmp_path)
    record = tmp_path / NAME / "episodes.jsonl"
    assert await channel.read(NAME) == []
    record.parent.mkdir()
    record.write_bytes(line("b") + line("a")[:10])
    assert await channel.read(NAME) == [line("b")]
    record.write_bytes(line("b") + line("a"))
    assert await channel.read(NAME) == [line("a")]
    assert await channel.read(NAME) == []
    (tmp_path / "sorted").write_bytes(line("a") + line("b"))
    (tmp_path / "sorted").rename(record)
    assert await channel.read(NAME) == [line("a"), line("b")]


async def test_redis_is_read_once_and_from_the_start_when_it_was_emptied(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    channel = RedisChannel(redis_server.url, f"x:{tmp_path.name}")
    assert await channel.send(NAME, [line("a"), line("b")]) == 2
    assert await channel.read(NAME) == [line("a"), line("b")]
    assert await channel.read(NAME) == []
    await channel.clear([NAME], episodes=True)
    assert await channel.send(NAME, [line("b")]) == 1
    assert await channel.read(NAME) == [line("b")]
    await channel.aclose()


async def test_a_redis_that_is_away_is_an_error_without_its_password(tmp_path: Path) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    channel = open_channel(url, folder=tmp_path, run="r", token="t")
    with pytest.raises(StorageError, match="Redis cannot be used") as caught:
        await channel.beat(NAME, "1")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="ftp://…: unknown form"):
        open_channel("ftp://a:secret@b", folder=tmp_path, run="r", token="t")


# -- a shard's side ------------------------------------------------------------------------------------


async def test_a_shard_sends_again_what_was_lost(redis_server: RedisServer, tmp_path: Path) -> None:
    channel = RedisChannel(redis_server.url, f"y:{tmp_path.name}")
    reporter = Reporter(channel, shard(), lambda reason: None)
    with RunFolder.create(tmp_path, "shard", parameters={}) as folder:
        reporter.started(folder, 3, 0)
        async with reporter.reporting():
            for problem in ("a", "b"):
                folder.append(episode(problem))
                reporter.finished(episode(problem))
            reader = RedisChannel(redis_server.url, f"y:{tmp_path.name}")
            got: list[bytes] = []

            async def arrived() -> bool:
                got.extend(await reader.read(NAME))
                return len(got) == 2

            await wait_until(arrived)
            await reader.clear([NAME], episodes=True)  # as a Redis that was restarted is
            folder.append(episode("c"))
            reporter.finished(episode("c"))
        await reporter.close(EndNote(attempt=1, outcome="completed"))
    assert sorted({*await reader.read(NAME)}) == [line("a"), line("b"), line("c")]
    assert (await reader.sign(NAME))[1] == EndNote(attempt=1, outcome="completed")
    await reader.aclose()
    await channel.aclose()


@pytest.mark.parametrize(
    ("orders", "parent", "why"),
    [
        (Orders(stop=True), None, "the run was stopped"),
        (Orders(attempt=2), None, "a later attempt has taken over"),
        (Orders(), 1, "the process the shard belongs to"),
    ],
)
async def test_a_shard_ends_when_it_is_told_to_or_is_alone(
    orders: Orders, parent: int | None, why: str, tmp_path: Path
) -> None:
    channel, told = FolderChannel(tmp_path), list[str]()
    await channel.order(NAME, orders)
    reporter = Reporter(channel, shard(parent=parent), told.append)
    async with reporter.reporting():
        await wait_until(lambda: bool(told))
    assert len(told) == 1 and why in told[0]


# -- a part of a run -----------------------------------------------------------------------------------


async def test_two_parts_are_the_whole_and_take_over_what_is_done(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 3)
    opened = open_dataset(dataset)
    parameters = BatchParameters(dataset=dataset, llm="mock", runs=str(tmp_path))
    parts = []
    for index, earlier in ((0, [episode("p0.0"), episode("p2.0")]), (1, [])):
        part = Part("whole", index, 2, opened.digest, earlier)
        named = parameters.model_copy(update={"name": shard_name(index, 2)})
        parts.append(await execute_batch(named, part=part))
    assert [p.summary.problems for p in parts] == [1, 2]
    assert openai_endpoint.stats.calls == 2 * CALLS  # one of the three had ended before
    with pytest.raises(DatasetError, match="its content is not that of the dataset"):
        await execute_batch(parameters, part=Part("whole", 0, 2, "another", ()))


# -- merging -------------------------------------------------------------------------------------------


def open_run(tmp_path: Path, seen: Seen, folder: RunFolder) -> ShardedRun:
    dataset = write_problems(tmp_path / "problems.jsonl", 4)
    parameters = ShardedParameters(dataset=dataset, shards=2)
    return ShardedRun(folder, open_dataset(dataset), 2, parameters=parameters, progress=seen)


def test_an_episode_is_taken_once_whatever_is_sent(tmp_path: Path) -> None:
    seen = Seen()
    with RunFolder.create(tmp_path, "run", parameters={"max_trials": 1}) as folder:
        run = open_run(tmp_path, seen, folder)
        run.take([line("p1.0"), line("p0.0", Outcome.NOT_RUN), line("p1.0"), b"not an episode\n"])
        run.take([line("p3.0", Outcome.ERROR), line("p3.0", Outcome.ERROR), line("p1.0", Outcome.FAILED)])
        assert seen.ended == ["p1.0", "p3.0"]
        assert (run.missing(0), run.missing(1)) == ([("p0.0", 0)], [("p2.0", 0)])
        run.take([line("p3.0")])  # a later attempt had better luck
        summary = run.finish({"shards": []}, 1, complete=False)
    assert (summary.problems, summary.solved, summary.not_run, summary.errors) == (4, 2, 2, 0)
    lines = [json.loads(x) for x in (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()]
    assert [(x["problem_id"], x["outcome"]) for x in lines] == [
        ("p0.0", "not_run"),
        ("p1.0", "solved"),
        ("p2.0", "not_run"),
        ("p3.0", "solved"),
    ]


def test_a_resumed_run_has_its_token_and_another_run_has_another(tmp_path: Path) -> None:
    tokens = []
    for name in ("run", "run", "other"):
        with RunFolder.start(tmp_path, name, parameters={}) as folder:
            run = open_run(tmp_path, Seen(), folder)
            tokens.append(run.token)
            assert [len(run.done_lines(i)) for i in (0, 1)] == ([1, 0] if len(tokens) == 2 else [0, 0])
            run.take([line("p0.0")])
            run.finish({"shards": []}, 1, complete=False)
    assert tokens[0] == tokens[1] != tokens[2]


def test_shares_of_what_the_run_may_take_add_up_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 4)
    monkeypatch.chdir(tmp_path)
    asked = ShardedParameters(
        dataset="problems.jsonl", shards=2, pool="p", max_cost=4.0, max_tokens=1000, concurrency=9, name="n"
    )
    part = for_shard(asked, 0.25, 2)
    assert (part.max_cost, part.max_tokens, part.concurrency, part.name) == (1.0, 250, 4, None)
    assert part.dataset == dataset and type(part) is BatchParameters
    assert for_shard(asked.model_copy(update={"dataset": "starter"}), 0.5, 1).dataset == "starter"


# -- results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["folder", "shared", "redis"])
def test_a_result_comes_back_by_its_url(
    place: str, openai_endpoint: ScriptedEndpoint, redis_server: RedisServer, tmp_path: Path
) -> None:
    url = {"folder": None, "shared": str(tmp_path / "shared"), "redis": redis_server.url}[place]
    dataset = write_problems(tmp_path / "problems.jsonl", 1)
    result = asyncio.run(execute_batch(BatchParameters(dataset=dataset, llm="mock", name="one")))
    asyncio.run(put_result(result, url, f"id-{place}"))
    assert asyncio.run(get_result(url, f"id-{place}", result.folder)) == result
    with pytest.raises(StorageError):
        asyncio.run(get_result(url, "absent", tmp_path / "absent"))
