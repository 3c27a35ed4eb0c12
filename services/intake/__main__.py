"""python -m services.intake"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from penstock.bus import Hop
from penstock.service import Runtime, run_service
from redis.asyncio import Redis

from services.intake.adapters import RedisClaims
from services.intake.app import admission_hop, settlement_hop
from services.intake.core import Limits
from services.intake.settings import Settings


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Connect Redis and return the hops."""
    settings = runtime.settings
    redis = Redis.from_url(settings.redis_url)
    runtime.on_stop(redis.aclose)
    claims = RedisClaims(redis, settings.idempotency_ttl_s, settings.reservation_grace_s)
    limits = Limits(
        max_prompt_bytes=settings.max_prompt_bytes,
        max_messages=settings.max_messages,
        answered_within=timedelta(seconds=settings.idempotency_ttl_s),
        embedder=settings.embedding_model,
    )
    return [
        admission_hop(runtime.config, claims, limits, runtime.clock),
        settlement_hop(runtime.config, claims, runtime.clock),
    ]


def main() -> None:
    """Run intake."""
    raise SystemExit(run_service("intake", Settings, build))


if __name__ == "__main__":
    main()
