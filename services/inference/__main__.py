"""python -m services.inference"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aiohttp
from penstock.bus import Hop
from penstock.config.kinds import Route
from penstock.service import Runtime, run_service
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.inference.adapters import Backend, ExtractiveBackend
from services.inference.answers import RedisAnswers
from services.inference.app import inference_hop
from services.inference.openai_endpoint import OpenAIBackend
from services.inference.routing import MeasuredQuality, Routing, TargetRouting, follow_scores
from services.inference.settings import Settings
from services.inference.vllm.opening import open_backend


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Open the connection pool and return the hop."""
    concurrency = runtime.settings.inference_concurrency
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency))
    runtime.on_stop(session.close)
    # No connection is made before a route has its cache on. A try that fails is not repeated: the model is called.
    redis = Redis.from_url(
        runtime.settings.inference_cache_url or runtime.settings.redis_url, retry=Retry(NoBackoff(), 0)
    )
    runtime.on_stop(redis.aclose)
    configured = runtime.settings.inference_cache_key
    answers = RedisAnswers(redis, configured.get_secret_value() if configured else None, runtime.clock)
    backends: dict[str, Backend] = {"extractive": ExtractiveBackend(), "openai": OpenAIBackend(session)}
    if runtime.settings.inference_engine is not None:
        backends["vllm"] = await open_backend(runtime, runtime.settings.inference_engine, runtime.config.adapter)
    return [
        inference_hop(
            runtime.config,
            backends,
            answers,
            runtime.clock,
            concurrency,
            runtime.producer(),
            grid_grams_per_kwh=runtime.settings.grid_grams_per_kwh,
            tracing=runtime.tracing,
            routing=_routing(runtime),
        )
    ]


def _routing(runtime: Runtime[Settings]) -> Routing:
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
    return TargetRouting(runtime.config, runtime.clock, quality=quality)


def main() -> None:
    """Run inference."""
    raise SystemExit(run_service("inference", Settings, build))


if __name__ == "__main__":
    main()
