"""What a team may ask for: models, priorities, sizes, waits. Pure.

How much it may ask for at once and in a minute depends on its other requests: that is the ledger's (``scripts/admit.lua``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from penstock.config.kinds import Route, Team
from penstock.contracts.messages import message_bytes
from penstock.contracts.records import LlmRequest, Message, Priority, Purpose, Sampling

from services.intake.decisions import Decision

__all__ = [
    "deadline_of", "deferred_reason", "estimated_tokens", "model_problem", "priority_problem", "token_problem",
]  # fmt: skip

_BYTES_A_TOKEN = 4
"""English text has about four bytes a token, by byte-level tokenizers: as inference reckons where it weighs its targets."""


def estimated_tokens(messages: Sequence[Message], sampling: Sampling) -> int:
    """Return an estimate of the tokens of a request's messages, with its tools and the schema of its answer.

    A quarter of their bytes, rounded up. What bounds a cost is every byte (``bounds``): this is what is likely.
    """
    beside = (sampling.tools or "", sampling.response_format or sampling.regex or "")
    size = sum(map(message_bytes, messages)) + sum(len(text.encode("utf-8", "surrogatepass")) for text in beside)
    return math.ceil(size / _BYTES_A_TOKEN)


def priority_problem(request: LlmRequest, team: Team) -> tuple[str, str] | None:
    """Return code and reason where the team's requests may not have the priority of this one; else None.

    What a judge asks is not the team's to name: it may have the priority of what names none.
    """
    judges = request.purpose == Purpose.JUDGE and request.priority == Priority.STANDARD
    if judges or request.priority in team.priorities:
        return None
    return "priority_not_allowed", (
        f"team {team.name!r} may not ask with priority {request.priority!r} (a request that names none has 'standard'); its "
        f"priorities are: {', '.join(team.priorities)}"
    )


def model_problem(team: Team, route: Route) -> tuple[str, str] | None:
    """Return code and reason where a model that may answer on ``route`` is none of the team's; else None.

    One is enough: which of a route's targets answers is decided long after admission, and what was admitted must have its
    answer. A canary may answer too; a shadow never does.
    """
    others = team.refused_models(route)
    if not others:
        return None
    return "model_not_allowed", (
        f"route {route.name!r} may be answered by {', '.join(map(repr, others))}, which team {team.name!r} may not use; its "
        f"allowed_models are: {', '.join(team.allowed_models) or 'none'}. Ask for a route that keeps to these"
    )


def token_problem(team: Team, prompt: int, answers: int) -> tuple[str, str] | None:
    """Return code and reason where a request is larger than any of its team may be; else None.

    Args:
        prompt: tokens of its messages, estimated.
        answers: most tokens of its answers together.
    """
    most = team.max_prompt_tokens
    if most is not None and prompt > most:
        return "prompt_too_many_tokens", (
            f"the messages are about {prompt:,} tokens ({_BYTES_A_TOKEN} bytes each), more than the {most:,} that team "
            f"{team.name!r} may send; shorten them"
        )
    minute = team.tokens_per_minute
    if minute is not None and prompt + answers > minute:
        return "too_many_tokens", (
            f"the request may take {prompt + answers:,} tokens (about {prompt:,} of its messages, {answers:,} of answers), "
            f"more than the {minute:,} a minute of team {team.name!r}: it would never be admitted. Shorten it or ask for "
            "fewer max_completion_tokens"
        )
    return None


def deadline_of(request: LlmRequest, route: Route, team: Team, now: datetime) -> datetime | None:
    """Return when the answer is of no use any more; None where neither request, route nor team says.

    The request's own deadline or, where it has none, the route's; the team's ``max_deadline_s`` cuts either. They count from
    when the producer made the request, the team's from ``now`` at the latest: no clock that is ahead stretches it.
    """
    deadline = request.deadline_at
    if deadline is None and route.deadline_s is not None:
        deadline = request.occurred_at + timedelta(seconds=route.deadline_s)
    if team.max_deadline_s is None:
        return deadline
    latest = min(request.occurred_at, now) + timedelta(seconds=team.max_deadline_s)
    return latest if deadline is None else min(deadline, latest)


def deferred_reason(decision: Decision, team: Team | None, tokens: int, retry_after_ms: int) -> str:
    """Return why a request has to wait, with the team's limit, and when to send it again.

    Args:
        decision: one of :data:`~services.intake.decisions.DEFERRED`.
        tokens: that it would take of the team's tokens per minute.
    """
    wait = f"send it again in {retry_after_ms / 1000:.3f} s"
    match decision:
        case Decision.TOKEN_RATE_LIMITED:
            limit = f"{team.tokens_per_minute:,} " if team and team.tokens_per_minute else ""
            return f"over the team's {limit}tokens per minute, with about {tokens:,} for this request; {wait}"
        case Decision.TOO_MANY_CONCURRENT:
            limit = f"{team.max_concurrent:,} " if team and team.max_concurrent else ""
            return f"the team's {limit}concurrent requests are all under way; {wait}, or when one of them has ended"
        case _:
            limit = f"{team.requests_per_minute:,} " if team and team.requests_per_minute else ""
            return f"over the team's {limit}requests per minute; {wait}"
