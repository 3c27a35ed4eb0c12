"""TLS, certificates and passwords, for real: commands, services of both kinds and the SDK against servers that ask for them
all; and none of the secrets in anything that is printed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

import pytest
from penstock import Client
from penstock.bus import KafkaBus, KafkaUnavailable
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.money.counters import claim_key
from penstock.redis_client import blocking_redis_client, redis_client
from penstock.settings import ServiceSettings
from penstock.stack.ports import free_port
from redis import Redis
from redis.exceptions import RedisError

from tests.integration.secured_servers import Certificates, certificates, kafka_with_login, tls_front

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

PROJECT = Path(__file__).resolve().parents[2]
_PATIENCE_S = 90.0
Cli = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def redis_with_login(pem: Certificates, url: str, username: str, password: str) -> Iterator[str]:
    """A user of the stack's Redis, which it is reached by through TLS alone; yield the address."""
    parts = urlsplit(url)
    with Redis.from_url(url) as redis:
        redis.execute_command("ACL", "SETUSER", username, "on", f">{password}", "~*", "&*", "+@all")
        try:
            with tls_front(pem, parts.hostname or "", parts.port or 0) as port:
                yield f"rediss://127.0.0.1:{port}/0"
        finally:
            redis.execute_command("ACL", "DELUSER", username)


class Service:
    """A service as a process, with what it prints."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.output = folder / f"{name}.log"
        self.port = free_port()
        with self.output.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"services.{name}"],
                cwd=PROJECT,
                env={**environment, "PENSTOCK_METRICS_PORT": str(self.port), "PENSTOCK_LOG_LEVEL": "debug"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ready(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            assert self._process.poll() is None, self.output.read_text("utf-8")[-3000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):
                    return
            except (URLError, OSError) as error:
                assert time.monotonic() < deadline, f"{error}: {self.output.read_text('utf-8')[-3000:]}"
                time.sleep(0.1)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(_PATIENCE_S)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


async def test_everything_logs_in_with_tls_and_prints_no_secret(
    deployed: Mapping[str, str], tmp_path: Path, penstock_cli: Cli, catalogue: Catalogue
) -> None:
    pem = certificates(tmp_path)
    username = f"penstock-{uuid.uuid4().hex[:6]}"
    kafka_password, redis_password = (f"planted-{name}-{uuid.uuid4().hex}" for name in ("kafka", "redis"))
    with (
        kafka_with_login(tmp_path, pem, username, kafka_password) as broker,
        redis_with_login(pem, deployed["REDIS_URL"], username, redis_password) as redis_url,
    ):
        environment = {
            "KAFKA_BOOTSTRAP": broker,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": username,
            "KAFKA_SASL_PASSWORD": kafka_password,
            "SCHEMA_REGISTRY_URL": deployed["SCHEMA_REGISTRY_URL"],
            "REDIS_URL": redis_url,
            "REDIS_USERNAME": username,
            "REDIS_PASSWORD": redis_password,
        }
        for server in ("KAFKA", "REDIS"):
            environment |= {
                f"{server}_SSL_CAFILE": str(pem.authority),
                f"{server}_SSL_CERTFILE": str(pem.client),
                f"{server}_SSL_KEYFILE": str(pem.client_key),
            }
        applied = penstock_cli(["topics", "apply"], environment)
        assert applied.returncode == 0, applied.stderr + applied.stdout
        printed = [applied.stdout + applied.stderr]
        services = [Service(name, tmp_path, {**os.environ, **environment}) for name in ("intake", "drift")]
        try:
            await refused_without_each(environment)
            settings = settings_of(environment)
            codec = await Codec.resolve(catalogue, settings.schema_registry_url)
            async with KafkaBus(settings, start_timeout_s=30) as bus, Client(settings, tenant="support") as client:
                # Nothing is configured: the team is unknown, which is decided in Redis as all else is.
                reader = await bus.read(["refusals"])
                request_id = await client.submit("What does the with statement do?", request_id=uuid.uuid4().hex)
                for service in services:
                    service.ready()
                refused: set[str] = set()
                deadline = time.monotonic() + _PATIENCE_S
                while request_id not in refused:
                    assert time.monotonic() < deadline, services[0].output.read_text("utf-8")[-3000:]
                    for message in await reader.poll(0.2):
                        refused.add(codec.decode(message.topic, message.value).request_id)
                await reader.close()
            async with redis_client(settings) as redis:
                assert await redis.exists(claim_key("support", request_id))
            printed += [service.metrics() for service in services]
            assert [service.stop() for service in services] == [0, 0]
        finally:
            for service in services:
                service.kill()
        printed += [service.output.read_text("utf-8") for service in services]
    assert "starting" in printed[-1]
    for secret in (kafka_password, redis_password):
        assert [text for text in printed if secret in text] == []


async def refused_without_each(environment: Mapping[str, str]) -> None:
    """The servers ask for what they are said to ask for: else what follows would prove nothing."""
    for change in (
        {"KAFKA_SASL_PASSWORD": "another password"},
        {"KAFKA_SSL_CERTFILE": "", "KAFKA_SSL_KEYFILE": ""},
        {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
    ):
        with pytest.raises(KafkaUnavailable):
            async with KafkaBus(settings_of({**environment, **change}), start_timeout_s=0.5):
                raise AssertionError(f"connected with {change}")
    with blocking_redis_client(settings_of(environment)) as redis:
        assert redis.execute_command("ACL", "WHOAMI").decode() == environment["REDIS_USERNAME"]
    for change in (
        {"REDIS_PASSWORD": "another password"},
        {"REDIS_SSL_CERTFILE": "", "REDIS_SSL_KEYFILE": ""},
        {"REDIS_SSL_CAFILE": ""},
    ):
        client = redis_client(settings_of({**environment, **change}), socket_timeout=5)
        with pytest.raises(RedisError):
            await client.ping()
        await client.aclose()


def settings_of(environment: Mapping[str, str]) -> ServiceSettings:
    return ServiceSettings.model_validate({name.lower(): value for name, value in environment.items() if value})
