"""A service that steps back does so beside services of other sessions, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AUTOGROUP = Path("/proc/self/autogroup")
STEP_BACK = (
    "import os, pathlib; from penstock.service import step_back; step_back(7);"
    "group = pathlib.Path('/proc/self/autogroup');"
    "print(os.nice(0), *(group.read_text().split()[-1:] if group.exists() else ()))"
)


def scheduled_by_session() -> bool:
    """Whether this process is: in a control group of its own for processors, as containers are, the file is empty."""
    return AUTOGROUP.exists() and bool(AUTOGROUP.read_text().strip())


def told(*, own_session: bool) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", STEP_BACK], capture_output=True, text=True, check=True, start_new_session=own_session
    )
    return run.stdout.split()


def test_a_service_steps_back_whatever_schedules_it() -> None:
    assert told(own_session=True)[0] == told(own_session=False)[0] == "7"


@pytest.mark.skipif(not scheduled_by_session(), reason="this process is not scheduled by session")
def test_a_session_of_its_own_steps_back_and_a_shared_one_stays() -> None:
    before = AUTOGROUP.read_text().split()[-1]
    assert told(own_session=True) == ["7", "7"]
    assert told(own_session=False) == ["7", before]
    assert AUTOGROUP.read_text().split()[-1] == before
