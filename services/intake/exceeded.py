"""A budget that a request does not fit in: what the producer and on-call are told. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock.alerts import fingerprint
from penstock.contracts.envelope import derive
from penstock.contracts.records import Alert, LlmRequest, LogRange, Severity
from penstock.money import Subject, from_pico, window_of

__all__ = ["Exceeded", "described", "exhausted_alert", "over_budget_reason"]

_RUNBOOK = "services/alerting/runbooks/cost.md"


@dataclass(frozen=True, slots=True)
class Exceeded:
    """The counter that a request did not fit in, and its figures at that instant, integers of 1e-12 USD.

    Attributes:
        subject: whom the counter is for, in words; empty for the team as a whole.
        window: in words, e.g. "on 2026-01-05 (UTC)".
        ends_at: when the window ends; of a rolling one, when its oldest bucket leaves it.
        needed: the most that the request can cost.
    """

    budget: str
    subject: str
    window: str
    ends_at: datetime
    limit: int
    spent: int
    reserved: int
    needed: int


def described(subject: Subject, at: datetime) -> tuple[str, str, datetime]:
    """Return whom a counter is for and its window, in words, and when the window ends, for :class:`Exceeded`."""
    budget = subject.budget
    window = window_of(budget, at)
    words = {
        "day": f"on {window.id} (UTC)",
        "month": f"in {window.id} (UTC)",
        "rolling": f"in any {budget.hours} hours",
    }
    named = f"tag {budget.tag}" if budget.per == "tag" else budget.per
    whom = "" if budget.per == "team" else f"{named} {subject.value!r}" if subject.value else f"calls without {named}"
    return whom, words[budget.window], window.end


def over_budget_reason(team: str, over: Exceeded) -> str:
    """Return why a request was refused, with the figures, and what to do."""
    return f"{_figures(team, over)}; {_remedy(over)}"


def exhausted_alert(request: LlmRequest, over: Exceeded, origin: LogRange, now: datetime) -> Alert:
    """Return what on-call hears when a budget begins to refuse, once an hour and counter.

    Args:
        origin: where the refused request stands in the log.
    """
    team = request.tenant_id
    labels = {"team": team, "budget": over.budget}
    if over.subject:
        labels["subject"] = over.subject
    return Alert(
        **derive(request, "intake.budget_exhausted", 0, now),
        kind="cost",
        name="budget_exhausted",
        severity=Severity.CRITICAL,
        title=f"Budget {over.budget} of team {team} is exhausted: requests are refused"
        + (f" ({over.subject})" if over.subject else ""),
        description=f"{_figures(team, over)}. Requests that could exceed it are refused with over_budget; the window "
        f"ends at {over.ends_at.isoformat()}.",
        suggested_action=f"See what is left with `penstock budgets show {team}`, and where the money went with "
        f"`penstock ledger report --team {team} --by model,user,key --since 24h`; if it is wanted, raise the limit in "
        "infra/config/teams and run `penstock config apply`.",
        fingerprint=fingerprint("cost", "budget_exhausted", team, over.budget, over.subject),
        labels=labels,
        figures={
            "limit_usd": float(from_pico(over.limit)),
            "spent_usd": float(from_pico(over.spent)),
            "reserved_usd": float(from_pico(over.reserved)),
            "worst_case_usd": float(from_pico(over.needed)),
        },
        evidence=[origin],
        sample_requests=[request.request_id],
        runbook=_RUNBOOK,
    )


def _figures(team: str, over: Exceeded) -> str:
    whom = f" for {over.subject}" if over.subject else ""
    return (
        f"the budget {over.budget!r} of team {team!r}{whom} allows {_usd(over.limit)} {over.window}: {_usd(over.spent)} "
        f"is spent, {_usd(over.reserved)} is reserved for requests under way, and this request may cost up to "
        f"{_usd(over.needed)}"
    )


def _remedy(over: Exceeded) -> str:
    if over.needed > over.limit:
        return "alone it is over the limit: ask for fewer max_completion_tokens, shorten the prompt, or raise the limit"
    if over.spent + over.needed <= over.limit:
        return "send it again when requests under way have ended, or raise the limit"
    return f"send it again after {over.ends_at.isoformat()}, when the window ends, or raise the limit"


def _usd(amount: int) -> str:
    return f"{from_pico(amount).normalize():f} USD"
