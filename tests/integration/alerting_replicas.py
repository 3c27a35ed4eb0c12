"""Processes of alerting, on the stack of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Replicas"]


class Replicas:
    """Starts processes of alerting; those that still run are ended by :meth:`stop`."""

    def __init__(self, project: Path, deployed: Mapping[str, str], logs: Path) -> None:
        self._project = project
        self._deployed = deployed
        self._logs = logs
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, **variables: str) -> subprocess.Popen[bytes]:
        """Start one with settings of its own; the monitors are off unless these say otherwise."""
        environment = {
            **os.environ, **self._deployed, "PYTHONPATH": f"{self._project / 'shared'}:{self._project}",
            "SESSION_TIMEOUT_MS": "6000", "MONITOR_ENABLED": "false", **variables,
        }  # fmt: skip
        with self.log(len(self._started)).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.alerting"],
                env=environment, cwd=self._project, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._started.append(process)
        return process

    def log(self, number: int) -> Path:
        """Return the log of the ``number``-th replica."""
        return self._logs / f"alerting-{number}.log"

    def leader(self) -> int | None:
        """Return the number of the live replica that said last that it watches the platform."""
        said = {
            number: self.log(number).read_text("utf-8", "replace").count("watching the platform")
            for number, process in enumerate(self._started)
            if process.poll() is None
        }
        return next((number for number, times in said.items() if times), None)

    def kill(self, number: int) -> None:
        """End one as a crash does."""
        self._started[number].kill()
        self._started[number].wait(20)

    def stop(self) -> None:
        """End all that run, and wait for them."""
        for process in self._started:
            process.terminate()
        give_up = time.monotonic() + 40
        for process in self._started:
            try:
                process.wait(max(1.0, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
