"""Whatever is done to a memory, it does what a dictionary and a few sorts would."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from reflexion.memory import Memory, MemoryLimits, Query, open_memory
from reflexion.memory.threaded_memory import body_of
from reflexion.types import Lesson
from tests.redis_server import RedisServer
from tests.unit.memory.lessons import Clock, lesson

_names = itertools.count()
_NUMBERS = st.integers(0, 12)


class Model:
    """What the memory should hold, in the plainest way."""

    def __init__(self, limits: MemoryLimits) -> None:
        self.limits = limits
        self.held: dict[str, Lesson] = {}
        self.credited: set[tuple[str, str]] = set()

    def _rank(self, x: Lesson) -> tuple[float, float]:
        worth = {
            "oldest": 0.0,
            "least_used": x.uses,
            # Backends may round usefulness to five digits.
            "least_useful": int((x.wins + 1) / (x.uses + 2) * 1e5),
        }[self.limits.eviction]
        return worth, x.created

    def _evict(self, among: list[Lesson], spare: str) -> None:
        victim = min((x for x in among if x.key != spare), key=self._rank)
        self._forget(victim.key)

    def _forget(self, key: str) -> None:
        del self.held[key]
        self.credited = {c for c in self.credited if c[0] != key}

    def size(self) -> int:
        return sum(len(body_of(x)) for x in self.held.values())

    def add(self, new: Lesson) -> bool:
        if new.key in self.held or len(body_of(new)) > self.limits.bytes:
            return False
        self.held[new.key] = new
        while len(own := [x for x in self.held.values() if x.problem == new.problem]) > self.limits.per_problem:
            self._evict(own, new.key)
        while len(self.held) > self.limits.entries or self.size() > self.limits.bytes:
            self._evict(list(self.held.values()), new.key)
        return True

    def credit(self, key: str, passed: bool, by: str) -> None:
        if key in self.held and (key, by) not in self.credited:
            self.credited.add((key, by))
            x = self.held[key]
            self.held[key] = x.model_copy(update={"uses": x.uses + 1, "wins": x.wins + passed})

    def cleanup(self, now: float) -> int:
        assert self.limits.max_age is not None
        old = [k for k, x in self.held.items() if x.created <= now - self.limits.max_age]
        for key in old:
            self._forget(key)
        return len(old)

    def visible(self, now: float) -> list[Lesson]:
        assert self.limits.max_age is not None
        fresh = [x for x in self.held.values() if x.created > now - self.limits.max_age]
        return sorted(fresh, key=lambda x: x.created)


class MemoryMachine(RuleBasedStateMachine):
    """Random adds, credits, clean-ups and time, compared with the model after each step."""

    url = "memory://"

    @initialize(
        per_problem=st.integers(1, 3),
        entries=st.integers(1, 6),
        size=st.integers(300, 1500),
        eviction=st.sampled_from(["oldest", "least_used", "least_useful"]),
    )
    def start(self, per_problem: int, entries: int, size: int, eviction: str) -> None:
        limits = MemoryLimits.model_validate(
            {"per_problem": per_problem, "entries": entries, "bytes": size, "max_age": 50.0, "eviction": eviction}
        )
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        url = self.url.format(folder=self.folder.name, name=next(_names))
        self.memory: Memory = open_memory(url, limits, clock=self.clock)
        self.model = Model(limits)
        self.ages = itertools.count()

    @rule(number=_NUMBERS, problem=st.integers(0, 3), length=st.integers(0, 300))
    def add(self, number: int, problem: int, length: int) -> None:
        self.clock.now += 1.0
        new = lesson(number, f"p{problem}", created=self.clock.now, text="ä" * length, prompt=f"sort names {number}")
        assert self.runner.run(self.memory.add(new)) == self.model.add(new)

    @rule(numbers=st.lists(_NUMBERS, max_size=4), passed=st.booleans(), by=st.sampled_from("ab"))
    def credit(self, numbers: list[int], passed: bool, by: str) -> None:
        self.runner.run(self.memory.credit([f"k{n}" for n in numbers], passed, by))
        for number in numbers:
            self.model.credit(f"k{number}", passed, by)

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def cleanup(self) -> None:
        assert self.runner.run(self.memory.cleanup()) == self.model.cleanup(self.clock.now)

    @rule(problem=st.integers(0, 3))
    def recall(self, problem: int) -> None:
        query = Query(problem=f"p{problem}", prompt="sort names 1", episode="new", run="new", own=3, similar=3)
        found = self.runner.run(self.memory.recall(query))
        texts = [x.text for x in found]
        assert len(set(texts)) == len(texts)
        visible = self.model.visible(self.clock.now)
        assert all(x in visible for x in found)
        own = list({x.text: x for x in reversed([v for v in visible if v.problem == query.problem])})
        assert texts[: len(own)] == own

    @rule()
    def clear(self) -> None:
        assert self.runner.run(self.memory.clear()) == len(self.model.held)
        self.model.held.clear()
        self.model.credited.clear()

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "memory"):
            return
        stats = self.runner.run(self.memory.stats())
        held = self.model.held
        assert (stats.entries, stats.bytes) == (len(held), self.model.size())
        assert stats.problems == len({x.problem for x in held.values()})
        assert self.runner.run(self.memory.lessons()) == self.model.visible(self.clock.now)

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            self.runner.run(self.memory.aclose())
            self.runner.close()
            self.folder.cleanup()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url_pattern(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("memory_redis")
        yield server.url + "?prefix=property{name}"
    else:
        yield {"memory": "memory://", "sqlite": "sqlite:{folder}/m.sqlite"}[request.param]


def test_a_memory_behaves_like_its_model(url_pattern: str) -> None:
    machine = type("Machine", (MemoryMachine,), {"url": url_pattern})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
