"""The monitor: fed by steps, it says which targets are reached, missed, or without data."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reflexion.errors import EndpointError, RateLimitError
from reflexion.telemetry import PerformanceMonitor, PerformanceReport, ProcessSampler, Targets, TargetStatus
from reflexion.types import Decider, Episode, Evaluation, Outcome, Reflection, Strategy, Trial, Usage

USAGE = Usage(prompt=100, completion=10, calls=1, cost_usd=0.01)


class Clock:
    """Time that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def trial(seconds: float = 1.0, *, cached: bool = False) -> Trial:
    return Trial(index=1, answer="a", usage=USAGE, seconds=seconds, cached=cached)


def reflection(*, cached: bool = False) -> Reflection:
    return Reflection(trial=1, text="t", usage=USAGE, seconds=1.0, cached=cached)


def evaluation() -> Evaluation:
    return Evaluation(evaluator="exact", passed=True, score=1.0)


def episode() -> Episode:
    return Episode(problem_id="p", strategy=Strategy.REFLEXION, outcome=Outcome.SOLVED, solved_at=1)


def monitor(clock: Callable[[], float], **targets: float | None) -> PerformanceMonitor:
    return PerformanceMonitor(Targets(**targets), sample_memory=False, clock=clock)  # type: ignore[arg-type]


def status(report: PerformanceReport) -> dict[str, TargetStatus]:
    return {t.name: t.status for t in report.targets}


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_report_says_what_decided_to_stop() -> None:
    def ended(decided_by: Decider, outcome: Outcome = Outcome.SOLVED) -> Episode:
        judged = Trial(index=1, answer="a", evaluation=evaluation().model_copy(update={"decided_by": decided_by}))
        return episode().model_copy(update={"trials": (judged,), "outcome": outcome})

    one, two = monitor(Clock()), monitor(Clock())
    for each in (ended("reference"), ended("reference", Outcome.FAILED), ended("judge", Outcome.ERROR)):
        one.record_episode(each)
    two.record_episode(ended("judge"))
    one.merge(two)
    assert one.report().stopped_by == {"reference": 2, "judge": 1}
    assert "| stopped by | a reference answer (oracle) 2, a judge 1 |" in one.report().to_markdown()
    assert "| stopped by | no data |" in monitor(Clock()).report().to_markdown()


def test_no_target_is_reached_for_lack_of_data() -> None:
    report = PerformanceMonitor().report()
    assert set(status(report).values()) == {TargetStatus.NO_DATA}
    assert report.error_rate is None and report.throughput.requests_per_minute is None
    assert "no data" in report.to_markdown()
    assert not report.missed


def test_targets_say_by_how_much() -> None:
    clock = Clock()
    watch = monitor(clock)
    for second in range(60):
        clock.now += 1
        watch.record_step("trial", trial(6.0 if second > 40 else 1.0), 1.0)
        watch.record_step("reflect", reflection(cached=second % 10 != 0), 0.1)
    report = watch.report()
    found = {t.name: t for t in report.targets}
    assert found["response_time_p95"].status is TargetStatus.MISSED
    assert found["response_time_p95"].margin == pytest.approx(-1.0, abs=0.01)
    assert found["requests_per_minute"].status is TargetStatus.REACHED
    assert found["requests_per_minute"].margin == pytest.approx(20.0, abs=0.1)
    assert found["reflection_hit_rate"].value == 0.9
    assert found["reflection_hit_rate"].status is TargetStatus.REACHED
    assert found["peak_rss_mb"].status is TargetStatus.NO_DATA
    assert found["response_time_p95"].sentence == "missed: 6 s, 1 beyond < 5 s"
    assert [t.name for t in report.missed] == ["response_time_p95"]


def test_targets_can_be_set_and_left_out() -> None:
    clock = Clock()
    watch = monitor(clock, response_time_p95=10.0, requests_per_minute=None)
    watch.record_step("trial", trial(6.0), 6.0)
    assert status(watch.report())["response_time_p95"] is TargetStatus.REACHED
    assert "requests_per_minute" not in status(watch.report())


def test_a_burst_is_no_sustained_load() -> None:
    clock = Clock()
    watch = monitor(clock)
    watch.record_step("trial", trial(0.1), 0.1)
    report = watch.report()
    assert report.throughput.requests_per_minute == pytest.approx(600)
    result = next(t for t in report.targets if t.name == "requests_per_minute")
    assert (result.status, result.note) == (TargetStatus.NO_DATA, "0.1 s is too short for a sustained load")


def test_a_figure_on_the_target_itself_misses_it() -> None:
    clock = Clock()
    watch = monitor(clock, response_time_p95=1.0)
    watch.record_step("trial", trial(1.0), 1.0)
    assert status(watch.report())["response_time_p95"] is TargetStatus.MISSED


def test_errors_by_class_hits_by_step_and_tokens() -> None:
    clock = Clock()
    watch = monitor(clock)
    watch.record_step("trial", trial(), 1.0)
    watch.record_step("trial", trial(cached=True), 0.0)
    watch.record_step("evaluate", evaluation(), 0.0)
    watch.record_step("memorize", None, 0.0)
    watch.record_error("trial", EndpointError("500"))
    watch.record_error("trial", RateLimitError("429"))
    watch.record_episode(episode())
    report = watch.report()
    assert report.errors_by_class == {"EndpointError": 1, "RateLimitError": 1}
    assert report.error_rate == 0.5  # two executed steps that tell of themselves, two errors
    assert report.steps["trial"].hit_rate == 0.5
    assert report.steps["evaluate"].hit_rate is None
    assert report.steps["memorize"].executed == 1
    assert (report.tokens.prompt, report.tokens.completion, report.tokens.saved) == (100, 10, 110)
    assert (report.requests, report.responses, report.llm_calls, report.episodes) == (2, 1, 1, 1)
    assert report.cost_usd == 0.01


def test_sliding_throughput_forgets_and_the_whole_run_does_not() -> None:
    clock = Clock()
    watch = monitor(clock)
    for _ in range(120):
        clock.now += 1
        watch.record_step("trial", trial(1.0), 1.0)
    clock.now += 30
    report = watch.report().throughput
    assert report.requests_per_minute == pytest.approx(60, abs=1)
    assert report.recent_requests_per_minute == pytest.approx(30, abs=1)
    clock.now += 60
    assert watch.report().throughput.recent_requests_per_minute == 0


def test_two_monitors_merge_into_what_one_would_have_seen() -> None:
    clock = Clock()
    left, right, both = monitor(clock), monitor(clock), monitor(clock)
    for i in range(40):
        clock.now += 0.5
        for watch in (left if i % 2 else right, both):
            watch.record_step("trial", trial(i / 10, cached=i % 5 == 0), i / 10)
            watch.record_error("reflect", EndpointError("500"))
            watch.record_episode(episode())
    left.merge(right)
    merged, whole = left.report(), both.report()
    assert merged.model_dump(exclude={"response_time_mean", "cost_usd"}) == whole.model_dump(
        exclude={"response_time_mean", "cost_usd"}
    )
    assert merged.response_time_mean == pytest.approx(whole.response_time_mean)
    assert merged.cost_usd == pytest.approx(whole.cost_usd)
    with pytest.raises(ValueError, match="itself"):
        left.merge(left)


def test_many_threads_lose_no_record() -> None:
    watch = PerformanceMonitor(sample_memory=False)

    def work() -> None:
        for _ in range(500):
            watch.record_step("trial", trial(), 0.1)
            watch.record_episode(episode())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = watch.report()
    assert (report.requests, report.episodes, report.tokens.prompt) == (4000, 4000, 400_000)


def test_json_round_trip_and_markdown() -> None:
    clock = Clock()
    watch = monitor(clock)
    watch.record_step("trial", trial(), 1.0)
    watch.record_error("reflect", EndpointError("500"))
    report = watch.report()
    assert PerformanceReport.model_validate_json(report.to_json()) == report
    assert json.loads(report.to_json())["targets"][0]["status"] == "reached"
    text = report.to_markdown()
    assert "| response_time_p95 | < 5 s | 1 s | reached | +4 s |" in text
    assert "50.0% (EndpointError 1)" in text


def test_prometheus_text_parses_and_carries_the_figures() -> None:
    clock = Clock()
    watch = monitor(clock)
    watch.record_step("trial", trial(2.0), 2.0)
    watch.record_step("reflect", reflection(cached=True), 0.0)
    watch.record_error("evaluate", RateLimitError('with "quotes"\nand lines'))
    watch.record_episode(episode())
    families = {f.name: f for f in text_string_to_metric_families(watch.report().to_prometheus())}
    samples = {(s.name, *sorted(s.labels.items())): s.value for family in families.values() for s in family.samples}
    assert samples["reflexion_steps_total", ("result", "executed"), ("step", "trial")] == 1
    assert samples["reflexion_steps_total", ("result", "cached"), ("step", "reflect")] == 1
    assert samples["reflexion_steps_total", ("result", "error"), ("step", "evaluate")] == 1
    assert samples["reflexion_errors_total", ("class", "RateLimitError")] == 1
    assert samples["reflexion_response_time_seconds", ("quantile", "0.95")] == pytest.approx(2.0)
    assert samples[("reflexion_response_time_seconds_count",)] == 1
    assert samples["reflexion_cache_hit_ratio", ("step", "reflect")] == 1.0
    assert samples["reflexion_target_reached", ("target", "response_time_p95")] == 1.0
    assert ("reflexion_target_reached", ("target", "peak_rss_mb")) not in samples
    assert families["reflexion_response_time_seconds"].type == "summary"
    assert families["reflexion_steps"].type == "counter"


def test_an_empty_report_is_valid_prometheus_text() -> None:
    families = list(text_string_to_metric_families(PerformanceMonitor(sample_memory=False).report().to_prometheus()))
    assert {f.name for f in families} >= {"reflexion_requests", "reflexion_llm_calls"}


def test_memory_of_the_process_tree_is_sampled_and_its_peak_kept() -> None:
    with PerformanceMonitor() as watch:
        watch.record_step("trial", trial(), 1.0)
        alone = watch.report().memory
        assert alone.peak_rss_mb is not None
        child = subprocess.Popen(
            [sys.executable, "-c", "x = bytearray(80_000_000); print('ready', flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            during = watch.report().memory
            child.communicate("\n")
        after = watch.report().memory
    assert during.rss_mb is not None and after.rss_mb is not None and after.peak_rss_mb is not None
    assert during.rss_mb > after.rss_mb + 80
    assert after.peak_rss_mb >= during.rss_mb > alone.peak_rss_mb + 80


def test_a_spike_between_two_samples_is_not_missed() -> None:
    code = (
        "from reflexion.telemetry import ProcessSampler; s = ProcessSampler(); s.sample(); "
        "x = bytearray(300_000_000); del x; s.sample(); print(s.peak, s.rss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, rss = map(int, done.stdout.split())
    assert peak > 300_000_000 > rss


def test_the_sampling_thread_starts_with_the_first_record_and_ends_with_the_monitor() -> None:
    def samplers() -> int:
        return sum(t.name == "reflexion-memory-sampler" for t in threading.enumerate())

    before = samplers()
    watch = PerformanceMonitor()
    assert samplers() == before
    watch.record_episode(episode())
    watch.record_episode(episode())
    assert samplers() == before + 1
    del watch
    gc.collect()
    assert samplers() == before

    with ProcessSampler(interval=0.01) as sampler:
        wait_until(lambda: sampler.peak is not None)
    sampler.stop()
    assert not sampler.running


def test_a_process_ends_while_a_monitor_still_samples() -> None:
    code = (
        "from reflexion.telemetry import PerformanceMonitor; from reflexion.errors import EndpointError; "
        "m = PerformanceMonitor(); m.record_error('trial', EndpointError('x'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
