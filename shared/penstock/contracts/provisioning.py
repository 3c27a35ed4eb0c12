"""The topics of the catalogue on a cluster: what is missing or differs, and how that is mended. Nothing is deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from penstock.contracts.catalogue import Topic
from penstock.settings import KafkaSettings

__all__ = ["ProvisioningError", "TopicChange", "TopicState", "Topics", "admin_client", "plan_topics", "wanted_config"]

BROKER_DEFAULT = -1
"""Replication factor that leaves the choice to the broker's default.replication.factor."""


class ProvisioningError(Exception):
    """The cluster cannot be reached or refused a change; the message names the topic, the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic as the cluster has it."""

    partitions: int
    config: Mapping[str, str]
    replication: int = 1


@dataclass(frozen=True, slots=True)
class TopicChange:
    """What has to be done to one topic. ``note`` says what a person should know before or instead."""

    topic: Topic
    create: bool = False
    partitions: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def idle(self) -> bool:
        """Whether nothing has to be done."""
        return not (self.create or self.partitions or self.config)


def wanted_config(topic: Topic, replication: int = BROKER_DEFAULT) -> dict[str, str]:
    """Return the topic-level configuration that the catalogue asks for.

    With three replicas and more, a write needs two of them (min.insync.replicas=2): acks=all means something then, and one
    broker may still be away.
    """
    config = {"cleanup.policy": topic.cleanup, **topic.config}
    if topic.retention_ms is not None:
        config["retention.ms"] = str(topic.retention_ms)
    if replication >= 3:
        config.setdefault("min.insync.replicas", "2")
    return config


def plan_topics(
    topics: Sequence[Topic], existing: Mapping[str, TopicState], replication: int = BROKER_DEFAULT
) -> list[TopicChange]:
    """Compare ``topics`` with what is there."""
    changes = []
    for topic in topics:
        state = existing.get(topic.name)
        wanted = wanted_config(topic, replication)
        if state is None:
            changes.append(TopicChange(topic, create=True, config=wanted))
            continue
        grow = topic.partitions if state.partitions < topic.partitions else None
        note = ""
        if grow is not None:
            note = "keys move to other partitions: let consumers drain it first"
        elif state.partitions > topic.partitions:
            note = f"has {state.partitions} partitions, the catalogue says {topic.partitions}; Kafka cannot remove any"
        differing = {key: value for key, value in wanted.items() if state.config.get(key) != value}
        changes.append(TopicChange(topic, partitions=grow, config=differing, note=note))
    return changes


class Topics:
    """The topics of one cluster, through Kafka's admin API."""

    def __init__(self, settings: KafkaSettings, timeout_s: float = 15.0) -> None:
        self._address = settings.kafka_bootstrap
        self._timeout_s = timeout_s
        self._admin = admin_client(settings)

    def existing(self, names: Sequence[str]) -> dict[str, TopicState]:
        """Return those of ``names`` that are there.

        Raises:
            ProvisioningError: no broker answers.
        """
        try:
            metadata = self._admin.list_topics(timeout=self._timeout_s)
        except KafkaException as error:
            raise ProvisioningError(
                f"no Kafka broker answers at {self._address} ({_reason(error)}); start the stack with `penstock stack up` "
                "or set KAFKA_BOOTSTRAP"
            ) from error
        present = [name for name in names if name in metadata.topics]
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in present]
        answers = self._admin.describe_configs(resources, request_timeout=self._timeout_s) if resources else {}
        configs = {r.name: self._done(f"reading {r.name}", future) for r, future in answers.items()}
        return {
            name: TopicState(
                partitions=len(metadata.topics[name].partitions),
                config={key: entry.value for key, entry in configs[name].items()},
                replication=len(next(iter(metadata.topics[name].partitions.values())).replicas),
            )
            for name in present
        }

    def apply(self, changes: Sequence[TopicChange], replication: int = BROKER_DEFAULT) -> None:
        """Create and alter topics; safe to repeat.

        Raises:
            ProvisioningError: the cluster refused something; the rest may have been done.
        """
        new = [
            NewTopic(c.topic.name, c.topic.partitions, replication_factor=replication, config=dict(c.config))
            for c in changes
            if c.create
        ]
        grown = [NewPartitions(c.topic.name, c.partitions) for c in changes if c.partitions]
        altered = [
            ConfigResource(
                ResourceType.TOPIC,
                c.topic.name,
                incremental_configs=[
                    ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
                    for key, value in c.config.items()
                ],
            )
            for c in changes
            if c.config and not c.create
        ]
        timeout = {"request_timeout": self._timeout_s}
        pending: dict[str, Any] = {}
        if new:
            created = self._admin.create_topics(new, operation_timeout=self._timeout_s, **timeout)
            pending.update({f"creating {name}": future for name, future in created.items()})
        if grown:
            added = self._admin.create_partitions(grown, operation_timeout=self._timeout_s, **timeout)
            pending.update({f"adding partitions to {name}": future for name, future in added.items()})
        if altered:
            told = self._admin.incremental_alter_configs(altered, **timeout)
            pending.update({f"configuring {resource.name}": future for resource, future in told.items()})
        for what, future in pending.items():
            self._done(what, future)

    def _done(self, what: str, future: Any) -> Any:
        try:
            return future.result(timeout=self._timeout_s)
        except KafkaException as error:
            raise ProvisioningError(f"{what} at {self._address} failed: {_reason(error)}") from error
        except TimeoutError as error:
            raise ProvisioningError(f"{what} at {self._address} took over {self._timeout_s:g} s: try again") from error


def admin_client(settings: KafkaSettings) -> AdminClient:
    """Return a client of Kafka's admin API that is silent: what goes wrong is raised by its calls."""
    return AdminClient(_options(settings), logger=_Silent())


def _options(settings: KafkaSettings) -> dict[str, Any]:
    """The settings in librdkafka's words."""
    password = settings.kafka_sasl_password
    options = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": settings.kafka_security_protocol,
        "ssl.ca.location": settings.kafka_ssl_cafile,
        "ssl.certificate.location": settings.kafka_ssl_certfile,
        "ssl.key.location": settings.kafka_ssl_keyfile,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        options["sasl.mechanism"] = settings.kafka_sasl_mechanism
        options["sasl.username"] = settings.kafka_sasl_username
        options["sasl.password"] = password.get_secret_value() if password else None
    return {key: value for key, value in options.items() if value is not None}


def _reason(error: KafkaException) -> str:
    cause = error.args[0] if error.args else error
    return str(cause.str()) if hasattr(cause, "str") else str(cause)


class _Silent:
    """librdkafka reports every failed connection on standard error by itself; the one error that is raised says it all."""

    def log(self, level: int, message: str, *args: Any) -> None:
        return
