"""One supervised process: started, watched until it is ready, started again when it ends unasked."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx

from penstock.stack import process
from penstock.stack.errors import StackError
from penstock.stack.ports import HOST, free_port
from penstock.stack.process import ProcessId

__all__ = ["Member", "RestartPolicy", "ServiceFailed", "ServiceSpec", "State"]

State = Literal["stopped", "starting", "ready", "not ready", "restarting", "failed"]
"""stopped: not running, on purpose; starting: runs, was never ready; not ready: was ready and is no longer;
restarting: ended unasked, waits to be started again; failed: ended too often, given up."""

_READY_POLL_S = 0.2
_READY_RECHECK_S = 2.0
_READY_TIMEOUT_S = 2.0


class ServiceFailed(StackError):
    """A service ended too often in a row and was given up.

    Attributes:
        log: where it wrote what it had to say.
        log_tail: the last lines of that, already read.
    """

    def __init__(self, message: str, log: Path, log_tail: str) -> None:
        super().__init__(message)
        self.log = log
        self.log_tail = log_tail


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A process to run: its name on this stack, its command, and variables of its own."""

    name: str
    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How a process that ends unasked is started again, and how one that is asked to end is waited for."""

    first_delay_s: float = 0.5
    """Wait before the first start again; doubles with each crash in a row."""
    max_delay_s: float = 10.0
    max_crashes: int = 5
    """Crashes in a row after which it is given up."""
    stable_after_s: float = 30.0
    """A run that was ready and lasted this long ends the row."""
    stop_timeout_s: float = 20.0
    """From SIGTERM to SIGKILL."""

    def delay_s(self, crashes: int) -> float:
        """Return the wait after the ``crashes``-th crash in a row (from 1), in seconds."""
        return min(self.max_delay_s, self.first_delay_s * 2.0 ** (crashes - 1))


class Member:
    """One process of a service under supervision."""

    def __init__(
        self,
        spec: ServiceSpec,
        *,
        environ: Mapping[str, str],
        cwd: Path,
        log: Path,
        policy: RestartPolicy,
        http: httpx.AsyncClient,
        taken_ports: Callable[[], Container[int]],
        changed: Callable[[Member, str], None],
    ) -> None:
        self.spec = spec
        self.log = log
        self.state: State = "stopped"
        self.waiting_for = ""
        """Why it is not ready, in its own words."""
        self.process: ProcessId | None = None
        self.metrics_port = 0
        self.crashes = 0
        self.restarts = 0
        self.failure: ServiceFailed | None = None
        self._environ = environ
        self._cwd = cwd
        self._policy = policy
        self._http = http
        self._taken_ports = taken_ports
        self._changed = changed
        self._child: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def name(self) -> str:
        """Name of the process on this stack."""
        return self.spec.name

    def start(self) -> None:
        """Start it and keep it running; nothing happens if it is."""
        if self._task is None or self._task.done():
            self._stopping.clear()
            self.crashes = 0
            self.failure = None
            self._task = asyncio.create_task(self._supervise(), name=f"supervise-{self.name}")

    async def stop(self) -> None:
        """Ask it to end; after the policy's deadline, make it."""
        self._stopping.set()
        if self._task is None:
            return
        self.signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self._task}, timeout=self._policy.stop_timeout_s)
        if not done:
            self._changed(self, f"did not end within {self._policy.stop_timeout_s:g} s, killed")
            self.signal(signal.SIGKILL)
            await asyncio.wait({self._task})
        self._task = None
        if self.state != "failed":
            self._become("stopped", "stopped")

    async def kill(self, signum: signal.Signals) -> None:
        """Send it a signal from outside its supervisor's knowledge, and wait until the process has ended.

        Raises:
            StackError: it does not run.
        """
        child = self._child
        if child is None or child.returncode is not None:
            raise StackError(f"{self.name} does not run")
        self.signal(signum)
        await child.wait()

    def signal(self, signum: signal.Signals) -> None:
        """Send its process a signal; nothing happens if it has ended."""
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(signum)

    async def _supervise(self) -> None:
        try:
            await self._keep_running()
        except (OSError, StackError) as error:
            self._give_up(f"cannot be started: {error}")

    async def _keep_running(self) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            child = await self._launch()
            watch = asyncio.create_task(self._watch(child))
            code = await child.wait()
            watch.cancel()
            was_ready = self.state in ("ready", "not ready")
            self.process = None
            if self._stopping.is_set():
                return
            lasted = time.monotonic() - started
            self.crashes = 1 if was_ready and lasted >= self._policy.stable_after_s else self.crashes + 1
            how = _how_it_ended(code)
            if self.crashes >= self._policy.max_crashes:
                self._give_up(f"{how}, {self.crashes} times in a row: given up")
                return
            delay = self._policy.delay_s(self.crashes)
            self._become("restarting", f"{how} after {lasted:.1f} s, starting again in {delay:g} s; log: {self.log}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            self.restarts += 1

    async def _launch(self) -> asyncio.subprocess.Process:
        self.metrics_port = free_port(self._taken_ports())
        variables = {
            **self._environ,
            **self.spec.environ,
            "PENSTOCK_METRICS_PORT": str(self.metrics_port),
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("ab") as output:
            child = await asyncio.create_subprocess_exec(
                *self.spec.argv,
                cwd=self._cwd,
                env=variables,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C on the terminal is for the supervisor, which then asks each service to end.
                start_new_session=True,
            )
        self._child = child
        self.process = process.identify(child.pid)
        self.waiting_for = "no answer from /readyz yet"
        self._become("starting", f"started, pid {child.pid}")
        if self._stopping.is_set():  # asked to end while it was being started
            self.signal(signal.SIGTERM)
        return child

    async def _watch(self, child: asyncio.subprocess.Process) -> None:
        url = f"http://{HOST}:{self.metrics_port}/readyz"
        while child.returncode is None:
            try:
                answer = await self._http.get(url, timeout=_READY_TIMEOUT_S)
                ready = answer.status_code == httpx.codes.OK
                self.waiting_for = "" if ready else answer.text.strip()
            except httpx.HTTPError as error:
                ready = False
                self.waiting_for = f"no answer from /readyz ({type(error).__name__})"
            if child.returncode is not None or self._stopping.is_set():
                return
            if ready and self.state != "ready":
                self._become("ready", f"ready, metrics at http://{HOST}:{self.metrics_port}/metrics")
            elif not ready and self.state == "ready":
                self._become("not ready", f"no longer ready: {self.waiting_for}")
            await asyncio.sleep(_READY_RECHECK_S if ready else _READY_POLL_S)

    def _give_up(self, why: str) -> None:
        self.failure = ServiceFailed(f"{self.name} {why}", self.log, process.tail(self.log))
        self._become("failed", why)

    def _become(self, state: State, text: str) -> None:
        self.state = state
        self._changed(self, text)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
