"""Settings that every service shares: read from the environment once, frozen, printed redacted at start."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_S = TypeVar("_S", bound=BaseSettings)

__all__ = ["KafkaSettings", "ServiceSettings", "SettingsError", "load_settings"]


class SettingsError(Exception):
    """The environment does not make valid settings; the message names each variable, the cause and the remedy."""


class KafkaSettings(BaseSettings):
    """Where Kafka and the registry are and how to log in: what a client needs as well."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True)

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="host:port of the brokers, comma-separated.")
    schema_registry_url: str = Field(
        "http://127.0.0.1:8081", description="Base address of a Confluent-compatible registry."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: str | None = Field(None, description="File of the certificate authority; default: the system's.")
    kafka_ssl_certfile: str | None = None
    kafka_ssl_keyfile: str | None = None

    @field_validator("kafka_bootstrap")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        for address in value.split(","):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"{address!r} is not host:port")
        return value


class ServiceSettings(KafkaSettings):
    """What every service reads from the environment."""

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis, as redis:// or rediss://.")
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
        return {key: _redact(value) for key, value in plain.items() if value is not None}


def _redact(value: Any) -> Any:
    if isinstance(value, str) and "://" in value and "@" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://***@{rest.rpartition('@')[2]}"
    return value


def load_settings(cls: type[_S]) -> _S:
    """Read ``cls`` from the environment.

    Raises:
        SettingsError: naming every variable that is wrong, with the cause.
    """
    try:
        return cls()
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])).upper()}: {e['msg']} (is {e['input']!r})" for e in error.errors()]
        raise SettingsError("the environment does not make valid settings:\n" + "\n".join(lines)) from None
