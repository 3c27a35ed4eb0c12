"""python -m services.alerting"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from datetime import timedelta

from penstock.bus import Hop
from penstock.config.alerting import Alerting, Receiver
from penstock.redis_client import redis_client
from penstock.service import Runtime, run_service

from services.alerting.app import action_hop, alert_hop
from services.alerting.channels.opening import open_channel
from services.alerting.channels.posting import open_http_client
from services.alerting.channels.protocol import Channel
from services.alerting.desk import Desk
from services.alerting.destinations import Destinations
from services.alerting.dispatch import Channels, Dispatcher
from services.alerting.monitors import watching
from services.alerting.outbox import Outbox
from services.alerting.recovery import Recovery
from services.alerting.redis_store import RedisStore
from services.alerting.register import Register
from services.alerting.routing import Directory
from services.alerting.settings import Settings


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Connect Redis and the channels, begin to dispatch and to watch, and return the hops."""
    settings, clock = runtime.settings, runtime.clock
    holder = uuid.uuid4().hex
    redis = redis_client(settings)
    runtime.on_stop(redis.aclose)
    store = RedisStore(redis)
    directory = Directory(runtime.config, settings.otherwise(), timedelta(seconds=settings.alert_max_age_s))
    register = Register(store, directory, settings.silences())
    outbox = Outbox(register, settings.alert_group_most)
    desk = Desk(register, outbox, clock)
    recovery = Recovery(
        store,
        register,
        outbox,
        runtime.bus,
        runtime.codec,
        clock,
        holder=holder,
        always=settings.silences(),
        horizon=timedelta(seconds=settings.alert_rebuild_s),
    )
    channels = _channels(runtime)
    dispatcher = Dispatcher(
        register,
        outbox,
        desk,
        channels,
        runtime.producer(),
        clock,
        holder=holder,
        per_receiver=settings.alert_per_receiver,
        retry_timeout_s=settings.retry_timeout_s,
    )
    runtime.background(recovery.watch(runtime.stopping))
    runtime.background(dispatcher.run(runtime.stopping, recovery.restore))
    watching.start(runtime)
    return [
        alert_hop(desk, recovery.restore, settings.alert_concurrency),
        action_hop(desk, recovery.restore),
    ]


def _channels(runtime: Runtime[Settings]) -> Channels:
    settings = runtime.settings
    client = open_http_client()
    runtime.on_stop(client.aclose)
    destinations = Destinations(settings.alert_allowed_destinations)
    # Who writes the configuration names variables that are sent to a receiver: never those that lead to the platform.
    own = {name.upper() for name in type(settings).model_fields} - {"ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_SECRET"}
    secrets = {name: value for name, value in os.environ.items() if name.upper() not in own}

    def opened(receiver: Receiver) -> Channel:
        published = [entry for entry in runtime.config.entries("alerting").values() if isinstance(entry, Alerting)]
        routes = [route for entry in [*published, settings.otherwise()] for route in entry.routes]
        return open_channel(
            receiver,
            secrets,
            destinations,
            runtime.clock,
            client,
            settings.alert_runbook_base_url,
            longest_repeat_s=max(route.repeat_interval_s for route in routes),
        )

    channels = Channels(opened)
    runtime.on_stop(channels.aclose)
    return channels


def main() -> None:
    """Run alerting."""
    raise SystemExit(run_service("alerting", Settings, build))


if __name__ == "__main__":
    main()
