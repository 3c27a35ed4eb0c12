"""Whose a request is: what intake checks of the key that it names, whichever way it came."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from penstock.config.kinds import Policy, Retrieval, Route, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.judge_requests import judge_event_id, judge_request_id
from penstock.contracts.records import LlmRequest, Message, Purpose
from penstock.identity import mint
from penstock.identity.issuing import issued, revoked

from services.intake.core import Limits, judge
from services.intake.identity import key_problem, key_route_problem
from services.intake.queueing import queue_of

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SECRET = b"the secret of an installation, of 32 bytes and more"
OPEN = Team(name="support")
STRICT = Team(name="support", require_key=True)
OWN = issued(mint(SECRET), "support", NOW - DAY, routes=("chat",))
FOREIGN = issued(mint(SECRET), "research", NOW - DAY)
REVOKED = revoked(issued(mint(SECRET), "support", NOW - DAY), NOW)
EXPIRED = issued(mint(SECRET), "support", NOW - DAY, expires_at=NOW)
LASTING = issued(mint(SECRET), "support", NOW - DAY, expires_at=NOW + DAY)
PLANE = ConfigPlane.of([OWN, FOREIGN, REVOKED, EXPIRED, LASTING])


def a_request(key_id: str | None, **changes: Any) -> LlmRequest:
    fields: dict[str, Any] = {
        "event_id": "e1", "request_id": "r1", "tenant_id": "support", "occurred_at": NOW, "causation_id": "",
        "messages": [Message(role="user", content="hello")], "key_id": key_id,
    }  # fmt: skip
    return LlmRequest(**fields | changes)


@pytest.mark.parametrize(
    ("key_id", "of_any", "of_strict"),
    [
        (None, None, "key_required"),
        ("what-the-producer-calls-it", None, "key_required"),
        (OWN.id, None, None),
        (LASTING.id, None, None),
        (FOREIGN.id, "key_not_allowed", "key_not_allowed"),
        (REVOKED.id, "key_revoked", "key_revoked"),
        (EXPIRED.id, "key_expired", "key_expired"),
    ],
    ids=["none", "a name", "own", "not expired yet", "another team's", "revoked", "expired"],
)
def test_a_key_speaks_for_its_own_team_while_it_is_in_force(
    key_id: str | None, of_any: str | None, of_strict: str | None
) -> None:
    for team, code in ((OPEN, of_any), (STRICT, of_strict)):
        problem = key_problem(a_request(key_id), team, PLANE, NOW)
        assert (problem[0] if problem else None) == code


def test_one_whose_key_ends_while_it_waits_leaves_the_queue_of_the_route_that_its_teams_default_is() -> None:
    chat = Route(name="chat", targets=(Target(backend="extractive", model="m"),))
    plane = ConfigPlane.of([REVOKED, Team(name="support", default_route="chat"), chat])
    judgement = judge(a_request(REVOKED.id), plane, Limits(), NOW)
    assert judgement.refused is not None
    assert judgement.refused.code == "key_revoked"
    assert queue_of(judgement.context) == "chat"


def test_judges_are_asked_without_a_key_and_nobody_else_is_served_so() -> None:
    asked: dict[str, Any] = {
        "purpose": Purpose.JUDGE, "causation_id": "task", "event_id": judge_event_id("task", "swapped", 2),
        "request_id": judge_request_id("task", "swapped", 2),
    }  # fmt: skip
    assert key_problem(a_request(None, **asked), STRICT, PLANE, NOW) is None
    # Whoever names the purpose, or takes over an identity of another request, is nobody's judge.
    for change in (
        {"event_id": "e1"}, {"request_id": "r1"}, {"causation_id": "another"}, {"purpose": Purpose.SERVE},
        {"request_id": judge_request_id("task", "swapped", 3)}, {"event_id": judge_event_id("task", "given", 2)},
    ):  # fmt: skip
        problem = key_problem(a_request(None, **asked | change), STRICT, PLANE, NOW)
        assert problem is not None
        assert problem[0] == "key_required"
    for key_id, purpose, code in (
        (None, Purpose.JUDGE, "key_required"),
        (None, Purpose.EVALUATION, "key_required"),
        ("what-the-producer-calls-it", Purpose.JUDGE, "key_required"),
        (FOREIGN.id, Purpose.JUDGE, "key_not_allowed"),
        (REVOKED.id, Purpose.JUDGE, "key_revoked"),
    ):
        problem = key_problem(a_request(key_id, purpose=purpose), STRICT, PLANE, NOW)
        assert problem is not None
        assert problem[0] == code


def test_refusals_name_the_remedy_and_no_other_team() -> None:
    said = {
        key.id: key_problem(a_request(key.id), STRICT, PLANE, NOW) or ("", "") for key in (FOREIGN, REVOKED, EXPIRED)
    }
    assert "research" not in said[FOREIGN.id][1]
    assert "was revoked at 2026-01-05T09:00:00Z" in said[REVOKED.id][1]
    assert "expired at 2026-01-05T09:00:00Z" in said[EXPIRED.id][1]
    missing = key_problem(a_request(None), STRICT, PLANE, NOW)
    assert missing is not None
    assert "penstock keys list --team support" in missing[1]


def test_a_key_asks_for_its_own_routes_only() -> None:
    assert key_route_problem(a_request(OWN.id), "chat", PLANE) is None
    assert key_route_problem(a_request(LASTING.id), "slow", PLANE) is None
    assert key_route_problem(a_request(None), "slow", PLANE) is None
    assert key_route_problem(a_request("what-the-producer-calls-it"), "slow", PLANE) is None
    problem = key_route_problem(a_request(OWN.id), "slow", PLANE)
    assert problem is not None
    assert problem[0] == "route_not_allowed"
    assert "only chat" in problem[1]


def test_admission_refuses_by_key_and_asks_it_for_the_route_that_would_answer() -> None:
    model = Target(backend="extractive", model="m")
    routes = [Route(name=name, targets=(model,), retrieval=Retrieval(enabled=False)) for name in ("chat", "slow")]
    own, foreign = issued(mint(SECRET), "strict", NOW, routes=("chat",)), issued(mint(SECRET), "other", NOW)
    for default_route, key_id, code in (
        ("chat", own.id, None),
        ("slow", own.id, "route_not_allowed"),
        ("chat", foreign.id, "key_not_allowed"),
        ("chat", None, "key_required"),
    ):
        team = Team(name="strict", require_key=True, default_route=default_route)
        plane = ConfigPlane.of([team, Policy(name="default"), *routes, own, foreign])
        # "default" is what the team says it is.
        request = a_request(key_id, tenant_id="strict", route="default")
        judged = judge(request, plane, Limits(), NOW)
        assert (judged.refused.code if judged.refused else None) == code
        assert judged.context.key_id == key_id
