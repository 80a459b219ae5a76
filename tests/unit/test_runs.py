"""A run's folder: whole lines, one writer, a resume that mends, a finish that sorts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reflexion.errors import ConfigurationError, StorageError
from reflexion.run.run_folder import RunFolder, check_run_name, default_run_name
from reflexion.types import Episode, EpisodeError, Evaluation, Outcome, Strategy, Trial, Usage

PARAMETERS = {"dataset": "starter", "llm": "scripted", "strategy": Strategy.REFLEXION, "max_trials": 3}


def episode(problem: str, *, repeat: int = 0, outcome: Outcome = Outcome.SOLVED, answer: str = "42") -> Episode:
    solved = outcome is Outcome.SOLVED
    trial = Trial(
        index=1,
        answer=answer,
        model="m",
        usage=Usage(prompt=10, completion=5, calls=1, cost_usd=0.001),
        seconds=0.2,
        evaluation=Evaluation(evaluator="exact", passed=solved, score=float(solved)),
    )
    return Episode(
        problem_id=problem,
        repeat=repeat,
        strategy=Strategy.REFLEXION,
        outcome=outcome,
        solved_at=1 if solved else None,
        trials=(trial,),
        error=EpisodeError(step="trial", kind="EndpointError", message="500") if outcome is Outcome.ERROR else None,
    )


def start(root: Path, **changes: object) -> RunFolder:
    return RunFolder.start(root, "r", parameters={**PARAMETERS, **changes})


def test_every_episode_is_on_disk_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        run.append(episode("p1"))
        run.append(episode("p2", answer="line\nbreak \u2028 <script>"))
        lines = (tmp_path / "r" / "episodes.jsonl").read_text("utf-8").split("\n")
        assert [Episode.model_validate_json(line) for line in lines[:-1]] == list(run.episodes())
        assert lines[-1] == ""
    assert json.loads((tmp_path / "r" / "parameters.json").read_text())["strategy"] == "reflexion"


def test_a_reader_sees_a_run_that_is_being_written(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        run.append(episode("p1"))
        with (tmp_path / "r" / "episodes.jsonl").open("ab") as file:
            file.write(b'{"problem_id": "p2", "outc')
        reader = RunFolder.open(tmp_path / "r")
        assert [e.problem_id for e in reader.episodes()] == ["p1"]
        assert reader.summary() is None
        with pytest.raises(StorageError, match="not open for writing"):
            reader.append(episode("p3"))


def test_resume_knows_what_is_done_and_runs_errors_again(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        run.append(episode("solved"))
        run.append(episode("failed", outcome=Outcome.FAILED))
        run.append(episode("broken", outcome=Outcome.ERROR))
        run.append(episode("stopped", outcome=Outcome.NOT_RUN))
    with start(tmp_path) as run:
        assert run.repaired is None
        assert [run.done(p) for p in ("solved", "failed", "broken", "stopped", "new")] == [
            True,
            True,
            False,
            False,
            False,
        ]
        assert not run.done("solved", repeat=1)
        run.append(episode("broken"))
        assert run.done("broken")
        assert len(run) == 4


def test_a_torn_last_line_is_cut_off_and_told(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        run.append(episode("p1"))
        run.append(episode("p2"))
    file = tmp_path / "r" / "episodes.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    with start(tmp_path) as run:
        assert run.repaired is not None
        assert "line 2 was torn" in run.repaired
        assert run.done("p1") and not run.done("p2")
        run.append(episode("p2"))
    assert [e.problem_id for e in RunFolder.open(tmp_path / "r").episodes()] == ["p1", "p2"]


def test_a_damaged_line_in_the_middle_names_file_and_line(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        run.append(episode("p1"))
    file = tmp_path / "r" / "episodes.jsonl"
    file.write_bytes(b"not json\n" + file.read_bytes())
    with pytest.raises(StorageError, match=r"episodes\.jsonl: line 1 is not an episode"):
        start(tmp_path)
    file.write_bytes(b'{"problem_id":"p","outcome":"solved","trials":7}\n')
    with pytest.raises(StorageError, match="cannot be read"):
        list(RunFolder.open(tmp_path / "r").episodes())


def test_finish_sorts_keeps_the_newest_and_counts_what_is_missing(tmp_path: Path) -> None:
    order = [(p, r) for r in (0, 1) for p in ("a", "b", "c")]
    with start(tmp_path) as run:
        for problem, repeat in [("c", 1), ("b", 0), ("a", 1), ("c", 0), ("a", 0)]:
            run.append(episode(problem, repeat=repeat, outcome=Outcome.ERROR if problem == "b" else Outcome.SOLVED))
        run.append(episode("b", answer="newest"))
        summary = run.finish(order, wall_seconds=30.0, peak_rss_mb=99.5)
        assert (summary.problems, summary.episodes, summary.solved, summary.not_run, summary.errors) == (3, 6, 5, 1, 0)
        assert summary.pass_rate == pytest.approx(5 / 6)
        assert summary.solved_by_trial == (5, 5, 5)
        assert summary.episodes_per_minute == 12
        run.append(episode("b", repeat=1))  # appending goes on after it
    reader = RunFolder.open(tmp_path / "r")
    keys = [(e.problem_id, e.repeat) for e in reader.episodes()]
    assert keys == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("c", 1), ("b", 1)]
    assert next(e for e in reader.episodes([("b", 0)])).answer == "newest"
    assert reader.summary() == summary
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == [
        ".lock",
        "episodes.jsonl",
        "parameters.json",
        "summary.json",
    ]


def test_a_resume_with_nothing_to_do_keeps_the_figures_of_the_work(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        run.append(episode("a"))
        first = run.finish([("a", 0)], wall_seconds=30.0, peak_rss_mb=99.5)
    with start(tmp_path) as run:
        assert run.finish([("a", 0)], wall_seconds=0.01, peak_rss_mb=1.0) == first


def test_marks_of_what_did_not_run_are_no_throughput(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        run.append(episode("a"))
        run.append(episode("b", outcome=Outcome.NOT_RUN))
        summary = run.finish([("a", 0), ("b", 0)], wall_seconds=60.0)
        assert (summary.episodes_per_minute, summary.not_run) == (1.0, 1)


def test_one_process_writes_a_run(tmp_path: Path) -> None:
    with start(tmp_path):
        with pytest.raises(StorageError, match=rf"pid {os.getpid()}\) is writing this run"):
            start(tmp_path)
    start(tmp_path).close()


@pytest.mark.parametrize(
    ("field", "value"), [("dataset", "other"), ("llm", "gpt-4o"), ("strategy", "none"), ("seed", 7)]
)
def test_resume_with_another_identity_names_the_field(tmp_path: Path, field: str, value: object) -> None:
    start(tmp_path).close()
    with pytest.raises(ConfigurationError, match=f"^{field}: the run 'r' was started with"):
        start(tmp_path, **{field: value})
    start(tmp_path, concurrency=99).close()


def test_create_refuses_an_existing_run_and_resume_a_missing_one(tmp_path: Path) -> None:
    start(tmp_path).close()
    with pytest.raises(ConfigurationError, match="exists already"):
        RunFolder.create(tmp_path, "r", parameters={})
    with pytest.raises(ConfigurationError, match="no run"):
        RunFolder.resume(tmp_path, "other", parameters={})
    with pytest.raises(ConfigurationError, match="not a run's folder"):
        RunFolder.open(tmp_path)


def test_passwords_in_urls_never_reach_the_folder(tmp_path: Path) -> None:
    with start(tmp_path, cache="redis://user:hunter2@host/0", nested={"urls": ["redis://:hunter2@h"]}) as run:
        assert run.parameters["cache"] == "redis://user:***@host/0"
    assert "hunter2" not in (tmp_path / "r" / "parameters.json").read_text()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 129, "a\n"])
def test_names_that_cannot_be_folders_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name: "):
        check_run_name(name)


def test_default_names_are_valid_and_readable() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (
        default_run_name("data/My Set.jsonl", "gpt-4o", "reflexion", now) == "my-set-gpt-4o-reflexion-20260102-030405"
    )
    for llm in ("gguf:/models/a b.gguf", "replay:x/y.jsonl", "org/model:free", "", "…"):
        check_run_name(default_run_name("", llm, "last_attempt", now))


def test_a_folder_that_cannot_be_made_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        RunFolder.create(tmp_path / "file", "r", parameters={})


WRITER = """
    import resource, signal, sys
    sys.path.insert(0, sys.argv[2])
    from tests.unit.test_runs import episode, start
    from pathlib import Path
    run = start(Path(sys.argv[1]))
"""


def child(root: Path, body: str) -> subprocess.Popen[str]:
    repository = str(Path(__file__).resolve().parents[2])
    code = textwrap.dedent(WRITER) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root), repository], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_kill_9_loses_no_episode_that_was_told_of(tmp_path: Path) -> None:
    writer = child(
        tmp_path,
        """
        for i in range(10_000_000):
            run.append(episode(f"p{i}", answer="x" * 5000))
            print(i, flush=True)
        """,
    )
    assert writer.stdout is not None
    with writer, writer.stdout as told:
        last = -1
        while last < 50:
            last = int(told.readline())
        os.kill(writer.pid, signal.SIGKILL)
        last = int(([str(last), *told.read().split("\n")[:-1]])[-1])
    with start(tmp_path) as run:
        assert all(run.done(f"p{i}") for i in range(last + 1))
        assert last + 1 <= len(run) <= last + 2
        assert len(list(run.episodes())) == len(run)


def test_a_full_disk_leaves_whole_lines_and_names_the_file(tmp_path: Path) -> None:
    """A file size limit fails as a full disk does: part of the line is written, then an error."""
    writer = child(
        tmp_path,
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        from reflexion.errors import StorageError
        told = 0
        try:
            while True:
                run.append(episode(f"p{told}", answer="x" * 3000))
                told += 1
        except StorageError as error:
            print(told, error)
        """,
    )
    output, _ = writer.communicate(timeout=60)
    count, _, message = output.strip().partition(" ")
    assert "episodes.jsonl: File too large" in message
    with start(tmp_path) as run:
        assert run.repaired is None
        assert len(run) == int(count) > 0


def test_finish_on_a_full_disk_leaves_the_old_record(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        for i in range(20):
            run.append(episode(f"p{i}", answer="x" * 1000))
    before = (tmp_path / "r" / "episodes.jsonl").read_bytes()
    limit = len(before) // 2
    output, _ = child(
        tmp_path,
        f"""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        from reflexion.errors import StorageError
        try:
            run.finish([], wall_seconds=1)
        except StorageError as error:
            print("refused", error)
        """,
    ).communicate(timeout=60)
    assert output.startswith("refused")
    assert (tmp_path / "r" / "episodes.jsonl").read_bytes() == before
    assert not [p for p in (tmp_path / "r").iterdir() if p.name.startswith(".episodes")]


def test_memory_of_finish_does_not_hold_the_episodes(tmp_path: Path) -> None:
    """40 MB of episodes are sorted and counted in a process that may grow by much less."""
    body = """
        import tracemalloc
        for i in range(400):
            run.append(episode(f"p{i}", answer="x" * 100_000))
        run.finish([], wall_seconds=1)
        tracemalloc.start()
        run.finish([(f"p{i}", 0) for i in reversed(range(400))], wall_seconds=1)
        print(tracemalloc.get_traced_memory()[1])
    """
    output, _ = child(tmp_path, body).communicate(timeout=60)
    assert int(output) < 8_000_000
