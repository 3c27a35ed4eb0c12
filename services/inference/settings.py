"""Settings of inference, beside those of every service."""

from __future__ import annotations

from penstock.settings import ServiceSettings
from pydantic import Field

__all__ = ["Settings"]


class Settings(ServiceSettings):
    """What inference reads from the environment."""

    inference_concurrency: int = Field(64, description="Calls in flight at once in this process.", ge=2, le=4096)
