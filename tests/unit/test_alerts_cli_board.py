"""What fires now, folded from alerts, actions and deliveries in whatever order they are read."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from penstock.cli.alerts.board import Board, Incident, fold
from penstock.contracts.records import Alert, AlertAction, AlertDelivery

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
_NUMBERS = iter(range(10**9))


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def alert(minutes: float, status: str = "firing", severity: str = "warning", key: str = "f1", **fields: Any) -> Alert:
    values: dict[str, Any] = {
        "event_id": f"a{next(_NUMBERS)}", "request_id": "", "tenant_id": "support", "causation_id": "",
        "occurred_at": at(minutes), "kind": "cost", "name": "budget_exhausted", "severity": severity,
        "status": status, "title": "t", "description": "d",
        "fingerprint": key, "labels": {"team": "support", "model": "m1"},
    }  # fmt: skip
    return Alert(**(values | fields))


def action(minutes: float, verb: str, **fields: Any) -> AlertAction:
    values: dict[str, Any] = {
        "event_id": f"c{next(_NUMBERS)}", "request_id": "", "tenant_id": "support", "causation_id": "",
        "occurred_at": at(minutes), "action": verb, "author": "ann",
    }  # fmt: skip
    return AlertAction(**(values | fields))


def delivery(minutes: float, outcome: str, receiver: str = "slack", key: str = "f1", **fields: Any) -> AlertDelivery:
    return AlertDelivery(
        event_id=f"d{next(_NUMBERS)}", request_id="", tenant_id="support", occurred_at=at(minutes), causation_id="",
        fingerprint=key, alert_kind="cost", channel="slack", destination="https://slack.example", outcome=outcome,
        receiver=receiver, **fields,
    )  # fmt: skip


def one(*records: Any, now: float = 600, resolve_after: timedelta | None = None) -> Incident:
    (incident,) = board(*records, now=now, resolve_after=resolve_after).incidents
    return incident


def board(*records: Any, now: float = 600, resolve_after: timedelta | None = None) -> Board:
    return fold(
        [each for each in records if isinstance(each, Alert)],
        [each for each in records if isinstance(each, AlertDelivery)],
        [each for each in records if isinstance(each, AlertAction)],
        at(now),
        lambda alert: resolve_after,
    )


def test_what_was_raised_fires_since_its_begin_as_often_as_it_was_raised() -> None:
    incident = one(alert(10, starts_at=at(4)), alert(20), alert(30, severity="critical"), alert(40))
    assert (incident.firing, incident.began_at, incident.newest_at) == (True, at(4), at(40))
    assert (incident.count, incident.severity) == (4, "critical")


def test_a_later_resolution_ends_it_and_raised_again_it_is_a_new_episode() -> None:
    over = one(alert(10), alert(20), alert(30, "resolved"))
    assert (over.firing, over.ended_at, over.count) == (False, at(30), 2)
    again = one(alert(10), alert(30, "resolved", severity="critical"), alert(50))
    assert (again.firing, again.began_at, again.count, again.severity) == (True, at(50), 1, "warning")


def test_it_is_over_when_it_was_not_raised_again_for_as_long_as_its_route_says() -> None:
    records = [alert(10), alert(60)]
    assert one(*records, now=100, resolve_after=timedelta(hours=1)).firing
    over = one(*records, now=120, resolve_after=timedelta(hours=1))
    assert over.ended_at == at(120)


def test_an_acknowledgement_holds_until_its_end_the_resolution_or_something_worse() -> None:
    ack = action(20, "acknowledge", fingerprint="f1", ends_at=at(120), comment="on it")
    held = one(alert(10), ack, alert(30), now=60).acknowledged
    assert held is not None
    assert (held.author, held.until, held.comment) == ("ann", at(120), "on it")
    assert one(alert(10), ack, now=120).acknowledged is None
    assert one(alert(10), ack, alert(30, severity="critical"), now=60).acknowledged is None
    assert one(alert(10), ack, alert(30, "resolved"), alert(40), now=60).acknowledged is None
    assert one(alert(10), ack, action(25, "unacknowledge", fingerprint="f1"), now=60).acknowledged is None
    assert one(alert(10), action(20, "acknowledge", fingerprint="f1"), now=10_000).acknowledged is not None


def test_people_can_resolve() -> None:
    assert one(alert(10), action(20, "resolve", fingerprint="f1")).ended_at == at(20)


def test_a_silence_covers_what_matches_in_its_span() -> None:
    quiet = action(
        0, "silence", silence_id="s1", match={"kind": "co*", "model": "m?"}, starts_at=at(30), ends_at=at(90)
    )
    assert one(alert(10), quiet, now=20).silence is None
    assert one(alert(10), quiet, now=60).silence is not None
    assert one(alert(10), quiet, now=90).silence is None
    assert one(alert(10, kind="drift"), quiet, now=60).silence is None
    assert one(alert(10, labels={}), quiet, now=60).silence is None
    ended = board(alert(10), quiet, action(50, "unsilence", silence_id="s1"), now=60)
    assert (ended.incidents[0].silence, ended.silences, len(ended.ended_silences)) == (None, (), 1)


def test_delivery_stands_by_receiver_as_its_last_try_says() -> None:
    incident = one(
        alert(10),
        delivery(11, "delivered", "slack"),
        delivery(11, "failed", "pager", reason="HTTP 503"),
        delivery(15, "failed", "pager", reason="HTTP 500", attempts=2),
        delivery(20, "suppressed", "slack", reason="repeats"),
        delivery(12, "failed", "mail"),
        delivery(14, "delivered", "mail"),
    )
    assert [(told.receiver, told.fails, told.last.attempts) for told in incident.told()] == [
        ("mail", False, 0), ("pager", True, 2), ("slack", False, 0),
    ]  # fmt: skip
    assert incident.held_back() is None
    assert (
        one(alert(10), delivery(11, "suppressed", "", reason="silenced until noon")).held_back()
        == "silenced until noon"
    )


def test_the_worst_that_fires_stands_first_and_what_is_over_last() -> None:
    records = [
        alert(10, key="info", severity="info"), alert(20, key="warning"), alert(30, key="newer"),
        alert(5, key="critical", severity="critical"),
        alert(40, key="over", severity="critical"), alert(50, "resolved", key="over", severity="critical"),
    ]  # fmt: skip
    assert [each.fingerprint for each in board(*records).incidents] == ["critical", "newer", "warning", "info", "over"]


def test_an_action_about_what_was_not_read_shows_nothing() -> None:
    assert board(action(10, "acknowledge", fingerprint="elsewhere")).incidents == ()


def test_a_resolution_of_what_was_raised_before_the_span_is_over() -> None:
    incident = one(alert(10, "resolved", starts_at=at(-500)))
    assert (incident.firing, incident.began_at) == (False, at(-500))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["warning", "critical", "resolved", "acknowledge", "unacknowledge", "delivered", "failed"]),
        st.sampled_from(["f1", "f2"]),
    ),
    max_size=25,
)


@given(STEPS, st.integers(0, 1000))
def test_neither_order_nor_repetition_changes_the_board(steps: list[tuple[str, str]], seed: int) -> None:
    records: list[Any] = []
    for minute, (what, key) in enumerate(steps):
        if what in ("acknowledge", "unacknowledge"):
            records.append(action(minute, what, fingerprint=key))
        elif what in ("delivered", "failed"):
            records.append(delivery(minute, what, key=key))
        elif what == "resolved":
            records.append(alert(minute, "resolved", key=key))
        else:
            records.append(alert(minute, severity=what, key=key))
    shuffled = [*records, *records[::2]]
    random.Random(seed).shuffle(shuffled)
    assert board(*records) == board(*shuffled)
