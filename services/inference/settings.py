"""Settings of inference, beside those of every service."""

from __future__ import annotations

from typing import Annotated

from penstock.settings import ServiceSettings, redis_address
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from services.inference.vllm.settings import EngineSettingsField

__all__ = ["Settings"]


class Settings(ServiceSettings):
    """What inference reads from the environment."""

    inference_concurrency: int = Field(64, description="Calls in flight at once in this process.", ge=2, le=4096)
    inference_waiting: int = Field(
        4096,
        description="Requests that wait in this process for one of these calls: the most urgent goes first, and teams "
        "take turns. What one team may have in the flow at once should fit.",
        ge=1,
        le=16_384,
    )
    inference_shadow_concurrency: int = Field(
        8,
        description="Requests that targets in shadow answer at once in this process, beside the calls; 0: none.",
        ge=0,
        le=4096,
    )
    inference_shadow_wait_s: float = Field(
        30.0, description="A request that waited longer for a target in shadow is left out, seconds.", gt=0, le=86_400
    )
    inference_cancellations_s: float = Field(
        900.0,
        description="How long a cancellation is remembered, seconds: a request that comes later is answered.",
        ge=1,
        le=86_400,
    )
    inference_engine: Annotated[EngineSettingsField | None, NoDecode] = Field(
        None,
        description="What the engine of this process runs: the path of a YAML or JSON file, or a JSON object; unset: there "
        "is no vllm backend here.",
    )
    inference_cache_url: str | None = Field(
        None, description="Redis of the answers that are kept; unset: REDIS_URL, which the budgets need the room of."
    )
    inference_cache_key: SecretStr | None = Field(
        None,
        description="Secret of the answers that are kept; unset: one is made once and kept in Redis for all replicas.",
    )
    grid_grams_per_kwh: float | None = Field(
        None,
        description="Grid intensity where this process runs, grams of CO2 equivalent per kWh, for the estimate of what a "
        "call emits; unset: its energy alone is estimated.",
        ge=0,
        le=3000,
        allow_inf_nan=False,
    )

    @field_validator("inference_cache_url")
    @classmethod
    def _cache_address(cls, value: str | None) -> str | None:
        return None if value is None else redis_address(value)
