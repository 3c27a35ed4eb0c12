"""Whose a request is, by the identity of its key: what is checked of it, whichever way it came. Pure.

The edge has verified the key itself. Who writes to the log directly names a key without showing it: what keeps others from
that is the brokers' access control (infra/KEYS.md). What is checked here holds for both: a key speaks for its own team, for
as long as it is in force, on its own routes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from penstock.config.kinds import ApiKey, Team
from penstock.contracts.judge_requests import asks_judge
from penstock.contracts.records import LlmRequest

__all__ = ["Keys", "key_problem", "key_route_problem"]


class Keys(Protocol):
    """The part of the config plane that knows the API keys."""

    def api_key(self, key_id: str) -> ApiKey | None: ...


def key_problem(request: LlmRequest, team: Team, config: Keys, now: datetime) -> tuple[str, str] | None:
    """Return code and reason where the request may not come with the key_id that it has, or has not; else None.

    A key_id that no key has is what the producer calls its credential: it chooses budgets, and proves nothing. Judges are
    asked without a key: evaluation judges answers of a team, and is nobody's producer. Its requests are told by their
    identities; the purpose alone is anybody's to name.

    Args:
        now: when the request is judged: a key that ended while the request waited in the log has ended for it.
    """
    key_id = request.key_id
    key = config.api_key(key_id) if key_id is not None else None
    if key is None:
        if not team.require_key or (key_id is None and asks_judge(request)):
            return None
        why = "the request has no key_id" if key_id is None else f"{key_id!r} is the identity of no key"
        return "key_required", (
            f"team {team.name!r} takes requests with a key of its own only, and {why}; set key_id to the identity of one "
            f"that is in force, as `penstock keys list --team {team.name}` shows them"
        )
    if key.team != team.name:
        # Whose it is, is none of this team's business.
        return "key_not_allowed", (
            f"the key {key.id} does not speak for team {team.name!r}; send the request with a key of that team"
        )
    if (ended := key.ended(now)) is not None:
        return ("key_revoked" if key.revoked_at is not None else "key_expired"), (
            f"the key {key.id} {ended}; use another, or have one made with `penstock keys create {team.name}`"
        )
    return None


def key_route_problem(request: LlmRequest, route: str, config: Keys) -> tuple[str, str] | None:
    """Return code and reason where the request's key may not ask for ``route``; else None.

    Args:
        route: that would answer, whether the request named it, its team's default is it, or an experiment chose it.
    """
    key = config.api_key(request.key_id) if request.key_id is not None else None
    if key is None or key.allows(route):
        return None
    return "route_not_allowed", (
        f"the key {key.id} may not use route {route!r}, only {', '.join(key.routes)}; ask for one of these, or have a key "
        "made with other --routes"
    )
