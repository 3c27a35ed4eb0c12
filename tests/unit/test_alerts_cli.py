"""What ``penstock alerts`` prints and sends."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from penstock.cli.alerts.acting import matches, rebase_of, silence
from penstock.cli.alerts.board import Silence, fold
from penstock.cli.alerts.drawing import as_data, as_page, as_table, outcome, silences_table
from penstock.cli.alerts.reading import chosen, chosen_silence
from penstock.cli.alerts.showing import counted
from penstock.cli.alerts.trial import ended, trial_alert
from penstock.cli.instants import SPAN
from penstock.contracts.codec import Codec
from penstock.contracts.records import Alert, AlertAction, AlertDelivery, LogRange
from rich.console import Console, RenderableType

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
HOSTILE = "\x1b[2J[bold red]gone[/]\u202e\x07 drop"


def alert(**fields: Any) -> Alert:
    values: dict[str, Any] = {
        "event_id": "11112222-aaaa", "request_id": "", "tenant_id": "support", "causation_id": "",
        "occurred_at": NOW - timedelta(hours=3), "kind": "drift", "name": "topic_shift",
        "severity": "critical", "title": "questions moved",
        "description": "by 0.4", "suggested_action": "read them", "fingerprint": "abcdef0123456789",
        "labels": {"team": "support", "segment": "support|m1|v1|default", "signal": "prompt.topic"},
        "figures": {"size": 0.4},
        "evidence": [LogRange(topic="signals", partition=2, first_offset=5, last_offset=1004)],
        "sample_requests": ["req-1"],
    }  # fmt: skip
    return Alert(**(values | fields))


def action(**fields: Any) -> AlertAction:
    values: dict[str, Any] = {
        "event_id": "act-1", "request_id": "", "tenant_id": "support", "causation_id": "",
        "occurred_at": NOW - timedelta(hours=1),
        "action": "acknowledge", "fingerprint": "abcdef0123456789", "author": "ann", "comment": "a campaign",
    }  # fmt: skip
    return AlertAction(**(values | fields))


def delivery(outcome: str, receiver: str = "slack", **fields: Any) -> AlertDelivery:
    return AlertDelivery(
        event_id=f"{receiver}-{outcome}", request_id="", tenant_id="support", occurred_at=NOW - timedelta(hours=2),
        causation_id="", fingerprint="abcdef0123456789", alert_kind="drift", channel="slack", destination="https://x.example",
        outcome=outcome, receiver=receiver, **fields,
    )  # fmt: skip


def drawn(what: RenderableType, width: int = 120, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=terminal, color_system="standard" if terminal else None).print(
        what
    )
    return stream.getvalue()


def test_the_list_says_what_since_when_how_often_and_who() -> None:
    failed = delivery("failed", "pager", attempts=4, status_code=503, reason="HTTP 503", next_try_at=NOW)
    board = fold([alert()], [delivery("delivered"), failed], [action(ends_at=NOW + timedelta(hours=4))], NOW)
    text = drawn(as_table(board.incidents, NOW), width=220)
    for part in (
        "CRITICAL", "drift/topic_shift", "questions moved", "support", "3 h ago", "abcdef0123",
        "acknowledged by ann until 01-05 16:00 UTC (a campaign)", "told slack", "pager is tried again: HTTP 503",
    ):  # fmt: skip
        assert part in text


def test_a_long_list_says_that_it_is_cut_and_counts_what_did_not_arrive() -> None:
    (one,) = fold([alert()], [delivery("failed")], [], NOW).incidents
    assert "Listed" not in counted([one], False, 1)
    cut = counted([one] * 3, False, 2)
    assert cut.startswith("3 firing; 3 did not reach everyone. Listed are the first 2: --limit")


def test_the_page_has_evidence_requests_deliveries_history_and_the_runbook() -> None:
    board = fold([alert(), alert(event_id="second")], [delivery("delivered", status_code=200)], [action()], NOW)
    text = drawn(as_page(board.incidents[0], NOW))
    for part in (
        "signals, partition 2, offsets 5 to 1004 (1,000)", "req-1: penstock audit show req-1", "First: read them",
        "slack at https://x.example, firing: delivered (200)", "raised as critical  (2 times)",
        "acknowledged by ann: a campaign",
        "services/alerting/runbooks/drift.md",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("terminal", [False, True])
def test_what_others_wrote_neither_steers_the_terminal_nor_is_markup(terminal: bool) -> None:
    hostile = alert(
        title=HOSTILE, description=HOSTILE, name=HOSTILE, kind=HOSTILE, tenant_id=HOSTILE, severity=HOSTILE,
        suggested_action=HOSTILE, labels={HOSTILE: HOSTILE}, sample_requests=[HOSTILE], runbook=HOSTILE,
        figures={HOSTILE: 1.0},
        evidence=[LogRange(topic=HOSTILE, partition=0, first_offset=0, last_offset=0)],
    )  # fmt: skip
    silenced = Silence(HOSTILE, {HOSTILE: HOSTILE}, NOW, NOW + timedelta(hours=1), HOSTILE, HOSTILE)
    acted = action(author=HOSTILE, comment=HOSTILE)
    board = fold([hostile], [delivery("failed", HOSTILE, reason=HOSTILE)], [acted], NOW)
    for what in (
        as_table(board.incidents, NOW),
        as_page(board.incidents[0], NOW),
        silences_table([silenced], board.incidents, NOW),
    ):
        text = drawn(what, terminal=terminal)
        assert "\x1b[2J" not in text
        assert "\u202e" not in text
        assert "\x07" not in text
        assert "\\x1b" in text
        assert terminal or "\x1b" not in text


def test_narrow_terminals_cut_nothing_off() -> None:
    board = fold([alert(title="a title that is longer than a narrow terminal is wide, by far")], [], [], NOW)
    text = " ".join(drawn(as_table(board.incidents, NOW), width=70).split())
    for word in ("longer", "narrow", "far", "abcdef0123"):
        assert word in text


def test_json_is_for_machines() -> None:
    board = fold([alert()], [delivery("delivered")], [action()], NOW)
    data = json.loads(msgspec.json.encode(as_data(board.incidents[0])))
    assert (data["status"], data["severity"], data["count"]) == ("firing", "critical", 1)
    assert data["told"][0]["outcome"] == "delivered"
    assert data["acknowledged"]["author"] == "ann"
    assert len(as_data(board.incidents[0], whole=True)["alerts"]) == 1


def test_a_prefix_chooses_by_fingerprint_or_event() -> None:
    board = fold([alert(), alert(fingerprint="abc999", event_id="3333")], [], [], NOW)
    assert chosen(board, "abcd", NOW).fingerprint == "abcdef0123456789"
    assert chosen(board, "1111", NOW).fingerprint == "abcdef0123456789"
    with pytest.raises(click.ClickException, match=r"2 alerts begin with 'abc'.*abc999"):
        chosen(board, "abc", NOW)
    with pytest.raises(click.ClickException, match=r"no alert 'zzz'.*--since"):
        chosen(board, "zzz", NOW)
    with pytest.raises(click.ClickException, match="no silence"):
        chosen_silence(board, "zzz")


def test_acknowledged_drift_makes_the_present_the_reference(codec: Codec) -> None:
    command = rebase_of(alert(), action())
    assert command is not None
    assert (command.action, command.segment, command.signal) == ("rebase", "support|m1|v1|default", "prompt.topic")
    assert (command.author, command.reason, command.causation_id) == ("ann", "a campaign", "act-1")
    assert codec.decode("drift-commands", codec.encode("drift-commands", command)) == command
    assert rebase_of(alert(), action()) == command
    assert rebase_of(alert(labels={"team": "support"}), action()) is None
    assert rebase_of(alert(kind="guardrail"), action()) is not None, "drift of what guardrails find"
    assert rebase_of(alert(kind="quality"), action()) is None


def test_matches_are_pairs() -> None:
    assert matches(["team=support", "name=*_shift", "why=a=b"]) == {"team": "support", "name": "*_shift", "why": "a=b"}
    for wrong in (["team"], ["=x"], ["team="], ["team=a", "team=b"]):
        with pytest.raises(click.BadParameter):
            matches(wrong)


def test_a_silence_says_what_is_wrong_before_it_connects() -> None:
    result = CliRunner().invoke(silence, ["-m", "team", "--for", "2h", "--comment", "x"])
    assert (result.exit_code, "no FIELD=PATTERN" in result.output) == (2, True)
    result = CliRunner().invoke(silence, ["-m", "team=a", "--for", "soon", "--comment", "x"])
    assert (result.exit_code, "no length of time" in result.output) == (2, True)


def test_spans_are_lengths_of_time() -> None:
    assert SPAN.convert("90m", None, None) == timedelta(minutes=90)
    for wrong in ("0h", "x", "-1h", "9e99w", "999999999999999w"):
        with pytest.raises(click.BadParameter):
            SPAN.convert(wrong, None, None)


def test_the_test_alert_fits_its_topic_and_says_who_sent_it(codec: Codec) -> None:
    sent = trial_alert("support", "critical", {"model": "m1"}, "ann", NOW, "u1")
    assert codec.decode("alerts", codec.encode("alerts", sent)) == sent
    assert (sent.kind, sent.labels) == ("test", {"model": "m1", "team": "support", "author": "ann"})
    assert sent.fingerprint != trial_alert("support", "critical", {}, "ann", NOW, "u2").fingerprint


def test_nothing_more_is_awaited_when_every_receiver_has_a_final_outcome() -> None:
    done, failing, dead = delivery("delivered", "slack"), delivery("failed", "pager"), delivery("dead", "pager")
    assert not ended([], ["slack"])
    assert not ended([done, failing], ["slack", "pager"])
    assert ended([done, failing, dead], ["slack", "pager"])
    assert ended([delivery("suppressed", "")], ["slack", "pager"])
    assert not ended([failing], None)
    assert ended([failing, done], None)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (delivery("delivered", status_code=202), "delivered (202)"),
        (delivery("failed", attempts=3, status_code=503, reason="HTTP 503", next_try_at=NOW),
         "failed after 3 tries (503): HTTP 503, again at 12:00:00 UTC"),
        (delivery("dead", attempts=9, reason="no route to host"), "given up after 9 tries: no route to host"),
        (delivery("suppressed", reason="silenced"), "held back: silenced"),
    ],
)  # fmt: skip
def test_outcomes_in_words(record: AlertDelivery, words: str) -> None:
    assert outcome(record) == words
