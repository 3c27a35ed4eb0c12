"""What people read of an alert: the words, in one place, and as lines for a terminal, plain text and HTML."""

from __future__ import annotations

import html
import math
import textwrap
from datetime import UTC
from urllib.parse import quote, urlsplit

from penstock.contracts.records import Alert, LogRange, Severity

from services.alerting.channels.protocol import Notification

__all__ = [
    "acknowledging", "evidence", "figures", "headline", "html_page", "left_out", "link_of", "one_line", "plain_text",
    "printable", "render", "runbook_of", "severity_of", "word_of",
]  # fmt: skip

_COLOURS = {Severity.INFO: "36", Severity.WARNING: "33", Severity.CRITICAL: "31;1"}
_HTML_COLOURS = {"RESOLVED": "#2e7d32", "INFO": "#1565c0", "WARNING": "#b26a00", "CRITICAL": "#b71c1c"}
_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}
_WIDTH = 110
_SAMPLES = 4


def severity_of(alert: Alert) -> Severity:
    """Return the severity; ``warning`` for a word that is none, since the alert still has to be read."""
    return Severity(alert.severity) if alert.severity in set(Severity) else Severity.WARNING


def word_of(alert: Alert) -> str:
    """Return RESOLVED, or the severity in capitals."""
    return "RESOLVED" if alert.status == "resolved" else severity_of(alert).upper()


def runbook_of(alert: Alert, base_url: str) -> str:
    """Return the runbook page's address, or its path in the project where no address is set."""
    path = alert.runbook or f"services/alerting/runbooks/{alert.kind}.md"
    return f"{base_url.rstrip('/')}/{path}" if base_url else path


def link_of(alert: Alert, base_url: str) -> str | None:
    """Return the runbook's address where it is one that may be linked, percent-encoded; ``None`` for a mere path.

    The path may come from a producer: it is encoded, so that it can neither end an attribute nor forge another link.
    """
    if urlsplit(base_url).scheme not in {"http", "https"}:
        return None
    path = runbook_of(alert, "")
    return f"{base_url.rstrip('/')}/{quote(path, safe='/._-~#')}"


def printable(text: str) -> str:
    """Return text with every control and format character (line feeds, terminal codes, bidi marks) as a space."""
    return "".join(character if character.isprintable() else " " for character in text)


def one_line(text: str, most: int) -> str:
    """Return printable text on one line of at most ``most`` characters, cut with an ellipsis."""
    line = " ".join(printable(text).split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def headline(notification: Notification, most: int = 200) -> str:
    """Return one line for subjects and summaries: severity, what, and why it is sent where it is no first telling."""
    alerts = notification.alerts
    going_on = [alert for alert in alerts if alert.status != "resolved"]
    loudest = max(going_on or alerts, key=lambda alert: _RANK[severity_of(alert)])
    why = {"escalation": "nobody has acknowledged: ", "repeat": "still: "}.get(notification.purpose, "")
    if len(alerts) == 1:
        return one_line(f"[{word_of(loudest)}] {why}{alerts[0].title}", most)
    about = ", ".join(f"{name} {value}" for name, value in sorted(notification.group.items()) if value)
    of = f" ({about})" if about else ""
    return one_line(f"[{word_of(loudest)}] {why}{len(alerts)} alerts{of}: {loudest.title}", most)


def figures(alert: Alert) -> list[tuple[str, str]]:
    """Return name and value of every figure, six significant digits, in order of name."""
    return [(printable(name), _number(value)) for name, value in sorted(alert.figures.items())]


def evidence(alert: Alert) -> list[str]:
    """Return where in the log to look."""
    return [_range(each) for each in alert.evidence]


def acknowledging(alert: Alert) -> str:
    """Return the command that acknowledges the alert; empty for one that is resolved."""
    return "" if alert.status == "resolved" else f"penstock alerts ack {printable(alert.fingerprint)}"


def left_out(notification: Notification) -> str:
    """Return what is said of alerts that the hourly rate kept out; empty where there are none."""
    if not notification.left_out:
        return ""
    which = "alert is" if notification.left_out == 1 else "alerts are"
    return (
        f"{notification.left_out} more {which} not in this message: the receiver's hourly rate was reached. "
        "penstock alerts list shows all."
    )


def render(alert: Alert, runbook_base_url: str, colour: bool) -> str:
    """Return the alert as lines that end with a line feed.

    Control characters are replaced: labels may stem from producers, and a terminal obeys what it prints.
    """
    word = word_of(alert)
    head = f"{word} {alert.kind}/{alert.name}: {alert.title}"
    lines = textwrap.wrap(printable(head), _WIDTH, subsequent_indent="  ")
    if colour:
        code = "32" if word == "RESOLVED" else _COLOURS[severity_of(alert)]
        lines[0] = f"\x1b[{code}m{lines[0]}\x1b[0m"
    lines += _wrapped("", alert.description)
    lines += _wrapped("first: ", alert.suggested_action)
    if alert.sample_requests:
        lines += _wrapped("requests: ", ", ".join(alert.sample_requests[-_SAMPLES:]))
    lines += _wrapped("runbook: ", runbook_of(alert, runbook_base_url))
    return "\n".join(lines) + "\n"


def plain_text(notification: Notification, runbook_base_url: str) -> str:
    """Return the whole notification as plain text, with figures, evidence and how to acknowledge."""
    parts = [headline(notification, 1000)]
    for alert in notification.alerts:
        block = render(alert, runbook_base_url, False)
        rows = [("began", _moment(alert)), *figures(alert)]
        block += "".join(f"  {name}: {value}\n" for name, value in rows)
        block += "".join(f"  in the log: {each}\n" for each in evidence(alert))
        if command := acknowledging(alert):
            block += f"  acknowledge: {command}\n"
        parts.append(block.rstrip("\n"))
    if rest := left_out(notification):
        parts.append(rest)
    return "\n\n".join(parts) + "\n"


def html_page(notification: Notification, runbook_base_url: str) -> str:
    """Return the notification as a page without scripts, images or links but the runbook's; all text is escaped."""
    body = "".join(_html_alert(alert, runbook_base_url) for alert in notification.alerts)
    if rest := left_out(notification):
        body += f"<p>{_text(rest)}</p>"
    title = _text(headline(notification))
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{title}</title></head>'
        f'<body style="font-family:sans-serif;max-width:50em"><h1 style="font-size:1.1em">{title}</h1>{body}</body></html>'
    )


def _html_alert(alert: Alert, base_url: str) -> str:
    word = word_of(alert)
    rows = [("began", _moment(alert)), *figures(alert), *(("in the log", each) for each in evidence(alert))]
    if alert.sample_requests:
        rows.append(("requests", ", ".join(alert.sample_requests[-_SAMPLES:])))
    table = "".join(f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>" for name, value in rows)
    link = link_of(alert, base_url)
    path = _text(runbook_of(alert, base_url))
    runbook = f'<a href="{html.escape(link)}">{path}</a>' if link else path
    action = f"<p><b>First:</b> {_text(alert.suggested_action)}</p>" if alert.suggested_action else ""
    command = acknowledging(alert)
    acknowledge = f"<p>Acknowledge: <code>{_text(command)}</code></p>" if command else ""
    return (
        f'<div style="border-left:6px solid {_HTML_COLOURS[word]};padding-left:1em;margin-bottom:2em">'
        f'<h2 style="font-size:1em">{word} {_text(alert.kind)}/{_text(alert.name)}: {_text(alert.title)}</h2>'
        f"<p>{_text(alert.description)}</p>{action}<table>{table}</table><p>Runbook: {runbook}</p>{acknowledge}</div>"
    )


def _text(text: str) -> str:
    return html.escape(printable(text))


def _moment(alert: Alert) -> str:
    return (alert.starts_at or alert.occurred_at).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _number(value: float) -> str:
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.6g}"


def _range(each: LogRange) -> str:
    offsets = (
        f"{each.first_offset}" if each.first_offset == each.last_offset else f"{each.first_offset}-{each.last_offset}"
    )
    return printable(f"{each.topic}[{each.partition}] {offsets}")


def _wrapped(label: str, text: str) -> list[str]:
    if not text:
        return []
    return textwrap.wrap(
        label + printable(text), _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )
