"""Settings of intake, beside those of every service."""

from __future__ import annotations

from penstock.settings import ServiceSettings
from pydantic import Field

__all__ = ["Settings"]


class Settings(ServiceSettings):
    """What intake reads from the environment."""

    idempotency_ttl_s: int = Field(
        8 * 24 * 3600, description="How long a request_id is remembered: longer than llm-requests is retained.", ge=60
    )
    max_prompt_bytes: int = Field(1_048_576, description="Most bytes of a request's messages together.", ge=1)
    max_messages: int = Field(500, description="Most messages of a request.", ge=1)
