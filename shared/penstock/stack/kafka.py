"""Kafka: one node in KRaft mode, broker and controller in one process."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock.stack.errors import NotReady, StackError
from penstock.stack.java import java
from penstock.stack.part import Command, Install
from penstock.stack.ports import HOST

__all__ = ["Kafka", "admin_config", "missing_topics"]

_HEAP_MB = 384
_FORMAT_TIMEOUT_S = 120
_MAX_MESSAGE_BYTES = 8 * 1024 * 1024

_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    # Relative to the working folder, so that no character of the path can break this file.
    "log.dirs": "log",
    # A single node holds the only copy.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # The default of 50 partitions each opens 200 files to no use here.
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    # Topics are made by `penstock topics apply` alone: a misspelt name must fail, not make a topic.
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(_MAX_MESSAGE_BYTES),
    "replica.fetch.max.bytes": str(_MAX_MESSAGE_BYTES),
    # A first member need not wait three seconds for others.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # After a SIGKILL the node is let in again once its old session has run out: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.retention.hours": "168",
    # A group that stands still for longer than the default week would begin again, and charge and count twice what it
    # read before: as long as the costs are kept.
    "offsets.retention.minutes": str(400 * 24 * 60),
    "log.segment.bytes": str(128 * 1024 * 1024),
    # The default buffer of 128 MB would take a third of the heap; 8 MiB index 300,000 keys a pass.
    "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
    "log.cleaner.backoff.ms": "5000",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "num.recovery.threads.per.data.dir": "2",
    "background.threads": "2",
}


class Kafka:
    """The Kafka part (see :class:`~penstock.stack.part.Part`)."""

    name = "kafka"
    title = "Kafka"
    variable = "KAFKA_BOOTSTRAP"
    ports = ("broker", "controller")
    start_timeout_s = 90.0
    stop_timeout_s = 20.0

    def install(self, install: Install) -> Path:
        """Fetch the jars."""
        return install.fetch("kafka")

    def prepare(self, software: Path, home: Path, ports: Mapping[str, int]) -> Command:
        """Write ``server.properties`` and, the first time, format the log folder."""
        (home / "tmp").mkdir(exist_ok=True)
        broker, controller = f"{HOST}:{ports['broker']}", f"{HOST}:{ports['controller']}"
        properties = _PROPERTIES | {
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "controller.quorum.voters": f"1@{controller}",
        }
        lines = [f"{key}={value}\n" for key, value in sorted(properties.items())]
        (home / "server.properties").write_text("".join(lines), "utf-8")
        base = [
            *java(_HEAP_MB, busy=True),
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
            "-cp",
            f"{software}/*",
        ]
        if not (home / "log" / "meta.properties").exists():
            _format(base, home)
        return Command([*base, "kafka.Kafka", "server.properties"])

    def address(self, ports: Mapping[str, int]) -> str:
        """Return host:port of the broker."""
        return f"{HOST}:{ports['broker']}"

    def probe(self, address: str, environ: Mapping[str, str], timeout_s: float) -> None:
        """Ask for the cluster's metadata; it must name a broker."""
        metadata = _metadata(address, environ, timeout_s)
        if not metadata.brokers:
            raise NotReady(f"{address} answers but has no broker in service yet")


def admin_config(bootstrap: str, environ: Mapping[str, str]) -> dict[str, str | int | float | bool]:
    """Return librdkafka's configuration for an administrative client, with the login that ``environ`` holds."""
    optional = {
        "security.protocol": "KAFKA_SECURITY_PROTOCOL",
        "sasl.mechanism": "KAFKA_SASL_MECHANISM",
        "sasl.username": "KAFKA_SASL_USERNAME",
        "sasl.password": "KAFKA_SASL_PASSWORD",
        "ssl.ca.location": "KAFKA_SSL_CAFILE",
        "ssl.certificate.location": "KAFKA_SSL_CERTFILE",
        "ssl.key.location": "KAFKA_SSL_KEYFILE",
    }
    login = {key: environ[variable] for key, variable in optional.items() if environ.get(variable)}
    # log_level 0: a broker that is away is this caller's to report, not librdkafka's to print.
    return {"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200, **login}


def missing_topics(bootstrap: str, environ: Mapping[str, str], expected: Iterable[str], timeout_s: float) -> list[str]:
    """Return those of the topics ``expected`` that the cluster does not have, sorted.

    Raises:
        NotReady: it did not answer within ``timeout_s`` seconds.
    """
    return sorted(set(expected) - set(_metadata(bootstrap, environ, timeout_s).topics))


def _metadata(bootstrap: str, environ: Mapping[str, str], timeout_s: float) -> Any:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        return AdminClient(admin_config(bootstrap, environ)).list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise NotReady(f"no metadata from {bootstrap}: {error.args[0].str()}") from error


def _format(base: list[str], home: Path) -> None:
    # Kafka takes any 16 bytes in URL-safe base64; a leading dash would read as an option.
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A", 1)
    argv = [*base, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
    try:
        done = subprocess.run(
            [*argv, "--cluster-id", cluster, "--config", "server.properties"],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_FORMAT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"kafka: could not format {home / 'log'}: {error}; free memory and disk") from error
    if done.returncode != 0:
        output = done.stdout.decode("utf-8", "replace").strip()
        raise StackError(f"kafka: could not format {home / 'log'}:\n{output}\ndelete that folder and try again")
