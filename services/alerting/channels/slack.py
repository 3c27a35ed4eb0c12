"""Slack, through an incoming webhook, as Block Kit (api.slack.com/messaging/webhooks, api.slack.com/reference/block-kit)."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from penstock.contracts.records import Alert

from services.alerting.channels.posting import Answer, Poster, attempt_of, meaning_of
from services.alerting.channels.protocol import Attempt, Notification
from services.alerting.rendering import (
    acknowledging,
    evidence,
    figures,
    headline,
    left_out,
    link_of,
    printable,
    runbook_of,
    word_of,
)

__all__ = ["Slack", "escape", "message"]

MOST_BLOCKS = 50
MOST_TEXT = 3000
"""Characters of one text object of a section."""
_MOST_HEADER = 150
_MOST_FIELDS = 10
_MOST_FIELD = 300
_MOST_MESSAGE = 12_000
"""Characters of all blocks: above some 13,000 Slack answers msg_blocks_too_long."""
_SAMPLES = 8
_COLOURS = {"RESOLVED": "#2e7d32", "INFO": "#1565c0", "WARNING": "#f2a100", "CRITICAL": "#b71c1c"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# no_service, invalid_payload and the like; anything else in a body is not repeated.
_CODE = re.compile(rb"[a-z_]{2,60}")


class Slack:
    """Posts a notification as one message."""

    name = "slack"

    def __init__(self, poster: Poster, runbook_base_url: str = "") -> None:
        """Create the channel; the poster leads to the incoming webhook, whose address is its credential."""
        self.destination = poster.destination
        self._poster = poster
        self._base = runbook_base_url

    async def send(self, notification: Notification) -> Attempt:
        """Post once. Slack has it when it answers 200 with ``ok``; a page that someone else answers with is no
        acknowledgement and is tried again. Slack knows no idempotency key: a try whose answer was lost shows twice."""
        body = msgspec.json.encode(message(notification, self._base))
        return _attempt(await self._poster.post(body, read=True))

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def _attempt(answer: Answer) -> Attempt:
    said = answer.body.strip()
    if meaning_of(answer.status_code) == "delivered" and said.lower() != b"ok":
        return Attempt(
            outcome="retry",
            status_code=answer.status_code,
            reason=f"HTTP {answer.status_code}, but not Slack's 'ok': something else answers at this address",
        )
    code = said.decode("ascii") if _CODE.fullmatch(said) else ""
    return attempt_of(answer, code)


def message(notification: Notification, runbook_base_url: str) -> dict[str, Any]:
    """Return the message: a headline, and one coloured attachment an alert; what has no room is listed by title.

    Nothing in it is parsed but what is written here: ``&``, ``<`` and ``>`` of all other text are escaped, and names and
    addresses in it are not linked (``verbatim``), so that it can neither call a channel nor forge a link.
    """
    head = escape(headline(notification, _MOST_HEADER), _MOST_HEADER)
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": head, "emoji": False}}]
    if rest := left_out(notification):
        blocks.append(_context(escape(rest, MOST_TEXT)))
    # The last block is kept for the list of those that have no room.
    room, characters = MOST_BLOCKS - len(blocks) - 1, _MOST_MESSAGE - _characters(blocks)
    attachments: list[dict[str, Any]] = []
    waiting = list(notification.alerts)
    while waiting:
        shown = _blocks(waiting[0], runbook_base_url)
        if attachments and (len(shown) > room or _characters(shown) > characters):
            break
        room, characters = room - len(shown), characters - _characters(shown)
        attachments.append({"color": _COLOURS[word_of(waiting.pop(0))], "blocks": shown})
    if waiting:
        titles = "; ".join(f"{word_of(alert)} {alert.title}" for alert in waiting)
        blocks.append(_section(f"*And {len(waiting)} more:* " + escape(titles, 1000)))
    return {
        "text": head,
        "blocks": blocks,
        "attachments": attachments,
        "parse": "none",
        "link_names": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def escape(text: str, most: int) -> str:
    """Return printable text with Slack's three control characters as entities, at most ``most`` characters with them;
    what is too long ends in an ellipsis, never within an entity."""
    escaped = [_ENTITIES.get(character, character) for character in printable(text)]
    if sum(map(len, escaped)) <= most:
        return "".join(escaped)
    length, kept = 1, []
    for each in escaped:
        if length + len(each) > most:
            break
        length += len(each)
        kept.append(each)
    return "".join(kept) + "…"


def _blocks(alert: Alert, base_url: str) -> list[dict[str, Any]]:
    """At most six blocks."""
    head = f"*{word_of(alert)}* {escape(f'{alert.kind}/{alert.name}', 200)}: *{escape(alert.title, 500)}*"
    blocks = [_section(head)]
    if alert.description:
        blocks.append(_section(escape(alert.description, MOST_TEXT)))
    fields = [_mrkdwn(f"*{escape(name, 100)}*\n{escape(value, _MOST_FIELD - 110)}") for name, value in figures(alert)][
        :_MOST_FIELDS
    ]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    if alert.suggested_action:
        blocks.append(_section("*First:* " + escape(alert.suggested_action, MOST_TEXT - 20)))
    where = []
    if alert.sample_requests:
        where.append("Requests: " + ", ".join(_code(each) for each in alert.sample_requests[-_SAMPLES:]))
    where += [f"In the log: {_code(each)}" for each in evidence(alert)[:3]]
    if where:
        blocks.append(_context(*where))
    link = link_of(alert, base_url)
    last = [f"<{link}|Runbook>" if link else f"Runbook: {_code(runbook_of(alert, base_url))}"]
    if command := acknowledging(alert):
        last.append(f"Acknowledge: {_code(command)}")
    blocks.append(_context(*last))
    return blocks


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _mrkdwn(text)}


def _context(*texts: str) -> dict[str, Any]:
    return {"type": "context", "elements": [_mrkdwn(text) for text in texts]}


def _code(text: str) -> str:
    """Text in the font of code, which a backtick would end."""
    return f"`{escape(text.replace('`', chr(39)), 300)}`"


def _characters(blocks: list[dict[str, Any]]) -> int:
    return sum(
        len(part["text"])
        for block in blocks
        for part in ([block["text"]] if "text" in block else block.get("fields", block.get("elements", [])))
    )
