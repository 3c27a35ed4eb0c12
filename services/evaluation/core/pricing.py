"""Calls to costs: of completions and of embedded documents, at the price in force then, exact to the last digit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from penstock.alerts import alert_emit, fingerprint, log_range
from penstock.bus import Emit, Message
from penstock.config.prices import Price
from penstock.contracts.envelope import derive
from penstock.contracts.records import Alert, Completion, Context, Cost, DocumentIndexed, LogRange, Purpose, Usage
from penstock.money import charge, exact, from_pico
from penstock.stateful import Logic, Lookup

__all__ = [
    "Calls", "Priced", "Unpriced", "UnpricedModel", "cost_kind", "price_completion", "price_document", "price_embedding",
    "pricing",
]  # fmt: skip

PriceOf = Callable[[str, datetime], Price | None]
"""``price_of(model, at)``: the price of a model in force at an instant, None where none is known."""

_ZERO = from_pico(0)
_REPEAT_AFTER = timedelta(hours=1)
_FORGET_AFTER = timedelta(days=1)
_CURSOR = "cursor"


@dataclass(frozen=True, slots=True)
class Calls:
    """The costs of the calls that one source event tells of: a completion's, its embedding's, a document's."""

    costs: tuple[Cost, ...]


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A cost without a price, and where its source event stands."""

    cost: Cost
    origin: LogRange


class Priced(msgspec.Struct, frozen=True, tag="priced"):
    """How many costs a partition has led to. With it the shell keeps the offset up to which they were made: what is read
    again from before it, after a crash or by hand, makes none again."""

    costs: int = 0


class UnpricedModel(msgspec.Struct, frozen=True, tag="unpriced"):
    """What is known of a model without a price: when on-call was told, and how many calls it has had since."""

    alerted_at: datetime
    calls: int


def cost_kind(completion: Completion) -> str:
    """Return what a completion's call is booked as; where several apply, the first of these: a call for a judge or a
    shadow, one that was abandoned for another target, an answer from a cache, one that was cancelled, one that was asked
    for again."""
    if completion.kind in ("judge", "shadow", "abandoned"):
        return completion.kind
    if _is_cached(completion):
        return "cached"
    if completion.finish_reason == "cancelled":
        return "cancelled"
    return "repeat" if completion.attempt > 0 else "completion"


def price_completion(completion: Completion, price_of: PriceOf) -> Cost:
    """Return what the model's call of ``completion`` cost.

    The model that the route named is priced, the one that answered where that has no price. What was generated is paid
    for however it ended; a call that failed without a token costs nothing. An answer from a cache costs nothing and saved
    what the call would have cost. Without a price the amounts are null, never zero.
    """
    # The time of the call, not of its pricing: it decides the price.
    at = completion.occurred_at
    model = completion.request_model or completion.model
    price = price_of(model, at)
    if price is None and completion.model != model:
        price = price_of(completion.model, at)
    cost = Cost(
        **derive(completion, "evaluation.cost", 0, at),
        context=completion.context,
        kind=cost_kind(completion),
        model=model,
        backend=completion.backend,
        priced=False,
        usage=completion.usage,
        accounted_at=completion.context.admitted_at or at,
        attempt=completion.attempt,
        response_model=completion.model,
    )
    if price is None:
        return cost
    if _is_cached(completion):
        avoided = charge(price, completion.usage).total
        return _priced(cost, price, saved={f"{completion.cached_by or 'exact'}_cache": avoided} if avoided else {})
    if _failed(completion):
        return _priced(cost, price)
    compute_us = 0
    if price.per_second:
        timings = completion.timings
        compute_us = max(0, timings.model_us if timings.compute_us is None else timings.compute_us)
    amounts = charge(price, completion.usage, compute_us)
    saved = {}
    if amounts.prefix_cache_saved:
        saved["prefix_cache"] = amounts.prefix_cache_saved
    if completion.reduced_input_tokens > 0 and amounts.input_rate:
        saved["prompt_reduction"] = exact(completion.reduced_input_tokens * amounts.input_rate)
    return _priced(
        cost, price, amounts.total, amounts.input, amounts.output, amounts.compute, compute_us=compute_us, saved=saved
    )


def price_embedding(completion: Completion, price_of: PriceOf) -> Cost | None:
    """Return what embedding the question of ``completion`` cost, or the texts whose vectors were wanted; None where nothing
    was embedded for it."""
    if completion.embedding_tokens <= 0:
        return None
    at = completion.occurred_at
    context = completion.context
    cost = Cost(
        **derive(completion, "evaluation.cost", 1, at),
        context=context,
        kind="embedding",
        model=completion.embedder or "",
        priced=False,
        usage=Usage(input_tokens=completion.embedding_tokens),
        accounted_at=context.admitted_at or at,
        attempt=completion.attempt,
        response_model=completion.embedder,
    )
    return _embedded(cost, price_of)


def price_document(document: DocumentIndexed, price_of: PriceOf) -> Cost | None:
    """Return what embedding a document cost; None where nothing was embedded."""
    if document.embedded_tokens <= 0:
        return None
    at = document.occurred_at
    cost = Cost(
        **derive(document, "evaluation.cost", 0, at),
        context=Context(requested_at=at),
        kind="embedding",
        model=document.embedder,
        priced=False,
        usage=Usage(input_tokens=document.embedded_tokens),
        accounted_at=at,
        response_model=document.embedder,
    )
    return _embedded(cost, price_of)


def pricing(price_of: PriceOf) -> Logic[Priced | UnpricedModel, Calls | Unpriced]:
    """Return the processor of ``completions`` and ``documents-indexed``: a cost for each call, once, and an alert for a
    model that has no price."""

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, Calls | Unpriced]]:
        if isinstance(record, Completion):
            # Where vectors were wanted, no model was called beside the embedder.
            called = None if record.context.purpose == Purpose.EMBED else price_completion(record, price_of)
            made = [called, price_embedding(record, price_of)]
            silent = _failed(record)
        else:
            made, silent = [price_document(record, price_of)], False
        costs = tuple(cost for cost in made if cost is not None)
        if not costs:
            return
        yield _CURSOR, Calls(costs)
        unpriced = {c.model: c for c in costs if not c.priced and (c.kind == "embedding" or not silent)}
        for model, cost in unpriced.items():
            yield f"unpriced/{model}", Unpriced(cost, log_range(message))

    return Logic(step=step, route=route, state_type=Priced | UnpricedModel, expires_at=_expires_at)


def step(
    state: Priced | UnpricedModel | None, event: Calls | Unpriced, now: datetime
) -> tuple[Priced | UnpricedModel | None, list[Emit]]:
    """Send costs on, or note that a model has no price: on-call hears of it once an hour while calls come in."""
    if isinstance(event, Calls):
        before = state.costs if isinstance(state, Priced) else 0
        return Priced(before + len(event.costs)), [Emit("costs", cost.tenant_id, cost) for cost in event.costs]
    known = state if isinstance(state, UnpricedModel) else None
    calls = 1 if known is None else known.calls + 1
    if known is not None and now - known.alerted_at < _REPEAT_AFTER:
        return UnpricedModel(known.alerted_at, calls), []
    return UnpricedModel(now, 0), [alert_emit(_unpriced_alert(event, calls, now))]


def _expires_at(key: str, state: Priced | UnpricedModel) -> datetime | None:
    return state.alerted_at + _FORGET_AFTER if isinstance(state, UnpricedModel) else None


def _is_cached(completion: Completion) -> bool:
    return completion.cached_by is not None or completion.kind == "cached"


def _failed(completion: Completion) -> bool:
    """Whether the call gave nothing to pay for."""
    usage = completion.usage
    return completion.error is not None and not (usage.input_tokens or usage.output_tokens)


def _embedded(cost: Cost, price_of: PriceOf) -> Cost:
    price = price_of(cost.model, cost.occurred_at)
    if price is None:
        return cost
    amounts = charge(price, cost.usage)
    return _priced(cost, price, amounts.total, amounts.input, amounts.output, amounts.compute)


def _priced(
    cost: Cost,
    price: Price,
    amount: Decimal = _ZERO,
    input_amount: Decimal = _ZERO,
    output_amount: Decimal = _ZERO,
    compute_amount: Decimal = _ZERO,
    *,
    compute_us: int = 0,
    saved: dict[str, Decimal] | None = None,
) -> Cost:
    return msgspec.structs.replace(
        cost,
        priced=True,
        price_version=price.version,
        amount=amount,
        input_amount=input_amount,
        output_amount=output_amount,
        compute_amount=compute_amount,
        compute_us=compute_us,
        saved=saved or {},
    )


def _unpriced_alert(event: Unpriced, calls: int, now: datetime) -> Alert:
    cost = event.cost
    backend = cost.backend or cost.kind
    return Alert(
        **derive(cost, "evaluation.unpriced", 0, now),
        kind="cost",
        name="unpriced_model",
        severity="warning",
        title=f"Model {cost.model} has no price",
        description=(
            f"{calls} call(s) of {cost.model} ({backend}) since the last alert are recorded as unpriced: "
            "they count in no budget until the model has a price."
        ),
        suggested_action="Add the model to infra/config/prices and run `penstock config apply`.",
        fingerprint=fingerprint("cost", "unpriced_model", cost.model),
        labels={"model": cost.model, "backend": backend, "team": cost.tenant_id},
        figures={"calls": float(calls)},
        evidence=[event.origin],
        sample_requests=[cost.request_id],
        runbook="services/alerting/runbooks/cost.md",
    )
