"""python -m services.inference"""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp
from penstock.bus import Hop
from penstock.service import Runtime, run_service

from services.inference.adapters import Backend, ExtractiveBackend
from services.inference.app import inference_hop
from services.inference.openai_endpoint import OpenAIBackend
from services.inference.settings import Settings


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Open the connection pool and return the hop."""
    concurrency = runtime.settings.inference_concurrency
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency))
    runtime.on_stop(session.close)
    backends: dict[str, Backend] = {"extractive": ExtractiveBackend(), "openai": OpenAIBackend(session)}
    return [inference_hop(runtime.config, backends, runtime.clock, concurrency, runtime.producer())]


def main() -> None:
    """Run inference."""
    raise SystemExit(run_service("inference", Settings, build))


if __name__ == "__main__":
    main()
