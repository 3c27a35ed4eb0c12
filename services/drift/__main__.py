"""python -m services.drift"""

from __future__ import annotations

import os

# Matrices here are so small that threads only wait for each other: 60 times slower beside other processes. NumPy reads
# this when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Sequence

from penstock.bus import Hop
from penstock.service import Runtime, run_service
from penstock.stateful import partition_count

from services.drift.app import projection_hop, watcher
from services.drift.settings import Settings


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Start the watcher beside the hops and return the hops."""
    settings = runtime.settings
    partitions = await partition_count(settings, ["signals"])
    runtime.not_ready("segments")
    worker = watcher(
        settings,
        settings.parameters(),
        partitions,
        runtime.codec,
        runtime.producer(),
        runtime.clock,
        settings.drift_checkpoint_s,
        lambda: runtime.ready("segments"),
    )
    runtime.background(worker.run(runtime.stopping))
    return [projection_hop()]


def main() -> None:
    """Run drift."""
    raise SystemExit(run_service("drift", Settings, build))


if __name__ == "__main__":
    main()
