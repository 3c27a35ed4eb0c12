"""A price applied to a call: what it cost, what it saved, and the most that it could cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeVar

from penstock.config.prices import TIERS, Price
from penstock.contracts.records import Usage
from penstock.money.amounts import exact, rounded_up

__all__ = ["Amounts", "charge", "worst_case"]

_ZERO = Decimal(0)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Amounts:
    """What one call cost, USD with 12 places each.

    Attributes:
        input: share of the prompt.
        output: share of the answer.
        compute: share of what is charged by time or by request.
        prefix_cache_saved: what the provider's cache of prompts saved against the plain price.
        input_rate: USD of one plain prompt token of this call.
    """

    input: Decimal
    output: Decimal
    compute: Decimal
    prefix_cache_saved: Decimal = field(default=_ZERO)
    input_rate: Decimal = field(default=_ZERO)

    @property
    def total(self) -> Decimal:
        """The sum of the shares."""
        return self.input + self.output + self.compute


def charge(price: Price, usage: Usage, compute_us: int = 0) -> Amounts:
    """Return what a call cost.

    Args:
        price: of its model, at its time.
        usage: its tokens. Cached, cache-writing and reasoning tokens are part of the totals, and cost what others do
            where the price has no own rate for them. A prompt above a tier's length has the tier's rates as a whole.
        compute_us: time that a rate by the second applies to, microseconds; rounded half to even at 12 places.
    """
    rate, cache_read, output_rate = _rates(price, usage.input_tokens)
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_input_tokens, usage.input_tokens - cached)
    write_rate = rate if price.cache_creation_input_token_cost is None else price.cache_creation_input_token_cost
    reasoning = min(usage.reasoning_tokens, usage.output_tokens)
    reasoning_rate = price.output_cost_per_reasoning_token
    if reasoning_rate is None:
        reasoning_rate = output_rate
    plain = usage.input_tokens - cached - written
    compute = price.input_cost_per_request or _ZERO
    if per_second := _per_second(price):
        compute += per_second * compute_us / 1_000_000
    return Amounts(
        input=exact(plain * rate + cached * cache_read + written * write_rate),
        output=exact((usage.output_tokens - reasoning) * output_rate + reasoning * reasoning_rate),
        compute=exact(compute),
        prefix_cache_saved=exact(max(_ZERO, cached * (rate - cache_read))),
        input_rate=rate,
    )


def worst_case(price: Price, input_tokens: int, output_tokens: int, seconds: float) -> Decimal:
    """Return the most that a call can cost, USD, rounded up at 12 places.

    Args:
        price: of the model.
        input_tokens: most tokens of the prompt; the model's own bound holds where it is lower.
        output_tokens: most tokens of the answer, likewise.
        seconds: longest time the call may take.
    """
    if price.max_input_tokens is not None:
        input_tokens = min(input_tokens, price.max_input_tokens)
    if price.max_output_tokens is not None:
        output_tokens = min(output_tokens, price.max_output_tokens)
    # A shorter prompt may be the dearer one, where a tier charges less: every tier within reach counts.
    reach = [0, *(above + 1 for above in TIERS.values() if input_tokens > above)]
    rates = [_rates(price, length) for length in reach]
    dearest_input = max(
        *(rate for rate, _, _ in rates),
        *(cache_read for _, cache_read, _ in rates),
        price.cache_creation_input_token_cost or _ZERO,
    )
    dearest_output = max(*(rate for _, _, rate in rates), price.output_cost_per_reasoning_token or _ZERO)
    timed = _per_second(price) * Decimal(str(seconds)) + (price.input_cost_per_request or _ZERO)
    return rounded_up(dearest_input * input_tokens + dearest_output * output_tokens + timed)


def _rates(price: Price, input_tokens: int) -> tuple[Decimal, Decimal, Decimal]:
    """Return USD a plain prompt token, a cached one and a generated one, at the tier of a prompt's length."""
    rate = price.input_cost_per_token or _ZERO
    output = price.output_cost_per_token or _ZERO
    cache_read = price.cache_read_input_token_cost
    for tier, above in TIERS.items():
        if input_tokens <= above:
            break
        rate = _above(price, "input_cost_per_token", tier, rate)
        output = _above(price, "output_cost_per_token", tier, output)
        cache_read = _above(price, "cache_read_input_token_cost", tier, cache_read)
    return rate, rate if cache_read is None else cache_read, output


def _above(price: Price, field_name: str, tier: str, below: _T) -> Decimal | _T:
    own: Decimal | None = getattr(price, f"{field_name}_above_{tier}_tokens")
    return below if own is None else own


def _per_second(price: Price) -> Decimal:
    return (price.input_cost_per_second or _ZERO) + (price.output_cost_per_second or _ZERO)
