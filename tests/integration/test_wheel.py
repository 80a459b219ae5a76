"""The built wheel in an empty environment, without our pins: what a user of `pip install` gets."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NEEDED = {
    "reflexion/py.typed",
    "tasks/py.typed",
    "flows/py.typed",
    "reflexion/datasets/starter.jsonl",
    "reflexion/memory/redis_store.lua",
    "flows/batch.py",
    "tasks/steps.py",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.glob("reflexion_on_prefect-*.whl")
    return built


def pip(python: str | Path, *arguments: str) -> None:
    # The user's own home: pip's configuration and its cache of downloads are there.
    environment = {**os.environ, "HOME": pwd.getpwuid(os.getuid()).pw_dir}
    environment.pop("XDG_CACHE_HOME", None)
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


def test_the_wheel_has_everything_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= NEEDED
    own = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    assert {name.partition("/")[0] for name in own} == {"reflexion", "tasks", "flows"}
    shared = {name.partition(".data/data/share/reflexion-on-prefect/")[2] for name in names - own} - {""}
    assert shared == {"prefect.yaml", "automations.yaml", "server.env"}
    code = {str(p.relative_to(ROOT)) for f in ("reflexion", "tasks", "flows") for p in (ROOT / f).rglob("*.py")}
    assert code <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.prefect
@pytest.mark.model
@pytest.mark.timeout(900)
def test_a_flow_runs_from_an_empty_environment(
    wheel: Path, tmp_path: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    python = tmp_path / "venv" / "bin" / "python"
    for command in re.findall(r"^pip (install .*)$", (ROOT / "README.md").read_text(), re.MULTILINE):
        pip(python, *shlex.split(command.replace("reflexion-on-prefect", str(wheel))))

    # A newcomer's machine: no Prefect home, no server, no settings, and a folder that has nothing of ours.
    for name in [n for n in os.environ if n.startswith(("PREFECT_", "REFLEXION_", "PYTHONPATH"))]:
        monkeypatch.delenv(name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = "eval starter --limit 2 --max-trials 2 --max-completion-tokens 64 --json"
    done = subprocess.run(
        [str(python.with_name("reflexion")), *command.split()],
        cwd=elsewhere,
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["problems"], summary["errors"], summary["llm"]) == (2, 0, "local")
    assert summary["llm_calls"] >= 2
    assert "Starting a local Prefect server" in done.stderr
    assert (elsewhere / "runs" / summary["run"] / "episodes.jsonl").exists()
    assert (isolated / ".prefect" / "prefect.db").exists()
