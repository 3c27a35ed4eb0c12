"""What a month of calls costs, worked out a second time.

Shares no code with the services, nor with ``penstock.money``: prices are plain dictionaries, money is ``Fraction`` and
integers of 1e-12 USD, and windows are cut here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from tests.e2e.ledger_traffic import Call, Indexed

__all__ = ["Line", "Prices", "Subject", "Window", "lines", "subjects"]

Prices = Mapping[str, Sequence[tuple[datetime | None, Mapping[str, str]]]]
PICO = 10**12
TIERS = {"128k": 128_000, "200k": 200_000}


@dataclass(frozen=True, slots=True)
class Line:
    """What the ledger must say of one call. Amounts in integers of 1e-12 USD, None where there is no price."""

    event: str
    """event_id of the completion or of the document's event."""
    team: str
    kind: str
    model: str
    user: str
    key: str
    tags: Mapping[str, str]
    at: datetime
    """Decides the windows."""
    input: int | None
    output: int | None
    compute: int | None
    compute_us: int
    saved: Mapping[str, int]
    prompt: int
    answer: int
    from_cache: int
    attempt: int
    price: tuple[str, datetime | None] | None
    """Model and first instant of the price that was in force; None where there was none."""

    @property
    def amount(self) -> int | None:
        """All shares together."""
        if self.input is None or self.output is None or self.compute is None:
            return None
        return self.input + self.output + self.compute


@dataclass(slots=True)
class Window:
    """Sums over some lines."""

    amount: int = 0
    calls: int = 0
    unpriced_calls: int = 0
    cached_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    saved: int = 0
    lines: list[Line] = field(default_factory=list, repr=False, compare=False)

    def add(self, line: Line) -> None:
        """Count one more."""
        self.amount += line.amount or 0
        self.calls += 1
        self.unpriced_calls += line.amount is None
        self.saved += sum(line.saved.values())
        if line.kind == "cached":
            self.cached_calls += 1  # what it would have used, no model has read
        else:
            self.input_tokens += line.prompt
            self.output_tokens += line.answer
            self.cached_input_tokens += line.from_cache
        self.lines.append(line)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a window is of: a team as a whole, or what one of its budgets is for."""

    team: str
    window: str
    budget: str | None = None
    value: str | None = None
    start: datetime | None = None
    """None where it is a rolling one: of these the newest alone is told."""


def lines(calls: Iterable[Call], documents: Iterable[Indexed], prices: Prices) -> Iterator[Line]:
    """Yield what the ledger must say, once for each call however often it arrived."""
    for call in calls:
        yield _call_line(call, prices)
        if call.embedded:
            assert call.embedder is not None
            yield _embedding(
                f"oracle-c{call.number}", call.team, call.embedder, call.embedded, call.made_at,
                call.admitted_at or call.made_at, prices, call,
            )  # fmt: skip
    for document in documents:
        yield _embedding(
            f"oracle-i{document.number}", document.team, document.embedder, document.embedded, document.made_at,
            document.made_at, prices, None,
        )  # fmt: skip


def subjects(line: Line, budgets: Sequence[Mapping[str, Any]], rolling_hours: Iterable[int]) -> Iterator[Subject]:
    """Yield the windows that a line counts in: those of its team, then those of its budgets."""
    at = line.at.astimezone(UTC)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = {"day": day, "month": day.replace(day=1)}
    for window, start in starts.items():
        yield Subject(line.team, window, start=start)
    for hours in rolling_hours:
        yield Subject(line.team, f"rolling-{hours}h")
    for budget in budgets:
        value = {
            "team": "", "user": line.user, "key": line.key, "model": line.model,
            "tag": line.tags.get(budget.get("tag", ""), ""),
        }[budget.get("per", "team")]  # fmt: skip
        if budget.get("match") and value not in budget["match"]:
            continue
        named = None if budget.get("per", "team") == "team" else value
        if budget["window"] == "rolling":
            yield Subject(line.team, f"rolling-{budget['hours']}h", budget["name"], named)
        else:
            yield Subject(line.team, budget["window"], budget["name"], named, starts[budget["window"]])


def _call_line(call: Call, prices: Prices) -> Line:
    model = call.asked or call.answered
    price = _in_force(prices, model, call.made_at) or _in_force(prices, call.answered, call.made_at)
    from_cache = min(call.from_cache, call.prompt)
    to_cache = min(call.to_cache, call.prompt - from_cache)
    shares: tuple[int | None, int | None, int | None] = (None, None, None)
    saved: dict[str, int] = {}
    compute_us = 0
    if price is not None:
        rate = _Rates(price.rates, call.prompt)
        plain = call.prompt - from_cache - to_cache
        spoken = call.answer - call.reasoning
        took = call.model_us if call.compute_us is None else call.compute_us
        asked = _pico(plain * rate.input + from_cache * rate.read + to_cache * rate.write)
        said = _pico(spoken * rate.output + call.reasoning * rate.reasoning)
        if call.cached_by:
            shares = (0, 0, 0)
            saved[f"{call.cached_by}_cache"] = asked + said + _pico(rate.request)
        elif call.error and not call.prompt and not call.answer:
            shares = (0, 0, 0)
        else:
            compute_us = took if rate.second else 0
            # round() of a fraction rounds half to even.
            shares = (asked, said, round((rate.request + rate.second * Fraction(compute_us, 10**6)) * PICO))
            saved["prefix_cache"] = max(0, _pico(from_cache * (rate.input - rate.read)))
            saved["prompt_reduction"] = _pico(call.reduced * rate.input)
    return Line(
        event=f"oracle-c{call.number}",
        team=call.team,
        kind=_kind(call),
        model=model,
        user=call.user or "",
        key=call.key or "",
        tags=call.tags,
        at=call.admitted_at or call.made_at,
        input=shares[0],
        output=shares[1],
        compute=shares[2],
        compute_us=compute_us,
        saved={cause: amount for cause, amount in saved.items() if amount},
        prompt=call.prompt,
        answer=call.answer,
        from_cache=call.from_cache,
        attempt=call.attempt,
        price=None if price is None else (price.model, price.since),
    )


def _kind(call: Call) -> str:
    if call.kind != "completion":
        return call.kind
    if call.cancelled:
        return "cancelled"
    return "repeat" if call.attempt else "completion"


def _embedding(
    event: str, team: str, model: str, tokens: int, made_at: datetime, at: datetime, prices: Prices, call: Call | None
) -> Line:
    price = _in_force(prices, model, made_at)
    return Line(
        event=event,
        team=team,
        kind="embedding",
        model=model,
        user=(call.user if call else None) or "",
        key=(call.key if call else None) or "",
        tags=call.tags if call else {},
        at=at,
        input=None if price is None else _pico(tokens * _Rates(price.rates, tokens).input),
        output=None if price is None else 0,
        compute=None if price is None else 0,
        compute_us=0,
        saved={},
        prompt=tokens,
        answer=0,
        from_cache=0,
        attempt=call.attempt if call else 0,
        price=None if price is None else (price.model, price.since),
    )


class _Rates:
    """USD of a token, a request and a second for a prompt of one length."""

    def __init__(self, price: Mapping[str, str], prompt: int) -> None:
        tiers = [""] + [f"_above_{tier}_tokens" for tier, above in TIERS.items() if prompt > above]

        def rate(name: str) -> Fraction | None:
            found = [price[name + tier] for tier in tiers if name + tier in price]
            return Fraction(found[-1]) if found else None

        self.input = rate("input_cost_per_token") or Fraction(0)
        self.output = rate("output_cost_per_token") or Fraction(0)
        read, write = rate("cache_read_input_token_cost"), rate("cache_creation_input_token_cost")
        reasoning = rate("output_cost_per_reasoning_token")
        self.read = self.input if read is None else read
        self.write = self.input if write is None else write
        self.reasoning = self.output if reasoning is None else reasoning
        self.request = rate("input_cost_per_request") or Fraction(0)
        self.second = (rate("input_cost_per_second") or 0) + (rate("output_cost_per_second") or Fraction(0))


@dataclass(frozen=True, slots=True)
class _Price:
    model: str
    since: datetime | None
    rates: Mapping[str, str]


def _in_force(prices: Prices, model: str, at: datetime) -> _Price | None:
    newest = None
    for since, rates in prices.get(model, ()):
        if since is None or since <= at:
            newest = _Price(model, since, rates)
    return newest


def _pico(amount: Fraction) -> int:
    scaled = amount * PICO
    assert scaled.denominator == 1, "tokens at prices of 12 places are exact"
    return int(scaled)
