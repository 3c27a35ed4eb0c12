"""Costs as Hypothesis makes them: every kind, priced and not, by several teams, users, tags and months."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from penstock.config.prices import Price
from penstock.contracts.records import Context, Cost, Usage
from penstock.money import charge, exact

START = datetime(2026, 11, 1, tzinfo=UTC)

PRICES = {
    "small": Price(model="small", input_cost_per_token=Decimal("0.00000015"), output_cost_per_token=Decimal("0.0000006")),
    "large": Price(
        model="large", input_cost_per_token=Decimal("0.0000025"), output_cost_per_token=Decimal("0.00001"),
        cache_read_input_token_cost=Decimal("0.00000125"), input_cost_per_token_above_128k_tokens=Decimal("0.000005"),
    ),
    "timed": Price(model="timed", input_cost_per_second=Decimal("0.000277777777")),
    "by-request": Price(model="by-request", input_cost_per_request=Decimal("0.01")),
}  # fmt: skip
"""Models with a price; "unheard-of" has none."""

KINDS = ("completion", "repeat", "cancelled", "cached", "judge", "shadow", "embedding")


def cost(**changes: Any) -> Cost:
    """A completion of the model "small", priced."""
    fields: dict[str, Any] = {
        "event_id": "e", "request_id": "r", "tenant_id": "support", "occurred_at": START, "causation_id": "c",
        "context": Context(requested_at=START), "model": "small", "priced": True, "amount": Decimal("0.000000000001"),
    }  # fmt: skip
    return Cost(**fields | changes)


def priced(model: str, usage: Usage, kind: str = "completion", compute_us: int = 0, **changes: Any) -> Cost:
    """A call as evaluation prices it, with the prices above."""
    price = PRICES.get(model)
    fields: dict[str, Any] = {"model": model, "usage": usage, "kind": kind, "response_model": f"{model}-2026"}
    if price is None:
        return cost(**fields | {"priced": False, "amount": None} | changes)
    if not (
        usage.input_tokens or usage.output_tokens
    ):  # it failed: nothing is paid, though there be a price by request
        return cost(**fields | {"price_version": price.version, "amount": exact(Decimal(0))} | changes)
    amounts = charge(price, usage, compute_us)
    fields |= {"price_version": price.version, "compute_us": compute_us if model == "timed" else 0}
    if kind == "cached":
        return cost(**fields | {"amount": exact(Decimal(0)), "saved": {"exact_cache": amounts.total}} | changes)
    saved = {"prefix_cache": amounts.prefix_cache_saved} if amounts.prefix_cache_saved else {}
    shares = {"input_amount": amounts.input, "output_amount": amounts.output, "compute_amount": amounts.compute}
    return cost(**fields | shares | {"amount": amounts.total, "saved": saved} | changes)


@st.composite
def costs(draw: Callable[..., Any], month_only: bool = False) -> Cost:
    """One cost; within November 2026 where ``month_only``."""
    tokens = st.one_of(st.just(0), st.integers(0, 300_000))
    input_tokens, output_tokens = draw(tokens), draw(tokens)
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=draw(st.integers(0, input_tokens)),
        reasoning_tokens=draw(st.integers(0, output_tokens)),
    )
    admitted = START + timedelta(minutes=draw(st.integers(0, 30 * 1440 - 1 if month_only else 90 * 1440)))
    name = st.sampled_from([None, "", "a", "=1+1", "zoë"])
    context = Context(
        requested_at=admitted,
        user_id=draw(name),
        key_id=draw(name),
        conversation_id=draw(name),
        route=draw(st.sampled_from(["default", "cheap"])),
        prompt_name=draw(name),
        tags=draw(st.dictionaries(st.just("feature"), st.sampled_from(["search", "@help"]))),
    )
    return priced(
        draw(st.sampled_from([*PRICES, "unheard-of"])),
        usage,
        kind=draw(st.sampled_from(KINDS)),
        compute_us=draw(st.integers(1, 60_000_000)),
        context=context,
        tenant_id=draw(st.sampled_from(["support", "research", "-acme"])),
        request_id=draw(st.sampled_from(["r1", "r2", "r3"])),
        accounted_at=draw(st.sampled_from([None, admitted])) if not month_only else admitted,
        occurred_at=admitted,
    )
