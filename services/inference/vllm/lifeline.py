"""The engine's processes end with the process they work for, however that ends.

vLLM's engine outlives an owner that was killed: it keeps the accelerator, and answers nobody. Its workers load this module
by name (``worker_extension_cls``), which is the one place where code of ours runs in them; loading it starts the watch.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
import time
from contextlib import suppress

__all__ = ["OWNER", "Lifeline", "wait_for_end"]

OWNER = "PENSTOCK_ENGINE_OWNER"
"""Environment variable with the id of the process that the engine works for."""
_POLL_S = 1.0


class Lifeline:
    """What vLLM mixes into its worker: nothing. Importing it is all that counts."""


def wait_for_end(process: int) -> None:
    """Return when ``process`` has ended."""
    try:
        ended = os.pidfd_open(process)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):  # kernels before 5.3, and sandboxes that refuse the call
        with suppress(ProcessLookupError):
            while True:
                os.kill(process, 0)
                time.sleep(_POLL_S)
        return
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.poll()
    finally:
        os.close(ended)


def _end_with(owner: int) -> None:
    wait_for_end(owner)
    # A worker's parent is the engine's core; the core's own is the owner. As it was at the start: who takes in a process
    # that lost its parent has nothing to do with it.
    core = multiprocessing.parent_process()
    if core is not None and core.pid is not None and core.pid != owner and core.pid == os.getppid():
        with suppress(ProcessLookupError):
            os.kill(core.pid, signal.SIGKILL)
    os._exit(1)


if (_owner := os.environ.get(OWNER, "")).isdigit() and int(_owner) != os.getpid():
    threading.Thread(target=_end_with, args=(int(_owner),), name="lifeline", daemon=True).start()
