"""The composition root that every service shares: settings, logs, status page, log, codec, configuration, signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import uvloop
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from penstock.bus import Hop, KafkaBus, KafkaUnavailable, Producer, Transient, run_hops
from penstock.clock import Clock, SystemClock
from penstock.config.plane import ConfigError, ConfigPlane
from penstock.contracts.catalogue import Catalogue, CatalogueError
from penstock.contracts.codec import Codec, Invalid
from penstock.contracts.registry import RegistryError
from penstock.redaction import secrets_of
from penstock.settings import ServiceSettings, SettingsError, load_settings
from penstock.telemetry import configure_logging, get_logger, metrics
from penstock.telemetry.http import StatusServer
from penstock.telemetry.traces import NoTracing, Tracing, tracing_to

__all__ = ["Runtime", "run_service", "step_back"]

log = get_logger(__name__)
S = TypeVar("S", bound=ServiceSettings)

# What a deploy or an operator can mend: told in one line, without a stack trace.
_EXPECTED = (KafkaUnavailable, RegistryError, CatalogueError, ConfigError, SettingsError, Invalid, Transient)


@dataclass(slots=True)
class Runtime(Generic[S]):
    """What a service is built from."""

    service: str
    settings: S
    bus: KafkaBus
    codec: Codec
    clock: Clock
    config: ConfigPlane
    tracing: Tracing
    stopping: asyncio.Event
    """Set when the service was told to stop; background tasks watch it and finish."""
    _background: list[asyncio.Task[None]] = field(default_factory=list)
    _waiting: set[str] = field(default_factory=set)
    _on_stop: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def producer(self) -> Producer:
        """Return the service's producer."""
        return Producer(self.bus.producer(), self.codec, self.service, self.clock)

    def background(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``job`` beside the hops until ``stopping`` is set; if it raises, the service stops with it."""
        task = asyncio.create_task(job, name=getattr(job, "__qualname__", "background job"))
        self._background.append(task)
        return task

    def on_stop(self, close: Callable[[], Awaitable[None]]) -> None:
        """Await ``close`` when the service stops, in reverse order."""
        self._on_stop.append(close)

    def not_ready(self, part: str) -> None:
        """Keep /readyz at 503 until :meth:`ready` is called for ``part``."""
        self._waiting.add(part)

    def ready(self, part: str) -> None:
        """``part`` does its work."""
        self._waiting.discard(part)

    def waiting_for(self) -> list[str]:
        """Return what /readyz waits for, by name; nothing where the service is ready."""
        return sorted(self._waiting)


Build = Callable[[Runtime[Any]], Awaitable[Sequence[Hop]]]


def run_service(service: str, settings_class: type[S], build: Build) -> int:
    """Run ``service`` until SIGTERM or SIGINT and return the exit status: 0 after a clean stop, 1 after a failure."""
    try:
        settings = load_settings(settings_class)
    except SettingsError as error:
        print(f"{service}: {error}", file=sys.stderr)
        return 2
    configure_logging(service, settings.log_level, secrets=secrets_of(settings))
    step_back(settings.niceness)
    return uvloop.run(_serve(service, settings, build))


def step_back(niceness: int) -> None:
    """Leave the processors to others, as far as nice(1) says.

    Where Linux schedules by session (autogroup), a process that leads one competes with the others as its session does:
    its own niceness counts only within, so the session gets it, too. One that others share is left as it is.
    """
    os.nice(niceness)
    if niceness and os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness), "ascii")


async def _serve(service: str, settings: S, build: Build) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    waiting = {"start"}
    status: StatusServer | None = None
    try:
        status = StatusServer(settings.metrics_host, settings.metrics_port, lambda: sorted(waiting))
        log.info("starting", settings=settings.redacted(), status_port=status.port)
        await _run(service, settings, build, stopping, waiting)
    except _EXPECTED as error:
        log.error("stopped", reason=str(error), kind=type(error).__name__)
        return 1
    except OSError as error:
        remedy = {} if status is not None else {"remedy": "is PENSTOCK_METRICS_PORT taken?"}
        log.error("stopped", reason=str(error), kind=type(error).__name__, **remedy)
        return 1
    except Exception as error:
        log.error("stopped", reason=str(error), kind=type(error).__name__, exc_info=error)
        return 1
    finally:
        if status is not None:
            status.close()
    log.info("stopped", reason="asked to")
    return 0


async def _run(service: str, settings: S, build: Build, stopping: asyncio.Event, waiting: set[str]) -> None:
    clock = SystemClock()
    catalogue = Catalogue.load()
    codec = await Codec.resolve(catalogue, settings.schema_registry_url, timeout_s=settings.start_timeout_s)
    tracing: Tracing = tracing_to(service, OTLPSpanExporter()) if settings.otlp_endpoint else NoTracing()
    bus = KafkaBus(
        settings,
        client_id=f"penstock-{service}",
        session_timeout_ms=settings.session_timeout_ms,
        start_timeout_s=settings.start_timeout_s,
        gather_ms=settings.gather_ms,
    )
    async with bus:
        config = await ConfigPlane.open(bus, codec, timeout_s=settings.start_timeout_s)
        runtime = Runtime(service, settings, bus, codec, clock, config, tracing, stopping, _waiting=waiting)
        runtime.on_stop(config.close)
        try:
            hops = await build(runtime)
            ready = metrics.UP.labels(service)
            following = asyncio.create_task(config.follow(), name="configuration")
            jobs = list(runtime._background)
            if hops:
                jobs.append(asyncio.create_task(_hops(runtime, hops), name="hops"))
            # What was made at start stays to the end. A full collection walks all of it, a tenth of a second in which
            # nothing else runs: it is left out of them.
            gc.collect()
            gc.freeze()
            ready.set(1)
            waiting.discard("start")
            await _until_stopped(stopping, following, jobs, settings.stop_timeout_s)
            ready.set(0)
        finally:
            for close in reversed(runtime._on_stop):
                await close()


async def _hops(runtime: Runtime[Any], hops: Sequence[Hop]) -> None:
    for hop in hops:
        runtime.not_ready(hop.group)
    await run_hops(
        hops,
        runtime.bus,
        runtime.codec,
        runtime.clock,
        runtime.settings,
        runtime.stopping,
        runtime.tracing,
        on_assigned=runtime.ready,
    )


async def _until_stopped(
    stopping: asyncio.Event, following: asyncio.Task[None], jobs: list[asyncio.Task[None]], timeout_s: float
) -> None:
    """Wait for the signal or the first failure; then give the rest its deadline."""
    stopper = asyncio.create_task(stopping.wait())
    await asyncio.wait([stopper, following, *jobs], return_when=asyncio.FIRST_COMPLETED)
    asked = stopping.is_set()
    ended = [job.get_name() for job in [following, *jobs] if job.done()]
    stopping.set()
    stopper.cancel()
    if jobs:
        # The hops' own deadline, and some time to commit and to leave the group.
        _, late = await asyncio.wait(jobs, timeout=timeout_s + 5)
        for job in late:
            log.warning("cancelled at the deadline", job=job.get_name())
            job.cancel()
    # The configuration is followed to the last: work in flight still reads it.
    following.cancel()
    results = await asyncio.gather(following, *jobs, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    if ended and not asked:
        # A client that cancels what waits for its connection ends a job without an error of its own.
        raise Transient(f"{', '.join(sorted(ended))} ended though nobody asked it to")
