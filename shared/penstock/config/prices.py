"""Prices: what one model costs from an instant on, in the field names of LiteLLM's price file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.config.entry import Entry, FieldError, Instant, ModelName, Money

__all__ = ["MODES", "TIERS", "Mode", "Price"]

Mode = Literal["chat", "completion", "responses", "embedding", "rerank"]
MODES: tuple[Mode, ...] = ("chat", "completion", "responses", "embedding", "rerank")
TIERS: Mapping[str, int] = {"128k": 128_000, "200k": 200_000, "256k": 256_000, "272k": 272_000}
"""Prompt lengths, tokens, above which some providers charge another price for the whole call."""


class Price(Entry):
    """What one model costs from an instant on.

    Fields are named as in LiteLLM's model_prices_and_context_window.json, so its entries can be taken over as they are.
    """

    KIND: ClassVar[str] = "prices"

    model: ModelName = Field(description="Model as routes name it.")
    litellm_provider: str = Field(default="", description="Provider, e.g. openai.")
    mode: Mode = Field(default="chat", description="What the model is for.")
    input_cost_per_token: Money | None = Field(default=None, description="USD for one prompt token.")
    output_cost_per_token: Money | None = Field(default=None, description="USD for one generated token.")
    cache_read_input_token_cost: Money | None = Field(
        default=None, description="USD for one prompt token from the provider's cache; null prices it as any other."
    )
    cache_creation_input_token_cost: Money | None = Field(
        default=None, description="USD for one prompt token written to the provider's cache; null as any other."
    )
    output_cost_per_reasoning_token: Money | None = Field(
        default=None, description="USD for one generated token of reasoning; null prices it as any other."
    )
    input_cost_per_token_above_128k_tokens: Money | None = Field(
        default=None, description="As input_cost_per_token, of a call with a prompt above 128,000 tokens."
    )
    output_cost_per_token_above_128k_tokens: Money | None = Field(
        default=None, description="As output_cost_per_token, likewise."
    )
    cache_read_input_token_cost_above_128k_tokens: Money | None = Field(
        default=None, description="As cache_read_input_token_cost, likewise."
    )
    input_cost_per_token_above_200k_tokens: Money | None = Field(
        default=None, description="As input_cost_per_token, of a call with a prompt above 200,000 tokens."
    )
    output_cost_per_token_above_200k_tokens: Money | None = Field(
        default=None, description="As output_cost_per_token, likewise."
    )
    cache_read_input_token_cost_above_200k_tokens: Money | None = Field(
        default=None, description="As cache_read_input_token_cost, likewise."
    )
    input_cost_per_token_above_256k_tokens: Money | None = Field(
        default=None, description="As input_cost_per_token, of a call with a prompt above 256,000 tokens."
    )
    output_cost_per_token_above_256k_tokens: Money | None = Field(
        default=None, description="As output_cost_per_token, likewise."
    )
    cache_read_input_token_cost_above_256k_tokens: Money | None = Field(
        default=None, description="As cache_read_input_token_cost, likewise."
    )
    input_cost_per_token_above_272k_tokens: Money | None = Field(
        default=None, description="As input_cost_per_token, of a call with a prompt above 272,000 tokens."
    )
    output_cost_per_token_above_272k_tokens: Money | None = Field(
        default=None, description="As output_cost_per_token, likewise."
    )
    cache_read_input_token_cost_above_272k_tokens: Money | None = Field(
        default=None, description="As cache_read_input_token_cost, likewise."
    )
    input_cost_per_request: Money | None = Field(default=None, description="USD for one call, whatever its length.")
    input_cost_per_second: Money | None = Field(
        default=None,
        description="USD for one second of the call: of accelerator time where the backend says it, else of its duration.",
    )
    output_cost_per_second: Money | None = Field(
        default=None, description="As input_cost_per_second; LiteLLM has both, and their sum counts."
    )
    max_input_tokens: int | None = Field(default=None, ge=1, description="Most tokens of a prompt.")
    max_output_tokens: int | None = Field(default=None, ge=1, description="Most tokens of an answer.")
    source: str = Field(default="", description="Where the price was read, and when.")
    effective_from: Instant | None = Field(
        default=None, description="First instant of the price, UTC; null for always."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        timed = any(
            cost is not None
            for cost in (self.input_cost_per_request, self.input_cost_per_second, self.output_cost_per_second)
        )
        if self.input_cost_per_token is None and not timed:
            raise FieldError(
                ("input_cost_per_token",),
                "is missing: write what a token costs (0 where it is free), or a cost by second or request",
            )
        generates = self.mode in ("chat", "completion", "responses")
        if generates and self.output_cost_per_token is None and not timed:
            raise FieldError(
                ("output_cost_per_token",),
                f"is missing: a model of mode {self.mode} generates tokens; write 0 where they are free",
            )
        return self

    @property
    def key(self) -> str:
        if self.effective_from is None:
            return self.model
        instant = self.effective_from
        at_midnight = (instant.hour, instant.minute, instant.second, instant.microsecond) == (0, 0, 0, 0)
        return f"{self.model}@{instant.date().isoformat() if at_midnight else instant.isoformat()}"
