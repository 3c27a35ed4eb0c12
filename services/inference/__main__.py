"""python -m services.inference"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aiohttp
from penstock.bus import Hop
from penstock.config.kinds import Route
from penstock.redis_client import redis_client
from penstock.service import Runtime, run_service
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.inference.adapters import Backend, ExtractiveBackend
from services.inference.answered import AnsweredTail
from services.inference.answers import Answers, RedisAnswers
from services.inference.app import inference_hop
from services.inference.cancellations import Cancellations, FollowedCancellations
from services.inference.flights import RedisFlights
from services.inference.journal import Journal
from services.inference.openai_endpoint import OpenAIBackend
from services.inference.redelivery import KeptJournal
from services.inference.routing import Arms, MeasuredQuality, Routing, TargetRouting, follow_scores
from services.inference.routing.canary import CanaryArms, Rollbacks
from services.inference.settings import Settings
from services.inference.shadow import shadow_hop
from services.inference.vllm.opening import open_backend

_MOST_SHADOWS = 4
"""A route has no more of them."""


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Return the hops, with every backend there is here."""
    return await hops_with(runtime, await open_backends(runtime))


async def open_backends(runtime: Runtime[Settings]) -> dict[str, Backend]:
    """Open the connection pool, and the engine where one is configured."""
    concurrency, beside = runtime.settings.inference_concurrency, runtime.settings.inference_shadow_concurrency
    # Shadows never take a connection from what is served.
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency + _MOST_SHADOWS * beside))
    runtime.on_stop(session.close)
    backends: dict[str, Backend] = {"extractive": ExtractiveBackend(), "openai": OpenAIBackend(session)}
    if runtime.settings.inference_engine is not None:
        backends["vllm"] = await open_backend(runtime, runtime.settings.inference_engine, runtime.config.adapter)
    return backends


async def hops_with(runtime: Runtime[Settings], backends: Mapping[str, Backend]) -> Sequence[Hop]:
    """Return what answers by ``backends``, and what answers in shadow where that is on."""
    settings = runtime.settings
    hops = [
        inference_hop(
            runtime.config,
            backends,
            _answers(runtime),
            runtime.clock,
            settings.inference_concurrency,
            runtime.producer(),
            grid_grams_per_kwh=settings.grid_grams_per_kwh,
            tracing=runtime.tracing,
            routing=_routing(runtime, await _arms(runtime)),
            journal=await _journal(runtime),
            cancellations=await _cancellations(runtime),
            waiting=settings.inference_waiting,
        )
    ]
    if settings.inference_shadow_concurrency:
        hops.append(
            shadow_hop(
                runtime.config,
                backends,
                runtime.clock,
                settings.inference_shadow_concurrency,
                max_wait_s=settings.inference_shadow_wait_s,
                wanted=lambda: _has_shadows(runtime),
                grid_grams_per_kwh=settings.grid_grams_per_kwh,
                tracing=runtime.tracing,
            )
        )
    return hops


def _has_shadows(runtime: Runtime[Settings]) -> bool:
    routes = runtime.config.entries("routes").values()
    return any(isinstance(route, Route) and bool(route.shadows) for route in routes)


def _answers(runtime: Runtime[Settings]) -> Answers:
    """Return where answers are kept that are given again."""
    # No connection is made before a route has its cache on. A try that fails is not repeated: the model is called.
    redis = redis_client(runtime.settings, url=runtime.settings.inference_cache_url, retry=Retry(NoBackoff(), 0))
    runtime.on_stop(redis.aclose)
    configured = runtime.settings.inference_cache_key
    return RedisAnswers(redis, configured.get_secret_value() if configured else None, runtime.clock)


async def _arms(runtime: Runtime[Settings]) -> Arms:
    """Return who says what a canary gets; it has read which were taken back, and follows what is decided."""
    rollbacks = await Rollbacks.open(
        runtime.bus, runtime.codec, timeout_s=runtime.settings.start_timeout_s, clock=runtime.clock
    )
    runtime.on_stop(rollbacks.close)
    runtime.background(rollbacks.follow(runtime.stopping))
    return CanaryArms(runtime.config.experiment, rollbacks)


def _routing(runtime: Runtime[Settings], arms: Arms) -> Routing:
    """Return who chooses targets; it follows the scores of their answers while a route has a quality floor."""
    quality = MeasuredQuality()

    def wanted() -> Mapping[str, str]:
        routes = runtime.config.entries("routes").values()
        return {
            route.name: route.quality_floor.score
            for route in routes
            if isinstance(route, Route) and route.quality_floor
        }

    runtime.background(follow_scores(runtime.bus, runtime.codec, wanted, quality, runtime.clock, runtime.stopping))
    return TargetRouting(runtime.config, runtime.clock, arms=arms, quality=quality)


async def _journal(runtime: Runtime[Settings]) -> Journal:
    """Return what knows what was read before, and keeps what is in flight."""
    # Not in the cache's Redis, which may drop what it holds.
    redis = redis_client(runtime.settings, retry=Retry(NoBackoff(), 0))
    runtime.on_stop(redis.aclose)
    journal = KeptJournal(RedisFlights(redis), AnsweredTail(runtime.bus, runtime.codec, runtime.clock), runtime.clock)
    runtime.on_stop(journal.close)
    runtime.background(journal.run(runtime.stopping))
    return journal


async def _cancellations(runtime: Runtime[Settings]) -> Cancellations:
    """Return what knows the requests that were cancelled; it has read what is still of use."""
    cancellations = FollowedCancellations(runtime.codec, runtime.clock, runtime.settings.inference_cancellations_s)
    await cancellations.open(runtime.bus, runtime.settings.start_timeout_s)
    runtime.on_stop(cancellations.close)
    runtime.background(cancellations.follow(runtime.stopping))
    return cancellations


def main() -> None:
    """Run inference."""
    raise SystemExit(run_service("inference", Settings, build))


if __name__ == "__main__":
    main()
