"""What goes into the sandbox and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from reflexion.evaluators.sandbox.judging_plan import TestPlan, make_test_plan

__all__ = ["Failure", "Job", "Limits", "Report", "TestOutcome"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one evaluation may use.

    Attributes:
        wall: seconds for loading the solution and running all its tests.
        memory: bytes of address space of each process.
        processes: further processes a solution may start; 0 forbids it. Threads are always allowed.
        threads: threads and processes together.
        file_size: bytes of one file, and of all files together where the temporary directory is in memory.
        open_files: open file descriptors.
        message: bytes of one value that crosses between solution and tests.
    """

    wall: float = 10.0
    memory: int = 1 << 30
    processes: int = 0
    threads: int = 64
    file_size: int = 64 << 20
    open_files: int = 128
    message: int = 16 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """One solution and its tests.

    Attributes:
        code: the untrusted solution.
        tests: trusted Python code that decides; never shown.
        visible: asserts that may be shown, each judged by itself.
        entry_point: what is under test: `add`, `Solution().add`, `__main__` for a whole program.
        prelude: trusted code of the prompt, from which tests take helpers and imports.
        prompt: what the model was asked; None: not known.
        own_solution: the record's own solution, if it has one.
        packages: packages that tests and solution may import.
    """

    code: str
    tests: str | None = None
    visible: tuple[str, ...] = ()
    entry_point: str | None = None
    prelude: str = ""
    prompt: str | None = None
    own_solution: str | None = None
    packages: tuple[str, ...] = ()

    @property
    def plan(self) -> TestPlan:
        """How its answers are judged: it follows from all but the code."""
        return make_test_plan(
            self.tests,
            self.visible,
            self.entry_point,
            prelude=self.prelude,
            prompt=self.prompt,
            own_solution=self.own_solution,
            packages=self.packages,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed.

    Attributes:
        kind: class of the exception.
        message: its text.
        line: number of the solution's line it came from, from 1; None when it did not come from there.
        source: that line.
        origin: `load` while the solution's module ran, `solution` in a call of it, `test` in a test,
            `sandbox` when the process ended.
    """

    kind: str
    message: str = ""
    line: int | None = None
    source: str = ""
    origin: Literal["load", "solution", "test", "sandbox"] = "test"


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """The verdict of one test; `got` and `wanted` as Python source where it compares two values."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    passed: bool
    failure: Failure | None = None
    got: str | None = None
    wanted: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What the sandbox says of one job.

    Attributes:
        load: why the solution could not be loaded, or None.
        hidden: verdict of `Job.tests`; None when there are none or they were not reached.
        visible: verdicts of `Job.visible`, as far as they were reached.
        ended: why the solution's process ended before its tests did: `Timeout`, `Exited`, `Killed`.
        cpu_seconds: of all processes of the evaluation.
    """

    load: Failure | None = None
    hidden: TestOutcome | None = None
    visible: tuple[TestOutcome, ...] = field(default=())
    ended: Failure | None = None
    cpu_seconds: float = 0.0
