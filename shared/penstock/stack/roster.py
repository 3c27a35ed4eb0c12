"""Which services run on a stack, and which process supervises them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from penstock.stack import process
from penstock.stack.errors import StackError
from penstock.stack.process import ProcessId
from penstock.stack.state import StackFolder, try_lock

__all__ = ["Roster", "RosterFile", "RunningService"]

_SUPERVISOR_TERM_S = 40.0
_SERVICE_TERM_S = 20.0


@dataclass(frozen=True, slots=True)
class RunningService:
    """One process of a service."""

    process: ProcessId
    metrics_port: int


@dataclass(frozen=True, slots=True)
class Roster:
    """The supervisor and its services by process name."""

    supervisor: ProcessId
    services: Mapping[str, RunningService] = field(default_factory=dict)


class RosterFile:
    """Keeps the roster of one stack, so that other commands find the services, even after their supervisor died."""

    def __init__(self, folder: StackFolder) -> None:
        self._folder = folder
        self._file = folder.root / "services.json"

    def read(self) -> Roster | None:
        """Return the roster, or None where no supervisor has run since the last clean stop."""
        try:
            raw = json.loads(self._file.read_text("utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return Roster(
            supervisor=ProcessId.from_json(raw["supervisor"]),
            services={
                name: RunningService(ProcessId.from_json(one["process"]), int(one["metrics_port"]))
                for name, one in raw["services"].items()
            },
        )

    def write(self, roster: Roster) -> None:
        """Replace the roster, in one step."""
        raw = {
            "supervisor": roster.supervisor.to_json(),
            "services": {
                name: {"process": one.process.to_json(), "metrics_port": one.metrics_port}
                for name, one in roster.services.items()
            },
        }
        draft = self._file.with_suffix(".tmp")
        draft.write_text(json.dumps(raw, indent=2) + "\n", "utf-8")
        draft.replace(self._file)

    def clear(self) -> None:
        """Forget the roster: nothing of it runs any more."""
        self._file.unlink(missing_ok=True)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Be the one supervisor of this stack for the length of a ``with`` block.

        Raises:
            StackError: another one is; the message names its pid and how to stop it.
        """
        self._folder.create()
        path: Path = self._folder.root / "run.lock"
        with path.open("a") as file:
            if not try_lock(file.fileno()):
                roster = self.read()
                who = f" (pid {roster.supervisor.pid})" if roster else ""
                raise StackError(
                    f"services already run on stack {self._folder.name!r} under another `penstock run`{who}; "
                    "stop that one first, or start another stack with --name"
                )
            yield

    def stop_all(self, note: Callable[[str], None]) -> None:
        """Stop the supervisor and whatever it left running. A supervisor in this very process is left alone."""
        roster = self.read()
        if roster is None:
            return
        if roster.supervisor.alive and roster.supervisor.pid != os.getpid():
            note(f"stopping the services (penstock run, pid {roster.supervisor.pid})")
            process.stop(roster.supervisor, term_s=_SUPERVISOR_TERM_S)
        self.stop_leftovers(note)

    def stop_leftovers(self, note: Callable[[str], None]) -> None:
        """Stop services whose supervisor is gone."""
        roster = self.read()
        if roster is None:
            return
        left = {name: one.process for name, one in roster.services.items() if one.process.alive}
        if left:
            note(f"stopping services that were left running: {', '.join(left)}")
        for one in left.values():
            process.send(one, signal.SIGTERM)
        for one in left.values():
            process.stop(one, term_s=_SERVICE_TERM_S)
        self.clear()
