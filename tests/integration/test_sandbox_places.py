"""The sandbox works wherever the interpreter lies, the temporary folder included."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reflexion.evaluators.sandbox import BACKENDS, Backend
from tests.support.backends import working_backends

_CHECK = """
import sys
from reflexion.evaluators.sandbox import Job, Sandbox, SandboxError
sandbox = Sandbox(backend=sys.argv[1], size=1)
try:
    sandbox.choose()
except SandboxError as error:
    print("absent", error)
    raise SystemExit
code = "import tempfile, json\\ndef f(x):\\n    with tempfile.TemporaryFile() as file: file.write(b'x')\\n    return json.dumps(x)"
files = "import tempfile, os\\nwith tempfile.NamedTemporaryFile() as file: assert f([1]) == '[1]' and os.path.exists(file.name)"
for tests in ("assert f([1]) == '[1]'", files):
    report = sandbox.run_blocking(Job(code, tests, entry_point="f"))
    assert report.hidden and report.hidden.passed, report
print("works")
sandbox.close()
"""  # noqa: E501


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Path]:
    """A Python in the temporary folder: the real one's binary and standard library."""
    root = Path(tempfile.mkdtemp(prefix="python-elsewhere-"))
    root.chmod(0o755)
    binary = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    (root / "bin").mkdir()
    shutil.copy2(binary, root / "bin" / binary.name)
    skipped = shutil.ignore_patterns(
        "site-packages", "test", "tests", "idlelib", "ensurepip", "__pycache__", "config-*"
    )
    shutil.copytree(library, root / "lib" / library.name, ignore=skipped)
    shared = sysconfig.get_config_var("LIBDIR")
    for file in Path(shared).glob("libpython3*.so*") if shared else ():
        shutil.copy2(file, root / "lib" / file.name)
    yield root / "bin" / binary.name
    shutil.rmtree(root)


@pytest.mark.parametrize("backend", BACKENDS)
def test_python_in_the_temporary_folder(interpreter: Path, backend: Backend) -> None:
    here = Path(__file__).parents[2]
    packages = [p for p in sys.path if p.endswith("site-packages")]
    env = {
        "PYTHONPATH": os.pathsep.join([str(here), *packages]),
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": str(interpreter.parents[1] / "lib"),
    }
    done = subprocess.run([interpreter, "-c", _CHECK, backend], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == ("works" if backend in working_backends() else "absent"), done.stdout
