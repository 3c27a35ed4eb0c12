"""python -m services.edge"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.bus import Hop, run_hops
from penstock.identity import KeyDirectory, installation_secret
from penstock.redis_client import redis_client
from penstock.service import Runtime, run_service

from services.edge.app import application
from services.edge.authentication import KeyAuthenticator
from services.edge.boundary import Room
from services.edge.desk import LogDesk
from services.edge.front import Front
from services.edge.redis_store import EdgeStore
from services.edge.result_log import ResultLog
from services.edge.results_hop import results_hop
from services.edge.server import ApiServer
from services.edge.settings import Settings

_API = "the API"


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Connect Redis and open the API, with the hop beside it."""
    settings = runtime.settings
    directory = KeyDirectory(runtime.config, installation_secret(settings), runtime.clock)
    redis = redis_client(settings)
    runtime.on_stop(redis.aclose)
    store = EdgeStore(redis, settings.request_ttl_s, settings.result_ttl_s)
    results = ResultLog(runtime.bus, runtime.codec)
    desk = LogDesk(store, results, runtime.producer(), runtime.codec, runtime.clock)
    leaving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    front = Front(
        authenticator=KeyAuthenticator(directory),
        desk=desk,
        config=runtime.config,
        clock=runtime.clock,
        tracing=runtime.tracing,
        room=Room(settings.max_requests, settings.max_bodies_bytes),
        leaving=leaving,
        max_body_bytes=settings.max_body_bytes,
        answer_timeout_s=settings.answer_timeout_s,
        keepalive_s=settings.keepalive_s,
        embedding_model=settings.embedding_model,
        embedding_dimension=settings.embedding_dimension,
    )

    def waiting_for() -> list[str]:
        return [*runtime.waiting_for(), *(["the end"] if runtime.stopping.is_set() else [])]

    server = ApiServer(application(front, waiting_for, settings.cors_origins), settings)
    hop = results_hop(store)
    runtime.not_ready(_API)
    runtime.not_ready(hop.group)
    drained = asyncio.Event()

    async def serve() -> None:
        ending = asyncio.create_task(_leave(runtime.stopping, settings.answers_within_s, leaving))
        try:
            await server.serve(runtime.stopping, lambda: runtime.ready(_API))
        finally:
            ending.cancel()
            drained.set()

    async def bring() -> None:
        # Not one of the shell's, which end with the signal: who still waits would wait for what nobody brings.
        await run_hops(
            [hop], runtime.bus, runtime.codec, runtime.clock, settings, drained, runtime.tracing, runtime.ready
        )

    runtime.background(serve())
    runtime.background(bring())
    runtime.background(desk.run(runtime.stopping))
    return []


async def _leave(stopping: asyncio.Event, drain_s: float, leaving: asyncio.Future[None]) -> None:
    """Let answers be waited for a while after ``stopping``, and then no more."""
    await stopping.wait()
    await asyncio.sleep(drain_s)
    leaving.set_result(None)


def main() -> None:
    """Run the edge."""
    raise SystemExit(run_service("edge", Settings, build))


if __name__ == "__main__":
    main()
