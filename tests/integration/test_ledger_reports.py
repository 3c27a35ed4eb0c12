"""The commands of finance on a real log: what they print and write is what was charged, to the last digit."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from penstock.bus import KafkaBus, Producer
from penstock.config.files import load_entries
from penstock.config.plane import ConfigPlane
from penstock.config.prices import Price
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Context, Cost, Evaluation, Feedback, LlmResult, Record, Score, Usage
from penstock.ledger.dimensions import DIMENSIONS, dimension
from penstock.money import charge, exact

Cli = Callable[..., subprocess.CompletedProcess[str]]
MONTH = datetime(2025, 3, 1, tzinfo=UTC)
IN_MONTH = ["--since", "2025-03-01", "--until", "2025-04-01"]
DEAR, CHEAP, NOWHERE = "gpt-4o", "gpt-4o-mini", "experimental-7b"
REQUESTS = 240


@dataclass(frozen=True)
class Ledger:
    """What was written for one team: the independent truth."""

    team: str
    costs: list[Cost]
    outcomes: dict[str, str]

    @property
    def total(self) -> Decimal:
        return sum((cost.amount for cost in self.costs if cost.amount is not None), Decimal(0))


@pytest.fixture(scope="module")
def prices(project: Path) -> list[Price]:
    return [
        entry for located in load_entries("prices", project / "infra" / "config" / "prices" / "openai.yaml")
        if isinstance(entry := located.entry, Price)
    ]  # fmt: skip


@pytest.fixture
async def ledger(bus: KafkaBus, catalogue: Catalogue, deployed: Mapping[str, str], prices: list[Price]) -> Ledger:
    """A month of a team of its own, with what became of its requests; a tenth stands on the log twice."""
    rng = random.Random(5)
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"])
    producer = Producer(bus.producer(), codec, "test")
    made = Ledger(f"=team-{uuid.uuid4().hex[:6]}", [], {})
    price_at = ConfigPlane.of(prices).price
    acknowledgements = []
    for number in range(REQUESTS):
        at = MONTH + timedelta(minutes=rng.randrange(31 * 1440))
        request_id = f"{made.team}-{number}"
        context = Context(
            requested_at=at, admitted_at=at, user_id=rng.choice(["ann", "@ben", None]), key_id=rng.choice(["k1", None]),
            route=rng.choice(["default", "fast"]), prompt_name="grounded-answer", conversation_id=f"c{number % 7}",
            tags={"feature": rng.choice(["search", "help"])},
        )  # fmt: skip
        model = rng.choice([DEAR, CHEAP, CHEAP, NOWHERE] if number % 5 else [DEAR, CHEAP])
        kind = rng.choice(["completion", "completion", "completion", "cached", "judge", "cancelled"])
        cost = _cost(made.team, request_id, model, kind, at, context, price_at(model, at), rng)
        status = rng.choice(["completed", "completed", "completed", "blocked", "expired"])
        made.costs.append(cost)
        made.outcomes[request_id] = status
        records: list[tuple[str, Record]] = [("costs", cost), ("llm-results", _result(cost, status))]
        if number % 10 == 0:
            records.append(("costs", cost))
        good = 0.9 if model == DEAR else 0.3
        records.append(("evaluations", _evaluation(cost, status, min(1.0, max(0.0, rng.gauss(good, 0.05))))))
        if number % 3 == 0:
            records.append(("feedback", _feedback(cost, 1.0)))
        for topic, record in records:
            key = made.team if topic == "costs" else request_id
            acknowledgements.append(await producer.send(topic, key, record))
    for acknowledgement in acknowledgements:
        await acknowledgement
    return made


def _cost(
    team: str, request_id: str, model: str, kind: str, at: datetime, context: Context, price: Price | None,
    rng: random.Random,
) -> Cost:  # fmt: skip
    prompt = rng.randrange(1, 200_000)
    usage = Usage(
        input_tokens=prompt,
        output_tokens=rng.randrange(4000),
        cached_input_tokens=rng.randrange(prompt),
        reasoning_tokens=3,
    )
    fields: dict[str, Any] = {
        "event_id": event_id(request_id, "cost"), "request_id": request_id, "tenant_id": team, "causation_id": "",
        "occurred_at": at + timedelta(seconds=2), "accounted_at": at, "context": context, "kind": kind, "model": model,
        "response_model": f"{model}-2025", "backend": "openai", "usage": usage,
    }  # fmt: skip
    if price is None:
        return Cost(**fields, priced=False)
    amounts = charge(price, usage)
    fields |= {"priced": True, "price_version": price.version}
    if kind == "cached":
        return Cost(**fields, amount=exact(Decimal(0)), saved={"semantic_cache": amounts.total})
    saved = {"prefix_cache": amounts.prefix_cache_saved} if amounts.prefix_cache_saved else {}
    return Cost(
        **fields, amount=amounts.total, input_amount=amounts.input, output_amount=amounts.output,
        compute_amount=amounts.compute, saved=saved,
    )  # fmt: skip


def _about(cost: Cost, stage: str) -> dict[str, Any]:
    return {
        "event_id": event_id(cost.event_id, stage), "request_id": cost.request_id, "tenant_id": cost.tenant_id,
        "occurred_at": cost.occurred_at, "causation_id": cost.event_id,
    }  # fmt: skip


def _result(cost: Cost, status: str) -> LlmResult:
    return LlmResult(**_about(cost, "result"), context=cost.context, status=status)


def _evaluation(cost: Cost, status: str, score: float) -> Evaluation:
    scores = [Score(name="groundedness", subject="answer", score=score)]
    return Evaluation(**_about(cost, "scores"), context=cost.context, model=cost.model, status=status, scores=scores)


def _feedback(cost: Cost, rating: float) -> Feedback:
    return Feedback(**_about(cost, "feedback"), rating=rating)


def summed(rows: list[dict[str, str]], column: str = "amount") -> Decimal:
    return sum((Decimal(row[column]) for row in rows if row[column]), Decimal(0))


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def ran(penstock_cli: Cli, deployed: Mapping[str, str]) -> Callable[..., str]:
    """``ran(*arguments)``: standard output of a ``penstock ledger`` that succeeds."""

    def run(*arguments: str) -> str:
        done = penstock_cli(["ledger", *arguments], deployed)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


async def test_the_report_is_exact_in_every_format_and_by_every_dimension(
    ledger: Ledger, ran: Callable[..., str], tmp_path: Path, penstock_cli: Cli, deployed: Mapping[str, str]
) -> None:
    of_team = ["--team", ledger.team, *IN_MONTH]
    every = ",".join([*DIMENSIONS, "tag:feature"])
    rows = read_csv(ran("report", "--by", every, *of_team, "--format", "csv"))
    assert summed(rows) == ledger.total
    assert sum(int(row["calls"]) for row in rows) == REQUESTS
    for name in (*DIMENSIONS, "tag:feature"):
        of = (lambda cost: ledger.outcomes[cost.request_id]) if name == "outcome" else dimension(name).of
        found: dict[str, Decimal] = {}
        for row in rows:
            value = row[name].removeprefix("'")
            found[value] = found.get(value, Decimal(0)) + Decimal(row["amount"] or 0)
        expected: dict[str, Decimal] = {}
        for cost in ledger.costs:
            expected[of(cost) or ""] = expected.get(of(cost) or "", Decimal(0)) + (cost.amount or 0)
        assert found == expected, name
    out = tmp_path / "costs.parquet"
    ran("report", "--by", "team,model", *of_team, "--out", str(out))
    table = pq.read_table(out)
    assert sum(amount for amount in table.column("amount").to_pylist() if amount is not None) == ledger.total
    assert {row["amount"] for row in table.to_pylist() if row["model"] == NOWHERE} == {None}
    lines = [json.loads(line) for line in ran("report", "--by", "day", *of_team, "--format", "json").splitlines()]
    assert sum(Decimal(line["amount"]) for line in lines if line["amount"]) == ledger.total
    assert [line["day"] for line in lines] == sorted({f"{cost.accounted_at:%Y-%m-%d}" for cost in ledger.costs})
    done = penstock_cli(["ledger", "report", "--by", "model", *of_team], deployed)
    unpriced = sum(not cost.priced for cost in ledger.costs)
    [warning] = done.stderr.splitlines()
    assert f"{unpriced} calls have no price" in warning
    assert NOWHERE in warning
    last = done.stdout.splitlines()[-1].split()
    assert (last[0], last[1], last[2]) == ("total", f"{ledger.total.normalize():,f}", str(REQUESTS))


async def test_the_statement_adds_up_to_the_report(
    ledger: Ledger, ran: Callable[..., str], prices: list[Price]
) -> None:
    of_month = ["statement", "--month", "2025-03", "--team", ledger.team, "--by", "tag:feature"]
    document = json.loads(ran(*of_month, "--format", "json"))
    [team] = document["teams"]
    assert Decimal(document["total"]) == Decimal(team["subtotal"]["amount"]) == ledger.total
    assert sum(Decimal(line["amount"]) for line in team["lines"] if line["amount"]) == ledger.total
    assert document["closed"] is True
    wasted = sum(
        (cost.amount or 0 for cost in ledger.costs if ledger.outcomes[cost.request_id] in ("blocked", "expired")),
        Decimal(0),
    )
    assert Decimal(team["wasted"]) == wasted
    assert Decimal(team["outcome_unknown"]) == 0
    by_version = {price.version: price for price in prices}
    priced = [line for line in team["lines"] if line["price_version"]]
    assert priced
    for line in priced:
        price = by_version[line["price_version"]]
        assert Decimal(line["input_cost_per_token"]) == price.input_cost_per_token
    assert summed(read_csv(ran(*of_month, "--format", "csv"))) == ledger.total
    again = json.loads(ran(*of_month, "--format", "json"))
    assert again["hash"] == document["hash"]
    text = ran(*of_month)
    assert document["hash"] in text
    assert "subtotal" in text
    markdown = ran(*of_month, "--format", "markdown")
    assert "for 2025-03, USD" in markdown
    assert "| model | kind | tag:feature | price" in markdown


async def test_repricing_with_the_prices_that_applied_changes_nothing(
    ledger: Ledger, ran: Callable[..., str], project: Path, tmp_path: Path
) -> None:
    of_team = ["reprice", "--from", "2025-03-01", "--to", "2025-04-01", "--team", ledger.team, "--json"]
    same = json.loads(ran(*of_team, "--prices", str(project / "infra/config/prices/openai.yaml"), "--by", "model,team"))
    assert same["total"]["difference"] == "0.000000000000"
    assert Decimal(same["total"]["actual"]) == Decimal(same["total"]["repriced"]) == ledger.total
    assert [left["model"] for left in same["without_price"]] == [NOWHERE]
    assert next(line for line in same["lines"] if line["model"] == NOWHERE)["repriced"] is None
    litellm = tmp_path / "model_prices_and_context_window.json"
    entry = {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "mode": "chat", "litellm_provider": "x"}
    litellm.write_text(json.dumps({NOWHERE: entry}))
    other = json.loads(ran(*of_team, "--prices", str(litellm)))
    unpriced = [cost for cost in ledger.costs if not cost.priced]
    called = [cost.usage for cost in unpriced if cost.kind != "cached"]
    expected = sum(
        Decimal("0.000001") * usage.input_tokens + Decimal("0.000002") * usage.output_tokens for usage in called
    )
    assert Decimal(other["total"]["newly_priced"]) == Decimal(other["total"]["repriced"]) == expected
    assert other["total"]["newly_priced_calls"] == len(unpriced)
    assert Decimal(other["total"]["actual_without_price"]) == ledger.total


async def test_savings_are_exact_and_name_the_score_they_would_have_come_at(
    ledger: Ledger, ran: Callable[..., str]
) -> None:
    document = json.loads(ran("savings", "--team", ledger.team, *IN_MONTH, "--json"))
    for cause in ("semantic_cache", "prefix_cache"):
        assert Decimal(document["total"][cause]) == sum(
            (c.saved.get(cause, Decimal(0)) for c in ledger.costs), Decimal(0)
        )
    assert Decimal(document["total"]["paid"]) == ledger.total
    rows = [row for row in document["routing"] if (row["model"], row["candidate"]) == (DEAR, CHEAP)]
    assert {row["route"] for row in rows} == {"default", "fast"}
    for row in rows:
        same = [
            cost for cost in ledger.costs
            if cost.model == DEAR and cost.kind in ("completion", "cancelled") and cost.context.route == row["route"]
        ]  # fmt: skip
        fits = [cost for cost in same if cost.usage.input_tokens <= 128_000]
        assert (row["compared_calls"], row["too_long_calls"]) == (len(fits), len(same) - len(fits))
        assert Decimal(row["actual"]) == sum((cost.amount or 0 for cost in fits), Decimal(0))
        assert 0 < Decimal(row["saving"]) < Decimal(row["actual"])
        scores = row["scores"]["groundedness"]
        completed = [cost for cost in same if ledger.outcomes[cost.request_id] == "completed"]
        assert scores["model"]["n"] == len(completed)
        assert scores["candidate"]["mean"] < 0.5 < scores["model"]["mean"]
        assert row["warnings"]
    shown = ran("savings", "--team", ledger.team, *IN_MONTH)
    assert "tokenizer" in shown
    assert f"{Decimal(document['total']['saved']).normalize():,f}" in shown


def test_bad_input_is_one_line_that_says_what_to_do(
    penstock_cli: Cli, deployed: Mapping[str, str], tmp_path: Path
) -> None:
    broken = tmp_path / "prices.yaml"
    broken.write_text("- model: x\n  input_cost_per_token: -1\n  output_cost_per_token: 0\n")
    for arguments, says in (
        (["report", "--by", "modle"], "did you mean model"),
        (["report", "--since", "1d", "--until", "2d"], "swap the two"),
        (["report", "--format", "xlsx"], "'table', 'csv', 'json', 'parquet'"),
        (["report", "--out", str(tmp_path / "no" / "such" / "costs.csv")], "cannot be written"),
        (["statement", "--month", "November"], "YYYY-MM"),
        (["reprice", "--prices", str(broken)], "prices.yaml:2"),
        (["savings", "--candidates", "unheard-of"], "has no price"),
    ):
        done = penstock_cli(["ledger", *arguments], deployed)
        assert done.returncode in (1, 2), arguments
        assert says in done.stderr.splitlines()[-1], (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_an_empty_period_says_so_and_is_no_error(penstock_cli: Cli, deployed: Mapping[str, str], project: Path) -> None:
    nobody = ["--team", "nobody-at-all"]
    prices = ["--prices", str(project / "infra/config/prices/openai.yaml")]
    for arguments in (["report"], ["statement", "--month", "2025-01"], ["reprice", *prices], ["savings"]):
        done = penstock_cli(["ledger", *arguments, *nobody], deployed)
        assert done.returncode == 0, done.stderr
        assert "no costs of team nobody-at-all were accounted" in done.stderr
