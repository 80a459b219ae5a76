"""Small evaluations for tests: problems in a file, the three engines, and the command line as a process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from reflexion.run.batch_run import BatchResult, execute_batch
from reflexion.run.parameters import BatchParameters

__all__ = ["CALLS", "ENGINES", "Engine", "cli", "episodes", "evaluate", "start_cli", "write_problems"]

Engine = Literal["direct", "task runs", "shared task runs"]
ENGINES: tuple[Engine, ...] = ("direct", "task runs", "shared task runs")

CALLS = 3
"""Calls of an episode of the scripted endpoint: a wrong answer, a reflection, the right answer."""

SECONDS = 280.0
"""A command may take; none needs a tenth of it on an idle machine."""

VOLATILE = {"seconds", "cached", "created", "key"}
"""What may differ between two records of the same work."""


def write_problems(path: Path, distinct: int, copies: int = 1, start: int = 0) -> str:
    """Problems with answer 42; copies have ids of their own and the same content, and lie far apart."""
    lines = [
        json.dumps({"id": f"p{n}.{copy}", "prompt": f"What is {n} times two, plus {42 - 2 * n}?", "answer": "42"})
        for copy in range(copies)
        for n in range(start, start + distinct)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def evaluate(engine: Engine, dataset: str, **parameters: Any) -> BatchResult:
    """Run a dataset by one of the three engines."""
    if engine != "direct":
        from reflexion.flows.batch import batch_evaluation

        size = 1 if engine == "task runs" else 8
        return batch_evaluation.run(BatchParameters(dataset=dataset, llm="mock", steps_per_task_run=size, **parameters))
    return asyncio.run(execute_batch(BatchParameters(dataset=dataset, llm="mock", **parameters)))


def start_cli(*arguments: str, process_group: int | None = None) -> subprocess.Popen[str]:
    """`reflexion …` in a process of its own, its output in pipes.

    Args:
        process_group: 0: in a group of its own.
    """
    command = [sys.executable, "-c", "from reflexion.cli.main import main; main()", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        process_group=process_group,
    )


def cli(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `reflexion …`."""
    with start_cli(*arguments) as process:
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, out, err


def episodes(folder: Path, leave_out: Sequence[str] = ()) -> list[Any]:
    """A run's record without what may differ between two records of the same work."""
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    return [_steady(json.loads(line), VOLATILE | set(leave_out)) for line in lines]


def _steady(value: Any, volatile: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _steady(v, volatile) for name, v in value.items() if name not in volatile}
    return [_steady(v, volatile) for v in value] if isinstance(value, list) else value
