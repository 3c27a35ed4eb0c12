"""Who may import whom, what stands where: rules that hold the parts of the system apart."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[2]
SHARED = PROJECT / "shared"
SERVICES = sorted(
    path for path in (PROJECT / "services").iterdir() if path.is_dir() and (path / "__init__.py").exists()
)
TOP_LEVEL = {
    "services", "shared", "schemas", "tests", "infra", "docker-compose.yml", "Makefile", "README.md", "pyproject.toml",
    "requirements",
}  # fmt: skip
SERVICE_FILES = ("app.py", "settings.py", "__main__.py", "README.md", "Dockerfile")
NOT_IN_SHARED = {"services", "faust", "mode", "vllm", "torch", "river", "qdrant_client"}
IO_MODULES = {
    "aiokafka", "asyncio", "confluent_kafka", "faust", "http", "httpx", "openai", "os", "qdrant_client", "redis", "requests",
    "socket", "subprocess", "threading", "urllib.request", "uvloop",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "datetime.now", "datetime.utcnow", "time.time", "uuid.uuid4", "random.random"}

by_service = pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every module that ``path`` imports, wherever in the file, also by name through importlib."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # relative: inside its own package
                package = ".".join(path.relative_to(PROJECT).with_suffix("").parts[: -node.level])
                yield node.lineno, f"{package}.{node.module or ''}"
            else:
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("importlib.import_module", "import_module", "__import__"):
            yield from ((node.lineno, str(arg.value)) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def banned(path: Path, modules: set[str]) -> list[str]:
    return [
        f"{path.relative_to(PROJECT)}:{line} imports {name}"
        for line, name in imports(path)
        if any(name == module or name.startswith(f"{module}.") for module in modules)
    ]


def test_shared_imports_no_service_and_no_engine() -> None:
    assert [problem for path in sources(SHARED) for problem in banned(path, NOT_IN_SHARED)] == []


SDK_MODULES = [
    "penstock.client", "penstock.cli.config", "penstock.cli.dlq", "penstock.cli.main", "penstock.cli.schemas",
    "penstock.cli.send", "penstock.cli.tail",
]  # fmt: skip
BLOCKED_IMPORT = """
import importlib, sys
blocked = set({blocked!r})
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in blocked:
            raise ModuleNotFoundError(f'{{name}} is none of the dependencies in pyproject.toml', name=name)
sys.meta_path.insert(0, Finder())
for module in {modules!r}:
    importlib.import_module(module)
"""


def test_sdk_needs_only_the_dependencies_it_declares() -> None:
    """A producer's machine has what pyproject.toml lists, not what the services run on."""
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    allowed = closure(requirement for requirement in declared)
    blocked = sorted(
        module
        for module, owners in metadata.packages_distributions().items()
        if not {normal(owner) for owner in owners} & allowed and module not in ("penstock", "services", "shared")
    )
    assert {"faust", "redis", "qdrant_client", "confluent_kafka"} <= set(blocked)
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED_IMPORT.format(blocked=blocked, modules=SDK_MODULES)],
        env={**os.environ, "PYTHONPATH": str(SHARED)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr.strip().splitlines()[-1]


def closure(requirements: Iterable[str]) -> set[str]:
    """Names of the distributions that ``requirements`` bring, extras left out."""
    found: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = normal(requirement.name)
        if name not in found:
            found.add(name)
            waiting += metadata.requires(name) or []
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@by_service
def test_services_do_not_import_each_other(service: Path) -> None:
    others = {f"services.{other.name}" for other in SERVICES if other != service}
    assert [problem for path in sources(service) for problem in banned(path, others)] == []


def test_import_rules_would_notice(tmp_path: Path) -> None:
    guilty = PROJECT / "tests" / "contract" / "test_layout.py"
    assert any(name == "ast" for _, name in imports(guilty))
    lazy = tmp_path / "lazy.py"
    lazy.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from services.intake import core\n"
        "def f():\n    import river.drift\n    import importlib\n    importlib.import_module('faust.app')\n"
    )
    found = {name for _, name in imports(lazy)}
    assert {"services.intake.core", "river.drift", "faust.app"} <= found


@by_service
def test_service_has_its_files(service: Path) -> None:
    missing = [name for name in SERVICE_FILES if not (service / name).exists()]
    assert not missing, f"services/{service.name} lacks {', '.join(missing)}"


@by_service
def test_core_is_pure(service: Path) -> None:
    cores = [service / "core.py"] if (service / "core.py").exists() else sources(service / "core")
    assert cores, f"services/{service.name} has neither core.py nor core/"
    for path in cores:
        tree = ast.parse(path.read_text("utf-8"), str(path))
        waits = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor)]
        assert not waits, f"{path} awaits at lines {waits}"
        assert banned(path, IO_MODULES) == []
        calls = [(n.lineno, called(n)) for n in ast.walk(tree) if isinstance(n, ast.Call) and called(n) in IMPURE_CALLS]
        assert not calls, f"{path} is not pure: {calls}"


@by_service
def test_service_says_how_it_behaves(service: Path) -> None:
    text = (service / "README.md").read_text("utf-8").lower()
    missing = [word for word in ("reads", "writes", "state", "fails", "scales") if word not in text]
    assert not missing, f"services/{service.name}/README.md does not say: {', '.join(missing)}"


def test_nothing_else_stands_at_the_top() -> None:
    if not (PROJECT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no git here: what belongs to the project cannot be told from what was built")
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    tops = {line.partition("/")[0] for line in listed.splitlines()}
    assert {top for top in tops if not top.startswith(".")} <= TOP_LEVEL


def test_no_module_is_named_for_what_it_is_not() -> None:
    vague = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py"}
    assert [
        p for folder in (SHARED, PROJECT / "services", PROJECT / "tests") for p in sources(folder) if p.name in vague
    ] == []


def test_every_test_folder_is_a_kind_of_test() -> None:
    folders = {p.name for p in (PROJECT / "tests").iterdir() if p.is_dir() and not p.name.startswith(("_", "."))}
    assert folders <= {"unit", "contract", "stream", "integration", "e2e", "bench"}
