"""What verification prints: names of others write no line of the report, and steer no terminal."""

from __future__ import annotations

import pytest
from penstock.cli.ledger.verdict import print_report
from penstock.ledger.comparison import Comparison
from penstock.ledger.faults import Fault

from tests.unit.ledger_books import NOW, Log


def test_a_name_writes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log().verification()
    user = "eve\nthe ledger agrees to the last digit\x1b[2J"
    fault = Fault("reserved", f"penstock:{{support}}:budget:users:2026-11-20:{user}", ledger=user, cause=user)
    print_report(log, Comparison(log, NOW), [fault], 1.0, with_redis=True)
    printed = capsys.readouterr().out
    assert "\x1b[2J" not in printed
    assert [line for line in printed.splitlines() if line.startswith("the ledger agrees")] == []
    assert "THE LEDGER DOES NOT AGREE" in printed
