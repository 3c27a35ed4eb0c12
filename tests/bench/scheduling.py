"""Linux's autogroups, off while a bench runs that puts a busy engine and a broker on the same cores.

The kernel gives processor time to sessions first (sched_autogroup_enabled; sched(7)), and every part of the stack has a
session of its own. Beside an engine that never sleeps the broker's session was seen to wait for up to a second before it
ran, at a tenth of a core of load: that is a figure of the scheduler, not of the log. It does not arise where the broker has
cores of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

__all__ = ["sessions_as_equals"]

_AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


@contextmanager
def sessions_as_equals(console: Console) -> Iterator[None]:
    """Switch autogroups off and on again, where the system has them and lets us; say so where it does not."""
    if not _AUTOGROUP.exists() or _AUTOGROUP.read_text().strip() == "0":
        yield
        return
    try:
        _AUTOGROUP.write_text("0")
    except OSError:
        console.print(f"{_AUTOGROUP} is 1 and not ours to change: the broker may wait long for a core in these figures")
        yield
        return
    console.print(f"{_AUTOGROUP} is 0 while this runs")
    try:
        yield
    finally:
        _AUTOGROUP.write_text("1")
