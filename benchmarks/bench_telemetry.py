"""What watching a run costs: the monitor by step, the summary by episode, the record by episode.

Run with `pytest benchmarks/bench_telemetry.py`. A step asks a model or starts a sandbox, so it takes
milliseconds at least; what is measured here is added to each one.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from reflexion.report import write_report
from reflexion.run.run_folder import RunFolder
from reflexion.telemetry import PerformanceMonitor, ProcessSampler, SummaryBuilder
from reflexion.types import Episode, Evaluation, Outcome, Reflection, Strategy, Trial, Usage


def _episode(number: int) -> Episode:
    usage = Usage(prompt=400, completion=120, calls=1, cost_usd=0.0004)
    failed = Evaluation(evaluator="python", passed=False, score=0.0, feedback="AssertionError: f(2) gave 3, not 4")
    passed = failed.model_copy(update={"passed": True, "score": 1.0, "feedback": ""})
    reflection = Reflection(trial=1, text="I added where the task multiplies. " * 4, usage=usage, seconds=0.8)
    answer = "def f(x):\n    return x + 1\n" * 10
    return Episode(
        problem_id=f"problem-{number}",
        strategy=Strategy.REFLEXION,
        outcome=Outcome.SOLVED,
        solved_at=2,
        trials=(
            Trial(index=1, answer=answer, usage=usage, seconds=1.2, evaluation=failed, reflection=reflection),
            Trial(index=2, answer=answer, usage=usage, seconds=1.1, evaluation=passed),
        ),
        seconds=3.2,
    )


def test_record_step(benchmark: Any) -> None:
    with PerformanceMonitor() as monitor:
        trial = _episode(0).trials[0]
        benchmark(monitor.record_step, "trial", trial, 1.2)


def test_report(benchmark: Any) -> None:
    with PerformanceMonitor() as monitor:
        for number in range(1000):
            monitor.record_step("trial", _episode(number).trials[0], 1.2)
        benchmark(monitor.report)


def test_memory_sampling_share_of_a_core() -> None:
    """The sampler promises to stretch its pauses rather than take more than a quarter of a percent."""
    sampler = ProcessSampler(interval=0.001)
    sampler.sample()
    begun, cpu = time.perf_counter(), time.process_time()
    sampler.start()
    while time.perf_counter() - begun < 3.0:
        time.sleep(0.1)
    sampler.stop()
    share = (time.process_time() - cpu) / (time.perf_counter() - begun)
    print(f"memory sampling: {share:.2%} of a core")
    assert share < 0.02


def test_summary_of_an_episode(benchmark: Any) -> None:
    builder, episode = SummaryBuilder(), _episode(0)
    benchmark(builder.add, episode)


def test_append_an_episode(benchmark: Any, tmp_path: Path) -> None:
    numbers = itertools.count()
    with RunFolder.create(tmp_path, "r", parameters={}) as run:
        benchmark(lambda: run.append(_episode(next(numbers))))


@pytest.mark.parametrize("episodes", [1_000, 10_000])
def test_finish(benchmark: Any, tmp_path: Path, episodes: int) -> None:
    with RunFolder.create(tmp_path, "r", parameters={"max_trials": 3}) as run:
        for number in range(episodes):
            run.append(_episode(number))
        order = [(f"problem-{n}", 0) for n in range(episodes)]
        benchmark.pedantic(run.finish, args=(order,), kwargs={"wall_seconds": 1.0}, rounds=1)


def test_html_report_of_10_000_episodes(benchmark: Any, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "r", parameters={"max_trials": 3}) as run:
        for number in range(10_000):
            run.append(_episode(number))
        run.finish([], wall_seconds=1.0)
    page = benchmark.pedantic(write_report, args=(tmp_path / "r",), rounds=1)
    print(f"report.html of 10,000 episodes: {page.stat().st_size / 1e6:.1f} MB")


def test_share_of_a_run() -> None:
    """Steps and sampling together, against the leanest episode known: 17 ms of CPU in bulk task runs."""
    records, rounds = 7, 500  # two trials, two verdicts, a reflection, a memorize step and the episode
    episode = _episode(0)
    first, second = episode.trials
    assert first.evaluation is not None and second.evaluation is not None
    with PerformanceMonitor(sample_memory=False) as monitor:
        begun = time.process_time()
        for _ in range(rounds):
            monitor.record_step("trial", first, 1.2)
            monitor.record_step("evaluate", first.evaluation, 0.02)
            monitor.record_step("reflect", first.reflection, 0.8)
            monitor.record_step("memorize", None, 0.001)
            monitor.record_step("trial", second, 1.1)
            monitor.record_step("evaluate", second.evaluation, 0.02)
            monitor.record_episode(episode)
        cost = (time.process_time() - begun) / rounds
    print(f"{records} records of an episode: {cost * 1e6:.0f} us, {cost / 0.017:.2%} of 17 ms")
    assert cost / 0.017 < 0.02
