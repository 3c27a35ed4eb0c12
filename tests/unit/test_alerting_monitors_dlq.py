"""Dead letters by cause: counted over a window, the worse the faster they come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstock.contracts.records import LogRange, Severity

from services.alerting.monitors.dlq import DlqRules, Letter, observe

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
RULES = DlqRules(window_s=600.0, warning=5, critical=50)


def letter(offset: int, written_at: datetime = NOW, code: str = "step_failed", origin: int | None = None) -> Letter:
    return Letter(
        place=LogRange(topic="dlq-intake", partition=0, first_offset=offset, last_offset=offset),
        written_at=written_at,
        service="intake",
        code=code,
        origin=LogRange(topic="llm-requests", partition=1, first_offset=origin or offset, last_offset=origin or offset),
        reason=f"reason {offset}",
        request_id=f"r{offset}",
    )


def test_severity_rises_with_the_rate() -> None:
    for count, severity in ((1, Severity.INFO), (5, Severity.WARNING), (50, Severity.CRITICAL)):
        _, (found,) = observe({}, [letter(n) for n in range(count)], RULES, NOW)
        assert (found.severity, found.figures["letters"]) == (severity, count)


def test_the_evidence_is_the_letters_and_the_messages_they_are_about() -> None:
    _, (found,) = observe({}, [letter(10, origin=70), letter(11, origin=71), letter(12, origin=99)], RULES, NOW)
    assert found.evidence == (
        LogRange(topic="dlq-intake", partition=0, first_offset=10, last_offset=12),
        LogRange(topic="llm-requests", partition=1, first_offset=70, last_offset=71),
        LogRange(topic="llm-requests", partition=1, first_offset=99, last_offset=99),
    )
    assert found.samples == ("r10", "r11", "r12")
    assert "reason 12" in found.description


def test_causes_are_told_apart() -> None:
    _, found = observe({}, [letter(1), letter(2, code="wrong_magic_byte")], RULES, NOW)
    assert [each.labels["code"] for each in found] == ["step_failed", "wrong_magic_byte"]
    assert len({each.fingerprint for each in found}) == 2


def test_letters_leave_the_window_and_the_cause_ends_with_the_last() -> None:
    state, _ = observe({}, [letter(n) for n in range(5)], RULES, NOW)
    later = NOW + timedelta(seconds=400)
    state, (found,) = observe(state, [letter(5, later)], RULES, later)
    assert found.figures["letters"] == 6
    state, (found,) = observe(state, [], RULES, NOW + timedelta(seconds=720))
    assert (found.figures["letters"], found.figures["total"], found.severity) == (1, 6, Severity.INFO)
    state, none = observe(state, [], RULES, NOW + timedelta(seconds=1100))
    assert (dict(state), none) == ({}, [])


def test_what_was_written_while_nobody_looked_counts_as_now() -> None:
    old = NOW - timedelta(hours=3)
    _, (found,) = observe({}, [letter(n, old) for n in range(60)], RULES, NOW)
    assert found.severity == Severity.CRITICAL


def test_state_stays_small_however_many_letters_come() -> None:
    state = observe({}, [], RULES, NOW)[0]
    for minute in range(60):
        now = NOW + timedelta(minutes=minute)
        state, _ = observe(state, [letter(1000 * minute + n, now, origin=7 * n + 1) for n in range(200)], RULES, now)
    (episode,) = state.values()
    assert len(episode.minutes) <= 12
    assert len(episode.origins) <= 4
    assert len(episode.samples) <= 5
    assert episode.total == 12_000
