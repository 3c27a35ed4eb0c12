"""What a run cost, how its budget was kept, and whether the ledger proves it. Pure, but for the proof."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby
from typing import Any

from penstock.contracts.records import Alert, Cost, LlmResult, Status, TeamSpend
from penstock.demo.observe import Observer
from penstock.demo.traffic import Kind, Planned

__all__ = ["BUDGET_ALERTS", "Money", "Proof", "Spend", "gather_money", "money_problems", "prove", "spending"]

BUDGET_ALERTS = frozenset({"budget_threshold", "budget_exhausted"})
"""What on-call hears of a budget that is used up: from evaluation at its thresholds, from intake when it refuses."""

_OVER_BUDGET = "over_budget"
_PROOF_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Proof:
    """What ``penstock ledger verify --json`` said: its report, or why there is none."""

    report: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""

    @property
    def summary(self) -> str:
        """What was proven, in a line."""
        report = self.report
        return (
            f"{report['entries']:,} costs of {report['calls']:,} calls, {report['totals']['amount']} USD; "
            f"{report['windows']:,} windows and {report['counters']:,} counters agree to the last digit; "
            f"hash {report['hash']}"
        )


@dataclass(frozen=True, slots=True)
class Spend:
    """What one team spent on one kind of calls of one model; USD with 12 places."""

    team: str
    kind: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    amount: Decimal
    unpriced: int


@dataclass(frozen=True, slots=True)
class Money:
    """Everything about money that the run left in the log.

    Attributes:
        costs: of its requests and its documents.
        visitor: the newest sum of the visitor's budget; None where none was told.
        metered: result of each of the visitor's requests, by its planned kind.
        alerts: about the visitor's budget.
    """

    costs: Sequence[Cost] = ()
    visitor: TeamSpend | None = None
    metered: Sequence[tuple[Kind, LlmResult]] = ()
    alerts: Sequence[Alert] = ()

    @property
    def visitor_costs(self) -> list[Cost]:
        """Costs that count in the visitor's budget."""
        ids = {result.request_id for _, result in self.metered}
        return [cost for cost in self.costs if cost.request_id in ids]

    @property
    def told(self) -> bool:
        """Whether all that must follow from the visitor's requests stands in the log."""
        calls = len(self.visitor_costs)
        summed = not calls or (self.visitor is not None and self.visitor.calls == calls)
        return summed and {alert.name for alert in self.alerts} >= BUDGET_ALERTS


def gather_money(plan: Sequence[Planned], uploads: frozenset[str], observer: Observer) -> Money:
    """Return what stands in the log about the requests of ``plan`` and the documents ``uploads``."""
    metered = {one.request_id: one for one in plan if one.kind in (Kind.METERED, Kind.OVER_BUDGET)}
    ids = {one.request_id for one in plan} | uploads
    users = {one.user_id for one in metered.values()}
    sums = [spend for spend in observer.records("team-spend", TeamSpend) if spend.subject in users]
    return Money(
        costs=[cost for cost in observer.records("costs", Cost) if cost.request_id in ids],
        visitor=sums[-1] if sums else None,
        metered=[
            (metered[result.request_id].kind, result)
            for result in observer.records("llm-results", LlmResult)
            if result.request_id in metered
        ],
        alerts=[
            alert
            for alert in observer.records("alerts", Alert)
            if alert.name in BUDGET_ALERTS and metered.keys() & set(alert.sample_requests)
        ],
    )


def spending(costs: Iterable[Cost]) -> list[Spend]:
    """Return what was spent by team, kind of call and model."""

    def line(cost: Cost) -> tuple[str, str, str]:
        return cost.tenant_id, cost.kind, cost.model

    found = []
    for (team, kind, model), group in groupby(sorted(costs, key=line), key=line):
        mine = list(group)
        found.append(
            Spend(
                team=team,
                kind=kind,
                model=model,
                calls=len(mine),
                input_tokens=sum(cost.usage.input_tokens for cost in mine),
                output_tokens=sum(cost.usage.output_tokens for cost in mine),
                amount=sum((cost.amount for cost in mine if cost.amount is not None), Decimal()),
                unpriced=sum(not cost.priced for cost in mine),
            )
        )
    return found


def money_problems(money: Money, proof: Proof) -> list[str]:
    """Return what is wrong with the visitor's budget and with the ledger; empty after a correct run."""
    found = []
    for kind, result in money.metered:
        if kind is Kind.OVER_BUDGET and result.status == Status.REJECTED and result.code != _OVER_BUDGET:
            found.append(
                f"request {result.request_id} was refused for {result.code}, not for its budget: {result.reason}"
            )
    spent = sum((cost.amount or Decimal() for cost in money.visitor_costs), Decimal())
    if money.visitor is None or money.visitor.budget is None:
        found.append("nothing on team-spend tells the sum of the visitor's budget; see the log of evaluation")
    else:
        if money.visitor.amount != spent:
            found.append(
                f"team-spend says that the visitor spent {money.visitor.amount:f} USD; the costs say {spent:f}"
            )
        if spent > money.visitor.budget:
            found.append(f"the visitor spent {spent:f} USD of a hard budget of {money.visitor.budget:f}")
    unheard = BUDGET_ALERTS - {alert.name for alert in money.alerts}
    found += [f"the visitor used its budget up, and no alert {name} was raised" for name in sorted(unheard)]
    if proof.failure:
        found.append(f"penstock ledger verify: {proof.failure}")
    return found


async def prove(addresses: Mapping[str, str]) -> Proof:
    """Run ``penstock ledger verify`` against the servers at ``addresses``, as a person would type it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "penstock.cli", "ledger", "verify", "--json",
        env={**os.environ, **addresses},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_PROOF_TIMEOUT_S):
            output, errors = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        return Proof(failure=f"no answer within {_PROOF_TIMEOUT_S:.0f} s")
    try:
        report = json.loads(output)
    except ValueError:
        said = (output + errors).decode(errors="replace").strip()
        return Proof(failure=f"exit code {child.returncode}: {said}")
    faults = [
        f"{fault['kind']} at {fault['where']}: {fault['ledger']}, not {fault['live']}" for fault in report["faults"]
    ]
    return Proof(report, "; ".join(faults))
