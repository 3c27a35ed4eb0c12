"""A service whose own port is taken says which setting to look at."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

START = (
    "import sys; from penstock.service import run_service; from penstock.settings import ServiceSettings;"
    "sys.exit(run_service('test', ServiceSettings, lambda runtime: None))"
)


def test_a_taken_port_of_metrics_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = os.environ | {"METRICS_HOST": "127.0.0.1", "PENSTOCK_METRICS_PORT": str(taken.getsockname()[1])}
        run = subprocess.run(
            [sys.executable, "-c", START], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
    said = run.stdout + run.stderr
    assert run.returncode == 1, said
    assert "is PENSTOCK_METRICS_PORT taken?" in said
    assert "Traceback" not in said
