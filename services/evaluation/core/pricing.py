"""Completions to costs: the price in force when the call was made, exact to the last digit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from penstock.bus import Emit, Message
from penstock.config.kinds import Price
from penstock.contracts.envelope import derive
from penstock.contracts.records import Alert, Completion, Cost, LogRange, Usage
from penstock.stateful import Logic, Lookup

from services.evaluation.core.alerts import alert_emit, fingerprint, log_range

__all__ = ["PricedCall", "Unpriced", "UnpricedModel", "price_call", "pricing"]

_TWELVE_PLACES = Decimal("1e-12")
_REPEAT_AFTER = timedelta(hours=1)
_FORGET_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PricedCall:
    """A completion with the price of its model at the time of the call; ``None`` where none is known."""

    completion: Completion
    price: Price | None


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A completion whose model has no price, and where it stands."""

    completion: Completion
    origin: LogRange


class UnpricedModel(msgspec.Struct, frozen=True):
    """What is known of a model without a price: when on-call was told, and how many calls it has had since."""

    alerted_at: datetime
    calls: int


def price_call(completion: Completion, price: Price | None) -> Cost:
    """Return what ``completion`` cost.

    Cached prompt tokens cost ``cache_read_input_token_cost`` where the price has one, else what others cost. Prices have
    at most 12 places, so the amounts are exact. Without a price they are null, never zero.
    """
    # The time of the call, not of its pricing: it decides price and budget window.
    envelope = derive(completion, "evaluation.cost", 0, completion.occurred_at)
    usage = completion.usage
    if price is None:
        return Cost(
            **envelope,
            context=completion.context,
            model=completion.model,
            backend=completion.backend,
            priced=False,
            usage=usage,
        )
    input_amount, output_amount = _amounts(usage, price)
    return Cost(
        **envelope,
        context=completion.context,
        model=completion.model,
        backend=completion.backend,
        priced=True,
        price_version=price.version,
        amount=input_amount + output_amount,
        input_amount=input_amount,
        output_amount=output_amount,
        usage=usage,
    )


def _amounts(usage: Usage, price: Price) -> tuple[Decimal, Decimal]:
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    cached_price = price.cache_read_input_token_cost
    if cached_price is None:
        cached_price = price.input_cost_per_token
    input_amount = (usage.input_tokens - cached) * price.input_cost_per_token + cached * cached_price
    output_amount = usage.output_tokens * price.output_cost_per_token
    # Only the form: 12 places written out, whatever the price was written with.
    return input_amount.quantize(_TWELVE_PLACES), output_amount.quantize(_TWELVE_PLACES)


def pricing(price_of: Callable[[str, datetime], Price | None]) -> Logic[UnpricedModel, PricedCall | Unpriced]:
    """Return the processor of ``completions``: a cost for each, and an alert for a model that has no price."""

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, PricedCall | Unpriced]]:
        completion: Completion = record
        price = price_of(completion.model, completion.occurred_at)
        yield None, PricedCall(completion, price)
        if price is None and (completion.usage.input_tokens or completion.usage.output_tokens):
            yield f"unpriced/{completion.model}", Unpriced(completion, log_range(message))

    return Logic(step=step, route=route, state_type=UnpricedModel, expires_at=_expires_at)


def step(
    state: UnpricedModel | None, event: PricedCall | Unpriced, now: datetime
) -> tuple[UnpricedModel | None, list[Emit]]:
    """Price a call, or note that a model has no price: on-call hears of it once an hour while calls come in."""
    if isinstance(event, PricedCall):
        cost = price_call(event.completion, event.price)
        return state, [Emit("costs", cost.tenant_id, cost)]
    calls = 1 if state is None else state.calls + 1
    if state is not None and now - state.alerted_at < _REPEAT_AFTER:
        return UnpricedModel(state.alerted_at, calls), []
    return UnpricedModel(now, 0), [alert_emit(_unpriced_alert(event, calls, now))]


def _expires_at(key: str, state: UnpricedModel) -> datetime:
    return state.alerted_at + _FORGET_AFTER


def _unpriced_alert(event: Unpriced, calls: int, now: datetime) -> Alert:
    completion = event.completion
    return Alert(
        **derive(completion, "evaluation.unpriced", 0, now),
        kind="cost",
        name="unpriced_model",
        severity="warning",
        title=f"Model {completion.model} has no price",
        description=(
            f"{calls} call(s) of {completion.model} ({completion.backend}) since the last alert are recorded as unpriced: "
            "they count in no budget until the model has a price."
        ),
        suggested_action="Add the model to infra/config/prices and run `penstock config apply`.",
        fingerprint=fingerprint("cost", "unpriced_model", completion.model),
        labels={"model": completion.model, "backend": completion.backend, "team": completion.tenant_id},
        figures={"calls": float(calls)},
        evidence=[event.origin],
        sample_requests=[completion.request_id],
        runbook="services/alerting/runbooks/cost.md",
    )
