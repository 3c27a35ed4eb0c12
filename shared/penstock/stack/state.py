"""What a stack remembers between commands: a folder per stack, holding ports, pids, logs and data."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.stack.errors import StackError
from penstock.stack.process import ProcessId

__all__ = ["PartRecord", "StackFolder", "default_state_dir", "try_lock"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_FORMAT = 1


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """Return where stacks are kept: PENSTOCK_STATE_DIR, else ``.penstock`` of the project or of the working folder."""
    if given := environ.get("PENSTOCK_STATE_DIR"):
        return Path(given).expanduser().absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").exists() and (folder / "schemas" / "topics").is_dir():
            return folder / ".penstock"
    return here / ".penstock"


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A part as it was last started: its ports by purpose, and its process unless it was stopped on purpose."""

    ports: Mapping[str, int] = field(default_factory=dict)
    process: ProcessId | None = None
    started_at: float | None = None
    """Seconds since the epoch."""


class StackFolder:
    """The files of one stack under ``state_dir``.

    Raises:
        StackError: ``name`` is not made of a-z, 0-9, ``-`` and ``_``.
    """

    def __init__(self, state_dir: Path, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise StackError(f"{name!r} is no name for a stack: use a-z, 0-9, - and _, at most 41 of them")
        self.name = name
        self.root = state_dir / name
        self.logs = self.root / "logs"
        self.data = self.root / "data"
        self._file = self.root / "stack.json"

    def create(self) -> None:
        """Make the folders.

        Raises:
            StackError: they cannot be written.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.data.mkdir(exist_ok=True)
            # State is of this machine only; a folder that ignores itself cannot be committed by accident.
            ignore = self.root.parent / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise StackError(f"cannot write {self.root}: {error.strerror}; set PENSTOCK_STATE_DIR elsewhere") from error

    def log(self, part: str) -> Path:
        """Return the log file of ``part``."""
        return self.logs / f"{part}.log"

    def read(self) -> dict[str, PartRecord]:
        """Return the records of all parts; empty for a stack that was never started.

        Raises:
            StackError: the file is not what :meth:`write` writes.
        """
        try:
            raw = json.loads(self._file.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, json.JSONDecodeError) as error:
            raise StackError(f"{self._file} is unreadable ({error}); stop its processes and delete it") from error
        if raw.get("format") != _FORMAT:
            raise StackError(f"{self._file} has format {raw.get('format')!r}, this version reads {_FORMAT}; delete it")
        return {name: _part_from_json(part) for name, part in raw["parts"].items()}

    def write(self, parts: Mapping[str, PartRecord]) -> None:
        """Replace the records, in one step."""
        raw = {"format": _FORMAT, "parts": {name: _part_to_json(part) for name, part in parts.items()}}
        draft = self._file.with_suffix(".tmp")
        draft.write_text(json.dumps(raw, indent=2) + "\n", "utf-8")
        draft.replace(self._file)

    def secret(self, name: str) -> str:
        """Return the stack's secret ``name``, 256 bits in hexadecimal, drawn when it is first asked for.

        Raises:
            StackError: it cannot be kept.
        """
        path = self.root / f"{name}.secret"
        draft = self.root / f"{name}.{os.getpid()}.tmp"
        try:
            if not path.exists():
                with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                    file.write(secrets.token_hex(32))
                # Of several processes that ask first, one names it: a link takes no name that is taken.
                with contextlib.suppress(FileExistsError):
                    os.link(draft, path)
                draft.unlink()
            return path.read_text("utf-8")
        except OSError as error:
            raise StackError(f"cannot keep {path}: {error.strerror}; set PENSTOCK_STATE_DIR elsewhere") from error

    def purge(self) -> None:
        """Delete everything this stack kept."""
        if self._file.exists():  # never a folder that is not a stack's
            shutil.rmtree(self.root)

    @contextlib.contextmanager
    def lock(self, timeout_s: float) -> Iterator[None]:
        """Keep other commands off this stack for the length of a ``with`` block.

        Raises:
            StackError: another command still works on it after ``timeout_s``.
        """
        self.create()
        deadline = time.monotonic() + timeout_s
        path = self.root.parent / f"{self.name}.lock"
        with path.open("a") as file:
            while not try_lock(file.fileno()):
                if time.monotonic() > deadline:
                    raise StackError(
                        f"another command has been working on stack {self.name!r} for {timeout_s:g} s; wait for it"
                    )
                time.sleep(0.1)
            yield


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process, until it is closed or the process ends; return whether that succeeded."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _part_to_json(part: PartRecord) -> dict[str, Any]:
    return {
        "ports": dict(part.ports),
        "process": part.process.to_json() if part.process else None,
        "started_at": part.started_at,
    }


def _part_from_json(raw: Mapping[str, Any]) -> PartRecord:
    process = raw["process"]
    return PartRecord(
        ports={str(name): int(port) for name, port in raw["ports"].items()},
        process=ProcessId.from_json(process) if process else None,
        started_at=raw["started_at"],
    )
