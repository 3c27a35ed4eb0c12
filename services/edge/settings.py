"""Settings of the edge, beside those of every service."""

from __future__ import annotations

from penstock.identity import KeysSettings
from penstock.settings import ServiceSettings
from pydantic import Field

__all__ = ["Settings"]


class Settings(ServiceSettings, KeysSettings):
    """What the edge reads from the environment."""

    edge_host: str = Field("127.0.0.1", description="Address that the API listens on.")
    edge_port: int = Field(
        8080, description="Port of the API; 0 picks a free one, which the log tells.", ge=0, le=65535
    )
    edge_ssl_certfile: str | None = Field(
        None, description="Certificate (PEM, its chain included) for HTTPS; unset: HTTP, for a proxy that ends TLS."
    )
    edge_ssl_keyfile: str | None = Field(None, description="Its private key (PEM, without a password).")
    cors_origins: list[str] = Field(
        [],
        description='JSON list of origins whose pages may call the API, as ["https://app.example.com"]; none by default.',
    )
    answer_timeout_s: float = Field(
        600.0, description="How long an answer is waited for; the request goes on, and is asked for by its id.", gt=0
    )
    embedding_model: str = Field(
        "all-MiniLM-L6-v2", description="Embedding model of retrieval: what /v1/embeddings is asked for."
    )
    embedding_dimension: int = Field(384, description="Length of its vectors.", ge=1)
    keepalive_s: float = Field(15.0, description="A stream that is silent for so long gets a comment.", gt=0)
    request_ttl_s: int = Field(
        86_400,
        description="How long a request is known by its id after its result came, and where none comes after its deadline "
        "(after 8 days where it has none), seconds.",
        ge=60,
    )
    result_ttl_s: int = Field(
        3_600, description="How long its result stands in Redis, seconds; after that it is read from the log.", ge=1
    )
    drain_s: float = Field(
        10.0,
        description="How long answers are still waited for after SIGTERM, seconds; STOP_TIMEOUT_S at most.",
        ge=0,
    )
    max_body_bytes: int = Field(
        4_194_304,
        description="Most bytes of a request's body; the log takes no message above 8 MiB.",
        ge=1024,
        le=7_340_032,
    )
    max_bodies_bytes: int = Field(
        67_108_864, description="Most bytes of all bodies that are being received at once.", ge=1024
    )
    max_requests: int = Field(512, description="Most requests that are answered at once.", ge=1)
    max_connections: int = Field(
        900, description="Most connections at once: fewer than the process may open files.", ge=1
    )
    max_header_bytes: int = Field(65_536, description="Most bytes of a request's headers together.", ge=1024)
    receive_timeout_s: float = Field(30.0, description="In which a request must have come in whole.", gt=0)
    idle_timeout_s: float = Field(
        75.0, description="How long a connection is kept open between requests: longer than clients keep theirs.", gt=0
    )

    @property
    def answers_within_s(self) -> float:
        """How long answers are waited for after SIGTERM: the process ends within STOP_TIMEOUT_S in any case."""
        return min(self.drain_s, self.stop_timeout_s)
