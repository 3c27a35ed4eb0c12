"""Settings of guardrails, beside those of every service."""

from __future__ import annotations

from penstock.settings import ServiceSettings
from pydantic import Field, SecretStr

__all__ = ["Settings"]


class Settings(ServiceSettings):
    """What guardrails read from the environment."""

    release_ttl_s: int = Field(
        8 * 24 * 3600,
        description="How long the gate remembers which event ended a request: longer than llm-results are retained.",
        ge=60,
    )
    guardrails_fingerprint_key: SecretStr | None = Field(
        None,
        description="Key of the fingerprints in verdicts; unset: one is made once and kept in Redis for all replicas.",
    )
    pseudonym_ttl_s: int = Field(
        24 * 3600, description="How long it is remembered what a request's pseudonyms stand for.", ge=60
    )
    guardrails_max_chars: int = Field(
        400_000, description="Most characters of one event's texts that are scanned.", ge=1000
    )
    guardrails_time_budget_s: float = Field(2.0, description="Longest scanning of one event, seconds.", gt=0)
    guardrails_document_max_chars: int = Field(
        4_000_000, description="Most characters of a document that are scanned.", ge=1000
    )
    guardrails_document_time_budget_s: float = Field(30.0, description="Longest scanning of a document, seconds.", gt=0)
    guardrails_max_batch: int = Field(
        16, description="Most events handled at once by one hop: whoever comes next waits for all of them.", ge=1
    )
