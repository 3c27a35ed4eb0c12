"""python -m services.intake"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta

from penstock.bus import Hop, Transient
from penstock.redis_client import redis_client
from penstock.service import Runtime, run_service
from penstock.telemetry import get_logger

from services.intake.adapters import RedisClaims
from services.intake.admission import Admission
from services.intake.app import admission_hop, settlement_hop, waiting_hop
from services.intake.core import Limits
from services.intake.queues import RedisQueues
from services.intake.redis_calls import may_evict
from services.intake.settings import Settings
from services.intake.waiting_room import WaitingRoom, watch_queues

log = get_logger(__name__)


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Connect Redis and return the hops."""
    settings = runtime.settings
    redis = redis_client(settings)
    runtime.on_stop(redis.aclose)
    with contextlib.suppress(Transient):  # the hops wait for it, and say so
        if await may_evict(redis):
            log.error(
                "Redis may evict counters of hard budgets, which would then begin anew",
                remedy="set maxmemory-policy to noeviction",
            )
    claims = RedisClaims(
        redis,
        settings.idempotency_ttl_s,
        settings.reservation_grace_s,
        settings.deferral_ttl_s,
        settings.team_requests_in_flow,
    )
    queues = RedisQueues(redis, settings.idempotency_ttl_s, settings.reservation_grace_s)
    admission, room = Admission(claims, queues), WaitingRoom(claims, runtime.clock)
    runtime.background(room.run(runtime.stopping))
    runtime.on_stop(room.tell)
    runtime.background(watch_queues(queues, lambda: runtime.config.entries("routes"), runtime.clock, runtime.stopping))
    limits = Limits(
        max_prompt_bytes=settings.max_prompt_bytes,
        max_messages=settings.max_messages,
        answered_within=timedelta(seconds=settings.idempotency_ttl_s),
        embedder=settings.embedding_model,
    )
    return [
        admission_hop(runtime.config, admission, limits, runtime.clock),
        waiting_hop(runtime.config, admission, room, limits, runtime.clock),
        settlement_hop(runtime.config, claims, runtime.clock, queues),
    ]


def main() -> None:
    """Run intake."""
    raise SystemExit(run_service("intake", Settings, build))


if __name__ == "__main__":
    main()
