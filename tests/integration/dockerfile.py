"""Runs a Dockerfile's steps in folders of this machine, where there is no Docker to run them.

Each stage gets a folder of its own as its root; the absolute paths of an instruction are taken below it. What a stage
sees of the project is what .dockerignore leaves of it, and nothing of this process's environment but where packages
come from. Understood is what the project's Dockerfiles use; anything else raises :class:`Unsupported`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Image", "Instruction", "Stage", "Unsupported", "build", "parse", "send_context"]

_ROOTED = re.compile(r"(?<![\w./{$-])(/(?:app|opt|tmp|usr/local/bin)\b)")
_TRAVELS = re.compile(r"^(PIP|UV|SSL|REQUESTS|CURL)_|^(https?|no|all)_proxy$|^HOME$", re.IGNORECASE)
"""Variables that say where packages come from and how they are cached."""


class Unsupported(ValueError):
    """An instruction this module does not know."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, continued lines joined and comments removed."""

    name: str
    arguments: str


@dataclass(slots=True)
class Stage:
    """One stage: its folder and what its instructions have set."""

    root: Path
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    """The last argument of USER, EXPOSE, HEALTHCHECK, ENTRYPOINT, CMD, ..."""

    def at(self, path: str) -> Path:
        """Return where a path of the image lies on this machine."""
        return self.root / os.path.join(self.workdir, path).lstrip("/")

    def rooted(self, text: str) -> str:
        """Return ``text`` with the image's absolute paths replaced by this machine's."""
        return _ROOTED.sub(lambda found: f"{self.root}{found[1]}", text)


@dataclass(frozen=True, slots=True)
class Image:
    """The last stage, ready to run commands in."""

    stage: Stage

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a container: the image's and ``extra``, nothing of this process's."""
        own = {name: self.stage.rooted(value) for name, value in self.stage.environment.items()}
        return own | dict(extra)

    def command(self, *arguments: str) -> list[str]:
        """Return ENTRYPOINT with ``arguments``, else with CMD."""
        entrypoint = json.loads(self.stage.settings["ENTRYPOINT"])
        return self.argv([*entrypoint, *(arguments or json.loads(self.stage.settings["CMD"]))])

    def probe(self) -> list[str]:
        """Return the command of HEALTHCHECK."""
        return self.argv(json.loads(self.stage.settings["HEALTHCHECK"].partition("CMD ")[2]))

    def argv(self, words: Sequence[str]) -> list[str]:
        """Return a command of the image with its program found on the image's PATH, and paths of this machine."""
        path = self.stage.rooted(self.stage.environment["PATH"])
        program = shutil.which(words[0], path=path)
        if program is None:
            raise FileNotFoundError(f"{words[0]} is not on the image's PATH {path}")
        return [program, *map(self.stage.rooted, words[1:])]


def parse(text: str) -> Iterator[Instruction]:
    """Yield the instructions of a Dockerfile."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for statement in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, arguments = statement.partition(" ")
        yield Instruction(name, arguments.strip())


def send_context(project: Path, target: Path) -> None:
    """Copy what .dockerignore leaves of ``project`` to ``target``."""
    rules = [line for line in (project / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    if rules[0] != "*":
        raise Unsupported(".dockerignore is expected to leave everything out and to name what is let in")
    for rule in rules[1:]:
        if rule.startswith("!"):
            for source in project.glob(rule[1:]):
                _copy(source, target / source.relative_to(project))
        elif rule.startswith("**/"):
            for found in list(target.rglob(rule[3:])):
                shutil.rmtree(found) if found.is_dir() else found.unlink()
        else:
            raise Unsupported(f".dockerignore: {rule}")


def build(
    dockerfile: Path, context: Path, roots: Path, *, after: str | None = None, stage: Stage | None = None
) -> Image:
    """Run the instructions of ``dockerfile``; stages get folders below ``roots``.

    With ``after`` and ``stage``, go on in that stage behind the instruction whose text is ``after``, as Docker does when
    its cache holds what is before.
    """
    instructions = list(parse(dockerfile.read_text("utf-8")))
    if after is not None:
        instructions = instructions[[f"{one.name} {one.arguments}" for one in instructions].index(after) + 1 :]
    stages: dict[str, Stage] = {}
    current = stage
    for one in instructions:
        if one.name == "ARG":
            continue
        if one.name == "FROM":
            image, _, name = one.arguments.partition(" AS ")
            if "PYTHON_IMAGE" not in image:
                raise Unsupported(f"FROM {one.arguments}")
            current = stages[name or "last"] = _base(roots / (name or "last"))
            continue
        if current is None:
            raise Unsupported(f"{one.name} before FROM")
        _run(one, current, context, stages)
    if current is None:
        raise Unsupported(f"{dockerfile} has no stage")
    return Image(current)


def _base(root: Path) -> Stage:
    """A folder that stands for the Python image: this machine's interpreter under the names it has there."""
    programs = root / "usr/local/bin"
    programs.mkdir(parents=True)
    for folder in ("tmp", "opt"):
        (root / folder).mkdir()
    real = Path(sys.base_prefix) / "bin/python3.11"
    for name in ("python", "python3", "python3.11"):
        (programs / name).symlink_to(real)
    return Stage(root, environment={"PATH": "/usr/local/bin:/usr/bin:/bin"})


def _run(one: Instruction, stage: Stage, context: Path, stages: Mapping[str, Stage]) -> None:
    if one.name == "WORKDIR":
        stage.workdir = one.arguments
        stage.at(".").mkdir(parents=True, exist_ok=True)
    elif one.name == "ENV":
        for name, value in re.findall(r"(\w+)=(\S+)", one.arguments):
            stage.environment[name] = value.replace("$PATH", stage.environment["PATH"])
    elif one.name == "COPY":
        words = one.arguments.split()
        origin = stages[words.pop(0).partition("=")[2]] if words[0].startswith("--from=") else None
        *sources, target = words
        for source in sources:
            found = origin.at(source) if origin else context / source
            # Like Docker: a folder's contents, or a file into a folder that is named with a slash.
            into = stage.at(target) / found.name if target.endswith("/") and found.is_file() else stage.at(target)
            _copy(found, into, _link if origin else shutil.copy2)
    elif one.name == "RUN":
        command = re.sub(r"^(--mount=\S+\s+)+", "", one.arguments)
        travelling = {name: value for name, value in os.environ.items() if _TRAVELS.match(name)}
        environment = travelling | {name: stage.rooted(value) for name, value in stage.environment.items()}
        done = subprocess.run(
            ["/bin/sh", "-c", stage.rooted(command)],
            cwd=stage.at("."),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"RUN {command}\nexited {done.returncode}:\n{done.stdout}{done.stderr}")
    elif one.name in ("USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
        stage.settings[one.name] = one.arguments
    else:
        raise Unsupported(f"{one.name} {one.arguments}")


def _copy(source: Path, target: Path, copy: Callable[[str, str], object] = shutil.copy2) -> None:
    if not source.exists():
        raise FileNotFoundError(f"COPY {source.name}: it is not in the build context")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, copy_function=copy)
    else:
        copy(str(source), str(target))


def _link(source: str, target: str) -> None:
    """Link instead of copying between stages: an environment weighs a gigabyte."""
    os.link(source, target, follow_symlinks=False)
