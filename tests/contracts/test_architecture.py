"""What holds the house together: the direction of imports, public names, file sizes and the price of an import."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("reflexion",)

LIMITS = {"reflexion": 750, "tests": 500, "benchmarks": 500}
"""Lines a file may have. What belongs together stays together: a limit is no reason to cut a file in two."""


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sources(*PACKAGES)}


def is_deferred(node: ast.AST) -> bool:
    """Whether a node is not carried out when its file is imported."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def imports(path: Path, *, at_import_time: bool = False) -> set[str]:
    """Modules a file imports; on request only those imported when the file itself is."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                above = module_name(path).split(".")[: -child.level] if child.level else []
                name = ".".join([*above, *filter(None, [child.module])])
                found.update({f"{name}.{a.name}" if f"{name}.{a.name}" in MODULES else name for a in child.names})
            elif not (at_import_time and is_deferred(child)):
                visit(child)

    visit(ast.parse(path.read_text(), str(path)))
    return found


LAYERS = ("reflexion.cli", "reflexion.flows", "reflexion.tasks", "reflexion")
"""From the top down: a module imports from its own layer and from those below it, never from above."""


def layer(name: str) -> int:
    return next(n for n, package in enumerate(LAYERS) if f"{name}.".startswith(f"{package}."))


def test_imports_run_one_way() -> None:
    wrong = {
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imports(path)
        if other.partition(".")[0] == "reflexion" and layer(other) < layer(name)
    }
    assert not wrong


def test_only_flows_tasks_and_the_command_line_import_prefect() -> None:
    wrong = {
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imports(path)
        if layer(name) == len(LAYERS) - 1 and other.partition(".")[0] in {"prefect", "prefect_redis"}
    }
    assert not wrong


def test_nothing_is_imported_by_the_names_of_the_links() -> None:
    """`flows` and `tasks` at the repository's top are links: what is imported by those names would be there twice."""
    wrong = {
        f"{path.relative_to(ROOT)} imports {other}"
        for path in sources(*PACKAGES, "tests", "benchmarks", "deployments")
        for other in imports(path)
        if other.partition(".")[0] in {"flows", "tasks"}
    }
    assert not wrong
    links = {name: (ROOT / name).readlink() for name in ("flows", "tasks")}
    assert links == {"flows": Path("reflexion/flows"), "tasks": Path("reflexion/tasks")}


def test_no_two_modules_have_one_name() -> None:
    paths = [p for p in MODULES.values() if p.stem != "__init__"]
    counted = Counter(p.stem for p in paths)
    assert {str(p.relative_to(ROOT)) for p in paths if counted[p.stem] > 1} == set()


FULLER = {"reflexion/run": 14}
"""Folders with more than twelve modules, with their number: it may shrink and never grow."""


def test_a_folder_is_seen_at_a_glance() -> None:
    counted = Counter(str(p.parent.relative_to(ROOT)) for p in MODULES.values() if p.stem != "__init__")
    assert {folder: n for folder, n in counted.items() if n > FULLER.get(folder, 12)} == {}


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: imports(path, at_import_time=True) & MODULES.keys() for name, path in MODULES.items()}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                walk(other, (*path, name))
            done.add(name)

    for name in graph:
        walk(name, ())


def test_files_stay_readable() -> None:
    sizes = {p: len(p.read_text().splitlines()) for folder in LIMITS for p in sources(folder)}
    longer = {str(p.relative_to(ROOT)): n for p, n in sizes.items() if n > LIMITS[p.relative_to(ROOT).parts[0]]}
    assert longer == {}


PUBLIC = sorted(
    name
    for name, path in MODULES.items()
    if not name.rpartition(".")[2].startswith("_") and "__all__" in path.read_text()
)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_there_and_listed_in_order(name: str) -> None:
    module = importlib.import_module(name)
    listed: list[str] = list(module.__all__)
    assert len(set(listed)) == len(listed)
    assert [n for n in listed if not hasattr(module, n)] == []


@pytest.mark.parametrize("name", ["reflexion", "reflexion.errors", "reflexion.types"])
def test_the_facade_is_its_namespace(name: str) -> None:
    module = importlib.import_module(name)
    listed = set(module.__all__)
    for entry in listed:
        getattr(module, entry)  # names of the façade are loaded on first use
    if name == "reflexion":
        assert set(dir(module)) == listed
        return
    own = {
        n for n, value in vars(module).items() if not n.startswith("_") and getattr(value, "__module__", None) == name
    }
    assert own - listed <= {"StepOutput"}, "defined here, public by name, and not listed"


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    from reflexion import errors

    drawn = errors.__doc__ or ""
    classes = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, errors.ReflexionError)]
    assert len(classes) > 10
    assert [c.__name__ for c in classes if c.__name__ not in drawn] == []
    assert all(
        issubclass(c, errors.RetryableError) != issubclass(c, errors.PermanentError)
        for c in classes
        if c is not errors.ReflexionError
    )


# -- what an import costs ------------------------------------------------------------------------------

MEASURE = "import resource; u = resource.getrusage(resource.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"


def cpu_seconds(statement: str) -> float:
    """CPU time of a Python process that carries a statement out."""
    command = [sys.executable, "-c", f"{statement}\n{MEASURE}"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


def test_the_library_is_cheap_to_import() -> None:
    # In pairs, and the best of at most fifteen: other work on the machine slows one of a pair, seldom all.
    ratios: list[float] = []
    while len(ratios) < 15 and min(ratios, default=2.0) > 1.5:
        theirs = cpu_seconds("import pydantic, httpx")
        ratios.append(cpu_seconds("from reflexion import ReflexionAgent") / theirs)
    assert min(ratios) <= 1.5, ratios


@pytest.mark.parametrize(
    "module", ["reflexion", "reflexion.agent", "reflexion.run.batch_run", "reflexion.cache", "reflexion.cli.main"]
)
def test_what_is_heavy_is_imported_when_it_is_needed(module: str) -> None:
    heavy = "{'prefect', 'openai', 'redis', 'numpy', 'psutil', 'genai_prices', 'xllamacpp', 'sqlite3'}"
    code = f"import sys, {module}\nfrom reflexion import ReflexionAgent\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
