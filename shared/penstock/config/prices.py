"""Prices: what one model costs from an instant on, in the field names of LiteLLM's price file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.config.entry import MONEY_PLACES, Entry, FieldError, Instant, ModelName, Money

__all__ = ["MODES", "TIERED", "TIERS", "Mode", "Price", "Rates"]

Mode = Literal["chat", "completion", "responses", "embedding", "rerank"]
MODES: tuple[Mode, ...] = ("chat", "completion", "responses", "embedding", "rerank")
TIERS = {
    "32k": 32_000,
    "100k": 100_000,
    "128k": 128_000,
    "200k": 200_000,
    "256k": 256_000,
    "272k": 272_000,
    "512k": 512_000,
}
"""Prompt lengths, tokens, above which some providers charge another price for the whole call; ascending."""
TIERED = (
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
)
"""Prices that may differ above a tier's length, as ``<name>_above_<tier>_tokens``."""

# The dearest model known charges below 0.001 USD a token. The bound keeps every product with a count of tokens within
# the 38 digits of the records.
_CONTEXT = Context(prec=38)
Rate = Annotated[Money, Field(le=1_000_000)]


def _above(name: str, thousands: int) -> Any:
    return Field(default=None, description=f"As {name}, of a call whose prompt is above {thousands},000 tokens.")


@dataclass(frozen=True, slots=True)
class Rates:
    """What the tokens of one call cost, each in integers of 1e-12 USD.

    Attributes:
        above: the rates hold for prompts of more tokens than this.
        input: a plain prompt token.
        cache_read: a prompt token from the provider's cache.
        cache_write: a prompt token written to the provider's cache.
        output: a generated token.
        reasoning: a generated token of reasoning.
    """

    above: int
    input: int
    cache_read: int
    cache_write: int
    output: int
    reasoning: int


class Price(Entry):
    """What one model costs from an instant on.

    Fields are named as in LiteLLM's model_prices_and_context_window.json, so its entries can be taken over as they are.
    """

    KIND: ClassVar[str] = "prices"

    model: ModelName = Field(description="Model as routes name it.")
    litellm_provider: str = Field(default="", description="Provider, e.g. openai.")
    mode: Mode = Field(default="chat", description="What the model is for.")
    input_cost_per_token: Rate | None = Field(default=None, description="USD for one prompt token.")
    output_cost_per_token: Rate | None = Field(default=None, description="USD for one generated token.")
    cache_read_input_token_cost: Rate | None = Field(
        default=None, description="USD for one prompt token from the provider's cache; null prices it as any other."
    )
    cache_creation_input_token_cost: Rate | None = Field(
        default=None, description="USD for one prompt token written to the provider's cache; null as any other."
    )
    output_cost_per_reasoning_token: Rate | None = Field(
        default=None, description="USD for one generated token of reasoning; null prices it as any other."
    )
    input_cost_per_token_above_32k_tokens: Rate | None = _above("input_cost_per_token", 32)
    output_cost_per_token_above_32k_tokens: Rate | None = _above("output_cost_per_token", 32)
    cache_read_input_token_cost_above_32k_tokens: Rate | None = _above("cache_read_input_token_cost", 32)
    cache_creation_input_token_cost_above_32k_tokens: Rate | None = _above("cache_creation_input_token_cost", 32)
    input_cost_per_token_above_100k_tokens: Rate | None = _above("input_cost_per_token", 100)
    output_cost_per_token_above_100k_tokens: Rate | None = _above("output_cost_per_token", 100)
    cache_read_input_token_cost_above_100k_tokens: Rate | None = _above("cache_read_input_token_cost", 100)
    cache_creation_input_token_cost_above_100k_tokens: Rate | None = _above("cache_creation_input_token_cost", 100)
    input_cost_per_token_above_128k_tokens: Rate | None = _above("input_cost_per_token", 128)
    output_cost_per_token_above_128k_tokens: Rate | None = _above("output_cost_per_token", 128)
    cache_read_input_token_cost_above_128k_tokens: Rate | None = _above("cache_read_input_token_cost", 128)
    cache_creation_input_token_cost_above_128k_tokens: Rate | None = _above("cache_creation_input_token_cost", 128)
    input_cost_per_token_above_200k_tokens: Rate | None = _above("input_cost_per_token", 200)
    output_cost_per_token_above_200k_tokens: Rate | None = _above("output_cost_per_token", 200)
    cache_read_input_token_cost_above_200k_tokens: Rate | None = _above("cache_read_input_token_cost", 200)
    cache_creation_input_token_cost_above_200k_tokens: Rate | None = _above("cache_creation_input_token_cost", 200)
    input_cost_per_token_above_256k_tokens: Rate | None = _above("input_cost_per_token", 256)
    output_cost_per_token_above_256k_tokens: Rate | None = _above("output_cost_per_token", 256)
    cache_read_input_token_cost_above_256k_tokens: Rate | None = _above("cache_read_input_token_cost", 256)
    cache_creation_input_token_cost_above_256k_tokens: Rate | None = _above("cache_creation_input_token_cost", 256)
    input_cost_per_token_above_272k_tokens: Rate | None = _above("input_cost_per_token", 272)
    output_cost_per_token_above_272k_tokens: Rate | None = _above("output_cost_per_token", 272)
    cache_read_input_token_cost_above_272k_tokens: Rate | None = _above("cache_read_input_token_cost", 272)
    cache_creation_input_token_cost_above_272k_tokens: Rate | None = _above("cache_creation_input_token_cost", 272)
    input_cost_per_token_above_512k_tokens: Rate | None = _above("input_cost_per_token", 512)
    output_cost_per_token_above_512k_tokens: Rate | None = _above("output_cost_per_token", 512)
    cache_read_input_token_cost_above_512k_tokens: Rate | None = _above("cache_read_input_token_cost", 512)
    cache_creation_input_token_cost_above_512k_tokens: Rate | None = _above("cache_creation_input_token_cost", 512)
    input_cost_per_request: Rate | None = Field(default=None, description="USD for one call, whatever its length.")
    input_cost_per_second: Rate | None = Field(
        default=None,
        description="USD for one second of the call: of accelerator time where the backend says it, else of its duration.",
    )
    output_cost_per_second: Rate | None = Field(
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

    @cached_property
    def tiers(self) -> tuple[Rates, ...]:
        """Rates by length of the prompt, ascending; the first is that of any prompt.

        A tier that leaves a price open has that of the tier below it. Cached and cache-writing tokens cost what plain
        ones of their tier do where no tier says otherwise, reasoning what other generated tokens do.
        """
        current: dict[str, Decimal | None] = {name: getattr(self, name) for name in TIERED}
        found = [self._rates(-1, current)]
        for tier, above in TIERS.items():
            own = {name: getattr(self, f"{name}_above_{tier}_tokens") for name in TIERED}
            if any(cost is not None for cost in own.values()):
                current = {name: current[name] if cost is None else cost for name, cost in own.items()}
                found.append(self._rates(above, current))
        return tuple(found)

    def _rates(self, above: int, costs: Mapping[str, Decimal | None]) -> Rates:
        plain, output, cache_read, cache_write = (costs[name] for name in TIERED)
        reasoning = self.output_cost_per_reasoning_token
        return Rates(
            above=above,
            input=_pico(plain),
            cache_read=_pico(plain if cache_read is None else cache_read),
            cache_write=_pico(plain if cache_write is None else cache_write),
            output=_pico(output),
            reasoning=_pico(output if reasoning is None else reasoning),
        )

    @cached_property
    def per_request(self) -> int:
        """Price of one call, in integers of 1e-12 USD."""
        return _pico(self.input_cost_per_request)

    @cached_property
    def per_second(self) -> int:
        """Price of one second of a call, in integers of 1e-12 USD."""
        return _pico(self.input_cost_per_second) + _pico(self.output_cost_per_second)


def _pico(cost: Decimal | None) -> int:
    # Exact: a rate has 12 places and 7 digits before the point at the most.
    return 0 if cost is None else int(cost.scaleb(MONEY_PLACES, context=_CONTEXT))
