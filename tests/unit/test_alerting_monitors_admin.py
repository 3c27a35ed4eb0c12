"""The process that asks Kafka's admin API ends with the one that began it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

BEGINNING = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from penstock.settings import KafkaSettings
from services.alerting.monitors.admin import _begin

if __name__ == "__main__":
    settings = KafkaSettings(kafka_bootstrap="127.0.0.1:1")
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin, initargs=(settings,))
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


def test_a_killed_service_leaves_no_process_behind(project: Path, tmp_path: Path) -> None:
    program = tmp_path / "beginning.py"
    program.write_text(BEGINNING, "utf-8")
    environment = os.environ | {"PYTHONPATH": f"{project / 'shared'}{os.pathsep}{project}"}
    service = subprocess.Popen([sys.executable, str(program)], env=environment, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    asking = psutil.Process(int(service.stdout.readline()))
    service.kill()
    service.wait(10)
    give_up = time.monotonic() + 20
    with contextlib.suppress(psutil.NoSuchProcess):
        while asking.is_running() and asking.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < give_up, "the process is still there"
            time.sleep(0.05)
