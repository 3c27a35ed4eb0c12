"""What each call must have cost: worked out again from what was called and the price its cost names. Pure.

Follows the rules of the contract, not the code of evaluation: each completion has one cost, a second one where its
question was embedded; one of vectors has the second alone; each document that was embedded has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

import msgspec

from penstock.config.prices import Price
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Completion, Context, Cost, DocumentIndexed, Purpose, Usage
from penstock.ledger.price_history import PriceHistory
from penstock.ledger.reading import accounted_at
from penstock.money import charge, exact

__all__ = ["Call", "calls_of", "is_derived", "judge"]

_STAGE = "evaluation.cost"
_NOTHING = exact(Decimal(0))
_CLOCKS_MS = 60_000
"""How long after its publication a price may still be unknown to a service, and the clocks' difference."""


class Call(msgspec.Struct, frozen=True):
    """One call that has to have a cost.

    Attributes:
        cost: that cost as far as it does not depend on the price.
        answered_by: model whose price counts where ``cost.model`` has none.
        timed_us: what is charged where the price is by the second, microseconds.
        cache: cause of the saving where a cache answered; None where a model was called.
        free: it gave nothing to pay for.
        reduced_tokens: prompt tokens that were left out.
        read_ms: when the broker took what tells of the call, ms since the epoch.
    """

    cost: Cost
    answered_by: str
    timed_us: int
    cache: str | None
    free: bool
    reduced_tokens: int
    read_ms: int

    def priced(self, price: Price | None) -> Cost:
        """Return the whole cost at a price; None: there is none."""
        if price is None:
            return self.cost
        whole = charge(price, self.cost.usage, self.timed_us if price.per_second else 0)
        saved: dict[str, Decimal] = {}
        parts = (_NOTHING, _NOTHING, _NOTHING, _NOTHING)
        compute_us = 0
        if self.cache is not None:
            # What a call would have taken is not known, so time saves nothing.
            saved[self.cache] = charge(price, self.cost.usage).total
        elif not self.free:
            parts = (whole.total, whole.input, whole.output, whole.compute)
            compute_us = self.timed_us if price.per_second else 0
            saved["prefix_cache"] = whole.prefix_cache_saved
            saved["prompt_reduction"] = exact(self.reduced_tokens * whole.input_rate)
        return msgspec.structs.replace(
            self.cost,
            priced=True,
            price_version=price.version,
            amount=parts[0],
            input_amount=parts[1],
            output_amount=parts[2],
            compute_amount=parts[3],
            compute_us=compute_us,
            saved={cause: amount for cause, amount in saved.items() if amount},
        )

    def price(self, history: PriceHistory, known_ms: int) -> Price | None:
        """Return the price in force at the call, as it was known at an instant, ms since the epoch."""
        at = self.cost.occurred_at
        price = history.in_force(self.cost.model, at, known_ms)
        return price or history.in_force(self.answered_by, at, known_ms)


def calls_of(source: Completion | DocumentIndexed, read_ms: int) -> Iterator[Call]:
    """Yield the calls that an event tells of; ``read_ms``: when the broker took it, ms since the epoch."""
    if isinstance(source, DocumentIndexed):
        if source.embedded_tokens > 0:
            context = Context(requested_at=source.occurred_at)
            yield _embedding(source, 0, context, source.embedder, source.embedded_tokens, read_ms)
        return
    context, usage = source.context, source.usage
    if context.purpose == Purpose.EMBED:
        if source.embedding_tokens > 0:
            yield _embedding(source, 1, context, source.embedder or "", source.embedding_tokens, read_ms)
        return
    cached = source.cached_by is not None or source.kind == "cached"
    took = source.timings.model_us if source.timings.compute_us is None else source.timings.compute_us
    yield Call(
        cost=_cost(source, 0, context, _kind(source, cached), source.request_model or source.model, usage,
                   backend=source.backend, attempt=source.attempt, response_model=source.model),
        answered_by=source.model,
        timed_us=max(0, took),
        cache=f"{source.cached_by or 'exact'}_cache" if cached else None,
        free=source.error is not None and usage.input_tokens == usage.output_tokens == 0,
        reduced_tokens=max(0, source.reduced_input_tokens),
        read_ms=read_ms,
    )  # fmt: skip
    if source.embedding_tokens > 0:
        yield _embedding(source, 1, context, source.embedder or "", source.embedding_tokens, read_ms)


def is_derived(cost: Cost) -> bool:
    """Return whether the identity of a cost is one that pricing gives to what its event_id says caused it."""
    ordinals = (0, 1) if cost.kind == "embedding" else (0,)
    return any(cost.event_id == event_id(cost.causation_id, _STAGE, ordinal) for ordinal in ordinals)


def judge(call: Call, cost: Cost, history: PriceHistory, written_ms: int) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the cost of a call: kind of fault, and the figures.

    Args:
        written_ms: when the broker took the cost, ms since the epoch. A price published between the call and its pricing
            may have been known or not; both are right.
    """
    # Those from before accounted_at are all of one kind, and name neither attempt nor saving.
    old = cost.accounted_at is None
    named = None
    if cost.price_version is not None:
        named = history.version(cost.price_version)
        if named is None:
            yield "unknown_price", f"price {cost.price_version} of {cost.model} was never published"
    elif cost.priced:
        yield "unknown_price", f"the cost of {cost.model} names no price"
    models = {call.cost.model, call.answered_by}
    instants = {
        at for model in models for at in history.changes(model, call.read_ms - _CLOCKS_MS, written_ms + _CLOCKS_MS)
    }
    right = {price.version if price else None for price in (call.price(history, at) for at in instants)}
    if cost.price_version not in right and (named is not None or not cost.priced):
        yield (
            "other_price",
            (
                f"priced {_version(cost.price_version)}; in force at {cost.occurred_at.isoformat()}: "
                f"{', '.join(sorted(map(_version, right)))}"
            ),
        )
    if named is not None and cost.priced:
        expected = call.priced(named)
        shares = ("amount", "input_amount", "output_amount", "compute_amount")
        wrong = [name for name in shares if (getattr(cost, name) or _NOTHING) != getattr(expected, name)]
        if wrong or cost.amount is None:
            yield (
                "other_amount",
                "; ".join(
                    f"{name} {_usd(getattr(cost, name))}, by price {named.version} {_usd(getattr(expected, name))}"
                    for name in wrong or ["amount"]
                ),
            )
        if not old and (cost.saved != expected.saved or cost.compute_us != expected.compute_us):
            yield (
                "other_saving",
                (
                    f"saved {_amounts(cost.saved)} after {cost.compute_us} us, by price {named.version} "
                    f"{_amounts(expected.saved)} after {expected.compute_us} us"
                ),
            )
    elif not cost.priced and (cost.amount is not None or cost.saved):
        yield "other_amount", f"unpriced, yet amount {_usd(cost.amount)} and saved {_amounts(cost.saved)}"
    # They count when they occurred.
    cost = msgspec.structs.replace(cost, accounted_at=accounted_at(cost))
    facts = ["tenant_id", "request_id", "model", "usage", "accounted_at", "context"]
    if not old:
        facts += ["kind", "attempt"]
    other = [name for name in facts if getattr(cost, name) != getattr(call.cost, name)]
    if other:
        yield (
            "other_call",
            "; ".join(f"{name} {_shown(cost, name)}, of the call {_shown(call.cost, name)}" for name in other),
        )


def _kind(source: Completion, cached: bool) -> str:
    if source.kind in ("judge", "shadow", "abandoned"):
        return source.kind
    if cached:
        return "cached"
    if source.finish_reason == "cancelled":
        return "cancelled"
    return "repeat" if source.attempt else "completion"


def _embedding(
    source: Completion | DocumentIndexed, ordinal: int, context: Context, model: str, tokens: int, read_ms: int
) -> Call:
    attempt = source.attempt if isinstance(source, Completion) else 0
    cost = _cost(
        source, ordinal, context, "embedding", model, Usage(input_tokens=tokens), attempt=attempt, response_model=model
    )
    return Call(cost, answered_by=model, timed_us=0, cache=None, free=False, reduced_tokens=0, read_ms=read_ms)


def _cost(
    source: Completion | DocumentIndexed, ordinal: int, context: Context, kind: str, model: str, usage: Usage, *,
    attempt: int, response_model: str, backend: str = "",
) -> Cost:  # fmt: skip
    accounted: datetime = context.admitted_at or source.occurred_at
    return Cost(
        event_id=event_id(source.event_id, _STAGE, ordinal), request_id=source.request_id, tenant_id=source.tenant_id,
        occurred_at=source.occurred_at, causation_id=source.event_id, context=context, kind=kind, model=model,
        backend=backend, priced=False, usage=usage, accounted_at=accounted, attempt=attempt,
        response_model=response_model,
    )  # fmt: skip


def _version(version: str | None) -> str:
    return "unpriced" if version is None else f"at {version}"


def _usd(amount: Decimal | None) -> str:
    return "null" if amount is None else f"{amount:f} USD"


def _amounts(saved: dict[str, Decimal]) -> str:
    return ", ".join(f"{cause} {_usd(amount)}" for cause, amount in sorted(saved.items())) or "nothing"


def _shown(cost: Cost, name: str) -> str:
    value = getattr(cost, name)
    if name in ("usage", "context"):
        return msgspec.json.encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else repr(value)
