"""Settings of intake, beside those of every service."""

from __future__ import annotations

from penstock.settings import ServiceSettings
from pydantic import Field

__all__ = ["Settings"]


class Settings(ServiceSettings):
    """What intake reads from the environment."""

    idempotency_ttl_s: int = Field(
        8 * 24 * 3600,
        description="How long a request_id and a charged cost are remembered, and a reservation stands that nothing ends, "
        "seconds: longer than llm-requests is retained.",
        ge=60,
    )
    reservation_grace_s: float = Field(
        120.0,
        description="How long after a request's end a cost may still come that nobody counts on: of a call whose delivery "
        "was repeated, or of an embedding. And how long after its deadline a request counts as under way.",
        ge=0,
    )
    deferral_ttl_s: int = Field(
        900,
        description="How long it is remembered that a send was told to come later, seconds: what is read again after that, "
        "since a process died over it, is decided anew.",
        ge=1,
    )
    embedding_model: str = Field(
        "all-MiniLM-L6-v2",
        description="Embedding model of retrieval: what a question's embedding may cost is reserved.",
    )
    team_requests_in_flow: int = Field(
        1000,
        description="Most requests of a team between admission and result; what comes beyond waits, in order, for room.",
        ge=1,
    )
    max_prompt_bytes: int = Field(1_048_576, description="Most bytes of a request's messages together.", ge=1)
    max_messages: int = Field(500, description="Most messages of a request.", ge=1)
