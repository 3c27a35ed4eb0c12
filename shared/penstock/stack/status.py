"""How a stack is: each part, its address, process, memory and log, and the services on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from penstock.stack import process
from penstock.stack.errors import NotReady
from penstock.stack.part import Part
from penstock.stack.roster import RosterFile
from penstock.stack.state import PartRecord, StackFolder

__all__ = ["PartStatus", "ServiceStatus", "StackStatus", "State", "redact", "take_status"]

_PROBE_TIMEOUT_S = 3.0

State = Literal["running", "unhealthy", "crashed", "stopped", "given", "unreachable", "embedded"]
"""running: started here and answers; unhealthy: its process runs but does not answer; crashed: its process ended
unasked; stopped: not started; given: an address from outside that answers; unreachable: one that does not;
embedded: runs inside the process that uses it (Qdrant's local mode)."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part."""

    name: str
    title: str
    variable: str
    state: State
    address: str | None
    """Address as in ``variable``, with any password masked."""
    pid: int | None = None
    started_at: float | None = None
    """Seconds since the epoch."""
    resident_bytes: int | None = None
    log: Path | None = None
    detail: str | None = None
    """What it answered instead, when it does not answer as it should."""

    @property
    def usable(self) -> bool:
        """Whether clients can use it now."""
        return self.state in ("running", "given", "embedded")


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One process of a service."""

    name: str
    pid: int
    alive: bool
    metrics: str
    resident_bytes: int | None


@dataclass(frozen=True, slots=True)
class StackStatus:
    """A stack at one moment."""

    name: str
    folder: Path
    parts: tuple[PartStatus, ...]
    services: tuple[ServiceStatus, ...]
    supervisor_pid: int | None

    @property
    def up(self) -> bool:
        """Whether every part is usable."""
        return all(part.usable for part in self.parts)

    @property
    def started(self) -> bool:
        """Whether this stack runs or should run any part of its own."""
        return any(part.state in ("running", "unhealthy", "crashed") for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``--json`` prints; memory in bytes, times in seconds since the epoch."""
        return {
            "name": self.name,
            "up": self.up,
            "folder": str(self.folder),
            "parts": {
                part.name: {
                    "state": part.state,
                    part.variable: part.address,
                    "pid": part.pid,
                    "started_at": part.started_at,
                    "resident_bytes": part.resident_bytes,
                    "log": str(part.log) if part.log else None,
                    "detail": part.detail,
                }
                for part in self.parts
            },
            "supervisor_pid": self.supervisor_pid,
            "services": {
                service.name: {
                    "pid": service.pid,
                    "alive": service.alive,
                    "metrics": service.metrics,
                    "resident_bytes": service.resident_bytes,
                }
                for service in self.services
            },
        }


def take_status(
    parts: Sequence[Part],
    folder: StackFolder,
    roster: RosterFile,
    environ: Mapping[str, str],
    qdrant: tuple[str, str],
) -> StackStatus:
    """Ask every part how it is; takes ``_PROBE_TIMEOUT_S`` seconds at the most."""
    records = folder.read()

    def ask(part: Part) -> PartStatus:
        if given := environ.get(part.variable):
            return _given(part, given, environ)
        return _own(part, records.get(part.name, PartRecord()), folder.log(part.name), environ)

    with ThreadPoolExecutor(len(parts)) as pool:
        found = tuple(pool.map(ask, parts))
    running = roster.read()
    return StackStatus(
        name=folder.name,
        folder=folder.root,
        parts=(*found, _qdrant(*qdrant)),
        services=tuple(
            ServiceStatus(
                name=name,
                pid=one.process.pid,
                alive=one.process.alive,
                metrics=f"http://127.0.0.1:{one.metrics_port}/metrics",
                resident_bytes=process.resident_bytes(one.process),
            )
            for name, one in (running.services if running else {}).items()
        ),
        supervisor_pid=running.supervisor.pid if running and running.supervisor.alive else None,
    )


def redact(address: str) -> str:
    """Return ``address`` with the login of a URL masked."""
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}"))


def _given(part: Part, address: str, environ: Mapping[str, str]) -> PartStatus:
    state: State = "given"
    detail = None
    try:
        part.probe(address, environ, _PROBE_TIMEOUT_S)
    except NotReady as error:
        state, detail = "unreachable", str(error)
    return PartStatus(part.name, part.title, part.variable, state, redact(address), detail=detail)


def _own(part: Part, record: PartRecord, log: Path, environ: Mapping[str, str]) -> PartStatus:
    known_log = log if log.exists() else None
    if record.process is None:
        return PartStatus(part.name, part.title, part.variable, "stopped", None, log=known_log)
    address = part.address(record.ports)
    state: State = "running"
    detail = None
    if not record.process.alive:
        state, detail = "crashed", "its process ended unasked; `penstock stack up` starts it again"
    else:
        try:
            part.probe(address, environ, _PROBE_TIMEOUT_S)
        except NotReady as error:
            state, detail = "unhealthy", str(error)
    return PartStatus(
        name=part.name,
        title=part.title,
        variable=part.variable,
        state=state,
        address=address,
        pid=record.process.pid if record.process.alive else None,
        started_at=record.started_at,
        resident_bytes=process.resident_bytes(record.process),
        log=known_log,
        detail=detail,
    )


def _qdrant(variable: str, value: str) -> PartStatus:
    if variable == "QDRANT_PATH":
        return PartStatus("qdrant", "Qdrant", variable, "embedded", value)
    import httpx

    state: State = "given"
    detail = None
    try:
        answer = httpx.get(f"{value.rstrip('/')}/readyz", timeout=_PROBE_TIMEOUT_S)
        if answer.status_code != httpx.codes.OK:
            state, detail = "unreachable", f"/readyz answers {answer.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        state, detail = "unreachable", str(error)
    return PartStatus("qdrant", "Qdrant", variable, state, redact(value), detail=detail)
