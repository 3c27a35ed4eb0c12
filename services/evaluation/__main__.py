"""python -m services.evaluation"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.bus import Hop
from penstock.service import Runtime, run_service

from services.evaluation.adapters import load_toxicity
from services.evaluation.app import evaluation_worker
from services.evaluation.settings import Settings


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Load the model and start the Faust worker; evaluation has no hops."""
    worker = await evaluation_worker(
        runtime.settings,
        config=runtime.config,
        model=load_toxicity(),
        codec=runtime.codec,
        output=runtime.producer(),
        clock=runtime.clock,
        ready=lambda: runtime.ready("tables"),
    )
    runtime.not_ready("tables")
    runtime.background(worker.run(runtime.stopping))
    return []


def main() -> None:
    """Run evaluation."""
    raise SystemExit(run_service("evaluation", Settings, build))


if __name__ == "__main__":
    main()
