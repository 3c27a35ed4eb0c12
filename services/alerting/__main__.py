"""python -m services.alerting"""

from __future__ import annotations

from collections.abc import Sequence

import httpx
from penstock.bus import Hop
from penstock.service import Runtime, run_service
from redis.asyncio import Redis

from services.alerting.adapters import Channel, Console, RedisMemory, Webhook
from services.alerting.app import Deliveries, delivery_hop
from services.alerting.settings import Settings


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Connect Redis and the channel and return the hop."""
    settings = runtime.settings
    policy = settings.policy()
    redis = Redis.from_url(settings.redis_url)
    runtime.on_stop(redis.aclose)
    memory = RedisMemory(redis, policy.window, policy.max_age)
    deliveries = Deliveries(
        _channel(runtime), memory, policy, runtime.clock, settings.alert_group_wait_s, settings.alert_group_most
    )
    runtime.on_stop(deliveries.close)
    return [delivery_hop(deliveries, settings.alert_concurrency)]


def _channel(runtime: Runtime[Settings]) -> Channel:
    settings = runtime.settings
    if settings.alert_webhook_url is None:
        return Console(settings.alert_runbook_base_url)
    # Redirects are not followed: the address that was configured is the one that is trusted with alerts.
    client = httpx.AsyncClient(
        follow_redirects=False,
        timeout=settings.alert_webhook_timeout_s,
        limits=httpx.Limits(max_connections=settings.alert_concurrency),
    )
    runtime.on_stop(client.aclose)
    secret = settings.alert_webhook_secret
    return Webhook(
        client,
        settings.alert_webhook_url.get_secret_value(),
        secret.get_secret_value() if secret else None,
        runtime.clock,
        timeout_s=settings.alert_webhook_timeout_s,
        retry_s=settings.alert_webhook_retry_s,
        runbook_base_url=settings.alert_runbook_base_url,
    )


def main() -> None:
    """Run alerting."""
    raise SystemExit(run_service("alerting", Settings, build))


if __name__ == "__main__":
    main()
