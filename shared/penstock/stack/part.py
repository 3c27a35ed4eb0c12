"""What the stack asks of each of its parts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock.stack.artifacts import ArtifactStore, load_bundles

__all__ = ["Command", "Install", "Note", "Part"]

_NOTE_EVERY_BYTES = 2_000_000

Note = Callable[[str], None]
"""Tells the person who waits what is being done."""


@dataclass(frozen=True, slots=True)
class Install:
    """What a part's preparation works with."""

    store: ArtifactStore
    note: Note
    stop: threading.Event
    """Set when the start is called off."""

    def fetch(self, bundle: str) -> Path:
        """Return the folder of a pinned bundle, fetching it first where needed.

        Raises:
            ArtifactError: it cannot be had.
            Interrupted: the start was called off.
        """
        pinned = load_bundles()[bundle]
        said = 0

        def progress(done: int, total: int) -> None:
            nonlocal said
            if done - said >= _NOTE_EVERY_BYTES:
                said = done
                self.note(f"fetching version {pinned.version}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        return self.store.install(pinned, progress, self.stop)


@dataclass(frozen=True, slots=True)
class Command:
    """How to run a part's process."""

    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    """Set on top of the environment of the caller."""


class Part(Protocol):
    """One server of the stack: a process on the loopback interface that keeps its data in a folder."""

    @property
    def name(self) -> str:
        """Name in commands, files and messages."""

    @property
    def title(self) -> str:
        """Name for people."""

    @property
    def variable(self) -> str:
        """Environment variable that holds its address; when set from outside, the part is not started."""

    @property
    def ports(self) -> Sequence[str]:
        """Purposes of the ports it listens on; the first is the one clients use."""

    @property
    def start_timeout_s(self) -> float:
        """Seconds it may take to answer once its process runs."""

    @property
    def stop_timeout_s(self) -> float:
        """Seconds it may take to end on SIGTERM."""

    def install(self, install: Install) -> Path:
        """Fetch what it runs on and return where that lies.

        Raises:
            ArtifactError: it cannot be had.
        """

    def prepare(self, software: Path, home: Path, ports: Mapping[str, int]) -> Command:
        """Write the configuration into ``home``, its working folder, and return the command.

        Raises:
            StackError: the data there cannot be used.
        """

    def address(self, ports: Mapping[str, int]) -> str:
        """Return the value of ``variable`` for a process on ``ports``."""

    def probe(self, address: str, environ: Mapping[str, str], timeout_s: float) -> None:
        """Ask the server at ``address`` something that only a working one answers.

        ``environ`` holds what a client needs besides the address (logins).

        Raises:
            NotReady: it did not answer within ``timeout_s``, or wrongly.
        """
