"""The processes of an engine end with their owner, however that ends: plain processes in the place of vLLM's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from services.inference.vllm.lifeline import OWNER

PROJECT = Path(__file__).resolve().parents[2]

_WORKER = "import services.inference.vllm.lifeline, time; print('up', flush=True); time.sleep(600)"
_CORE = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_WORKER!r}])"


@pytest.mark.parametrize(("core", "processes"), [(_CORE, 2), (_WORKER, 1)], ids=["worker of a core", "core alone"])
def test_they_end_with_an_owner_that_is_killed(core: str, processes: int) -> None:
    owner = (
        "import os, subprocess, sys\n"
        f"os.environ[{OWNER!r}] = str(os.getpid())\n"
        f"subprocess.run([sys.executable, '-c', {core!r}])"
    )
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT / 'shared'}:{PROJECT}"}
    process = subprocess.Popen([sys.executable, "-c", owner], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout as said:
        assert said.readline() == "up\n"
        children = psutil.Process(process.pid).children(recursive=True)
        try:
            assert len(children) == processes
            process.kill()
            _, alive = psutil.wait_procs(children, timeout=20)
            assert not alive
        finally:
            for child in children:
                if child.is_running():
                    child.kill()


def test_one_that_starts_after_its_owner_has_ended_does_not_stay() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT / 'shared'}:{PROJECT}", OWNER: str(gone.pid)}
    # Of a parent of its own, which is taken for the engine's core.
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_WORKER!r}])"
    run = subprocess.run([sys.executable, "-c", parent], env=environment, timeout=60, check=False)
    assert run.returncode == -9
