"""A named local stack: start, stop, break and mend its parts, and say where they are."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from penstock.stack import process
from penstock.stack.artifacts import ArtifactStore, default_cache_dir
from penstock.stack.errors import Interrupted, NotReady, PartFailed, StackError
from penstock.stack.kafka import Kafka
from penstock.stack.part import Install, Part
from penstock.stack.ports import free_port, is_free, require_free, wait_free
from penstock.stack.process import ProcessId
from penstock.stack.redis import Redis
from penstock.stack.registry import Registry
from penstock.stack.roster import RosterFile
from penstock.stack.state import PartRecord, StackFolder, default_state_dir
from penstock.stack.status import StackStatus, take_status

__all__ = ["PARTS", "Note", "Stack"]

_KAFKA = Kafka()
PARTS: tuple[Part, ...] = (_KAFKA, Registry(), Redis())

Note = Callable[[str, str], None]
"""Called with a part's name and what is being done to it."""

_KEYS_SECRET = "PENSTOCK_KEYS_SECRET"
_LOCK_TIMEOUT_S = 300.0
_PROBE_TIMEOUT_S = 5.0
_POLL_S = 0.05
_PORT_ATTEMPTS = 3


def _silent(part: str, text: str) -> None:
    return


class Stack:
    """One local stack. Make it with :meth:`open`; methods may be called from any thread or process, one at a time."""

    def __init__(
        self,
        folder: StackFolder,
        environ: Mapping[str, str],
        store: ArtifactStore,
        fixed_ports: Mapping[str, int],
        parts: Sequence[Part] = PARTS,
        port_release_s: float = 10.0,
    ) -> None:
        self.folder = folder
        self._port_release_s = port_release_s
        self._parts = parts
        self._environ = environ
        self._store = store
        self._fixed = fixed_ports
        self._records_lock = threading.Lock()
        self.roster = RosterFile(folder)

    @classmethod
    def open(
        cls,
        name: str | None = None,
        state_dir: Path | str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        ports: Mapping[str, int] | None = None,
    ) -> Stack:
        """Open the stack ``name``, running or not.

        Args:
            name: which of the stacks under ``state_dir``; default PENSTOCK_STACK, else "default".
            state_dir: where stacks are kept; default PENSTOCK_STATE_DIR, else ``.penstock`` of the project.
            environ: where given addresses and defaults are read; default this process's environment.
            ports: a port for a part ("kafka", "registry", "redis") that must have a certain one; others are picked.

        Raises:
            StackError: the name is malformed, or ``ports`` names no part.
        """
        environ = os.environ if environ is None else environ
        fixed = {**_ports_from(environ), **(ports or {})}
        if unknown := set(fixed) - {part.name for part in PARTS}:
            raise StackError(f"no part {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in PARTS)}")
        folder = StackFolder(
            Path(state_dir).absolute() if state_dir else default_state_dir(environ),
            name or environ.get("PENSTOCK_STACK") or "default",
        )
        return cls(folder, environ, ArtifactStore(default_cache_dir(environ)), fixed)

    @property
    def name(self) -> str:
        """Name of the stack."""
        return self.folder.name

    def up(self, note: Note = _silent) -> StackStatus:
        """Start what does not run yet and is not given from outside, and wait until all of it answers.

        A part that died since it was started comes back on its old ports with its old data. If one part fails, those
        started by this call are stopped again.

        Raises:
            PartFailed: a part did not come up; carries the tail of its log.
            PortInUse: a part's port belongs to another process.
            ArtifactError: software could not be fetched.
            StackError: the state folder cannot be used, or a given server does not answer.
        """
        with self.folder.lock(_LOCK_TIMEOUT_S):
            self._probe_given(note)
            self._start_all([part for part in self._parts if not self._environ.get(part.variable)], note)
        return self.status()

    def down(self, *, purge: bool = False, note: Note = _silent) -> None:
        """Stop the services that run on the stack, then its parts; with ``purge`` delete all it kept as well.

        Parts end in order on SIGTERM within their deadline, else by SIGKILL. Given servers are left alone.
        """
        with self.folder.lock(_LOCK_TIMEOUT_S):
            self.roster.stop_all(lambda text: note("services", text))
            self._stop_all(self._parts, note)
            if purge:
                self.folder.purge()

    def start(self, part: str, note: Note = _silent) -> None:
        """Start one part (again), on its old ports with its old data, and wait until it answers.

        Raises:
            StackError: as :meth:`up`; or the part is given from outside.
        """
        one = self._own_part(part)
        with self.folder.lock(_LOCK_TIMEOUT_S):
            self._start_all([one], note)

    def kill(self, part: str, signum: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one part and wait until its process has ended: a crash, to the stack and its clients.

        Raises:
            StackError: the part does not run, is given from outside, or survived.
        """
        one = self._own_part(part)
        record = self.folder.read().get(part)
        if record is None or record.process is None or not process.send(record.process, signum):
            raise StackError(f"{part} of stack {self.name!r} does not run")
        if not process.wait_gone(record.process, one.stop_timeout_s):
            raise StackError(f"{part} (pid {record.process.pid}) survived {signum.name} for {one.stop_timeout_s:g} s")

    def status(self) -> StackStatus:
        """Ask every part how it is."""
        return take_status(self._parts, self.folder, self.roster, self._environ, self.qdrant)

    @property
    def qdrant(self) -> tuple[str, str]:
        """Variable and value that lead to Qdrant: QDRANT_URL where given, else QDRANT_PATH, a folder of this stack."""
        if url := self._environ.get("QDRANT_URL"):
            return "QDRANT_URL", url
        return "QDRANT_PATH", str(self.folder.data / "qdrant")

    def environment(self) -> dict[str, str]:
        """Return the variables that lead a service or a client to this stack.

        KAFKA_BOOTSTRAP, SCHEMA_REGISTRY_URL, REDIS_URL, and QDRANT_URL or QDRANT_PATH. A part that has crashed is
        included: it comes back where it was.

        Raises:
            StackError: a part is neither given nor has been started; the message says how to.
        """
        found = self.known_addresses()
        for part in self._parts:
            if part.variable not in found:
                option = "" if self.name == "default" else f" --name {self.name}"
                raise StackError(
                    f"{part.title} of stack {self.name!r} ({self.folder.root}) is not up; type "
                    f"`penstock stack up{option}`, go to the folder whose stack is meant, or give its address in "
                    f"{part.variable}"
                )
        return found

    def known_addresses(self) -> dict[str, str]:
        """Return what :meth:`environment` would, without the parts that are neither given nor started."""
        records = self.folder.read()
        found: dict[str, str] = {}
        for part in self._parts:
            record = records.get(part.name)
            if given := self._environ.get(part.variable):
                found[part.variable] = given
            elif record is not None and record.process is not None:
                found[part.variable] = part.address(record.ports)
        variable, value = self.qdrant
        return {**found, variable: value}

    def secrets(self) -> dict[str, str]:
        """Return the variables with what is secret on this stack: PENSTOCK_KEYS_SECRET, under which API keys are hashed.

        Empty where it is given, and where Kafka is one that this stack does not run: those who share a Kafka share a
        secret, which only they know.

        Raises:
            StackError: it cannot be kept.
        """
        record = self.folder.read().get(_KAFKA.name)
        if record is None or self._environ.get(_KEYS_SECRET):
            return {}
        own = _KAFKA.address(record.ports)
        if (self._environ.get(_KAFKA.variable) or own) != own:
            return {}
        return {_KEYS_SECRET: self.folder.secret("keys")}

    def _own_part(self, name: str) -> Part:
        for part in self._parts:
            if part.name == name:
                if given := self._environ.get(part.variable):
                    raise StackError(f"{part.title} is given ({part.variable}={given}): this stack does not run it")
                return part
        raise StackError(f"no part {name!r}; there are {', '.join(p.name for p in self._parts)}")

    def _probe_given(self, note: Note) -> None:
        for part in self._parts:
            if given := self._environ.get(part.variable):
                try:
                    part.probe(given, self._environ, _PROBE_TIMEOUT_S)
                except NotReady as error:
                    raise StackError(
                        f"{part.title} is given in {part.variable} but does not answer: {error}; start it, correct "
                        "the address, or unset the variable to have one started here"
                    ) from error
                note(part.name, "given, answers")

    def _start_all(self, parts: Sequence[Part], note: Note) -> None:
        if not parts:
            return
        before = self.folder.read()
        stop = threading.Event()
        with ThreadPoolExecutor(len(parts), thread_name_prefix="start") as pool:
            jobs = [pool.submit(self._start, part, before.get(part.name, PartRecord()), note, stop) for part in parts]
            try:
                errors = [error for job in jobs if (error := job.exception()) is not None]
            except BaseException:  # Ctrl-C: the threads must end before the pool can
                stop.set()
                errors = [error for job in jobs if (error := job.exception()) is not None]
                self._undo(parts, before, note)
                raise
        if errors:
            self._undo(parts, before, note)
            # What was called off because another part failed is not the cause.
            causes = [error for error in errors if not isinstance(error, Interrupted)]
            raise (causes or errors)[0]

    def _undo(self, parts: Sequence[Part], before: Mapping[str, PartRecord], note: Note) -> None:
        """Stop those of ``parts`` that did not run before, and remember them as they were."""
        started = [part for part in parts if not _runs(before.get(part.name))]
        self._stop_all(started, note)
        for part in started:
            if part.name in before:
                self._record(part, before[part.name])

    def _start(self, part: Part, before: PartRecord, note: Note, stop: threading.Event) -> None:
        try:
            if before.process is not None and before.process.alive:
                port, fixed = before.ports[part.ports[0]], self._fixed.get(part.name, before.ports[part.ports[0]])
                if fixed != port:
                    raise StackError(
                        f"{part.title} of stack {self.name!r} already runs, on port {port} and not {fixed}; "
                        "`penstock stack down` first to move it"
                    )
                self._await_answer(part, before.process, before.ports, stop)
            else:
                self._start_process(part, before, note, stop)
        except BaseException:
            stop.set()
            raise

    def _start_process(self, part: Part, before: PartRecord, note: Note, stop: threading.Event) -> None:
        note(part.name, "preparing")
        software = part.install(Install(self._store, lambda text: note(part.name, text), stop))
        # Clients of a part that crashed expect it back where it was.
        crashed = before.process is not None
        if crashed:
            wait_free(before.ports.values(), self._port_release_s, stop)
        for attempt in range(_PORT_ATTEMPTS):
            ports = self._choose_ports(part, before, must_keep=crashed)
            try:
                child = self._launch(part, software, ports, note)
                self._await_answer(part, child, ports, stop)
                break
            except PartFailed:
                lost = [port for port in ports.values() if not is_free(port)]
                if crashed or part.name in self._fixed or not lost or attempt == _PORT_ATTEMPTS - 1:
                    raise
                note(part.name, f"port {lost[0]} was taken meanwhile, trying another")
                # A process that lost its port may live on without it.
                self._stop(part, lambda name, text: None)
        note(part.name, f"ready at {part.address(ports)}")

    def _choose_ports(self, part: Part, before: PartRecord, *, must_keep: bool) -> dict[str, int]:
        ports = dict(before.ports)
        if must_keep:
            for port in ports.values():
                require_free(port, part.title, "its clients expect it there again: end that process, or move the "
                             "stack with `penstock stack down` and `up`")  # fmt: skip
        fixed = self._fixed.get(part.name)
        if fixed is not None:
            require_free(fixed, part.title, f"end it, or choose another with --{part.name}-port or "
                         f"PENSTOCK_{part.name.upper()}_PORT, or leave both out to have a free one picked")  # fmt: skip
            ports[part.ports[0]] = fixed
        with self._records_lock:
            records = self.folder.read()
            taken = {port for other in records.values() for port in other.ports.values()} | set(self._fixed.values())
            for purpose in part.ports:
                if purpose not in ports or not is_free(ports[purpose]):
                    ports[purpose] = free_port(taken)
                    taken.add(ports[purpose])
            self.folder.write({**records, part.name: replace(before, ports=ports)})
        return ports

    def _launch(self, part: Part, software: Path, ports: Mapping[str, int], note: Note) -> ProcessId:
        home = self.folder.data / part.name
        home.mkdir(parents=True, exist_ok=True)
        command = part.prepare(software, home, ports)
        log = self.folder.log(part.name)
        process.rotate(log)
        note(part.name, f"starting on port {ports[part.ports[0]]}")
        try:
            child = process.spawn(command.argv, cwd=home, environ={**self._environ, **command.environ}, log=log)
        except OSError as error:
            raise StackError(f"{part.title}: cannot run {command.argv[0]}: {error.strerror}; reinstall it") from error
        self._record(part, PartRecord(ports=ports, process=child, started_at=time.time()))
        return child

    def _await_answer(self, part: Part, child: ProcessId, ports: Mapping[str, int], stop: threading.Event) -> None:
        log = self.folder.log(part.name)
        deadline = time.monotonic() + part.start_timeout_s
        last = "it does not listen yet"
        while not stop.wait(_POLL_S):
            if not child.alive:
                raise PartFailed(part.name, "its process ended before it answered", log, process.tail(log))
            # Whatever else may have got the port would answer too.
            if process.listens(child, ports[part.ports[0]]):
                try:
                    part.probe(part.address(ports), self._environ, _PROBE_TIMEOUT_S)
                    return
                except NotReady as error:
                    last = str(error)
            if time.monotonic() > deadline:
                reason = f"did not answer within {part.start_timeout_s:g} s ({last})"
                raise PartFailed(part.name, reason, log, process.tail(log))
        raise Interrupted(f"{part.name}: the start was called off")

    def _stop_all(self, parts: Sequence[Part], note: Note) -> None:
        with ThreadPoolExecutor(max(1, len(parts)), thread_name_prefix="stop") as pool:
            list(pool.map(lambda part: self._stop(part, note), parts))

    def _stop(self, part: Part, note: Note) -> None:
        record = self.folder.read().get(part.name)
        if record is None or record.process is None:
            return
        if record.process.alive:
            note(part.name, "stopping")
            clean = process.stop(record.process, term_s=part.stop_timeout_s)
            note(part.name, "stopped" if clean else f"killed: it did not end within {part.stop_timeout_s:g} s")
        self._record(part, replace(record, process=None, started_at=None))

    def _record(self, part: Part, record: PartRecord) -> None:
        with self._records_lock:
            self.folder.write({**self.folder.read(), part.name: record})


def _runs(record: PartRecord | None) -> bool:
    return record is not None and record.process is not None and record.process.alive


def _ports_from(environ: Mapping[str, str]) -> dict[str, int]:
    found = {}
    for part in PARTS:
        variable = f"PENSTOCK_{part.name.upper()}_PORT"
        if raw := environ.get(variable):
            if not raw.isdecimal() or not 0 < int(raw) < 65_536:
                raise StackError(f"{variable}={raw!r} is no port: give a number from 1 to 65535")
            found[part.name] = int(raw)
    return found
