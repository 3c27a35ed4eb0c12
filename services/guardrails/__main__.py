"""python -m services.guardrails"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.bus import Hop
from penstock.redis_client import redis_client
from penstock.sealing import Seal, shared_secret
from penstock.service import Runtime, run_service

from services.guardrails.adapters import RedisReleases
from services.guardrails.app import document_hop, end_overdue_reviews, release_hop, request_hop, review_hop
from services.guardrails.held_texts import RedisReviews, RedisVault
from services.guardrails.judge import Judge
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits
from services.guardrails.settings import Settings
from services.guardrails.stream_state import RedisStreams
from services.guardrails.streaming_app import stream_hop

_FINGERPRINT_KEY = "penstock:guardrails:fingerprint-key"
_PIECES = 64
"""Pieces of streams handled at once, which cost two round trips to Redis and one to the log."""


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Connect Redis, load the scanners and return the hops."""
    settings = runtime.settings
    redis = redis_client(settings)
    runtime.on_stop(redis.aclose)
    configured = settings.guardrails_fingerprint_key
    key = await shared_secret(redis, _FINGERPRINT_KEY, configured.get_secret_value() if configured else None)
    judge = Judge(runtime.config, shipped_scanners(), key, runtime.clock)
    judge.warm_up()
    seal, clock, batch = (
        Seal(key, "guardrails", "GUARDRAILS_FINGERPRINT_KEY"),
        runtime.clock,
        settings.guardrails_max_batch,
    )
    releases = RedisReleases(redis, settings.release_ttl_s)
    vault = RedisVault(redis, seal, settings.pseudonym_ttl_s)
    reviews = RedisReviews(redis, seal, runtime.codec)
    limits = Limits(settings.guardrails_max_chars, settings.guardrails_time_budget_s)
    document_limits = Limits(settings.guardrails_document_max_chars, settings.guardrails_document_time_budget_s)
    runtime.background(end_overdue_reviews(reviews, runtime.producer(), clock, runtime.stopping))
    return [
        request_hop(judge, vault, reviews, limits, clock, batch),
        release_hop(judge, releases, vault, reviews, limits, clock, batch),
        stream_hop(judge, RedisStreams(redis, seal), vault, runtime.producer(), limits, clock, _PIECES),
        review_hop(reviews, releases, clock, batch),
        document_hop(judge, runtime.config, document_limits),
    ]


def main() -> None:
    """Run guardrails."""
    raise SystemExit(run_service("guardrails", Settings, build))


if __name__ == "__main__":
    main()
