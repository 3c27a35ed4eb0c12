"""Servers that ask for TLS, a client's certificate and a password: a Kafka broker, and Redis behind a TLS front."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka import KafkaException
from confluent_kafka import admin as kafka_admin
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from penstock.stack.artifacts import ArtifactStore, default_cache_dir
from penstock.stack.kafka import Kafka
from penstock.stack.part import Install
from penstock.stack.ports import HOST, free_port

__all__ = ["Certificates", "certificates", "kafka_with_login", "tls_front"]

_START_S = 60.0
_ADMIN = "broker"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: an authority, and a certificate with its key for the servers and one for the clients."""

    authority: Path
    server: Path
    client: Path
    client_key: Path


def certificates(folder: Path) -> Certificates:
    """Issue them."""
    authority = trustme.CA()
    found = Certificates(*(folder / f"{name}.pem" for name in ("ca", "server", "client", "client-key")))
    authority.cert_pem.write_to_path(found.authority)
    server, client = authority.issue_cert(HOST, "localhost"), authority.issue_cert("penstock@example.com")
    # Kafka reads a key as PKCS #8 only.
    key = load_pem_private_key(server.private_key_pem.bytes(), None)
    found.server.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for blob in server.cert_chain_pems:
        blob.write_to_path(found.server, append=True)
    client.cert_chain_pems[0].write_to_path(found.client)
    client.private_key_pem.write_to_path(found.client_key)
    return found


@contextmanager
def kafka_with_login(folder: Path, pem: Certificates, username: str, password: str) -> Iterator[str]:
    """Run a broker that is reached by SASL_SSL alone; yield its address. ``username`` logs in by SCRAM-SHA-512."""
    kafka, home = Kafka(), folder / "kafka"
    home.mkdir()
    software = kafka.install(
        Install(ArtifactStore(default_cache_dir(os.environ)), lambda note: None, threading.Event())
    )
    ports = {"broker": free_port(), "controller": free_port()}
    command = kafka.prepare(software, home, ports)
    address, admin = f"{HOST}:{ports['broker']}", f"{password}-of-the-broker"
    # The last value of a key counts.
    with (home / "server.properties").open("a", encoding="utf-8") as properties:
        properties.write(
            f"listeners=SASL_SSL://{address},CONTROLLER://{HOST}:{ports['controller']}\n"
            f"advertised.listeners=SASL_SSL://{address}\n"
            "listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT\n"
            "inter.broker.listener.name=SASL_SSL\n"
            "sasl.mechanism.inter.broker.protocol=PLAIN\n"
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n"
            "listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule "
            f'required username="{_ADMIN}" password="{admin}" user_{_ADMIN}="{admin}";\n'
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config="
            "org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
            f"ssl.keystore.type=PEM\nssl.keystore.location={pem.server}\n"
            f"ssl.truststore.type=PEM\nssl.truststore.location={pem.authority}\n"
            # For SASL_SSL the setting counts only under the name of the listener.
            "listener.name.sasl_ssl.ssl.client.auth=required\n"
        )
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command.argv, cwd=home, stdout=log, stderr=subprocess.STDOUT)
    try:
        client = AdminClient(
            {
                "bootstrap.servers": address,
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "PLAIN",
                "sasl.username": _ADMIN,
                "sasl.password": admin,
                "ssl.ca.location": str(pem.authority),
                "ssl.certificate.location": str(pem.client),
                "ssl.key.location": str(pem.client_key),
                "log_level": 0,
                "reconnect.backoff.max.ms": 200,
            }
        )
        _until(lambda: _answers(client), process, home / "server.log")
        # Not exported by name, as the package's types see it.
        names: Any = kafka_admin
        scram = names.ScramCredentialInfo(names.ScramMechanism.SCRAM_SHA_512, 4096)
        user = names.UserScramCredentialUpsertion(username, scram, password.encode())
        for done in client.alter_user_scram_credentials([user]).values():
            done.result(_START_S)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(client: AdminClient) -> bool:
    try:
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _until(holds: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not holds():
        assert process.poll() is None, log.read_text("utf-8", "replace")[-3000:]
        assert time.monotonic() < deadline, log.read_text("utf-8", "replace")[-3000:]


@contextmanager
def tls_front(pem: Certificates, host: str, port: int) -> Iterator[int]:
    """Take TLS connections of clients with a certificate and pass on what they hold to ``host:port``; yield the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pem.authority)
    context.load_cert_chain(pem.server)
    context.verify_mode = ssl.CERT_REQUIRED
    loop = asyncio.new_event_loop()

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            try:
                while data := await reader.read(65_536):
                    writer.write(data)
                    await writer.drain()
            except OSError:
                return  # either side may go when it likes

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection(host, port)
        with suppress(asyncio.CancelledError):  # asyncio complains of a server's task that ends so
            await asyncio.gather(passed(reader, back), passed(onward, writer))

    thread = threading.Thread(target=loop.run_forever, name="tls-front", daemon=True)
    thread.start()

    async def ended(server: asyncio.Server) -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def started() -> asyncio.Server:
        return await asyncio.start_server(served, HOST, 0, ssl=context)

    server = asyncio.run_coroutine_threadsafe(started(), loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(ended(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
