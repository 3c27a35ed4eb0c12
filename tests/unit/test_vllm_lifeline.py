"""The processes of an engine end with their owner, however that ends: plain processes in the place of vLLM's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from services.inference.vllm.lifeline import OWNER

PROJECT = Path(__file__).resolve().parents[2]

_SLEEP = "import services.inference.vllm.lifeline, time; print('up', flush=True); time.sleep(600)"
_SPAWN = "import multiprocessing; process = multiprocessing.get_context('spawn').Process(target=exec, args=({!r},))"
_WAIT = "; process.start(); process.join()"
_ENGINE = _SPAWN.format(_SLEEP) + _WAIT
"""An engine in one process, started as vLLM starts its own."""
_CORE_AND_WORKER = _SPAWN.format(_ENGINE) + _WAIT


@pytest.mark.parametrize(("engine", "processes"), [(_CORE_AND_WORKER, 2), (_ENGINE, 1)], ids=["workers apart", "one"])
def test_they_end_with_an_owner_that_is_killed(engine: str, processes: int) -> None:
    owner = f"import os; os.environ[{OWNER!r}] = str(os.getpid()); {engine}"
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT / 'shared'}:{PROJECT}"}
    process = subprocess.Popen([sys.executable, "-c", owner], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout as said:
        assert said.readline() == "up\n"
        children = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "resource_tracker" not in " ".join(child.cmdline())
        ]
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
    # The process that would be its core ends by it, too; one that is no part of the engine does not.
    core = subprocess.run([sys.executable, "-c", _ENGINE], env=environment, timeout=60, check=False)
    assert core.returncode == -signal.SIGKILL
    stranger = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {!r}]).returncode + 5)"
    run = subprocess.run([sys.executable, "-c", stranger.format(_SLEEP)], env=environment, timeout=60, check=False)
    assert run.returncode == 6
