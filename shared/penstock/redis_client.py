"""The one way to connect to Redis: address, login and TLS from the settings."""

from __future__ import annotations

from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from penstock.settings import RedisSettings

__all__ = ["blocking_redis_client", "redis_client", "redis_options"]


def redis_client(settings: RedisSettings, *, url: str | None = None, **options: Any) -> Redis:
    """Return a client of the Redis that ``settings`` name; no connection is made before the first command.

    Args:
        settings: where it is and how to log in.
        url: another server, which has its user and password in its address: those of the settings are for theirs alone. The
            certificates hold for both.
        options: as of redis-py, such as ``retry`` or ``socket_timeout``.
    """
    client: Redis = Redis.from_url(url or settings.redis_url, **redis_options(settings, url=url), **options)
    return client


def blocking_redis_client(settings: RedisSettings, **options: Any) -> BlockingRedis:
    """Return a client as :func:`redis_client` does, for code that waits."""
    client: BlockingRedis = BlockingRedis.from_url(settings.redis_url, **redis_options(settings), **options)
    return client


def redis_options(settings: RedisSettings, *, url: str | None = None) -> dict[str, Any]:
    """Return the login and the certificates as redis-py's keyword arguments, beside those that stand in the address."""
    options: dict[str, Any] = {}
    if url is None:
        options["username"] = settings.redis_username
        options["password"] = settings.redis_password.get_secret_value() if settings.redis_password else None
    if (url or settings.redis_url).startswith("rediss://"):
        options["ssl_ca_certs"] = settings.redis_ssl_cafile
        options["ssl_certfile"] = settings.redis_ssl_certfile
        options["ssl_keyfile"] = settings.redis_ssl_keyfile
    return {name: value for name, value in options.items() if value is not None}
