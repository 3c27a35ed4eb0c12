"""An open connection for the commands that read and write topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import click

from penstock.bus import KafkaBus
from penstock.cli.cluster import cluster_settings, one_line_errors
from penstock.client import IdempotencyConflict, RequestNotSent
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec

__all__ = ["Connection", "connect", "run_command"]


@dataclass(frozen=True, slots=True)
class Connection:
    """An open bus with the codec for it."""

    bus: KafkaBus
    codec: Codec


@asynccontextmanager
async def connect() -> AsyncIterator[Connection]:
    """Connect to the cluster that the environment names, else to the local stack that is up."""
    settings = cluster_settings()
    codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url, timeout_s=5)
    async with KafkaBus(settings, client_id="penstock-cli", start_timeout_s=5) as bus:
        yield Connection(bus, codec)


def run_command(job: Coroutine[Any, Any, None]) -> None:
    """Run ``job``; an expected failure becomes one line and exit status 1."""
    with one_line_errors():
        try:
            asyncio.run(job)
        except (IdempotencyConflict, RequestNotSent, TimeoutError) as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            raise SystemExit(130) from None
