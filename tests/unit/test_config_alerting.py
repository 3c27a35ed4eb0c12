"""Alerting as configuration: what is refused, in words an operator can act on, and which route an alert takes."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.config.alerting import Alerting, AlertRoute
from penstock.config.plane import ConfigPlane
from pydantic import ValidationError

CHAT = {"name": "chat", "type": "slack", "url_env": "SLACK_WEBHOOK_URL"}
PAGER = {"name": "pager", "type": "pagerduty", "secret_env": "PAGERDUTY_ROUTING_KEY"}
MAIL = {
    "name": "mail",
    "type": "email",
    "url": "smtp://mail.example.com:587",
    "sender": "alerts@example.com",
    "to": ["oncall@example.com"],
}
ALL = {"receivers": ["chat"]}


def an_entry(**changes: Any) -> Alerting:
    return Alerting.model_validate({"name": "default", "receivers": [CHAT, PAGER, MAIL], "routes": [ALL], **changes})


def test_an_entry_is_read_and_has_its_receivers_by_name() -> None:
    entry = an_entry()
    assert entry.receiver("pager").type == "pagerduty"
    assert entry.receiver("mail").retry_for_s == 6 * 3600
    with pytest.raises(KeyError):
        entry.receiver("nobody")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"receivers": [CHAT, CHAT]}, "'chat' is taken by another receiver"),
        ({"routes": [{"receivers": ["chta"]}]}, "names 'chta'; the receivers are chat, pager, mail"),
        ({"routes": [{"receivers": ["chat"], "resolve_after_s": float("inf")}]}, "less than or equal to 2592000"),
        (
            {"routes": [{"receivers": ["chat"], "escalate": [{"after_s": 60, "receivers": ["boss"]}]}]},
            "names 'boss'",
        ),
        ({"routes": [ALL, {"match": {"kind": "cost"}, "receivers": ["chat"]}]}, "no alert reaches the routes after it"),
        ({"receivers": [{"name": "chat", "type": "slack"}]}, "needs it, or url_env"),
        ({"receivers": [{**CHAT, "url": "https://hooks.example.com/x"}]}, "stands beside url"),
        ({"receivers": [{"name": "chat", "type": "webhook", "url": "ftp://example.com"}]}, "http:// or https://"),
        ({"receivers": [{"name": "chat", "type": "webhook", "url": "https://a:b@example.com"}]}, "holds credentials"),
        ({"receivers": [{"name": "chat", "type": "webhook", "url_env": "https://example.com"}]}, "the secret itself"),
        ({"receivers": [{"name": "chat", "type": "pagerduty"}]}, "needs the integration's routing key"),
        ({"receivers": [{**MAIL, "name": "chat", "to": []}]}, "needed by a receiver of type email"),
        ({"receivers": [{**MAIL, "name": "chat", "to": ["a@b.example\nBcc: x@y.example"]}]}, "must be one address"),
        ({"receivers": [{**MAIL, "name": "chat", "url": "https://mail.example.com"}]}, "smtp:// or smtps://"),
        ({"routes": []}, "at least 1 item"),
    ],
)
def test_what_cannot_work_is_refused_with_its_cause(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        an_entry(**changes)
    assert said in str(refused.value)


def test_a_secret_in_the_wrong_place_is_not_repeated() -> None:
    with pytest.raises(ValidationError) as refused:
        an_entry(receivers=[{"name": "chat", "type": "webhook", "url": "https://ann:hunter2@example.com"}])
    assert "hunter2" not in str(refused.value)


def test_a_route_covers_what_agrees_with_every_pattern() -> None:
    route = AlertRoute(match={"kind": "drift", "team": "supp*"}, receivers=("chat",))
    assert route.covers({"kind": "drift", "team": "support"})
    assert not route.covers({"kind": "drift", "team": "acme"})
    assert not route.covers({"kind": "drift"})
    assert AlertRoute(receivers=("chat",)).covers({})


def test_a_team_has_its_own_entry_or_the_default() -> None:
    assert ConfigPlane.of([]).alerting("acme") is None
    plane = ConfigPlane.of([an_entry(), an_entry(name="acme", receivers=[PAGER], routes=[{"receivers": ["pager"]}])])
    own, default = plane.alerting("acme"), plane.alerting("support")
    assert own is not None
    assert own.name == "acme"
    assert default is not None
    assert default.name == "default"
