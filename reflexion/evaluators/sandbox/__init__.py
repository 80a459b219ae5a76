"""Runs untrusted Python code and judges it by trusted tests."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
from functools import lru_cache

from reflexion.evaluators.sandbox.model import Failure, Job, Limits, Report, TestOutcome

__all__ = ["Failure", "Job", "Limits", "Report", "Sandbox", "TestOutcome", "describe_sandbox", "shared_sandbox"]

_RUN = """
import ast, json, os, sys, traceback
out = os.fdopen(os.dup(1), "w"); null = os.open(os.devnull, os.O_RDWR)
os.dup2(null, 1); os.dup2(null, 2)
job = json.load(sys.stdin); report = {"load": None, "hidden": None, "visible": []}
def failure(exc, origin):
    line = next((f.lineno for f in reversed(traceback.extract_tb(exc.__traceback__)) if f.filename == "<solution>"), None)
    line = exc.lineno if isinstance(exc, SyntaxError) and origin == "load" else line
    lines = job["code"].splitlines()
    source = lines[line - 1].strip() if line and line <= len(lines) else ""
    return {"kind": type(exc).__name__, "message": str(exc)[:500], "line": line, "source": source,
            "origin": "solution" if line and origin == "test" else origin}
def test(text):
    try:
        exec(compile(text, "<tests>", "exec"), space)
        return {"passed": True}
    except BaseException as exc:
        result = {"passed": False, "failure": failure(exc, "test")}
        try:
            node = ast.parse(text).body[0].test
            sides = [repr(eval(ast.unparse(n), space))[:300] for n in (node.left, node.comparators[0])]
            result |= {"got": sides[0], "wanted": sides[1]}
        except Exception: pass
        return result
space = {"__name__": "solution"}
try:
    exec(compile(job["code"], "<solution>", "exec"), space)
except BaseException as exc:
    report["load"] = failure(exc, "load")
else:
    report["hidden"] = test(job["tests"]) if job["tests"] else None
    report["visible"] = [test(t) for t in job["visible"]]
json.dump(report, out); out.flush(); os._exit(0)
"""


class Sandbox:
    """Runs each job in a process of its own with limits, an empty environment and a temporary directory."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits

    async def run(self, job: Job) -> Report:
        """Judge one job."""
        text = json.dumps({"code": job.code, "tests": job.tests, "visible": job.visible}).encode()
        with tempfile.TemporaryDirectory(prefix="reflexion-") as folder:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", _RUN,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                cwd=folder, env={}, start_new_session=True, preexec_fn=self._restrict,
            )  # fmt: skip
            try:
                out, _ = await asyncio.wait_for(process.communicate(text), self._limits.wall + 1)
            except TimeoutError:
                out = b""
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
        if process.returncode == -signal.SIGKILL:
            return Report(ended=Failure("Timeout", f"no result within {self._limits.wall:g} s", origin="sandbox"))
        try:
            report = json.loads(out)
        except ValueError:
            return Report(ended=Failure("Exited", f"exit code {process.returncode}", origin="sandbox"))
        return Report(
            load=_failure(report["load"]),
            hidden=_outcome(report["hidden"]),
            visible=tuple(o for o in map(_outcome, report["visible"]) if o is not None),
        )

    def _restrict(self) -> None:
        memory, cpu = self._limits.memory, int(self._limits.wall) + 1
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._limits.file_size, self._limits.file_size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _failure(fields: dict[str, object] | None) -> Failure | None:
    return Failure(**fields) if fields else None  # pyright: ignore[reportArgumentType]


def _outcome(fields: dict[str, object] | None) -> TestOutcome | None:
    if fields is None:
        return None
    failure = fields.pop("failure", None)
    return TestOutcome(failure=_failure(failure), **fields)  # pyright: ignore[reportArgumentType]


@lru_cache(maxsize=8)
def shared_sandbox(limits: Limits) -> Sandbox:
    """The process's sandbox with these limits, opened on first use."""
    return Sandbox(limits)


def describe_sandbox() -> str:
    """Which isolation is used on this machine, and what it does not stop."""
    return "a process with limits; it does not stop network or reading files"
