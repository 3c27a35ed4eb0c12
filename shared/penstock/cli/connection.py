"""How a command reaches the cluster, and how its errors are told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import click

from penstock.bus import KafkaBus, KafkaUnavailable
from penstock.client import RequestNotSent
from penstock.contracts.catalogue import Catalogue, CatalogueError
from penstock.contracts.codec import Codec, Invalid
from penstock.contracts.registry import RegistryError
from penstock.settings import KafkaSettings, SettingsError, load_settings
from penstock.stack import Stack, StackError
from penstock.telemetry import configure_logging

__all__ = ["Connection", "cluster_settings", "connect", "run_command"]

_EXPECTED = (
    KafkaUnavailable,
    RegistryError,
    CatalogueError,
    SettingsError,
    Invalid,
    RequestNotSent,
    StackError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True)
class Connection:
    """An open bus with the codec for it."""

    settings: KafkaSettings
    bus: KafkaBus
    codec: Codec


@asynccontextmanager
async def connect() -> AsyncIterator[Connection]:
    """Connect to the cluster that the environment names, else to the local stack that is up."""
    settings = cluster_settings()
    codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url, timeout_s=5)
    async with KafkaBus(settings, client_id="penstock-cli", start_timeout_s=5) as bus:
        yield Connection(settings, bus, codec)


def cluster_settings() -> KafkaSettings:
    """Return the settings for a command: the environment's, else those of the local stack that is up.

    Raises:
        StackError: no address is given and no stack is up; the message says how to start one.
    """
    given = load_settings(KafkaSettings)
    if os.environ.get("KAFKA_BOOTSTRAP") and os.environ.get("SCHEMA_REGISTRY_URL"):
        return given
    addresses = Stack.open().environment()
    return given.model_copy(
        update={
            "kafka_bootstrap": addresses["KAFKA_BOOTSTRAP"],
            "schema_registry_url": addresses["SCHEMA_REGISTRY_URL"],
        }
    )


def run_command(job: Coroutine[Any, Any, None]) -> None:
    """Run ``job``; an expected failure becomes one line and exit status 1."""
    configure_logging("cli", "error", json=False)
    try:
        asyncio.run(job)
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
