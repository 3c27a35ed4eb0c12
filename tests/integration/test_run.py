"""``penstock run`` with a real service on the deployed stack, as a process of its own."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from penstock.stack.roster import RosterFile
from penstock.stack.state import StackFolder

PENSTOCK = [sys.executable, "-c", "from penstock.cli.main import main; main(prog_name='penstock')"]
NAME = "user"
_TIMEOUT_S = 60


class Run:
    """A ``penstock`` process whose lines can be waited for."""

    def __init__(self, environ: Mapping[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*PENSTOCK, *arguments, "--name", NAME],
            env=dict(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.seen: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def until(self, text: str) -> str:
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=0.2)
            except queue.Empty:
                assert self.process.poll() is None, self.output()
                continue
            self.seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {self.seen}")

    def output(self) -> str:
        """Wait for the end and return all that was printed."""
        self.process.wait(_TIMEOUT_S)
        self._reader.join(_TIMEOUT_S)
        while not self._lines.empty():
            self.seen.append(self._lines.get())
        return "".join(self.seen)


@pytest.fixture
def environ(deployed: Mapping[str, str], project: Path, tmp_path: Path) -> dict[str, str]:
    """The deployed servers as given from outside, with a state folder of this test's own."""
    return {
        **os.environ,
        **deployed,
        "PENSTOCK_STATE_DIR": str(tmp_path),
        "PYTHONPATH": f"{project / 'shared'}{os.pathsep}{project}",
    }


@pytest.fixture
def runs(environ: dict[str, str]) -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.wait(_TIMEOUT_S)


def test_a_service_runs_comes_back_from_sigkill_and_stops_in_order(
    environ: dict[str, str], runs: list[Run], tmp_path: Path
) -> None:
    run = Run(environ, "run", "intake")
    runs.append(run)
    run.until("all services are ready")
    roster = RosterFile(StackFolder(tmp_path, NAME)).read()
    assert roster is not None
    assert roster.supervisor.pid == run.process.pid
    intake = roster.services["intake"]
    assert "penstock" in httpx.get(f"http://127.0.0.1:{intake.metrics_port}/metrics", trust_env=False).text

    refused = Run(environ, "run", "intake")
    assert f"(pid {run.process.pid}); stop that one first" in refused.output()
    assert refused.process.returncode == 1

    os.kill(intake.process.pid, signal.SIGKILL)
    assert str(tmp_path / NAME / "logs" / "intake.log") in run.until("was killed by SIGKILL")
    run.until("intake: ready")

    run.process.send_signal(signal.SIGINT)
    assert "intake: stopped" in run.output()
    assert run.process.returncode == 0
    assert RosterFile(StackFolder(tmp_path, NAME)).read() is None


def test_stack_down_stops_the_services_and_leaves_given_servers_alone(environ: dict[str, str], runs: list[Run]) -> None:
    run = Run(environ, "run", "intake")
    runs.append(run)
    run.until("intake: ready")
    down = Run(environ, "stack", "down")
    assert f"stopping the services (penstock run, pid {run.process.pid})" in down.output()
    assert down.process.returncode == 0
    assert "intake: stopped" in run.output()
    assert run.process.returncode == 0
    status = Run(environ, "stack", "status")
    assert "given" in status.output()
    assert status.process.returncode == 0


def test_a_service_that_cannot_start_ends_the_run_with_its_log(environ: dict[str, str], runs: list[Run]) -> None:
    run = Run({**environ, "SESSION_TIMEOUT_MS": "soon"}, "run", "intake", "--max-crashes", "2")
    runs.append(run)
    output = run.output()
    assert run.process.returncode == 1
    assert "2 times in a row: given up" in output
    assert "SESSION_TIMEOUT_MS" in output
