"""A price applied to a call: what it cost, what it saved, and the most that it could cost.

Everything is computed in integers of 1e-12 USD: exact, whatever the counts and rates are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Context, Decimal
from fractions import Fraction
from math import ceil

from penstock.config.prices import Price, Rates
from penstock.contracts.records import Usage
from penstock.money.amounts import from_pico

__all__ = ["Amounts", "charge", "worst_case"]

_ZERO = from_pico(0)
_CONTEXT = Context(prec=38)  # the digits of the records: the 28 of a process would cut large sums
_US_A_SECOND = 1_000_000


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
        return _CONTEXT.add(_CONTEXT.add(self.input, self.output), self.compute)


def charge(price: Price, usage: Usage, compute_us: int = 0) -> Amounts:
    """Return what a call cost.

    Args:
        price: of its model, at its time.
        usage: its tokens. Cached, cache-writing and reasoning tokens are part of the totals, and cost what others do
            where the price has no own rate for them. A prompt above a tier's length has the tier's rates as a whole.
            A count below zero is no count: it is taken for zero, so that no report of a backend lowers a cost.
        compute_us: time that a rate by the second applies to, microseconds; rounded half to even at 12 places.
    """
    prompt, answer = max(0, usage.input_tokens), max(0, usage.output_tokens)
    rates = _rates(price, prompt)
    cached = min(max(0, usage.cached_input_tokens), prompt)
    written = min(max(0, usage.cache_write_input_tokens), prompt - cached)
    reasoning = min(max(0, usage.reasoning_tokens), answer)
    plain = prompt - cached - written
    return Amounts(
        input=from_pico(plain * rates.input + cached * rates.cache_read + written * rates.cache_write),
        output=from_pico((answer - reasoning) * rates.output + reasoning * rates.reasoning),
        compute=from_pico(price.per_request + _half_even(price.per_second * max(0, compute_us), _US_A_SECOND)),
        prefix_cache_saved=from_pico(max(0, cached * (rates.input - rates.cache_read))),
        input_rate=from_pico(rates.input),
    )


def worst_case(price: Price, input_tokens: int, output_tokens: int, seconds: float) -> Decimal:
    """Return the most that a call can cost, USD, rounded up at 12 places.

    No call within the bounds costs more, however its tokens fall to caches, reasoning and tiers. The price's own
    max_input_tokens and max_output_tokens lower nothing: a model that takes more than a price file says would exceed
    what was reserved for it.

    Args:
        price: of the model.
        input_tokens: most tokens of the prompt, those of its template and its passages included.
        output_tokens: most tokens of the answer, those of reasoning included.
        seconds: longest time that is charged for the call.

    Raises:
        ValueError: ``seconds`` is not a finite number.
    """
    reach = [rates for rates in price.tiers if rates.above < max(0, input_tokens)]
    # A shorter prompt may be the dearer one, where a tier charges less: every tier within reach counts.
    dearest = max(_dearest(rates, max(0, input_tokens), max(0, output_tokens)) for rates in [price.tiers[0], *reach])
    timed = ceil(price.per_second * max(Fraction(0), Fraction(str(seconds))))
    return from_pico(dearest + timed + price.per_request)


def _rates(price: Price, input_tokens: int) -> Rates:
    """Return the rates of the highest tier that a prompt of so many tokens is above of."""
    rates = price.tiers[0]
    for tier in price.tiers[1:]:
        if input_tokens <= tier.above:
            break
        rates = tier
    return rates


def _dearest(rates: Rates, input_tokens: int, output_tokens: int) -> int:
    prompt = max(rates.input, rates.cache_read, rates.cache_write)
    return prompt * input_tokens + max(rates.output, rates.reasoning) * output_tokens


def _half_even(numerator: int, denominator: int) -> int:
    """Return a quotient of integers that are not negative, rounded half to even."""
    quotient, rest = divmod(numerator, denominator)
    over = 2 * rest - denominator
    return quotient + (over > 0 or (over == 0 and quotient % 2 == 1))
