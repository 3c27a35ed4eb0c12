"""A month of calls for the proof of the ledger, in plain values: what was called, when, for whom and at which price.

Only the types of the records are the project's, to put the traffic on topics.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from penstock.contracts.records import Completion, Context, DocumentIndexed, Timings, Usage

__all__ = ["TEAMS", "Call", "Indexed", "completion", "indexed", "prices", "traffic"]

TEAMS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    # Most of the traffic, and every kind of budget.
    "oracle-large": (
        {"name": "day", "window": "day", "limit": 5000, "mode": "hard"},
        {"name": "month", "window": "month", "limit": 90000, "mode": "hard", "alerts": [0.01, 0.5, 1.0]},
        {"name": "day-a-user", "per": "user", "window": "day", "limit": 900, "mode": "hard"},
        {"name": "user-ten-hours", "per": "user", "window": "rolling", "hours": 10, "limit": 700, "mode": "hard"},
        {"name": "two-keys", "per": "key", "match": ["key-1", "key-2"], "window": "month", "limit": 9000, "mode": "hard"},
        {"name": "model-week", "per": "model", "window": "rolling", "hours": 168, "limit": 50, "mode": "soft"},
        {"name": "feature", "per": "tag", "tag": "feature", "window": "month", "limit": 40, "mode": "soft"},
    ),
    "oracle-small": (
        {"name": "hours", "window": "rolling", "hours": 24, "limit": 4000, "mode": "hard"},
        {"name": "feature-day", "per": "tag", "tag": "feature", "window": "day", "limit": 800, "mode": "hard"},
    ),
    "oracle-unlimited": (),
}  # fmt: skip
_SHARES = (0.7, 0.2, 0.1)
_UNPRICED = "oracle-mystery"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model, in plain values."""

    number: int
    team: str
    user: str | None
    key: str | None
    tags: Mapping[str, str]
    route: str
    conversation: str | None
    asked: str | None
    """Model as the route names it; None in events of an older service."""
    answered: str
    """Model as it names itself."""
    kind: str
    attempt: int
    error: str | None
    cancelled: bool
    cached_by: str | None
    prompt: int
    answer: int
    from_cache: int
    to_cache: int
    reasoning: int
    reduced: int
    model_us: int
    compute_us: int | None
    embedder: str | None
    embedded: int
    made_at: datetime
    admitted_at: datetime | None

    @property
    def partition_key(self) -> str:
        """Key of its events."""
        return self.conversation or f"oracle-r{self.number}"


@dataclass(frozen=True, slots=True)
class Indexed:
    """A document that was embedded."""

    number: int
    team: str
    embedder: str
    embedded: int
    made_at: datetime


def prices(now: datetime) -> dict[str, list[tuple[datetime | None, dict[str, str]]]]:
    """Return each model's prices with the instant from which each holds, oldest first."""
    return {
        # Changes twice within the period, once in the middle of a day, and below 1e-8 USD a token.
        "oracle-plain": [
            (None, {"input_cost_per_token": "0.00000015", "output_cost_per_token": "0.0000006"}),
            (_day(now, -12), {
                "input_cost_per_token": "0.000000003517", "output_cost_per_token": "0.000000000999",
                "cache_read_input_token_cost": "0.000000000001",
            }),
            (_day(now, -3) + timedelta(hours=13, minutes=7, seconds=9, microseconds=123457), {
                "input_cost_per_token": "0.00000025", "output_cost_per_token": "0.000001",
                "cache_read_input_token_cost": "0.000000025", "cache_creation_input_token_cost": "0.0000003125",
                "output_cost_per_reasoning_token": "0.0000013",
            }),
        ],
        "oracle-tiers": [
            (None, {
                "input_cost_per_token": "0.000001250007", "output_cost_per_token": "0.00001",
                "cache_read_input_token_cost": "0.00000031",
                "input_cost_per_token_above_128k_tokens": "0.0000018",
                "input_cost_per_token_above_200k_tokens": "0.0000025",
                "output_cost_per_token_above_200k_tokens": "0.000015",
                "cache_read_input_token_cost_above_200k_tokens": "0.000000625",
            }),
        ],
        # 0.0011 USD a second is 1.1 nano-USD a microsecond; the odd digits make every other call one that is rounded.
        "oracle-gpu": [(None, {"input_cost_per_second": "0.000999999999", "output_cost_per_second": "0.000100000001"})],
        "oracle-mixed": [
            (None, {
                "input_cost_per_request": "0.000035", "input_cost_per_second": "0.000000500001",
                "input_cost_per_token": "0.0000000001", "output_cost_per_token": "0",
            }),
        ],
        # Without a price until five days ago.
        "oracle-new": [(_day(now, -5), {"input_cost_per_token": "0.000003", "output_cost_per_token": "0.000015"})],
        "oracle-embedder": [(None, {"mode": "embedding", "input_cost_per_token": "0.00000002"})],
    }  # fmt: skip


def _day(now: datetime, days: int) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days)


def traffic(count: int, seed: int, now: datetime) -> tuple[list[Call], list[Indexed], list[Call | Indexed]]:
    """Return ``count`` calls, some documents, and all of them in the order of arrival with duplicates among them.

    Calls are of the last 33 days. They arrive out of order: most within a few hundred of their place, some days late,
    and one in twelve twice or three times, near to the first and far from it.
    """
    rng = random.Random(seed)
    begin, end = now - timedelta(days=33), now - timedelta(hours=2)
    step = (end - begin) / count
    calls = [_call(rng, number, begin + number * step) for number in range(count)]
    documents = [
        Indexed(
            n, rng.choice(list(TEAMS)), rng.choice(["oracle-embedder", "oracle-embedder", _UNPRICED]),
            rng.randrange(1, 40_000), begin + rng.random() * (end - begin),
        )
        for n in range(count // 50)
    ]  # fmt: skip
    arrivals: list[tuple[float, Call | Indexed]] = []
    for number, call in enumerate(calls):
        late = rng.random() * count / 4 if rng.random() < 0.05 else rng.random() * min(300, count / 20)
        arrivals.append((number + late, call))
        if rng.random() < 1 / 12:
            arrivals.append((number + late + rng.random() * 40, call))
            if rng.random() < 0.5:
                arrivals.append((number + late + rng.random() * count / 3, call))
    for document in documents:
        place = rng.random() * count
        arrivals += [(place, document)] * rng.choice([1, 1, 1, 2])
    return calls, documents, [event for _, event in sorted(arrivals, key=lambda arrival: arrival[0])]


def _call(rng: random.Random, number: int, admitted_at: datetime) -> Call:
    team = rng.choices(list(TEAMS), _SHARES)[0]
    asked = rng.choices(
        ["oracle-plain", "oracle-tiers", "oracle-gpu", "oracle-mixed", "oracle-new", _UNPRICED, "oracle-alias"],
        [35, 15, 10, 10, 10, 5, 10],
    )[0]
    # A router names none of our models, and the model that answers does.
    answered = "oracle-plain" if asked == "oracle-alias" else f"{asked}-2026-01-01"
    kind = rng.choices(["completion", "judge", "shadow", "cached"], [80, 5, 5, 10])[0]
    attempt = int(kind == "completion" and rng.random() < 0.08)
    failed, cancelled = kind == "completion" and rng.random() < 0.06, rng.random() < 0.5
    prompt = rng.choice([0, 1, 7, 128_000, 128_001, 200_000, 200_001]) if rng.random() < 0.1 else rng.randrange(3, 9000)
    if asked == "oracle-tiers" and rng.random() < 0.4:
        prompt = rng.randrange(100_000, 300_000)
    answer = rng.randrange(0, 2500)
    if failed and rng.random() < 0.5:  # nothing was generated, and nothing is paid
        prompt = answer = 0
    from_cache = rng.randrange(0, prompt + 1) if rng.random() < 0.4 else 0
    to_cache = rng.randrange(0, prompt - from_cache + 1) if rng.random() < 0.2 else 0
    if rng.random() < 0.01:  # a backend that reports more cached than there was
        from_cache, to_cache = prompt + 5, 3
    embeds = kind == "completion" and rng.random() < 0.3
    return Call(
        number=number,
        team=team,
        user=rng.choice([None, *(f"user-{n}" for n in range(12))]),
        key=rng.choice([None, "key-1", "key-2", "key-3"]),
        tags={}
        if rng.random() < 0.2
        else {"feature": rng.choice(["search", "chat: beta", "ünï/code"]), "release": "r1"},
        route=rng.choice(["default", "passthrough"]),
        conversation=f"oracle-conv-{rng.randrange(400)}" if rng.random() < 0.5 else None,
        # Older events do not say what was asked for.
        asked=None if asked == "oracle-plain" and rng.random() < 0.05 else asked,
        answered="oracle-plain" if asked == "oracle-plain" else answered,
        kind=kind,
        attempt=attempt,
        error="deadline" if failed else None,
        cancelled=failed and cancelled,
        cached_by=rng.choice(["exact", "semantic"]) if kind == "cached" else None,
        prompt=prompt,
        answer=answer,
        from_cache=from_cache,
        to_cache=to_cache,
        reasoning=rng.randrange(0, answer + 1) if rng.random() < 0.2 else 0,
        reduced=rng.randrange(1, 900) if kind == "completion" and rng.random() < 0.1 else 0,
        model_us=rng.randrange(1, 90_000_000),
        compute_us=rng.randrange(1, 9_000_000) if rng.random() < 0.5 else None,
        embedder=rng.choice(["oracle-embedder", "oracle-embedder", _UNPRICED]) if embeds else None,
        embedded=rng.randrange(1, 800) if embeds else 0,
        # A call can lie in the day after the one its request was admitted in.
        made_at=admitted_at + timedelta(microseconds=rng.randrange(1_000, 3_600_000_000)),
        admitted_at=None if rng.random() < 0.02 else admitted_at,
    )


def completion(call: Call) -> Completion:
    """Return the event of a call."""
    return Completion(
        event_id=f"oracle-c{call.number}",
        request_id=f"oracle-r{call.number}",
        tenant_id=call.team,
        occurred_at=call.made_at,
        causation_id="",
        context=Context(
            conversation_id=call.conversation, user_id=call.user, key_id=call.key, route=call.route,
            tags=dict(call.tags), requested_at=call.made_at - timedelta(hours=2), admitted_at=call.admitted_at,
        ),
        messages=[],
        model=call.answered,
        request_model=call.asked,
        backend="openai",
        kind=call.kind,
        attempt=call.attempt,
        error=call.error,
        finish_reason="cancelled" if call.cancelled else "error" if call.error else "stop",
        cached_by=call.cached_by,
        cached_from="oracle-c0" if call.cached_by else None,
        usage=Usage(
            input_tokens=call.prompt, output_tokens=call.answer, cached_input_tokens=call.from_cache,
            cache_write_input_tokens=call.to_cache, reasoning_tokens=call.reasoning,
        ),
        timings=Timings(model_us=call.model_us, compute_us=call.compute_us),
        embedder=call.embedder,
        embedding_tokens=call.embedded,
        reduced_input_tokens=call.reduced,
    )  # fmt: skip


def indexed(document: Indexed) -> DocumentIndexed:
    """Return the event of a document."""
    return DocumentIndexed(
        event_id=f"oracle-i{document.number}", request_id=f"oracle-upload-{document.number}", tenant_id=document.team,
        occurred_at=document.made_at, causation_id="", document_id=f"oracle-d{document.number}", status="indexed",
        chunks=1, chunks_embedded=1, embedder=document.embedder, embedded_tokens=document.embedded,
    )  # fmt: skip
