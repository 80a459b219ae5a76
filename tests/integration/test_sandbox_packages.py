"""Installed packages that the sandbox is let see: tests and solutions may import them, and nothing else."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from reflexion.errors import ConfigurationError
from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.sandbox import Job, Report, Sandbox
from reflexion.types import Problem, Trial
from tests.support.backends import working_backends

PACKAGES = ("numpy", "pandas")


@pytest.fixture(scope="module", params=working_backends())
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    sandbox = Sandbox(backend=request.param, size=1, packages=PACKAGES)
    yield sandbox
    sandbox.close()


def judge(sandbox: Sandbox, code: str, tests: str) -> Report:
    job = Job(textwrap.dedent(code), textwrap.dedent(tests), entry_point="f", packages=PACKAGES)
    return sandbox.run_blocking(job, 10.0)


def solved(report: Report) -> bool:
    return report.load is None and report.ended is None and report.hidden is not None and report.hidden.passed


CASES = {
    "arrays": (
        "import numpy as np\ndef f(rows): return np.array(rows).T * 2",
        """
        import numpy as np
        r = f([[1, 2], [3, 4]])
        assert isinstance(r, np.ndarray) and r.shape == (2, 2) and r.tolist() == [[2, 6], [4, 8]]
        assert np.array_equal(f(np.eye(2)), 2 * np.eye(2)) and f([[True]]).dtype == np.int64
        """,
        ("* 2", "* 3"),
    ),
    "numbers of arrays": (
        "import numpy as np\ndef f(xs): return np.mean(xs), np.float32(0.5), np.array(xs).max()",
        """
        import numpy as np
        mean, half, most = f([1, 2, 6])
        assert mean == 3.0 and isinstance(mean, float) and half == 0.5 and most == 6
        assert np.isclose(f([0.1, 0.2])[0], 0.15)
        """,
        ("np.mean", "np.median"),
    ),
    "tables": (
        "import pandas as pd\ndef f(table): return table.assign(total=table['a'] + table['b']).sort_values('a')",
        """
        import pandas as pd
        given = pd.DataFrame({'a': [2, 1], 'b': [3, 4]})
        r = f(given)
        want = pd.DataFrame({'a': [1, 2], 'b': [4, 3], 'total': [5, 5]}, index=[1, 0])
        pd.testing.assert_frame_equal(r, want)
        assert isinstance(r, pd.DataFrame) and list(r.columns) == ['a', 'b', 'total'] and r['total'].sum() == 10
        """,
        ("+ table['b']", "- table['b']"),
    ),
    "tests as the published sets write them": (
        "import numpy as np\ndef f(n): return list(np.arange(n) ** 2)",
        """
        import unittest
        import numpy as np
        class TestCases(unittest.TestCase):
            def test_squares(self):
                np.testing.assert_array_equal(f(4), [0, 1, 4, 9])
                self.assertEqual(len(f(2)), 2)
        """,
        ("** 2", "** 3"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_packages_make_crosses_as_it_is(sandbox: Sandbox, name: str) -> None:
    code, tests, (right, wrong) = CASES[name]
    report = judge(sandbox, code, tests)
    assert solved(report), report
    assert right in code
    assert not solved(judge(sandbox, code.replace(right, wrong), tests))


def test_other_packages_stay_out(sandbox: Sandbox) -> None:
    assert not solved(judge(sandbox, "import pydantic\ndef f(x): return x", "assert f(1) == 1"))
    look = "import os, sys\ndef f(x): return any('pydantic' in os.listdir(p) for p in sys.path if os.path.isdir(p))"
    if sandbox.choose() != "limits":
        assert solved(judge(sandbox, look, "assert f(1) == False"))


async def test_a_problem_says_which_package_to_let_in() -> None:
    problem = Problem(
        id="p", prompt="Write f.", tests="import numpy as np\nassert np.all(f(3) == np.ones(3))", entry_point="f"
    )
    refused = resolve_evaluator("python", problem).check(problem)
    assert refused is not None and refused.endswith("--sandbox-packages numpy")
    evaluator = resolve_evaluator("python", problem, packages=("numpy",))
    assert evaluator.check(problem) is None
    trial = Trial(index=1, answer="import numpy as np\ndef f(n): return np.ones(n)")
    assert (await evaluator.evaluate(problem, trial)).passed
    assert evaluator.config["packages"]["numpy"] != "" and "packages" not in resolve_evaluator("python", problem).config


def test_a_package_that_is_not_installed_is_named() -> None:
    problem = Problem(id="p", prompt="Write f.", tests="assert f(3) == 3", entry_point="f")
    with pytest.raises(ConfigurationError, match="'no_such_package' is not installed"):
        resolve_evaluator("python", problem, packages=("no_such_package",))
