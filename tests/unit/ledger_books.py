"""Small books for the tests of the ledger: calls, the costs they must have, and where these stand on the log."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from penstock.bus.types import Event, Message
from penstock.config.budgets import Budget
from penstock.config.entry import Entry
from penstock.config.kinds import Team
from penstock.config.prices import Price
from penstock.contracts.records import Completion, ConfigEntry, Context, Cost, DocumentIndexed, TeamSpend, Usage
from penstock.ledger.comparison import Comparison
from penstock.ledger.faults import Fault
from penstock.ledger.rebuild import Ledger, Series, number_at, span
from penstock.ledger.recomputation import calls_of
from penstock.ledger.verification import Verification
from penstock.money import from_pico

START = datetime(2026, 11, 10, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PUBLISHED = START - timedelta(days=60)
TEAM = "support"


def a_price(model: str, **fields: Any) -> Price:
    return Price.model_validate({"model": model, **fields})


SMALL = a_price("small", input_cost_per_token="0.00000015", output_cost_per_token="0.0000006")
DEARER = a_price(
    "small",
    input_cost_per_token="0.0000003",
    output_cost_per_token="0.0000006",
    effective_from=START + timedelta(days=2),
)
TIMED = a_price("timed", input_cost_per_second="0.000277777777")
EMBEDDER = a_price("minilm", mode="embedding", input_cost_per_token="0.000000002")
BUDGETS = (
    Budget(name="monthly", window="month", limit=Decimal(100)),
    Budget(name="users", per="user", window="rolling", hours=48, limit=Decimal(10)),
)


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def entry(of: Entry, at: datetime = PUBLISHED) -> Event[ConfigEntry]:
    """A version of the configuration as it is published."""
    record = ConfigEntry(
        event_id=str(uuid.uuid4()), request_id="", tenant_id="", occurred_at=at, causation_id="", kind=of.KIND,
        name=of.key, version=of.version, content=of.canonical,
    )  # fmt: skip
    return Event(Message(f"config-{of.KIND}", 0, 0, ms(at), of.key.encode(), b""), record)


def completion(number: int, **changes: Any) -> Completion:
    """The call ``number``: one every 5 hours."""
    at = START + timedelta(hours=5 * number)
    fields: dict[str, Any] = {
        "event_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"call {number}")), "request_id": f"r{number}", "tenant_id": TEAM,
        "occurred_at": at + timedelta(seconds=2), "causation_id": "", "messages": [], "model": "small", "backend": "openai",
        "context": Context(requested_at=at, admitted_at=at, user_id=f"u{number % 2}"),
        "usage": Usage(input_tokens=1000 + number, output_tokens=100, cached_input_tokens=7),
    }  # fmt: skip
    return Completion(**fields | changes)


def a_month() -> list[Completion | DocumentIndexed]:
    """Calls of every kind."""
    return [
        *(completion(number) for number in range(20)),
        completion(20, model="unheard-of"),
        completion(21, cached_by="semantic"),
        completion(22, error="deadline", usage=Usage()),
        completion(23, finish_reason="cancelled", attempt=1, reduced_input_tokens=40),
        completion(24, model="timed-2026", request_model="timed"),
        completion(25, embedder="minilm", embedding_tokens=12, kind="judge"),
        completion(26, kind="abandoned", error="broke off", finish_reason="cancelled"),
        DocumentIndexed(event_id="doc", request_id="upload", tenant_id=TEAM, occurred_at=START, causation_id="",
                        document_id="d", status="indexed", embedder="minilm", embedded_tokens=99),
    ]  # fmt: skip


@dataclass
class Log:
    """What stands on the topics; tests change it before it is verified."""

    config: list[Event[ConfigEntry]] = field(
        default_factory=lambda: [
            entry(each) for each in (SMALL, DEARER, TIMED, EMBEDDER, Team(name=TEAM, budgets=BUDGETS))
        ]
    )
    sources: list[Completion | DocumentIndexed] = field(default_factory=a_month)
    costs: list[Cost] = field(default_factory=list)
    live: list[TeamSpend] = field(default_factory=list)
    first_cost: int = 0
    first_source: int = 0

    def __post_init__(self) -> None:
        """Price every call with the price of its time, and add the windows up, as the services must."""
        log = self.verification()
        for source in self.sources:
            for call in calls_of(source, ms(source.occurred_at)):
                self.costs.append(call.priced(call.price(log.prices, call.read_ms)))
        ledger = Ledger(log.budgets.budgets)
        for cost in self.costs:
            ledger.add(cost)
        self.live += sums(ledger)

    def verification(self) -> Verification:
        log = Verification(ms(NOW), {"completions": 30 * 86_400_000, "documents-indexed": 7 * 86_400_000})
        for event in self.config:
            log.config(event)
        return log

    def verify(self, *, later: Sequence[Cost] = ()) -> list[Fault]:
        """Return what is found; ``later`` are costs that came while the calls were read."""
        log = self.verification()
        comparison = Comparison(log, NOW)
        for event in self.written(self.costs):
            log.cost(event)
        log.close()
        for number, source in enumerate(self.sources):
            topic = "completions" if isinstance(source, Completion) else "documents-indexed"
            offset = self.first_source + number if topic == "completions" else 0
            log.source(Event(Message(topic, 0, offset, ms(source.occurred_at) + 9, b"", b""), source))
        for record in self.live:
            comparison.live(record)
        comparison.start()
        for event in self.written(later, len(self.costs)):
            comparison.grown(log.cost(event))
        if log.has_doubts():
            for event in self.written(self.costs):
                log.review(event)
        return [*log.faults(), *comparison.faults()]

    def written(self, costs: Iterable[Cost], first: int = 0) -> list[Event[Cost]]:
        return [
            Event(Message("costs", 0, self.first_cost + first + number, ms(cost.occurred_at) + 50, b"", b""), cost)
            for number, cost in enumerate(costs)
        ]


def sums(ledger: Ledger) -> list[TeamSpend]:
    """What team-spend must hold of a ledger."""
    found = []
    for series in ledger.series():
        numbers = ledger.numbers(series)
        kept = numbers[-1:] if series.window.startswith("rolling") else numbers
        found += [team_spend(ledger, series, number) for number in kept]
    return found


def team_spend(ledger: Ledger, series: Series, number: int) -> TeamSpend:
    figures = ledger.at(series, number)
    start, end = span(series.window, number)
    assert number_at(series.window, start) <= number
    return TeamSpend(
        event_id=str(uuid.uuid4()), request_id="", tenant_id=series.team, occurred_at=NOW, causation_id="",
        window=series.window, window_start=start, window_end=end, amount=figures.usd, calls=figures.calls,
        unpriced_calls=figures.unpriced_calls, input_tokens=figures.input_tokens, output_tokens=figures.output_tokens,
        cached_calls=figures.cached_calls, cached_input_tokens=figures.cached_input_tokens,
        saved=from_pico(figures.saved), budget_name=series.budget, subject=series.subject or None,
    )  # fmt: skip
