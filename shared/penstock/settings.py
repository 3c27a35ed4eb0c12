"""Settings that every service shares: read from the environment once, frozen, printed redacted at start."""

from __future__ import annotations

import os
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariable

from penstock.redaction import Redaction

_S = TypeVar("_S", bound=BaseSettings)

__all__ = ["KafkaSettings", "RedisSettings", "ServiceSettings", "SettingsError", "load_settings", "redis_address"]


class SettingsError(Exception):
    """The environment does not make valid settings; the message names each variable, the cause and the remedy."""


class KafkaSettings(BaseSettings):
    """Where Kafka and the registry are and how to log in: what a client needs as well."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True, hide_input_in_errors=True
    )

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="host:port of the brokers, comma-separated.")
    schema_registry_url: str = Field(
        "http://127.0.0.1:8081", description="Base address of a Confluent-compatible registry."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: str | None = Field(None, description="File of the certificate authority; default: the system's.")
    kafka_ssl_certfile: str | None = Field(None, description="File of the client's certificate, PEM.")
    kafka_ssl_keyfile: str | None = Field(None, description="File of its key, unless it stands in the certificate's.")

    @field_validator("kafka_bootstrap")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        for address in value.split(","):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdigit():
                raise ValueError("an address is not host:port")
        return value

    @field_validator("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile")
    @classmethod
    def _kafka_files(cls, value: str | None) -> str | None:
        return _readable(value)

    @model_validator(mode="after")
    def _kafka_login(self) -> Self:
        asked = self.kafka_security_protocol
        if asked.startswith("SASL") and not (self.kafka_sasl_username and self.kafka_sasl_password):
            raise ValueError(
                f"KAFKA_SECURITY_PROTOCOL {asked} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD: set both"
            )
        return self


class RedisSettings(BaseSettings):
    """Where Redis is and how to log in."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True, hide_input_in_errors=True
    )

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis, as redis:// or, with TLS, rediss://.")
    redis_username: str | None = Field(None, description="User of Redis' access control list.")
    redis_password: SecretStr | None = Field(None, description="Password, unless it stands in REDIS_URL.")
    redis_ssl_cafile: str | None = Field(None, description="File of the certificate authority; default: the system's.")
    redis_ssl_certfile: str | None = Field(None, description="File of the client's certificate, PEM.")
    redis_ssl_keyfile: str | None = Field(None, description="File of its key, unless it stands in the certificate's.")

    @field_validator("redis_url")
    @classmethod
    def _address(cls, value: str) -> str:
        return redis_address(value)

    @field_validator("redis_ssl_cafile", "redis_ssl_certfile", "redis_ssl_keyfile")
    @classmethod
    def _redis_files(cls, value: str | None) -> str | None:
        return _readable(value)

    @model_validator(mode="after")
    def _redis_login(self) -> Self:
        if self.redis_password and urlsplit(self.redis_url).password:
            raise ValueError("the password of Redis stands in REDIS_URL and in REDIS_PASSWORD: leave one of them out")
        given = self.redis_ssl_cafile or self.redis_ssl_certfile or self.redis_ssl_keyfile
        if given and not self.redis_url.startswith("rediss://"):
            raise ValueError("REDIS_SSL_* is set and REDIS_URL is without TLS: write rediss:// or leave them out")
        return self


class ServiceSettings(KafkaSettings, RedisSettings):
    """What every service reads from the environment."""

    metrics_host: str = Field("127.0.0.1", description="Address that /metrics, /healthz and /readyz listen on.")
    metrics_port: int = Field(0, alias="PENSTOCK_METRICS_PORT", description="Port of /metrics; 0 picks a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", alias="PENSTOCK_LOG_LEVEL")
    otlp_endpoint: str | None = Field(
        None,
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OpenTelemetry collector; unset: traces are only passed on.",
    )
    session_timeout_ms: int = Field(10_000, description="A dead consumer's partitions move on after this.", ge=1000)
    gather_ms: int = Field(
        0,
        description="How long messages are gathered, in and out; 0 where a request waits for the service.",
        ge=0,
        le=5000,
    )
    niceness: int = Field(0, description="How far the process steps back for others, as of nice(1).", ge=0, le=19)
    start_timeout_s: float = Field(60.0, description="How long to wait for Kafka and the registry at start.", gt=0)
    stop_timeout_s: float = Field(15.0, description="How long work in flight may take to finish after SIGTERM.", gt=0)
    retry_timeout_s: float = Field(
        60.0, description="How long a transient failure is retried before the service stops.", gt=0
    )
    dlq_max_ratio: float = Field(
        0.5,
        description="Share of dead letters above which the consumer stops: it is the deploy that is bad.",
        gt=0,
        le=1,
    )
    dlq_min_messages: int = Field(50, description="Messages seen before the share counts.", ge=1)

    def redacted(self) -> dict[str, Any]:
        """Return the settings for the log: secrets and passwords in addresses masked."""
        plain = self.model_dump(mode="json")
        shown: dict[str, Any] = Redaction().value({key: value for key, value in plain.items() if value is not None})
        return shown


def redis_address(value: str) -> str:
    """Return ``value``, which is an address of Redis.

    Raises:
        ValueError: it is none; the message does not repeat it.
    """
    try:
        parts = urlsplit(value)
        known = parts.scheme in ("redis", "rediss", "unix") and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False  # what urllib says holds a part of the password where one is not escaped
    if not known:
        raise ValueError(
            "not redis://host:port/database or rediss://host:port/database; in a password write / : @ and % as "
            "%2F %3A %40 and %25"
        ) from None
    return value


def _readable(path: str | None) -> str | None:
    if path is not None and not os.access(path, os.R_OK):
        raise ValueError("there is no file of that name that can be read")
    return path


def load_settings(cls: type[_S]) -> _S:
    """Read ``cls`` from the environment.

    Raises:
        SettingsError: naming every variable that is wrong, with the cause. The message holds no secret: no value of a secret
            field, and no user or password of an address.
    """
    try:
        return cls()
    except ValidationError as error:
        lines = [_told(cls, each) for each in error.errors(include_url=False, include_context=False)]
        raise SettingsError("the environment does not make valid settings:\n" + "\n".join(lines)) from None
    except UnreadableVariable as error:
        # It names the field; the text that was no JSON is only in its cause.
        raise SettingsError(f"the environment does not make valid settings:\n  {error}") from None


def _told(cls: type[BaseSettings], error: ErrorDetails) -> str:
    place = ".".join(map(str, error["loc"])).upper()
    said = error["msg"].removeprefix("Value error, ")
    fields = {(field.alias or name).upper(): field for name, field in cls.model_fields.items()}
    field = fields.get(place)
    given = error["input"]
    # Of a model as a whole, the input is every variable there is.
    if field is None or _secret(field.annotation) or not isinstance(given, str | int | float):
        return f"  {place}: {said}" if place else f"  {said}"
    # An address may hold a login, also one that is malformed.
    if "@" in str(given) or place.endswith("_URL"):
        return f"  {place}: {said}"
    return f"  {place}: {said} (is {given!r})"


def _secret(annotation: Any) -> bool:
    return annotation is SecretStr or SecretStr in getattr(annotation, "__args__", ())
