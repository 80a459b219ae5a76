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

from tests.support.prefect_server import PrefectServer
from tests.support.records import delete_deployments

ROOT = Path(__file__).parents[2]

NEEDED = {
    "reflexion/py.typed",
    "reflexion/datasets/starter.jsonl",
    "reflexion/memory/redis_memory.lua",
    "reflexion/flows/batch.py",
    "reflexion/tasks/step_tasks.py",
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
    assert {name.partition("/")[0] for name in own} == {"reflexion"}
    shared = {name.partition(".data/data/share/reflexion-on-prefect/")[2] for name in names - own} - {""}
    assert shared == {"prefect.yaml", "automations.yaml", "server.env"}
    code = {str(p.relative_to(ROOT)) for p in (ROOT / "reflexion").rglob("*.py")}
    assert code <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment made as the README says, with nothing else in it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    for command in re.findall(r"^pip (install .*)$", (ROOT / "README.md").read_text(), re.MULTILINE):
        pip(folder / "bin" / "python", *shlex.split(command.replace("reflexion-on-prefect", str(wheel))))
    return folder


@pytest.mark.prefect
@pytest.mark.model
@pytest.mark.timeout(900)
def test_a_flow_runs_from_an_empty_environment(
    environment: Path, tmp_path: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A newcomer's machine: no Prefect home, no server, no settings, and a folder that has nothing of ours.
    for name in [n for n in os.environ if n.startswith(("PREFECT_", "REFLEXION_", "PYTHONPATH"))]:
        monkeypatch.delenv(name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = "eval starter --limit 2 --max-trials 2 --max-completion-tokens 64 --json"
    done = subprocess.run(
        [str(environment / "bin" / "reflexion"), *command.split()],
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


@pytest.mark.prefect
@pytest.mark.timeout(900)
def test_everything_deploys_from_the_wheel_alone(
    environment: Path, tmp_path: Path, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def prefect(*arguments: str) -> str:
        done = subprocess.run(
            [str(environment / "bin" / "prefect"), "--no-prompt", *arguments],
            cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for pool in ("process", "docker", "kubernetes"):
        prefect("work-pool", "create", pool, "--type", pool)
    file = environment / "share" / "reflexion-on-prefect" / "prefect.yaml"
    told = prefect("deploy", "--prefect-file", str(file), "--all")
    assert told.count("successfully created") == file.read_text().count("entrypoint: reflexion.flows.")
    delete_deployments(prefect_server)

    # A zone that is none is told, by its name.
    wrong = tmp_path / "prefect.yaml"
    wrong.write_text(file.read_text().replace("Europe/Berlin", "Europe/Atlantis"))
    command = [str(environment / "bin" / "prefect"), "--no-prompt", "deploy", "--prefect-file", str(wrong)]
    done = subprocess.run(
        [*command, "--name", "nightly"], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert "Europe/Atlantis" in done.stdout + done.stderr
