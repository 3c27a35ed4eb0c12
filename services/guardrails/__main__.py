"""python -m services.guardrails"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.bus import Hop
from penstock.service import Runtime, run_service
from redis.asyncio import Redis

from services.guardrails.adapters import RedisReleases, fingerprint_key
from services.guardrails.app import Judge, document_hop, release_hop, request_hop
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits
from services.guardrails.settings import Settings


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Connect Redis, load the scanners and return the hops."""
    settings = runtime.settings
    redis = Redis.from_url(settings.redis_url)
    runtime.on_stop(redis.aclose)
    configured = settings.guardrails_fingerprint_key
    key = await fingerprint_key(redis, configured.get_secret_value() if configured else None)
    judge = Judge(runtime.config, shipped_scanners(), key, runtime.clock)
    limits = Limits(settings.guardrails_max_chars, settings.guardrails_time_budget_s)
    document_limits = Limits(settings.guardrails_document_max_chars, settings.guardrails_document_time_budget_s)
    return [
        request_hop(judge, limits, runtime.clock, settings.guardrails_max_batch),
        release_hop(
            judge, RedisReleases(redis, settings.release_ttl_s), limits, runtime.clock, settings.guardrails_max_batch
        ),
        document_hop(judge, runtime.config, document_limits),
    ]


def main() -> None:
    """Run guardrails."""
    raise SystemExit(run_service("guardrails", Settings, build))


if __name__ == "__main__":
    main()
