"""Child processes that outlive the command that started them, known by more than their pid."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

__all__ = ["ProcessId", "identify", "listens", "resident_bytes", "rotate", "send", "spawn", "stop", "tail", "wait_gone"]

_POLL_S = 0.02
_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process: its pid, and when it was born, since pids are used again.

    ``birth`` is opaque: on Linux the boot's id and the start in clock ticks since boot, which no change of the wall
    clock moves; elsewhere the start in seconds since the epoch.
    """

    pid: int
    birth: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return _birth(self.pid) == self.birth

    def to_json(self) -> dict[str, Any]:
        """Return the form that :meth:`from_json` reads."""
        return {"pid": self.pid, "birth": self.birth}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ProcessId:
        """Read what :meth:`to_json` wrote."""
        return cls(pid=int(raw["pid"]), birth=str(raw["birth"]))


def identify(pid: int) -> ProcessId | None:
    """Return the process that has ``pid`` now, or None if there is none."""
    birth = _birth(pid)
    return None if birth is None else ProcessId(pid, birth)


def spawn(argv: Sequence[str], *, cwd: Path, environ: Mapping[str, str], log: Path) -> ProcessId:
    """Start ``argv`` in a session of its own, which no Ctrl-C of this terminal reaches; its output goes to ``log``.

    Raises:
        OSError: it cannot be run.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    birth = _birth(child.pid)
    # Collects the child's status the moment it ends, for as long as this process lives: no zombies.
    threading.Thread(target=child.wait, name=f"reap-{child.pid}", daemon=True).start()
    return ProcessId(child.pid, birth or "ended before it could be identified")


def send(process: ProcessId, signum: signal.Signals) -> bool:
    """Send a signal to ``process`` and to no other that may have its pid by now; return whether it was there."""
    if not hasattr(os, "pidfd_open"):
        if not process.alive:
            return False
        try:
            os.kill(process.pid, signum)
        except ProcessLookupError:
            return False
        return True
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        # The handle pins the process, so nothing can take its pid between the check and the signal.
        if not process.alive:
            return False
        signal.pidfd_send_signal(handle, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def stop(process: ProcessId, *, term_s: float, kill_s: float = 10.0) -> bool:
    """End ``process``: SIGTERM, ``term_s`` seconds to finish, then SIGKILL. Return whether SIGTERM was enough.

    Raises:
        TimeoutError: it survived SIGKILL for ``kill_s`` seconds.
    """
    if not send(process, signal.SIGTERM) or wait_gone(process, term_s):
        return True
    send(process, signal.SIGKILL)
    if not wait_gone(process, kill_s):
        raise TimeoutError(f"pid {process.pid} survived SIGKILL for {kill_s:g} s")
    return False


def wait_gone(process: ProcessId, timeout_s: float) -> bool:
    """Wait until ``process`` has ended; return whether it did within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while process.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def listens(process: ProcessId, port: int) -> bool:
    """Tell whether ``process`` itself listens on ``port``: what answers there could be another's server."""
    try:
        found = psutil.Process(process.pid).net_connections("tcp")
    except psutil.AccessDenied:
        return True  # the system does not tell, so let the answer decide
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found)


def resident_bytes(process: ProcessId) -> int | None:
    """Return the resident memory of ``process`` in bytes, or None once it has ended."""
    try:
        return int(psutil.Process(process.pid).memory_info().rss) if process.alive else None
    except psutil.Error:
        return None


def rotate(log: Path) -> None:
    """Move ``log`` to ``<log>.1``, replacing what is there: the run before this one stays readable."""
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))


def tail(log: Path, lines: int = 25) -> str:
    """Return the last ``lines`` lines of ``log``, or "" where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _birth(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _birth_elsewhere(pid)
    except (ProcessLookupError, PermissionError):
        return None
    # proc(5): the second field is the name in brackets and may itself hold blanks and brackets; state is the third
    # field, start time the 22nd.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{fields[19]}"


def _birth_elsewhere(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return None
