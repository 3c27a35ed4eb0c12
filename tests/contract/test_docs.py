"""What the pages say exists: linked files, commands, make targets, variables; and their Python is Python."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from penstock.cli.main import main

PROJECT = Path(__file__).resolve().parents[2]
_BUILT = {
    ".venv",
    ".venv-vllm",
    ".penstock",
    ".pytest_cache",
    ".ruff_cache",
    ".mypy_cache",
    ".hypothesis",
    "node_modules",
}
PAGES = sorted(path for path in PROJECT.rglob("*.md") if not _BUILT & set(path.relative_to(PROJECT).parts))
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def _code(page: Path) -> Iterator[str]:
    """Yield every line of shell and every inline snippet, without its comment."""
    text = page.read_text("utf-8")
    lines = [line for block in _blocks(page, "sh") for line in block.splitlines()]
    for line in [*lines, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)]:
        yield from (part.strip() for part in re.split(r"&&|;", line.partition(" #")[0]))


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        linked = page.parent / target if target else page
        assert linked.exists(), f"{target} does not exist"
        if anchor and linked.suffix == ".md":
            assert anchor in _anchors(linked), f"{target} has no section #{anchor}"


@by_page
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for code in _code(page):
        words = [word for word in code.split() if "=" not in word.split("/")[0] or word.startswith("-")]
        if words[:1] == ["make"]:
            assert set(words[1:]) <= targets, f"{code}: the Makefile has {sorted(targets)}"
        elif words[:1] == ["penstock"]:
            _resolve(code)


def _resolve(code: str) -> None:
    """Follow the words of a command line through the commands, then look for its options."""
    command: click.Command = main
    with click.Context(main) as context:
        for word in shlex.split(code)[1:]:
            if isinstance(command, click.Group) and not word.startswith("-"):
                found = command.get_command(context, word)
                assert found is not None, f"{code}: there is no {word}"
                command = found
            elif word.startswith("--"):
                options = {option for parameter in command.params for option in parameter.opts}
                assert word.partition("=")[0] in options, f"{code}: there is no {word}"


@by_page
def test_python_compiles(page: Path) -> None:
    for block in _blocks(page, "python"):
        # A snippet of asynchronous code stands without its function.
        ast.parse(f"async def snippet():\n{textwrap.indent(block, '    ')}")


def test_every_service_is_on_the_front_page() -> None:
    front = (PROJECT / "README.md").read_text("utf-8")
    services = {path.parent.name for path in PROJECT.glob("services/*/__main__.py")}
    assert {name for name in services if f"services/{name}/README.md" not in front} == set()


def test_continuous_integration_runs_what_people_run() -> None:
    plan = subprocess.run(
        ["make", "--dry-run", "--always-make", "test"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert all(step in plan for step in ("ruff check", "ruff format --check", "mypy", "pytest"))
    assert (PROJECT / ".ci/run").read_text("utf-8").rstrip().endswith("exec make test")
