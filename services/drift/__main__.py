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

from services.drift.app import JOINED, projection_hop, watcher
from services.drift.settings import Settings
from services.drift.texts import packaged_text_reader


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Start the watcher beside the hops and return the hops.

    Raises:
        penstock.stateful.PartitionMismatch: ``signals`` or ``drift-commands`` is missing, or they differ in partitions.
    """
    settings = runtime.settings
    partitions = await partition_count(settings, JOINED)
    runtime.not_ready("segments")
    worker = watcher(
        settings,
        settings.rules(partitions),
        partitions,
        runtime.codec,
        runtime.producer(),
        runtime.clock,
        settings.drift_checkpoint_s,
        lambda: runtime.ready("segments"),
    )
    runtime.background(worker.run(runtime.stopping))
    reader = packaged_text_reader(
        answer_embeddings=settings.drift_answer_embeddings,
        answer_share=settings.drift_answer_share,
        language_share=settings.drift_language_share,
    )
    return [projection_hop(reader)]


def main() -> None:
    """Run drift."""
    raise SystemExit(run_service("drift", Settings, build))


if __name__ == "__main__":
    main()
