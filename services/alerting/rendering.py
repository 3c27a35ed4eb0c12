"""An alert as a few lines for a terminal."""

from __future__ import annotations

import textwrap

from penstock.contracts.records import Alert, Severity

from services.alerting.core import runbook_of

__all__ = ["render"]

_COLOURS = {Severity.INFO: "36", Severity.WARNING: "33", Severity.CRITICAL: "31;1"}
_WIDTH = 110
_SAMPLES = 4


def render(alert: Alert, runbook_base_url: str, colour: bool) -> str:
    """Return the alert as lines that end with a line feed.

    Control characters are replaced: labels may stem from producers, and a terminal obeys what it prints.
    """
    word = "RESOLVED" if alert.status == "resolved" else alert.severity.upper()
    head = f"{word} {alert.kind}/{alert.name}: {alert.title}"
    lines = textwrap.wrap(_plain(head), _WIDTH, subsequent_indent="  ")
    if colour:
        code = "32" if alert.status == "resolved" else _COLOURS.get(Severity(alert.severity), "33")
        lines[0] = f"\x1b[{code}m{lines[0]}\x1b[0m"
    lines += _wrapped("", alert.description)
    lines += _wrapped("first: ", alert.suggested_action)
    if alert.sample_requests:
        lines += _wrapped("requests: ", ", ".join(alert.sample_requests[-_SAMPLES:]))
    lines += _wrapped("runbook: ", runbook_of(alert, runbook_base_url))
    return "\n".join(lines) + "\n"


def _wrapped(label: str, text: str) -> list[str]:
    if not text:
        return []
    return textwrap.wrap(
        label + _plain(text), _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
