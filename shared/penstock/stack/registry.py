"""Apicurio Registry, used through its Confluent-compatible API."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.stack.errors import NotReady
from penstock.stack.java import java
from penstock.stack.part import Command, Install
from penstock.stack.ports import HOST

__all__ = ["Registry"]

_HEAP_MB = 192
_API = "/apis/ccompat/v7"
# sql/h2 writes each schema to the file before it answers (WRITE_DELAY=0), so ids outlive a SIGKILL.
_DATABASE = "jdbc:h2:file:./registry;WRITE_DELAY=0;DB_CLOSE_ON_EXIT=FALSE"


class Registry:
    """The schema registry part (see :class:`~penstock.stack.part.Part`)."""

    name = "registry"
    title = "Schema registry"
    variable = "SCHEMA_REGISTRY_URL"
    ports = ("http", "management")
    start_timeout_s = 120.0
    stop_timeout_s = 15.0

    def install(self, install: Install) -> Path:
        """Fetch and unpack the application."""
        return install.fetch("registry")

    def prepare(self, software: Path, home: Path, ports: Mapping[str, int]) -> Command:
        """Return the command; the application takes its configuration from properties alone."""
        (home / "tmp").mkdir(exist_ok=True)
        properties = {
            "quarkus.http.host": HOST,
            "quarkus.http.port": str(ports["http"]),
            # Otherwise it listens on port 9000 of every interface.
            "quarkus.management.host": HOST,
            "quarkus.management.port": str(ports["management"]),
            "quarkus.http.access-log.enabled": "false",
            "quarkus.http.io-threads": "2",
            "quarkus.thread-pool.max-threads": "8",
            "quarkus.log.console.format": "%d{yyyy-MM-dd'T'HH:mm:ss.SSSZ} %p [%c] %m%n%e",
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
            "apicurio.datasource.url": _DATABASE,
            "apicurio.datasource.jdbc.initial-size": "2",
            "apicurio.datasource.jdbc.min-size": "2",
            "apicurio.datasource.jdbc.max-size": "8",
        }
        defined = [f"-D{key}={value}" for key, value in properties.items()]
        return Command([*java(_HEAP_MB, busy=False), *defined, "-jar", str(software / "quarkus-run.jar")])

    def address(self, ports: Mapping[str, int]) -> str:
        """Return the base address of the Confluent-compatible API."""
        return f"http://{HOST}:{ports['http']}{_API}"

    def probe(self, address: str, environ: Mapping[str, str], timeout_s: float) -> None:
        """List the subjects."""
        import httpx

        try:
            # A proxy for the outside world must not get requests to this machine.
            local = httpx.URL(address).host in (HOST, "localhost", "::1")
            answer = httpx.get(f"{address.rstrip('/')}/subjects", timeout=timeout_s, trust_env=not local)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotReady(f"no answer from {address}: {error}") from error
        if answer.status_code != httpx.codes.OK:
            raise NotReady(f"{address}/subjects answers {answer.status_code} {answer.reason_phrase}")
