"""Runs services as processes on a stack: for ``penstock run``, the demo and the tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from penstock.stack import process
from penstock.stack.errors import StackError
from penstock.stack.member import Member, RestartPolicy, ServiceFailed, ServiceSpec
from penstock.stack.roster import Roster, RosterFile, RunningService
from penstock.stack.state import StackFolder

__all__ = ["FLOW", "RestartPolicy", "ServiceFailed", "ServiceSpec", "Supervisor", "service_specs"]

FLOW = ("edge", "intake", "guardrails", "retrieval", "inference", "evaluation", "drift", "alerting")
"""The services of the flow, in its order; the edge is one of its ways in."""

OnChange = Callable[[Member, str], None]
"""Called with a service that changed and what happened to it."""

_POLL_S = 0.05


def service_specs(
    services: Sequence[str],
    project: Path,
    replicas: Mapping[str, int] | None = None,
    interpreters: Mapping[str, str] | None = None,
) -> list[ServiceSpec]:
    """Return the processes that run ``services`` of the checkout ``project``.

    The first process of a service has its name, further ones ``<name>-2``, ``<name>-3``, and so on. ``interpreters`` says
    which Python runs a service, where it is not this one.

    Raises:
        StackError: a service does not exist, or ``replicas`` or ``interpreters`` names one that is not among ``services``.
    """
    folders = sorted(path.parent.name for path in (project / "services").glob("*/__main__.py"))
    known = [name for name in FLOW if name in folders] + [name for name in folders if name not in FLOW]
    replicas = replicas or {}
    for name in services:
        if name not in known:
            raise StackError(f"no service {name!r} under {project / 'services'}; there are: {', '.join(known)}")
    for name, count in replicas.items():
        if name not in services:
            raise StackError(f"replicas of {name!r}, which is not among the services to run: {', '.join(services)}")
        if count < 1:
            raise StackError(f"{count} replicas of {name!r}: it takes at least one")
    interpreters = interpreters or {}
    for name, interpreter in interpreters.items():
        if name not in services:
            raise StackError(
                f"an interpreter of {name!r}, which is not among the services to run: {', '.join(services)}"
            )
        if shutil.which(interpreter) is None:
            raise StackError(f"the interpreter of {name!r} does not exist: {interpreter}; `make vllm` makes .venv-vllm")
    return [
        ServiceSpec(
            name if number == 1 else f"{name}-{number}",
            [interpreters.get(name, sys.executable), "-m", f"services.{name}"],
        )
        for name in services
        for number in range(1, replicas.get(name, 1) + 1)
    ]


class Supervisor:
    """Keeps a group of processes running, each with a metrics port and a log file of its own.

    Use it as an async context manager: entering starts all and leaving stops all. One at a time on a stack.

    Args:
        specs: the processes, by unique name.
        environ: their environment: the addresses of the stack and whatever else they read.
        folder: of the stack; logs go to its ``logs``, pids to its ``services.json``.
        cwd: their working folder: the checkout, so that ``services`` can be imported.
        policy: when they are started again or given up.
        on_change: told of each start, readiness, crash and stop.
    """

    def __init__(
        self,
        specs: Sequence[ServiceSpec],
        environ: Mapping[str, str],
        folder: StackFolder,
        *,
        cwd: Path,
        policy: RestartPolicy | None = None,
        on_change: OnChange | None = None,
    ) -> None:
        self._folder = folder
        self._roster = RosterFile(folder)
        self._on_change = on_change or (lambda member, text: None)
        self._exit = contextlib.AsyncExitStack()
        self._running = False
        # A proxy for the outside world must not get requests to this machine.
        self._http = httpx.AsyncClient(trust_env=False)
        self._members = {
            spec.name: Member(
                spec,
                environ=environ,
                cwd=cwd,
                log=folder.log(spec.name),
                policy=policy or RestartPolicy(),
                http=self._http,
                taken_ports=self._ports,
                changed=self._changed,
            )
            for spec in specs
        }
        if len(self._members) != len(specs):
            raise StackError("two processes with one name")

    @property
    def members(self) -> Collection[Member]:
        """Every process with its state, in the order given."""
        return self._members.values()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self, *names: str) -> None:
        """Start the processes ``names`` (default: all) and return at once; see :meth:`wait_ready`.

        Raises:
            StackError: another supervisor runs services on this stack, or a name is unknown.
        """
        chosen = self._choose(names)
        if not self._running:
            self._exit.enter_context(self._roster.claim())
            self._running = True
            await asyncio.to_thread(self._roster.stop_leftovers, lambda text: None)
            self._write_roster()
            for member in self.members:
                process.rotate(member.log)
        for member in chosen:
            member.start()

    async def stop(self, *names: str) -> None:
        """Stop the processes ``names`` (default: all, and end the supervision): SIGTERM, a deadline, SIGKILL."""
        await asyncio.gather(*(member.stop() for member in self._choose(names)))
        if not names and self._running:
            self._running = False
            self._roster.clear()
            await self._exit.aclose()

    async def close(self) -> None:
        """Stop everything and let go of what the supervisor itself holds."""
        await self.stop()
        await self._http.aclose()

    async def restart(self, name: str) -> None:
        """Stop one process in order and start it again at once."""
        await self.stop(name)
        await self.start(name)

    async def kill(self, name: str, signum: signal.Signals = signal.SIGKILL) -> None:
        """Crash one process and wait until it has ended; supervision then starts it again after its delay.

        Raises:
            StackError: it does not run.
        """
        (member,) = self._choose((name,))
        await member.kill(signum)

    def kill_all(self) -> None:
        """Send SIGKILL to every process without waiting: for a second Ctrl-C."""
        for member in self.members:
            member.signal(signal.SIGKILL)

    async def wait_ready(self, *names: str, timeout_s: float = 60.0) -> None:
        """Wait until the processes ``names`` (default: all) answer their /readyz with 200.

        Raises:
            ServiceFailed: one was given up.
            StackError: some are not ready after ``timeout_s``; the message says what each waits for.
        """
        chosen = self._choose(names)
        deadline = time.monotonic() + timeout_s
        while late := [member for member in chosen if member.state != "ready"]:
            for member in late:
                if member.failure is not None:
                    raise member.failure
            if time.monotonic() > deadline:
                reasons = "; ".join(f"{m.name}: {m.waiting_for or m.state} (log: {m.log})" for m in late)
                raise StackError(f"not ready after {timeout_s:g} s: {reasons}")
            await asyncio.sleep(_POLL_S)

    async def wait_failed(self) -> ServiceFailed:
        """Wait until a process is given up, and return why."""
        while True:
            for member in self.members:
                if member.failure is not None:
                    return member.failure
            await asyncio.sleep(_POLL_S)

    def pids(self) -> dict[str, int]:
        """Return the pid of every process that runs, by name."""
        return {member.name: member.process.pid for member in self.members if member.process is not None}

    def rss(self) -> dict[str, int]:
        """Return the resident memory in bytes of every process that runs, by name."""
        found = {m.name: process.resident_bytes(m.process) for m in self.members if m.process is not None}
        return {name: size for name, size in found.items() if size is not None}

    def metrics(self) -> dict[str, str]:
        """Return the address of every running process's metrics, by name."""
        return {m.name: f"http://127.0.0.1:{m.metrics_port}/metrics" for m in self.members if m.process is not None}

    def _choose(self, names: Sequence[str]) -> list[Member]:
        if unknown := [name for name in names if name not in self._members]:
            raise StackError(f"no process {', '.join(unknown)}; there are: {', '.join(self._members)}")
        return [self._members[name] for name in names or self._members]

    def _ports(self) -> set[int]:
        return {member.metrics_port for member in self.members}

    def _changed(self, member: Member, text: str) -> None:
        if self._running:
            self._write_roster()
        self._on_change(member, text)

    def _write_roster(self) -> None:
        supervisor = process.identify(os.getpid())
        assert supervisor is not None  # it is this process
        services = {m.name: RunningService(m.process, m.metrics_port) for m in self.members if m.process is not None}
        self._roster.write(Roster(supervisor, services))
