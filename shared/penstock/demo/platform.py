"""The platform a demo runs on: a stack of its own, deployed, with every service of the flow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import token_hex

from penstock.bus import KafkaBus, Producer
from penstock.clock import SystemClock
from penstock.config.files import load_files
from penstock.config.kinds import KINDS
from penstock.config.plane import ConfigPlane
from penstock.config.publish import plan_changes, publish_changes
from penstock.contracts.catalogue import Catalogue, project_file
from penstock.contracts.codec import Codec
from penstock.contracts.provisioning import Topics, plan_topics
from penstock.contracts.registry import SchemaRegistry, register_topic
from penstock.demo.progress import Progress
from penstock.settings import KafkaSettings, load_settings
from penstock.stack import Stack
from penstock.stack.member import Member
from penstock.stack.supervisor import FLOW, Supervisor, service_specs

__all__ = ["Platform", "platform"]

_READY_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Platform:
    """A running platform."""

    settings: KafkaSettings
    bus: KafkaBus
    codec: Codec
    supervisor: Supervisor
    addresses: Mapping[str, str]
    """Variables that lead a process to the servers."""


@asynccontextmanager
async def platform(
    stack: Stack, environ: Mapping[str, str], progress: Progress, *, keep: bool, services: Sequence[str] = FLOW
) -> AsyncIterator[Platform]:
    """Start ``stack``, deploy to it, run every service in ``environ`` and with its addresses, and stop all of it at the end.

    With ``keep`` the servers stay up; the services end in any case, data and logs stay in any case.

    Raises:
        StackError: a server or a service did not come up.
    """
    progress.step("Servers")
    status = await asyncio.to_thread(stack.up, lambda part, text: progress.note(f"{part}: {text}"))
    progress.done(", ".join(f"{part.title} {part.state}" for part in status.parts))
    try:
        addresses = stack.environment()
        settings = load_settings(KafkaSettings).model_copy(
            update={
                "kafka_bootstrap": addresses["KAFKA_BOOTSTRAP"],
                "schema_registry_url": addresses["SCHEMA_REGISTRY_URL"],
            }
        )
        catalogue = Catalogue.load()
        progress.step("Contracts")
        schemas = await _contracts(catalogue, settings, progress)
        progress.done(f"{len(catalogue.topics)} topics and {schemas} schemas")
        codec = await Codec.resolve(catalogue, settings.schema_registry_url)
        async with KafkaBus(settings, client_id="penstock-demo") as bus:
            progress.step("Configuration")
            progress.done(await _configuration(bus, codec))
            progress.step("Services")
            # Nobody calls the demo's edge: whoever has its usual port keeps it, and its keys are nobody's.
            edge = {"EDGE_PORT": "0", "PENSTOCK_KEYS_SECRET": token_hex(32)}
            own = {**edge, **environ, **stack.secrets(), **addresses}
            async with _services(stack, own, progress, services) as supervisor:
                progress.done(f"{len(supervisor.members)} ready: {', '.join(m.name for m in supervisor.members)}")
                yield Platform(settings, bus, codec, supervisor, addresses)
                progress.step("Stopping")
    finally:
        if not keep:
            await asyncio.to_thread(stack.down, note=lambda part, text: progress.note(f"{part}: {text}"))


async def _contracts(catalogue: Catalogue, settings: KafkaSettings, progress: Progress) -> int:
    """Create the topics and register the schemas, side by side; return how many schemas."""
    cluster = Topics(settings)

    def create() -> None:
        names = list(catalogue.topics)
        cluster.apply([c for c in plan_topics(list(catalogue.topics.values()), cluster.existing(names)) if not c.idle])
        progress.note("topics created")

    async def register() -> int:
        async with SchemaRegistry(settings.schema_registry_url) as registry:
            await registry.wait(30)
            await asyncio.gather(*(register_topic(registry, topic) for topic in catalogue.topics.values()))
        return sum(len(topic.versions) for topic in catalogue.topics.values())

    _, schemas = await asyncio.gather(asyncio.to_thread(create), register())
    return schemas


async def _configuration(bus: KafkaBus, codec: Codec) -> str:
    """Publish what infra/config holds, and say how much that is."""
    clock = SystemClock()
    plane = await ConfigPlane.open(bus, codec)
    try:
        files = load_files(project_file("infra/config"), {kind: plane.entries(kind) for kind in KINDS})
        producer = Producer(bus.producer(), codec, "demo", clock)
        # On a cluster that is given, what others have configured stays.
        changes = [change for change in plan_changes(files, plane) if change.action != "withdrawn"]
        await publish_changes(changes, producer, clock.now(), author="demo", reason="demo")
    finally:
        await plane.close()
    return ", ".join(f"{len(entries)} {kind}" for kind, entries in files.kinds.items())


@asynccontextmanager
async def _services(
    stack: Stack, environ: Mapping[str, str], progress: Progress, names: Sequence[str]
) -> AsyncIterator[Supervisor]:
    ready: set[str] = set()

    def changed(member: Member, text: str) -> None:
        if member.state == "ready":
            ready.add(member.name)
        if member.state in ("restarting", "failed", "not ready"):
            progress.warn(f"{member.name}: {text}")
        else:
            progress.note(f"{len(ready)} of {len(names)} ready; {member.name}: {text}")

    project = project_file("services").parent
    supervisor = Supervisor(service_specs(names, project), environ, stack.folder, cwd=project, on_change=changed)
    async with supervisor:
        await supervisor.wait_ready(timeout_s=_READY_TIMEOUT_S)
        yield supervisor
